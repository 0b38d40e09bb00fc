"""Triggers on one event loop, as Airflow's triggerer runs them; in a process of its own."""

from __future__ import annotations

import asyncio
import gc
import time
from importlib import import_module
from typing import Any

from tests.benchmarks import child
from tests.benchmarks.measure import forget_peak_memory, memory_now, peak_memory, percentile

#: Class paths of the triggers that are compared.
TRIGGERS = {
    "ours": "airflow_provider_omics_cache.triggers.run_batch.BatchSubmissionTrigger",
    "plain": "tests.benchmarks.plain_trigger.PlainTrigger",
}
TICK = 0.01
_DONE = {"done", "success"}
_IDLE_SECONDS = 5.0
_STARTUP_SECONDS = 5.0


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


def wait_for_batches(kind: str, batch_ids: list[str], poke_interval: float, seconds: float) -> dict[str, Any]:
    """Run one trigger for each batch.

    :param kind: which trigger, by its name in :data:`TRIGGERS`.
    :param batch_ids: the batches.
    :param poke_interval: seconds between two rounds of a trigger.
    :param seconds: when to stop at the latest.
    :return: what was measured; ``answers`` holds for each batch when its trigger fired or failed, in epoch seconds,
        and what it failed with.
    """
    import_module("airflow.jobs.triggerer_job_runner")
    module, _, name = TRIGGERS[kind].rpartition(".")
    trigger_class = getattr(import_module(module), name)
    triggers = [{"batch_id": batch_id, "poke_interval": poke_interval} for batch_id in batch_ids]
    return asyncio.run(_run_all(trigger_class, triggers, seconds))


async def _run_all(trigger_class: Any, triggers: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    answers: dict[str, tuple[float, str]] = {}
    after_startup = [0.0, 0.0]

    async def wait(trigger: Any, batch_id: str) -> None:
        try:
            async for event in trigger.run():
                status = event.payload["status"]
                answers[batch_id] = time.time(), "" if status in _DONE else event.payload.get("message") or status
                return
        except Exception as error:
            answers[batch_id] = time.time(), repr(error)

    async def note_startup() -> None:
        await asyncio.sleep(_STARTUP_SECONDS)
        after_startup[:] = time.process_time(), time.monotonic()

    lag = LoopLag()
    gc.collect()
    cpu = time.process_time()
    await asyncio.sleep(_IDLE_SECONDS)
    idle_share = (time.process_time() - cpu) / _IDLE_SECONDS
    idle_memory = memory_now()
    await asyncio.to_thread(child.ready)
    lag.lags.clear()
    forget_peak_memory()
    cpu, started_at = time.process_time(), time.monotonic()
    startup = asyncio.create_task(note_startup())
    tasks = []
    for kwargs in triggers:
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(wait(trigger_class(**kwargs), kwargs["batch_id"])))
        await asyncio.sleep(0)
    created_in = time.monotonic() - started_at
    await asyncio.wait(tasks, timeout=seconds)
    ended_at, cpu_at_end = time.monotonic(), time.process_time()
    lag.stop()
    for task in [startup, *tasks]:
        task.cancel()
    return {
        "answers": answers,
        "created_in": created_in,
        "seconds": ended_at - started_at,
        "idle_memory": idle_memory,
        "memory": peak_memory() - idle_memory,
        "cpu": cpu_at_end - cpu - idle_share * (ended_at - started_at),
        "cpu_after_startup": cpu_at_end - after_startup[0] - idle_share * (ended_at - after_startup[1]),
        "lag_p99": percentile(lag.lags, 99),
        "lag_max": max(lag.lags),
    }
