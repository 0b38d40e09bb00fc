"""Make Airflow mask those passwords of a connection that it does not recognise as secrets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.request import getproxies

from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

from airflow_provider_omics_cache.redaction import mask, passwords_in, with_schemes

if TYPE_CHECKING:
    from airflow.sdk import Connection


class PasswordMaskingHook(AwsBaseHook):
    """Masks the passwords in the URLs of endpoints and proxies before anything is logged about a connection."""

    @classmethod
    def get_connection(cls, conn_id: str) -> Connection:
        """Read an Airflow connection.

        :param conn_id: id of the connection.
        """
        connection = super().get_connection(conn_id)
        extra = connection.extra_dejson
        proxies = (extra.get("config_kwargs") or {}).get("proxies") if isinstance(extra, Mapping) else None
        mask(passwords_in([extra, with_schemes(proxies), with_schemes(getproxies())]))
        return connection
