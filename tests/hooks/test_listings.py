from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from itertools import islice
from typing import Any

import boto3
import pytest

from airflow_provider_omics_cache.healthomics.batch_runs import list_started_runs, list_submissions
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from tests.conftest import needs_batches
from tests.sensor_modes import start_batch, use_service_time

pytestmark = needs_batches

FAULTS: dict[str, Callable[[Any, str], None]] = {
    "dropped": lambda faults, operation: faults.drop_connection(operation, times=7),
    "throttled": lambda faults, operation: faults.throttle(operation, times=7),
    "broken": lambda faults, operation: faults.error(operation, times=7),
}


@pytest.fixture
def service(local_healthomics: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The local HealthOmics; waiting advances its clock."""
    use_service_time(monkeypatch, local_healthomics)
    return local_healthomics


def processed_batch(service: Any, runs: int) -> str:
    batch_id = start_batch(boto3.client("omics"), runs)
    service.clock.advance(30 * 24 * 3_600)
    return batch_id


@pytest.mark.parametrize("fault", FAULTS)
def test_a_list_of_100_pages_continues_at_its_page(service: Any, fault: str) -> None:
    rows = list_submissions(OmicsCacheHook(), processed_batch(service, 10_000))
    listed = list(islice(rows, 5_000))
    assert service.calls["ListRunsInBatch"] == 50
    FAULTS[fault](service.faults, "ListRunsInBatch")
    listed += rows
    assert [row["runSettingId"] for row in listed] == [f"sample-{n}" for n in range(10_000)]
    assert service.calls["ListRunsInBatch"] == 100 + 7


@pytest.mark.parametrize("fault", FAULTS)
def test_a_list_of_started_runs_continues_at_its_page(service: Any, fault: str) -> None:
    runs = list_started_runs(OmicsCacheHook(), processed_batch(service, 500))
    listed = list(islice(runs, 250))
    assert service.calls["ListRuns"] == 3
    FAULTS[fault](service.faults, "ListRuns")
    listed += runs
    assert len({run["id"] for run in listed}) == len(listed) == 500
    assert service.calls["ListRuns"] == 5 + 7


@pytest.mark.large
def test_a_mapping_takes_little_more_than_the_dict(service: Any) -> None:
    rows = list_submissions(OmicsCacheHook(), processed_batch(service, 20_000))
    next(rows)
    tracemalloc.start()
    try:
        mapping = {row["runSettingId"]: row["runId"] for row in rows}
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(mapping) == 20_000 - 1
    assert peak < 2 * held
