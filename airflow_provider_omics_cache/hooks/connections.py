"""Airflow connections that must exist."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_omics_cache._compat import AirflowNotFoundException
from airflow_provider_omics_cache.configuration import is_set
from airflow_provider_omics_cache.exceptions import MissingConnectionError
from airflow_provider_omics_cache.hooks.masking import PasswordMaskingHook

if TYPE_CHECKING:
    from airflow.sdk import Connection


class ExistingConnectionHook(PasswordMaskingHook):
    """Refuses a connection that Airflow does not find.

    The amazon provider replaces a missing connection with boto3's own credentials: a task with a misspelt id would
    work with the credentials of its worker. The default connection may be missing, because the user has not named it.
    With ``[omics_cache] allow_missing_connection = True`` any connection may be missing.
    """

    @classmethod
    def get_connection(cls, conn_id: str) -> Connection:
        """Read an Airflow connection.

        :param conn_id: id of the connection.
        :raises MissingConnectionError: Airflow does not find the connection, and it must exist.
        """
        try:
            return super().get_connection(conn_id)
        except (AirflowNotFoundException, ImportError) as error:
            # Airflow 3.0 raises an ImportError outside of a task, where only some connections can be found.
            is_missing = isinstance(error, AirflowNotFoundException) or "SUPERVISOR_COMMS" in str(error)
            may_be_missing = conn_id == cls.default_conn_name or is_set("allow_missing_connection")
            if not is_missing or may_be_missing:
                raise
            raise MissingConnectionError(conn_id) from None


def check_connection(parameter: str, conn_id: str) -> None:
    """Check that an Airflow connection exists.

    :param parameter: name of the parameter with the id, for the error.
    :param conn_id: id of the connection.
    :raises MissingConnectionError: Airflow does not find the connection, and it must exist.
    """
    try:
        ExistingConnectionHook.get_connection(conn_id)
    except MissingConnectionError:
        raise MissingConnectionError(conn_id, parameter=parameter) from None
    except AirflowNotFoundException:
        return


def hook_parameters(conn_id: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the parameters of a hook.

    :param conn_id: id of an Airflow connection. A task gives the parameters of its own hook instead. None or an empty
        string: the default connection.
    :raises MissingConnectionError: Airflow does not find the connection, and it must exist.
    """
    if not conn_id:
        return {}
    if isinstance(conn_id, str):
        check_connection("conn_id", conn_id)
        return {"aws_conn_id": conn_id}
    return dict(conn_id)
