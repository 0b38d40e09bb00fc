"""A rescheduled sensor without an answer: how long it keeps its slot, and what it hands on to its next process."""

from __future__ import annotations

import json
import logging
from base64 import urlsafe_b64encode
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_omics_cache._compat import AirflowSkipException
from airflow_provider_omics_cache.exceptions import BatchNotFoundError, BatchSilenceError
from airflow_provider_omics_cache.sensors.run_batch import BatchSubmissionSensor
from airflow_provider_omics_cache.tasks.silence import KEY
from airflow_provider_omics_cache.tasks.wait import LONGEST_SLOT_SECONDS, BatchWaitSensor
from tests.conftest import needs_batches
from tests.sensor_modes import STORE, STORES, run_sensor, start_batch

pytestmark = needs_batches

each_store = pytest.mark.parametrize("store", STORES)


@pytest.fixture
def pokes(service: Any, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How many seconds each process of the sensor kept its worker slot."""
    seconds: list[float] = []
    poke = BatchWaitSensor.poke

    def timed(sensor: BatchWaitSensor, context: Any) -> Any:
        began = service.clock.elapsed()
        try:
            return poke(sensor, context)
        finally:
            seconds.append(service.clock.elapsed() - began)

    monkeypatch.setattr(BatchWaitSensor, "poke", timed)
    return seconds


@pytest.fixture
def wait(service: Any, task_context: dict[str, Any], pokes: list[float]) -> Callable[..., Any]:
    """Run the rescheduled sensor until it ends."""

    def run(batch_id: str, store: str | None = STORE, **arguments: Any) -> Any:
        def make(**mode_arguments: Any) -> BatchSubmissionSensor:
            everything = {"task_id": "wait", "poke_interval": 20, "timeout": 100_000, **arguments, **mode_arguments}
            return BatchSubmissionSensor(batch_id=batch_id, **everything)

        return run_sensor(make, "reschedule", task_context, service.clock, store)

    return run


@each_store
def test_the_slot_is_given_up_and_the_silence_goes_on(
    store: str, service: Any, client: Any, wait: Callable[..., Any], pokes: list[float], task_context: dict[str, Any]
) -> None:
    batch_id = start_batch(client)
    service.faults.throttle("GetBatch", times=None)
    before = service.clock.elapsed()
    with pytest.raises(BatchSilenceError, match=r"no answer for 3,6\d\d s"):
        wait(batch_id, store)
    assert len(pokes) >= 10
    assert max(pokes) <= LONGEST_SLOT_SECONDS + 20  # a call with botocore's own retries takes a while, too
    assert 3_600 <= service.clock.elapsed() - before <= 3_700
    assert len(task_context["kept"].values) <= 1


@each_store
def test_rounds_that_do_not_find_the_batch_are_counted_across_processes(
    store: str, service: Any, client: Any, wait: Callable[..., Any], pokes: list[float]
) -> None:
    batch_id = start_batch(client)
    for _ in range(3):
        service.faults.error("GetBatch", code="ResourceNotFoundException", status=404, times=1)
        service.faults.error("GetBatch", code="InternalServerException", status=500, times=90)
    with pytest.raises(BatchNotFoundError, match="was not found in account"):
        wait(batch_id, store, max_silence=50_000)
    assert len(pokes) > 2


@each_store
def test_an_answer_in_a_later_process_ends_the_silence(
    store: str,
    service: Any,
    client: Any,
    wait: Callable[..., Any],
    pokes: list[float],
    answer_with: Callable[..., None],
    task_context: dict[str, Any],
) -> None:
    """Two disturbances that are each shorter than ``max_silence``, with answers between them."""
    batch_id = start_batch(client)
    answer_with("GetBatch", *[{"status": "SUBMITTING"}] * 5, {"status": "PROCESSED", "totalRuns": 3})
    service.clock.advance(600)
    left = [100, 2, 100]

    def poke_faults() -> None:
        if left:
            service.faults.throttle("GetBatch", times=left.pop(0))

    poke_faults()
    poke = BatchWaitSensor.poke

    def with_faults(sensor: BatchWaitSensor, context: Any) -> Any:
        result = poke(sensor, context)
        if sensor._wait is not None and not sensor._wait.is_disturbed:
            poke_faults()
        return result

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(BatchWaitSensor, "poke", with_faults)
        assert len(wait(batch_id, store, max_silence=700)) == 3
    assert sum(seconds > 200 for seconds in pokes) >= 2
    xcoms = task_context["ti"].xcoms
    assert not [key for key in xcoms if key.startswith(KEY)]


@each_store
def test_a_wait_without_disturbance_stores_and_asks_for_nothing(
    store: str,
    client: Any,
    service: Any,
    answer_with: Callable[..., None],
    wait: Callable[..., Any],
    pokes: list[float],
    task_context: dict[str, Any],
) -> None:
    batch_id = start_batch(client)
    service.clock.advance(600)
    answer_with("GetBatch", *[{"status": "SUBMITTING"}] * 9, {"status": "PROCESSED", "totalRuns": 3})
    assert len(wait(batch_id, store)) == 3
    assert len(pokes) == 10
    assert task_context["kept"].calls == []
    assert not [key for key in task_context["ti"].pushed if key.startswith(KEY)]


def test_an_interval_longer_than_the_slot_is_not_slept_in_the_slot(
    service: Any, client: Any, wait: Callable[..., Any], pokes: list[float]
) -> None:
    batch_id = start_batch(client)
    service.faults.throttle("GetBatch", times=None)
    with pytest.raises(BatchSilenceError):
        wait(batch_id, poke_interval=900)
    assert max(pokes) < 60
    assert len(pokes) == 5


@pytest.mark.skipif(STORE == "audit log", reason="Airflow 2 always has its audit log")
def test_without_a_store_the_task_keeps_its_slot(
    service: Any, client: Any, wait: Callable[..., Any], pokes: list[float]
) -> None:
    batch_id = start_batch(client)
    service.faults.throttle("GetBatch", times=None)
    with pytest.raises(BatchSilenceError):
        wait(batch_id, None)
    assert len(pokes) == 1
    assert pokes[0] >= 3_600


def test_a_store_that_fails_is_reported_and_the_task_keeps_its_slot(
    service: Any,
    client: Any,
    wait: Callable[..., Any],
    pokes: list[float],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("the API server is restarting")

    monkeypatch.setattr("airflow_provider_omics_cache.tasks.silence.keep_until_next_start", fail)
    batch_id = start_batch(client)
    service.faults.throttle("GetBatch", times=None)
    with caplog.at_level(logging.WARNING), pytest.raises(BatchSilenceError):
        wait(batch_id, max_silence=900)
    assert len(pokes) == 1
    assert "the API server is restarting" in caplog.text


VALUE = {"batch_id": "BATCH", "try_number": 1, "reschedules": 0, "since": 1.0, "not_found": 0, "no_answer": 1}


@pytest.mark.parametrize(
    "change",
    [
        {"batch_id": "other"},
        {"try_number": 2},
        {"reschedules": 7},
        {"since": 9e12},
        {"since": "1"},
        {"not_found": -1},
        {"no_answer": None},
        None,
    ],
    ids=str,
)
@each_store
def test_a_value_of_another_process_or_of_another_form_is_ignored(
    store: str,
    change: dict[str, Any] | None,
    service: Any,
    client: Any,
    wait: Callable[..., Any],
    task_context: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The value says that there has been no answer since 1970."""
    batch_id = start_batch(client)
    service.clock.advance(600)
    value: Any = "not ours" if change is None else {**VALUE, "batch_id": batch_id, **change}

    def store_value() -> None:
        text = json.dumps(value)
        task_context["kept"].values[KEY] = text if store == "audit log" else value
        if store == "XCom keys":
            task_context["ti"].xcoms[f"{KEY}.{urlsafe_b64encode(text.encode()).decode()}"] = None

    poke, polled = BatchWaitSensor.poke, []

    def first_wait_then_fail(sensor: BatchWaitSensor, context: Any) -> Any:
        polled.append(1)
        if len(polled) == 1:
            store_value()
            return False
        if len(polled) == 2:
            service.faults.throttle("GetBatch", times=20)
        return poke(sensor, context)

    monkeypatch.setattr(BatchWaitSensor, "poke", first_wait_then_fail)
    with caplog.at_level(logging.INFO):
        assert len(wait(batch_id, store)) == 3
    assert len(polled) == 2
    assert KEY in caplog.text
    assert "is ignored" in caplog.text


@pytest.mark.parametrize("flag", ["soft_fail", "never_fail"])
def test_the_flags_behave_as_in_a_wait_of_one_process(
    flag: str, service: Any, client: Any, wait: Callable[..., Any], pokes: list[float]
) -> None:
    batch_id = start_batch(client)
    service.faults.throttle("GetBatch", times=None)
    with pytest.raises(BatchSilenceError if flag == "soft_fail" else AirflowSkipException):
        wait(batch_id, max_silence=900, **{flag: True})
    assert len(pokes) > 1


def test_silent_fail_begins_a_new_silence(
    service: Any, client: Any, wait: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    batch_id = start_batch(client)
    service.faults.throttle("GetBatch", times=400)
    with caplog.at_level(logging.ERROR):
        assert len(wait(batch_id, max_silence=900, silent_fail=True)) == 3
