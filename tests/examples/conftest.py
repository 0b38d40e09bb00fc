from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import boto3
import pytest

from tests.conftest import HAS_BATCHES
from tests.examples.cohorts import BUCKET

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics


@pytest.fixture(scope="session", autouse=True)
def _airflow_database(request: pytest.FixtureRequest) -> None:
    if not HAS_BATCHES:
        pytest.skip("the installed botocore has no HealthOmics batches")
    request.getfixturevalue("airflow_database")


@pytest.fixture(autouse=True)
def _environment_as_before() -> Iterator[None]:
    """Take back what ``dag.test()`` leaves in the environment."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def local_healthomics(local_healthomics: LocalHealthOmics) -> LocalHealthOmics:
    """The service as users have it, where only what was made exists."""
    from airflow_provider_omics_cache.local.assumptions import LENIENT

    for name in LENIENT:
        setattr(local_healthomics.settings, name, True)
    return local_healthomics


@pytest.fixture
def cohort_service(local_healthomics: LocalHealthOmics, monkeypatch: pytest.MonkeyPatch) -> LocalHealthOmics:
    """The service for big batches: each request sees them five minutes older, and runs are got as fast as can be."""
    boto3.client("s3").create_bucket(Bucket=BUCKET)
    local_healthomics.register_workflow("1234567")
    monkeypatch.setenv("AIRFLOW__OMICS_CACHE__MAX_GET_RUN_PER_SECOND", "1000000")
    local_healthomics.settings.submission_rate = float("inf")
    local_healthomics.clock.tick = 300
    return local_healthomics
