"""pytest fixtures of the local HealthOmics. pytest loads this module in every test run, so it imports only pytest."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local.healthomics import LocalHealthOmics
    from airflow_provider_omics_cache.local.wsgi import LocalHealthOmicsServer

#: pytest loads these fixtures too. They use the whole package, which modules of ``local`` must not import.
pytest_plugins = ("airflow_provider_omics_cache.testing.fixtures",)

_REGION = "us-east-1"
#: The local HealthOmics accepts any key.
_ANY_KEY = "testing"
_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": _ANY_KEY,
    "AWS_SECRET_ACCESS_KEY": _ANY_KEY,
    "AWS_SESSION_TOKEN": _ANY_KEY,
    "AWS_DEFAULT_REGION": _REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(
        {"conn_type": "aws", "login": _ANY_KEY, "password": _ANY_KEY, "extra": {"region_name": _REGION}}
    ),
}
#: Settings with which the package does not space its calls: the local HealthOmics does not have AWS's quotas.
UNPACED = {
    "AIRFLOW__OMICS_CACHE__MAX_GET_RUN_PER_SECOND": "1000000",
    "AIRFLOW__OMICS_CACHE__MAX_GET_BATCH_PER_SECOND": "1000000",
}


@pytest.fixture
def local_healthomics(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHealthOmics]:
    """A local HealthOmics in this process, which every AWS client and the connection ``aws_default`` use."""
    from airflow_provider_omics_cache.local import mock_healthomics

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {**_ENVIRONMENT, **UNPACED}.items():
        monkeypatch.setenv(name, value)
    with mock_healthomics() as local:
        yield local


@pytest.fixture
def local_healthomics_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHealthOmicsServer]:
    """A local HealthOmics over HTTP; see its ``url``, ``airflow_connection`` and ``client_kwargs``."""
    from airflow_provider_omics_cache.local import serve

    for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in UNPACED.items():
        monkeypatch.setenv(name, value)
    with serve(port=0) as server:
        yield server
