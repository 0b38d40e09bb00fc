<<<<<<< HEAD
from airflow_provider_omics_cache.local.pytest_plugin import (
    local_healthomics as local_healthomics,  # not the tests' own
)
=======
from __future__ import annotations

import pytest

from tests.conftest import HAS_BATCHES


@pytest.fixture(autouse=True)
def _batches(request: pytest.FixtureRequest) -> None:
    """Skip the test that the documentation shows, which shows no mark, where botocore has no batches."""
    if request.path.name == "test_hook_page.py" and not HAS_BATCHES:
        pytest.skip("the installed botocore has no HealthOmics batches")
>>>>>>> part-c
