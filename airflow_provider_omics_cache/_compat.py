"""The differences between the supported Airflow versions."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

try:
    from airflow.providers.common.compat.sdk import (
        AirflowException,
        AirflowFailException,
        AirflowNotFoundException,
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
        AirflowNotFoundException,
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
    "AirflowNotFoundException",
    "AirflowOptionalProviderFeatureException",
    "AirflowSensorTimeout",
    "AirflowSkipException",
    "AirflowTaskTimeout",
    "PokeReturnValue",
    "conf",
    "first_reschedule_date",
    "keep_until_next_start",
    "kept_values",
    "mask_secret",
    "object_storage_path",
    "reschedule_count",
    "show_in_task_state",
    "state_in_same_run",
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


def reschedule_count(context: Context) -> int:
    """Return how many times this try of a task was rescheduled.

    :param context: Airflow's context of the task.
    """
    members = cast("dict[str, Any]", context)
    if hasattr(context["ti"], "get_first_reschedule_date"):
        return int(members.get("task_reschedule_count") or 0)
    return _count_reschedules(context["ti"])


def keep_until_next_start(context: Context, key: str, value: dict[str, Any]) -> bool:
    """Store a value for the next start of a task that is rescheduled. Return False if Airflow has no place for it.

    Every supported Airflow deletes the XComs of a rescheduled task when the task starts again. Airflow 3.3 and later
    have a task state store. Airflow 3.0 to 3.2 give the task the keys of the XComs that they deleted: the value is
    stored in the key of an XCom. Airflow 2 has the audit log, which tasks may write and read.

    :param context: Airflow's context of the task.
    :param key: key of the value.
    :param value: the value. As JSON it must be at most 300 bytes: the key of an XCom has at most 512 characters.
    """
    members = cast("dict[str, Any]", context)
    ti = members["ti"]
    if "task_state_store" in members:
        members["task_state_store"].set(key, value)
    elif not hasattr(ti, "get_first_reschedule_date"):
        _write_audit_log(ti, key, json.dumps(value))
    elif _deleted_xcoms(ti) is not None:
        ti.xcom_push(f"{key}.{urlsafe_b64encode(json.dumps(value).encode()).decode()}", value)
    else:
        return False
    return True


def kept_values(context: Context, key: str) -> list[Any]:
    """Return the values that earlier starts of the task stored with :func:`keep_until_next_start`: the newest, or all.

    :param context: Airflow's context of the task.
    :param key: key of the value.
    """
    members = cast("dict[str, Any]", context)
    ti = members["ti"]
    if "task_state_store" in members:
        values = [members["task_state_store"].get(key)]
    elif not hasattr(ti, "get_first_reschedule_date"):
        values = [_from_json(_last_of_audit_log(ti, key))]
    else:
        # Airflow 3.0 does not delete the XComs of a mapped task. The newest value is among older ones.
        texts = [name.removeprefix(f"{key}.") for name in _deleted_xcoms(ti) or () if name.startswith(f"{key}.")]
        values = [_from_json(_from_base64(text)) for text in texts]
    return [value for value in values if value is not None]


def show_in_task_state(context: Context, key: str, text: str) -> None:
    """Show a text in the tab "Task State Store" of the task's page. Nothing happens before Airflow 3.3.

    Only a worker can write there: Airflow gives triggers no access.

    :param context: Airflow's context of the task.
    :param key: key of the text.
    :param text: the text.
    """
    store = cast("dict[str, Any]", context).get("task_state_store")
    if store is not None:
        store.set(key, text)


def _from_base64(text: str) -> str:
    try:
        return urlsafe_b64decode(text).decode()
    except ValueError:
        return text


def _from_json(text: str | None) -> Any:
    """Return what a text means; the text itself if it is not JSON."""
    try:
        return None if text is None else json.loads(text)
    except ValueError:
        return text


def _deleted_xcoms(ti: Any) -> list[str] | None:
    """Return the keys of the XComs that Airflow 3 deleted when it started the task."""
    return getattr(getattr(ti, "_ti_context_from_server", None), "xcom_keys_to_clear", None)


def _count_reschedules(ti: Any) -> int:
    from airflow.models.taskreschedule import TaskReschedule
    from airflow.utils.session import create_session

    with create_session() as session:
        rows = session.query(TaskReschedule).filter_by(**_row_of(ti), try_number=ti.try_number)
        return int(rows.count())


def _write_audit_log(ti: Any, event: str, text: str) -> None:
    from airflow.models.log import Log
    from airflow.utils.session import create_session

    with create_session() as session:
        session.add(Log(event=event, task_instance=ti, extra=text))


def _last_of_audit_log(ti: Any, event: str) -> str | None:
    from airflow.models.log import Log
    from airflow.utils.session import create_session

    with create_session() as session:
        rows = session.query(Log.extra).filter_by(**_row_of(ti), try_number=ti.try_number, event=event)
        text: str | None = rows.order_by(Log.id.desc()).limit(1).scalar()
        return text


def _row_of(ti: Any) -> dict[str, Any]:
    return {"dag_id": ti.dag_id, "task_id": ti.task_id, "run_id": ti.run_id, "map_index": ti.map_index}


def task_state(ti: Any) -> str | None:
    """Return the state of a task, None if Airflow does not know it. Needs Airflow 3.

    :param ti: the task instance that a trigger belongs to.
    """
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    states = RuntimeTaskInstance.get_task_states(
        dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
    )
    return next(iter(states.get(ti.run_id, {}).values()), None)


def state_in_same_run(context: Context, task_id: str) -> str | None:
    """Return the state of another task of the same DAG run and map index, None if Airflow does not know it.

    :param context: Airflow's context of the task that asks.
    :param task_id: id of the other task.
    """
    members = cast("dict[str, Any]", context)
    ti = members["ti"]
    if hasattr(ti, "get_task_states"):
        states = ti.get_task_states(
            dag_id=ti.dag_id, task_ids=[task_id], run_ids=[ti.run_id], map_index=_map_index_of(ti)
        )
        return next(iter(states.get(ti.run_id, {}).values()), None)
    found = members["dag_run"].get_task_instance(task_id, map_index=_map_index_of(ti))  # Airflow 2
    return None if found is None else found.state


def _map_index_of(ti: Any) -> int:
    return -1 if ti.map_index is None else int(ti.map_index)


def object_storage_path(path: str, *, conn_id: str | None) -> Any:
    """Return Airflow's ObjectStoragePath of a file.

    :param path: path or URI of the file.
    :param conn_id: Airflow connection. None uses the connection in the URI.
    """
    try:
        from airflow.sdk import ObjectStoragePath
    except ImportError:  # Airflow 2
        from airflow.io.path import ObjectStoragePath  # type: ignore[no-redef]
    # Before Airflow 3.2, a conn_id that is passed replaces the connection in the URI, even if it is None.
    return ObjectStoragePath(path) if conn_id is None else ObjectStoragePath(path, conn_id=conn_id)
