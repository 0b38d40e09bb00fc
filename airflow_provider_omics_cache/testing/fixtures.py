"""pytest fixtures for tests of DAGs. pytest loads this module in every test run, so it imports only pytest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local.healthomics import LocalHealthOmics
    from airflow_provider_omics_cache.testing.dag_run import LocalDags


@pytest.fixture(scope="session")
def _empty_airflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("local-healthomics") / "empty.db"


@pytest.fixture
def local_healthomics_time(local_healthomics: LocalHealthOmics) -> Iterator[None]:
    """Make the waits of the package and of Airflow's sensors advance the service's clock instead of sleeping."""
    from airflow_provider_omics_cache.testing.service_time import use_service_time

    with use_service_time(local_healthomics.clock):
        yield


@pytest.fixture
def local_healthomics_dag_run(
    local_healthomics_time: None, _empty_airflow_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalDags]:
    """DAGs that run on the local HealthOmics, with an Airflow database of their own; see ``LocalDags``."""
    from airflow_provider_omics_cache.testing.dag_run import local_dags

    with local_dags(_empty_airflow_database, tmp_path_factory.mktemp("airflow")) as dags:
        yield dags
