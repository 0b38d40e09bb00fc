"""What differs between the supported Airflow versions, and nothing else."""

from __future__ import annotations

try:
    from airflow.providers.common.compat.sdk import (
        AirflowException,
        AirflowFailException,
        AirflowOptionalProviderFeatureException,
        AirflowSensorTimeout,
        AirflowSkipException,
        PokeReturnValue,
        conf,
    )
except ImportError:  # an older common-compat provider, as on Amazon MWAA 2.11.0 and 3.0.6
    from airflow.configuration import conf
    from airflow.exceptions import (  # type: ignore[attr-defined,no-redef]
        AirflowException,
        AirflowFailException,
        AirflowOptionalProviderFeatureException,
        AirflowSensorTimeout,
        AirflowSkipException,
    )
    from airflow.sensors.base import PokeReturnValue  # type: ignore[no-redef]

__all__ = [
    "AirflowException",
    "AirflowFailException",
    "AirflowOptionalProviderFeatureException",
    "AirflowSensorTimeout",
    "AirflowSkipException",
    "PokeReturnValue",
    "conf",
]
