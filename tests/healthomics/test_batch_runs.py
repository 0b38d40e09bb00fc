"""The pace of GetRun, which all hooks of a process share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import boto3
import pytest

from airflow_provider_omics_cache import timing
from airflow_provider_omics_cache.exceptions import OmicsParameterError
from airflow_provider_omics_cache.healthomics import batch_runs
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.hooks.pace import Pace
from tests.conftest import needs_batches
from tests.sensor_modes import start_batch

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics

PER_SECOND = "AIRFLOW__OMICS_CACHE__MAX_GET_RUN_PER_SECOND"
Asked = Callable[..., float]


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, of a clock that only the test advances."""
    now = [1_000.0]
    monkeypatch.setattr(timing, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def wait_for_turn(local_healthomics: LocalHealthOmics, now: list[float], monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Ask for a run with a hook, and return for how long the hook waited before the call."""
    waits: list[float] = []
    monkeypatch.setattr(timing, "sleep", waits.append)

    def ask(hook: OmicsCacheHook) -> float:
        calls = local_healthomics.calls["GetRun"]
        assert [run for _, run in hook.get_runs(["7"])] == [None]
        assert local_healthomics.calls["GetRun"] == calls + 1
        return round(waits.pop(), 6)

    return ask


def test_two_hooks_share_the_pace_of_their_region(wait_for_turn: Asked, now: list[float]) -> None:
    first, second, elsewhere = OmicsCacheHook(), OmicsCacheHook(), OmicsCacheHook(region_name="eu-west-1")
    assert [wait_for_turn(hook) for hook in (first, second, first, second)] == [0, 0.2, 0.4, 0.6]
    assert [wait_for_turn(elsewhere), wait_for_turn(elsewhere)] == [0, 0.2]
    assert wait_for_turn(OmicsCacheHook(region_name="us-east-1")) == 0.8, "the Region of the other connection"
    now[0] += 0.9
    assert wait_for_turn(second) == 0.1
    now[0] += 100
    assert [wait_for_turn(second), wait_for_turn(first)] == [0, 0.2], "turns that nobody took are lost"


def test_the_pace_is_that_of_the_configuration(wait_for_turn: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PER_SECOND, "2")
    assert [wait_for_turn(OmicsCacheHook()) for _ in range(3)] == [0, 0.5, 1]
    monkeypatch.setenv(PER_SECOND, "0")
    with pytest.raises(OmicsParameterError, match=r"\[omics_cache\] max_get_run_per_second must be a number above 0"):
        wait_for_turn(OmicsCacheHook())


def test_threads_take_different_turns() -> None:
    pace = Pace("max_get_run_per_second")
    barrier = threading.Barrier(8)
    turns: list[float] = []

    def take() -> None:
        barrier.wait(timeout=20)
        turns.extend(pace.seconds_to_wait("us-east-1", 1_000.0) for _ in range(200))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert len({round(turn * 5) for turn in turns}) == 1_600


# Runs that have not ended


@needs_batches
def test_the_listing_of_active_runs_ends_with_the_runs_that_are_asked_for(local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.settings.run_running_seconds = 10_000
    batch_id = start_batch(boto3.client("omics"), 250)
    local_healthomics.clock.advance(100)
    local_healthomics.calls.clear()
    active = batch_runs.list_active_runs(OmicsCacheHook(), batch_id, most=120)
    assert len(set(active)) == 120
    assert local_healthomics.calls["ListRuns"] == 4, "a page of each earlier status, two pages of RUNNING"
    assert len(batch_runs.list_active_runs(OmicsCacheHook(), batch_id, most=1_000)) == 250
    assert local_healthomics.calls["ListRuns"] == 4 + 3 + 3, "three pages of RUNNING, one of each other active status"
