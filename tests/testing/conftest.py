from __future__ import annotations

import pytest

from airflow_provider_omics_cache.local import pytest_plugin
from tests.conftest import HAS_BATCHES

#: The service as users get it. That of the other tests paces its calls.
local_healthomics = pytest_plugin.local_healthomics


@pytest.fixture(scope="session", autouse=True)
def _quick_dag_runs(quick_dag_runs_of_tests: None) -> None:
    pass


@pytest.fixture(autouse=True)
def _batches(request: pytest.FixtureRequest) -> None:
    """Skip the test that the documentation shows, which shows no mark, where botocore has no batches."""
    if request.path.name == "test_hook_page.py" and not HAS_BATCHES:
        pytest.skip("the installed botocore has no HealthOmics batches")
