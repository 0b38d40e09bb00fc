"""Keeps the state of every account and Region where moto keeps its own, so that resetting moto resets it too."""

from __future__ import annotations

import os
from typing import Any

from moto.core.base_backend import BackendDict, BaseBackend
from moto.iam.models import get_account_id_from

from airflow_provider_omics_cache.local.errors import ServiceError, shorten
from airflow_provider_omics_cache.local.region import Region

#: Servers of this process; they share what moto keeps.
RUNNING_SERVERS: set[Any] = set()


class OmicsBackend(BaseBackend):
    """State of one account in one Region."""

    def __init__(self, region_name: str, account_id: str) -> None:
        super().__init__(region_name, account_id)
        self.region = Region(account_id, region_name, self.partition)


class State:
    """State of all accounts and Regions."""

    def __init__(self) -> None:
        self._backends: BackendDict[OmicsBackend] = BackendDict(OmicsBackend, "omics")

    def region(self, account_id: str, region_name: str) -> Region:
        """Return what an account has in a Region."""
        try:
            backend = self._backends[account_id][region_name]
        except KeyError:
            raise ServiceError(
                "AccessDeniedException", f"HealthOmics is not offered in Region {shorten(region_name)}"
            ) from None
        return backend.region

    def regions(self) -> list[Region]:
        """Return everything that has been used."""
        return [backend.region for account in self._backends.values() for backend in account.values()]

    def reset(self) -> None:
        """Forget everything."""
        for account in self._backends.values():
            account.reset()
        self._backends.clear()


def account_of(access_key: str, header: str | None) -> str:
    """Return the account of a request, as moto finds it.

    :param access_key: access key id that the request was signed with.
    :param header: value of the ``x-moto-account-id`` header.
    """
    account_id: str = os.environ.get("MOTO_ACCOUNT_ID") or header or get_account_id_from(access_key)
    return account_id
