"""What a rescheduled sensor hands on to its next process survives in the installed Airflow itself."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_omics_cache import timing
from airflow_provider_omics_cache.exceptions import BatchNotFoundError, BatchSilenceError, OmicsApiError
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.tasks.wait import BatchWaitSensor
from airflow_provider_omics_cache.testing.dag_run import dates_of_reschedules
from tests.sensor_modes import STORE, STORES

DAGS = Path(__file__).parents[1] / "dags"
THROTTLE = OmicsApiError("slow down", code="ThrottlingException", http_status=429, operation="GetBatch")
GONE = OmicsApiError("no such batch", code="ResourceNotFoundException", http_status=404, operation="GetBatch")


@pytest.fixture(autouse=True)
def _environment_as_before(airflow_database: None) -> Iterator[None]:
    before = dict(os.environ)
    with dates_of_reschedules():
        yield
    os.environ.clear()
    os.environ.update(before)


def without_state_store(context: Any) -> dict[str, Any]:
    """Make the context of Airflow 3.3 that of the versions before it."""
    return {name: member for name, member in context.items() if name != "task_state_store"}


class Pokes:
    """What the processes of each task do: their rounds, their time, and the error of the last one."""

    def __init__(self) -> None:
        self.rounds: dict[str, list[int]] = defaultdict(list)
        self.errors: dict[str, Exception] = {}
        self.now: dict[str, float] = defaultdict(time.time)
        self.running = ""
        self.store = STORE

    def time(self) -> float:
        return self.now[self.running]

    def sleep(self, seconds: float) -> None:
        self.now[self.running] += seconds

    def poke(self, sensor: Any, context: Any, poke: Any) -> Any:
        self.running = sensor.task_id
        self.rounds[self.running].append(0)
        try:
            assert len(self.rounds[self.running]) < 6, "the wait does not end"
            return poke(sensor, context if self.store == STORE else without_state_store(context))
        except Exception as error:
            self.errors[self.running] = error
            raise


@pytest.fixture
def pokes(monkeypatch: pytest.MonkeyPatch) -> Pokes:
    """Count the rounds, with a clock of its own for each task."""
    pokes, poke = Pokes(), BatchWaitSensor.poke
    monkeypatch.setattr(timing, "time", pokes.time)
    monkeypatch.setattr(timing, "sleep", pokes.sleep)
    monkeypatch.setattr(BatchWaitSensor, "poke", lambda sensor, context: pokes.poke(sensor, context, poke))
    return pokes


@pytest.mark.parametrize("store", sorted({STORE, STORES[0]}))
@pytest.mark.parametrize(
    ("found", "ended_by", "message", "rounds"),
    [(True, BatchSilenceError, "no answer for 70", 100), (False, BatchNotFoundError, "was not found in account", 1)],
    ids=["throttled", "not found in the first round of each process"],
)
def test_a_silence_survives_reschedules(
    store: str,
    found: bool,
    ended_by: type[Exception],
    message: str,
    rounds: int,
    pokes: Pokes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pokes.store = store

    def get_batch(_: OmicsCacheHook, **__: Any) -> Any:
        pokes.rounds[pokes.running][-1] += 1
        raise THROTTLE if found or pokes.rounds[pokes.running][-1] > 1 else GONE

    monkeypatch.setattr(OmicsCacheHook, "get_batch", get_batch)
    monkeypatch.setattr("airflow.settings.DAGS_FOLDER", str(DAGS))
    monkeypatch.syspath_prepend(DAGS)
    assert import_module("rescheduled").omics_rescheduled().test().state == "failed"
    for task_id in ("alone", "mapped"):
        assert isinstance(pokes.errors[task_id], ended_by)
        assert message in str(pokes.errors[task_id])
        # A process that knew nothing of the one before it would keep its slot for 300 s again and again.
        assert pokes.rounds[task_id] == [pytest.approx(300, abs=5)] * 2 + [pytest.approx(rounds, abs=5 * (rounds > 1))]
