"""Triggers on one event loop, as Airflow's triggerer runs them; in a process of its own."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from itertools import zip_longest
from typing import Any

from tests.benchmarks import child
from tests.benchmarks.measure import forget_peak_memory, memory_now, peak_memory, percentile

#: Class paths of the triggers that are compared.
TRIGGERS = {
    "ours": "airflow_provider_omics_cache.triggers.run_batch.BatchSubmissionTrigger",
    "runs": "airflow_provider_omics_cache.triggers.run.RunCompletionTrigger",
    "plain": "tests.benchmarks.plain_trigger.PlainTrigger",
}
TICK = 0.01
_DONE = {"done", "success"}
_IDLE_SECONDS = 4.0


class LoopLag:
    """How late the event loop is for something that is due every 10 ms.

    A loop that is blocked misses many of these moments, and every one of them counts with its own delay.
    """

    def __init__(self) -> None:
        self.lags: list[float] = []
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        due = time.monotonic() + TICK
        while True:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            now = time.monotonic()
            while due <= now:
                self.lags.append(now - due)
                due += TICK

    def stop(self) -> None:
        """Stop to measure."""
        self._task.cancel()


class FullCollections:
    """How long each full garbage collection takes, in seconds."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._started_at = 0.0
        gc.callbacks.append(self._note)

    def _note(self, phase: str, info: dict[str, int]) -> None:
        if info["generation"] != 2:
            return
        if phase == "start":
            self._started_at = time.monotonic()
        else:
            self.seconds.append(time.monotonic() - self._started_at)


def wait_for_batches(
    kind: str, batch_ids: list[str], poke_interval: float, seconds: float, run_ids: Sequence[str] = ()
) -> dict[str, Any]:
    """Run one trigger for each batch, and one for each single run.

    :param kind: which trigger, by its name in :data:`TRIGGERS`.
    :param batch_ids: the batches.
    :param poke_interval: seconds between two rounds of a trigger.
    :param seconds: when to stop at the latest.
    :param run_ids: the single runs.
    :return: what was measured; ``answers`` holds for each batch or run when its trigger fired or failed, in epoch
        seconds, and what it failed with.
    """
    batches = [(batch_id, partial(_trigger_class(kind), batch_id=batch_id)) for batch_id in batch_ids]
    runs = [(run_id, partial(_trigger_class("runs"), run_id=run_id)) for run_id in run_ids]
    # Batches and runs in turn, as Airflow's tasks would come.
    waits = [wait for pair in zip_longest(batches, runs) for wait in pair if wait is not None]
    return asyncio.run(_wait(waits, poke_interval, seconds))


def run_phases(kind: str, batch_ids: list[str], phases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Run triggers one number of them after the other, each for some time; none of them gets an answer that ends it.

    :param kind: which trigger, by its name in :data:`TRIGGERS`.
    :param batch_ids: as many batches as the largest number of triggers.
    :param phases: for each phase ``number``, ``poke_interval``, and ``window``: between which seconds CPU time counts.
    :return: what was measured in each phase; ``window`` holds the same in epoch seconds.
    """
    return asyncio.run(_run_phases(_trigger_class(kind), batch_ids, phases))


def _trigger_class(kind: str) -> Any:
    import_module("airflow.jobs.triggerer_job_runner")
    module, _, name = TRIGGERS[kind].rpartition(".")
    return getattr(import_module(module), name)


async def _wait(
    waits: Sequence[tuple[str, Callable[..., Any]]], poke_interval: float, seconds: float
) -> dict[str, Any]:
    answers: dict[str, tuple[float, str]] = {}

    async def wait(trigger: Any, subject_id: str) -> None:
        try:
            async for event in trigger.run():
                status = event.payload["status"]
                answers[subject_id] = time.time(), "" if status in _DONE else event.payload.get("message") or status
                return
        except Exception as error:
            answers[subject_id] = time.time(), repr(error)

    gc.collect()
    lag, collections = LoopLag(), FullCollections()
    await asyncio.sleep(_IDLE_SECONDS)
    idle_memory = memory_now()
    await asyncio.to_thread(child.ready)
    forget_peak_memory()
    lag.lags.clear()
    collections.seconds.clear()
    started_at = time.monotonic()
    tasks = []
    for subject_id, new_trigger in waits:
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(wait(new_trigger(poke_interval=poke_interval), subject_id)))
        await asyncio.sleep(0)
    await asyncio.wait(tasks, timeout=seconds)
    lag.stop()
    measured = {
        "answers": dict(answers),
        "seconds": time.monotonic() - started_at,
        "memory": peak_memory() - idle_memory,
        "full_collections": list(collections.seconds),
        "lag_p99": percentile(lag.lags, 99),
        "lag_max": max(lag.lags),
    }
    await _cancel(tasks)
    return measured


async def _run_phases(trigger_class: Any, batch_ids: list[str], phases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    async def wait(trigger: Any) -> None:
        async for _ in trigger.run():
            raise AssertionError("a trigger has fired")

    gc.collect()
    lag = LoopLag()
    cpu = time.process_time()
    await asyncio.sleep(_IDLE_SECONDS)
    idle_share = (time.process_time() - cpu) / _IDLE_SECONDS
    idle_memory = memory_now()
    await asyncio.to_thread(child.ready)
    measured = []
    for phase in phases:
        start, end = phase["window"]
        gc.collect()
        await asyncio.sleep(2 * TICK)  # so that this is not taken for the triggers' lag
        forget_peak_memory()
        lag.lags.clear()
        started_at = time.monotonic()
        tasks = []
        for batch_id in batch_ids[: phase["number"]]:
            trigger = trigger_class(batch_id=batch_id, poke_interval=phase["poke_interval"])
            tasks.append(asyncio.create_task(wait(trigger)))
            await asyncio.sleep(0)
        await asyncio.sleep(started_at + start - time.monotonic())
        cpu, window_start = time.process_time(), time.time()
        await asyncio.sleep(started_at + end - time.monotonic())
        window_end = time.time()
        measured.append(
            {
                "window": (window_start, window_end),
                "cpu": time.process_time() - cpu - idle_share * (window_end - window_start),
                "memory": peak_memory() - idle_memory,
                "lag_max": max(lag.lags),
            }
        )
        for task in tasks:
            if task.done():
                task.result()
        await _cancel(tasks)
    return measured


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
