"""Clients of other AWS services, made with the settings of a HealthOmics hook."""

from __future__ import annotations

from typing import Any

from botocore.config import Config

from airflow_provider_omics_cache.hooks.client import OmicsClientHook
from airflow_provider_omics_cache.hooks.connections import ExistingConnectionHook
from airflow_provider_omics_cache.hooks.errors import as_api_error

#: A worker in a private network may not reach these services. Therefore their clients give up early.
_IMPATIENT = Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 2})


def impatient_client(hook: OmicsClientHook, service: str) -> Any:
    """Make a client of a service that the task does not need.

    The client makes two attempts. Each has 5 seconds to connect, and 10 seconds for an answer.

    :param hook: hook whose connection, Region and certificates are used.
    :param service: boto3's name of the service.
    :raises OmicsApiError: the client cannot be made, for example because a role cannot be assumed.
    """
    with as_api_error("CreateClient"):
        parameters = connection_of(hook)
        parameters["config"] = parameters["config"].merge(_IMPATIENT)
        return ExistingConnectionHook(client_type=service, **parameters).conn


def connection_of(hook: OmicsClientHook) -> dict[str, Any]:
    """Return the parameters of a hook for another service, so that it uses the same connection and settings.

    :param hook: the hook.
    """
    return {
        "aws_conn_id": hook.aws_conn_id,
        "region_name": hook.region_name,
        "verify": hook.verify,
        "config": hook.config,
    }
