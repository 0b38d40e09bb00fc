"""Waiting for a batch, and listing its runs: calls, speed and memory."""

from __future__ import annotations

import asyncio
import gc
import math
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.benchmarks import child
from tests.benchmarks.measure import Result, medians_in_turns
from tests.benchmarks.service import REGION, client, sample_ids, service
from tests.benchmarks.task import context

POKE_INTERVAL = 60
#: The same in seconds of the benchmark, where the service's clock runs faster.
FAST_POKE_INTERVAL = 1
#: ListRunsInBatch calls a second that the service takes, and how many it refuses in a row ...
LIST_LIMIT, BURST = 10, 7
#: ... once it was asked for these shares of the pages.
BURSTS = (0.3, 0.6)


def results(*, runs: int, limited_runs: int, waited_runs: int, awaited_runs: int, rounds: int) -> Iterator[Result]:
    """Measure.

    :param runs: runs of the batch that is listed.
    :param limited_runs: runs of the batch that is listed under the service's limits.
    :param waited_runs: runs of the batch whose submission is awaited.
    :param awaited_runs: runs of the cancelled batch of which one stays active.
    :param rounds: number of rounds for which that run stays active.
    """
    yield _calls(waited_runs)
    yield from _one_active_run(awaited_runs, rounds=rounds)
    yield _under_limits(limited_runs)
    with service() as local:
        batch_id = local.start_submitted_batch(runs)
        asked = {"url": local.url, "batch_id": batch_id}
        ours, bare = child.run("listing:time_in_turns", local.environment, **asked)
        yield Result(
            name=f"Listing and mapping {runs:,} runs: speed, compared with a bare paginator loop",
            measured=bare / ours,
            unit="x",
            bar=0.9,
            rule="at least",
            beside=1.0,
            peer=f"the loop {runs / bare:,.0f} runs/s; the sensor {runs / ours:,.0f}",
        )
        memory = child.run("listing:memory", local.environment, **asked)
    yield Result(
        name=f"Listing and mapping {runs:,} runs: tracemalloc peak, compared with the dict itself",
        measured=memory["sensor_peak"] / memory["dict"],
        unit="x",
        bar=2.0,
        beside=memory["bare_peak"] / memory["dict"],
        peer=f"bare paginator loop {memory['bare_peak'] / memory['dict']:.2f} x",
        note=f"The dict has {memory['dict'] / 1e6:.1f} MB, the sensor's peak is {memory['sensor_peak'] / 1e6:.1f} MB.",
    )


def _calls(runs: int) -> Result:
    with service() as local:
        settings = local.control.settings
        settings.creating_seconds = settings.pending_seconds = 0
        settings.submission_rate = runs / (16.5 * POKE_INTERVAL)
        counted = {}
        for waiter in ("sensor", "naive_sensor"):
            batch_id = local.start_batch(sample_ids(runs))
            before = local.control.calls
            asked = {"url": local.url, "batch_id": batch_id, "runs": runs}
            rounds = child.run(f"listing:wait_as_{waiter}", local.environment, **asked)
            counted[waiter] = rounds, (local.control.calls - before).total()
    rounds, calls = counted["sensor"]
    naive_rounds, naive_calls = counted["naive_sensor"]
    return Result(
        name=f"AWS calls of a wait for {runs:,} runs",
        measured=calls,
        unit="calls",
        bar=rounds + math.ceil(runs / 100),
        rule="exactly",
        beside=naive_calls,
        peer=f"a sensor that lists in every round: {naive_calls:,} calls in {naive_rounds} rounds",
        note=f"All calls, as the service counts them. The bar is a GetBatch for each of {rounds} rounds and a "
        "ListRunsInBatch for each 100 runs.",
    )


def _one_active_run(runs: int, *, rounds: int) -> Iterator[Result]:
    """Wait, deferred, for the end of a cancelled batch of which one run could not be cancelled."""
    with service() as local:
        settings = local.control.settings
        settings.submission_rate = float("inf")
        settings.run_running_seconds = rounds * POKE_INTERVAL
        batch_id = local.start_batch(sample_ids(runs))
        local.control.clock.advance(10)
        local.control.faults.fail_cancel(["sample-000000"])
        local.omics.cancel_run_batch(batchId=batch_id)
        local.control.clock.advance(60)
        local.control.clock.speed = POKE_INTERVAL / FAST_POKE_INTERVAL
        before = local.control.calls
        wake_ups = child.run("listing:wait_deferred", local.environment, url=local.url, batch_id=batch_id)
        calls = local.control.calls - before
    note = (
        f"A cancelled batch in which one run stays active for {rounds} rounds. The bar is one call for each round "
        "(GetBatch or GetRun), two listings of the batch at its end, and 5."
    )
    has_happened = calls["GetRun"] >= rounds / 2
    yield Result(
        name=f"AWS calls of a deferred wait for one active run of {runs:,}",
        measured=calls.total(),
        unit="calls",
        bar=rounds + 2 * math.ceil(runs / 100) + 5,
        peer=f"a sensor that lists in every round: {rounds * (1 + math.ceil(runs / 100)):,} calls",
        has_happened=has_happened,
        note=note,
    )
    yield Result(
        name=f"Worker wake-ups of a deferred wait for one active run of {runs:,}",
        measured=wake_ups,
        unit="wake-ups",
        bar=2,
        peer=f"a sensor that lists in every round: {rounds}",
        has_happened=has_happened,
        note="How often the trigger's event starts the task again in a worker.",
    )


def _under_limits(runs: int) -> Result:
    """List with the sensor and with the bare loop at the same time, each from a service of its own."""
    with ThreadPoolExecutor() as pool:
        sensor, bare = pool.map(partial(_through_throttles, runs), ("listing:time_sensor", "listing:time_bare_loop"))
    pages = math.ceil(runs / 100)
    return Result(
        name=f"Listing {runs:,} runs through throttles: failures, and pages listed again",
        measured=len(sensor.errors) + max(0, sensor.pages - pages),
        unit="times",
        bar=0,
        rule="exactly",
        beside=len(bare.errors) + max(0, bare.pages - pages),
        peer=f"the loop {bare.told()}",
        has_happened=sensor.throttled >= len(BURSTS) * BURST,
        note=f"In real time, with the service's limit of {LIST_LIMIT} calls a second and, on the way, {len(BURSTS)} "
        f"bursts in which it refuses {BURST} calls in a row, more than boto3 makes attempts. Each is asked alone. "
        f"The sensor {sensor.told()}.",
    )


def _through_throttles(runs: int, function: str) -> _Listed:
    pages = math.ceil(runs / 100)
    with service() as local, ThreadPoolExecutor() as pool:
        batch_id = local.start_submitted_batch(runs)
        local.control.settings.rate_limits = {"ListRunsInBatch": LIST_LIMIT}
        local.control.clock.speed = 1
        listing = pool.submit(child.run, function, local.environment, url=local.url, batch_id=batch_id, runs=runs)
        for share in BURSTS:
            while not listing.done() and local.control.calls["ListRunsInBatch"] < share * pages:
                time.sleep(0.1)
            local.control.faults.throttle("ListRunsInBatch", times=BURST)
        outcome = listing.result()
        statuses = [status for _, operation, status in local.control.call_log if operation == "ListRunsInBatch"]
    return _Listed(
        seconds=outcome["seconds"],
        errors=[outcome["error"]] if outcome["error"] else [],
        pages=statuses.count(200),
        throttled=statuses.count(429),
    )


@dataclass(frozen=True, kw_only=True)
class _Listed:
    seconds: float
    errors: list[str]
    pages: int
    throttled: int

    def told(self) -> str:
        result = "".join(f"failed: {error}; it " for error in self.errors)
        return f"{result}listed {self.pages:,} pages in {self.seconds:.0f} s, {self.throttled:,} calls throttled"


# In a process of its own


def time_in_turns(url: str, batch_id: str) -> list[float]:
    """Time the sensor and the bare loop; give the medians."""
    sensor, omics = _sensor(batch_id), client("omics", url)
    assert _poke(sensor) == _bare_loop(omics, batch_id)
    return medians_in_turns([lambda: _poke(sensor), lambda: _bare_loop(omics, batch_id)])


def time_sensor(url: str, batch_id: str, runs: int) -> dict[str, Any]:
    """Time the sensor once."""
    sensor = _sensor(batch_id)
    return _timed(lambda: _poke(sensor), runs)


def time_bare_loop(url: str, batch_id: str, runs: int) -> dict[str, Any]:
    """Time the bare loop once."""
    omics = client("omics", url)
    return _timed(lambda: _bare_loop(omics, batch_id), runs)


def memory(url: str, batch_id: str) -> dict[str, int]:
    """Trace the memory of the dict, of the bare loop and of the sensor, in bytes."""
    sensor, omics = _sensor(batch_id), client("omics", url)
    _poke(sensor)
    _bare_loop(omics, batch_id)
    tracemalloc.start()

    def trace(function: Any) -> tuple[int, int]:
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        kept = function()
        peak = tracemalloc.get_traced_memory()[1] - before
        gc.collect()
        size = tracemalloc.get_traced_memory()[0] - before
        del kept
        return size, peak

    size, bare_peak = trace(lambda: _bare_loop(omics, batch_id))
    _, sensor_peak = trace(lambda: _poke(sensor))
    return {"dict": size, "bare_peak": bare_peak, "sensor_peak": sensor_peak}


def wait_as_sensor(url: str, batch_id: str, runs: int) -> int:
    """Wait with the sensor, the service's clock in place of sleeping; give the number of rounds."""
    sensor = _sensor(batch_id)
    rounds = 1
    while not (result := sensor.poke(context())):
        _pass_time(url)
        rounds += 1
    assert len(result.xcom_value) == runs
    return rounds


def wait_as_naive_sensor(url: str, batch_id: str, runs: int) -> int:
    """Wait by listing all runs in every round; give the number of rounds."""
    omics = client("omics", url)
    rounds = 1
    while len(_bare_loop(omics, batch_id)) < runs:
        _pass_time(url)
        rounds += 1
    return rounds


def wait_deferred(url: str, batch_id: str) -> int:
    """Wait with the deferred completion sensor in real time; give the number of times that a worker resumes it."""
    from airflow.sdk.exceptions import TaskDeferred

    from airflow_provider_omics_cache.exceptions import BatchCancelledError
    from airflow_provider_omics_cache.sensors.run_batch import BatchCompletionSensor

    async def fire(trigger: Any) -> Any:
        return await anext(trigger.run())

    sensor = BatchCompletionSensor(
        task_id="wait", batch_id=batch_id, region_name=REGION, poke_interval=FAST_POKE_INTERVAL, deferrable=True
    )
    wake_ups = 0
    step: Callable[[], Any] = partial(sensor.execute, context())
    while True:
        try:
            step()
        except TaskDeferred as deferral:
            event = asyncio.run(fire(deferral.trigger)).payload
            step = partial(sensor.resume_execution, deferral.method_name, {"event": event}, context())
            wake_ups += 1
        except BatchCancelledError:
            return wake_ups


def _pass_time(url: str) -> None:
    from airflow_provider_omics_cache.local import LocalHealthOmicsControl

    LocalHealthOmicsControl(url).clock.advance(POKE_INTERVAL)


def _sensor(batch_id: str) -> Any:
    from airflow_provider_omics_cache.sensors.run_batch import BatchSubmissionSensor

    return BatchSubmissionSensor(task_id="wait", batch_id=batch_id, region_name=REGION, poke_interval=POKE_INTERVAL)


def _poke(sensor: Any) -> dict[str, str]:
    mapping: dict[str, str] = sensor.poke(context()).xcom_value
    return mapping


def _bare_loop(omics: Any, batch_id: str) -> dict[str, str]:
    pages = omics.get_paginator("list_runs_in_batch").paginate(batchId=batch_id, PaginationConfig={"PageSize": 100})
    return {run["runSettingId"]: run["runId"] for page in pages for run in page["runs"]}


def _timed(function: Callable[[], dict[str, str]], runs: int) -> dict[str, Any]:
    error = ""
    started_at = time.perf_counter()
    try:
        mapping = function()
        if len(mapping) != runs:
            error = f"{len(mapping):,} of {runs:,} runs"
    except Exception as failure:
        error = str(failure)
    return {"seconds": time.perf_counter() - started_at, "error": error}
