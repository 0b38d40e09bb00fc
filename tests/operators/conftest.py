from __future__ import annotations

from typing import TYPE_CHECKING, Any

import boto3
import pytest

from tests.sensor_modes import use_service_time

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics


@pytest.fixture
def local(local_healthomics: LocalHealthOmics, monkeypatch: pytest.MonkeyPatch) -> LocalHealthOmics:
    """The local HealthOmics, whose clock is everybody's: who waits, lets the service's time pass."""
    use_service_time(monkeypatch, local_healthomics)
    return local_healthomics


@pytest.fixture
def client(local: LocalHealthOmics) -> Any:
    """Somebody else's client."""
    return boto3.client("omics")
