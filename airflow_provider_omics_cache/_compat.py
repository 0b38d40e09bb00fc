"""The differences between the supported Airflow versions."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

try:
    from airflow.providers.common.compat.sdk import (
        AirflowException,
        AirflowFailException,
        AirflowOptionalProviderFeatureException,
        AirflowSensorTimeout,
        AirflowSkipException,
        AirflowTaskTimeout,
        PokeReturnValue,
        conf,
    )
except ImportError:  # an older common-compat provider, for example on Amazon MWAA 2.11.0 and 3.0.6
    from airflow.configuration import conf
    from airflow.exceptions import (  # type: ignore[attr-defined,no-redef]
        AirflowException,
        AirflowFailException,
        AirflowOptionalProviderFeatureException,
        AirflowSensorTimeout,
        AirflowSkipException,
        AirflowTaskTimeout,
    )
    from airflow.sensors.base import PokeReturnValue  # type: ignore[no-redef]

try:
    from airflow.sdk.log import mask_secret
except ImportError:
    try:
        from airflow.sdk.execution_time.secrets_masker import mask_secret  # type: ignore[no-redef]  # Airflow 3.0
    except ImportError:
        from airflow.utils.log.secrets_masker import mask_secret  # type: ignore[no-redef]  # Airflow 2

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = [
    "AirflowException",
    "AirflowFailException",
    "AirflowOptionalProviderFeatureException",
    "AirflowSensorTimeout",
    "AirflowSkipException",
    "AirflowTaskTimeout",
    "PokeReturnValue",
    "conf",
    "first_reschedule_date",
    "mask_secret",
    "object_storage_path",
    "task_state",
]


def first_reschedule_date(context: Context) -> datetime | None:
    """Return when a rescheduled task was first started; None if it was never rescheduled.

    :param context: Airflow's context of the task.
    """
    ti = context["ti"]
    if hasattr(ti, "get_first_reschedule_date"):
        return ti.get_first_reschedule_date(context)
    from airflow.sensors.base import _orig_start_date  # Airflow 2

    first_try = (ti.max_tries or 0) - (ti.task.retries or 0) + 1
    started: datetime | None = _orig_start_date(ti.dag_id, ti.task_id, ti.run_id, ti.map_index, first_try)
    return started


def task_state(ti: Any) -> str | None:
    """Return the state of a task, None if Airflow does not know it. Needs Airflow 3.

    :param ti: the task instance that a trigger belongs to.
    """
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    states = RuntimeTaskInstance.get_task_states(
        dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
    )
    return next(iter(states.get(ti.run_id, {}).values()), None)


def object_storage_path(path: str, *, conn_id: str | None) -> Any:
    """Return Airflow's ObjectStoragePath of a file.

    :param path: path or URI of the file.
    :param conn_id: Airflow connection. None uses the connection in the URI.
    """
    try:
        from airflow.sdk import ObjectStoragePath
    except ImportError:  # Airflow 2
        from airflow.io.path import ObjectStoragePath  # type: ignore[no-redef]
    return ObjectStoragePath(path, conn_id=conn_id)
