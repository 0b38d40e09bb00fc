"""Batches in each status, and operators that wait for them, run as Airflow runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import botocore.handlers
import pytest

from airflow_provider_omics_cache.local.inprocess import _Answer
from airflow_provider_omics_cache.local.protocol import Response
from tests.conftest import needs_aiobotocore
from tests.sensor_modes import run_sensor, start_batch

STATUSES = (
    "CREATING",
    "PENDING",
    "SUBMITTING",
    "INPROGRESS",
    "STOPPING",
    "CANCELLED",
    "FAILED",
    "PROCESSED",
    "RUNS_DELETING",
    "RUNS_DELETE_FAILED",
    "RUNS_DELETED",
)
ONE_ATTEMPT = {"retries": {"total_max_attempts": 1}}

each_mode = pytest.mark.parametrize("mode", ["sync", pytest.param("deferrable", marks=needs_aiobotocore)])


def batch_in(status: str, local: Any, client: Any, runs: int = 3) -> str:
    """Start a batch and bring it into a status. Of a FAILED batch all runs but the last were started."""
    if status == "FAILED":
        local.faults.fail_batch("broken", after="SUBMITTING", started_runs=runs - 1)
    if status == "SUBMITTING":
        local.settings.submission_rate = 1.0
    if status == "RUNS_DELETE_FAILED":
        local.faults.fail_delete(["sample-0"])
    batch_id = start_batch(client, runs)
    seconds = {"CREATING": 0.5, "PENDING": 2, "SUBMITTING": 4.5, "INPROGRESS": 10, "FAILED": 10}
    if status in {"STOPPING", "CANCELLED"}:
        local.clock.advance(10)
        client.cancel_run_batch(batchId=batch_id)
        local.clock.advance(0 if status == "STOPPING" else 10)
    else:
        local.clock.advance(seconds.get(status, 100))
    if status.startswith("RUNS_"):
        client.delete_run_batch(batchId=batch_id)
        local.clock.advance(0 if status == "RUNS_DELETING" else 10)
    assert status_of(client, batch_id) == status
    return batch_id


def answer(request: Any, status: int, body: bytes = b"", **headers: str) -> _Answer:
    """Answer a request in place of the service, which then does not act on it."""
    given = _Answer(request.url, Response(status, body, {"Content-Type": "application/json", **headers}))
    request.url = "https://answered.invalid/"
    return given


def status_of(client: Any, batch_id: str) -> str:
    return str(client.get_batch(batchId=batch_id)["status"])


def runs_of(client: Any, batch_id: str) -> dict[str, str]:
    """The status of each run of a batch that is not deleted, by its id."""
    pages = client.get_paginator("list_runs").paginate(batchId=batch_id)
    return {run["id"]: run["status"] for page in pages for run in page["items"]}


def run_operator(make: Callable[..., Any], mode: str, context: dict[str, Any], clock: Any) -> Any:
    """Run an operator to its end; ``make(deferrable=...)`` makes it anew for each process that Airflow would start."""

    def make_in_mode(*, deferrable: bool = False, mode: str = "") -> Any:
        return make(deferrable=deferrable)

    return run_sensor(make_in_mode, "deferrable" if mode == "deferrable" else "poke", context, clock)


def die(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    """Let the process end when a method of a class, or a function that a module calls, has returned, once."""
    original = getattr(owner, name)

    def call(*args: Any, **members: Any) -> Any:
        monkeypatch.setattr(owner, name, original)
        original(*args, **members)
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, name, call)


@contextmanager
def changed_answers(operation: str, changes: dict[str, Any], times: int | None = None) -> Iterator[None]:
    """Let clients made from now on read other members in the first few answers; None removes a member."""
    left = times

    def change(parsed: dict[str, Any], **_: Any) -> None:
        nonlocal left
        if "Error" in parsed or left == 0:
            return
        left = None if left is None else left - 1
        parsed.update(changes)
        for name in [name for name, value in changes.items() if value is None]:
            parsed.pop(name)

    handlers = [*botocore.handlers.BUILTIN_HANDLERS, (f"after-call.omics.{operation}", change)]
    with patch.object(botocore.handlers, "BUILTIN_HANDLERS", handlers):
        yield
