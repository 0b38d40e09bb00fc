"""Lists of the local HealthOmics that lag behind, and truth to compare with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal
from unittest.mock import patch

import botocore.handlers
import pytest

from tests.sensor_modes import start_batch

SECONDS_PER_RUN = 10
#: Seconds from the start of a batch until it submits its runs.
_BEFORE_SUBMITTING = 3.0

Late = Literal["absent", "unsubmitted", "without run id"]


def start_slow_batch(local: Any, client: Any, runs: int) -> str:
    """Start a batch that submits a run every 10 seconds."""
    local.settings.submission_rate = 1 / SECONDS_PER_RUN
    return start_batch(client, runs)


def submit(local: Any, runs: int) -> None:
    """Let a batch that was just started submit so many runs."""
    local.clock.advance(_BEFORE_SUBMITTING + runs * SECONDS_PER_RUN + 0.5)


def cancel(local: Any, client: Any, batch_id: str) -> None:
    """Cancel a batch, and wait until it is CANCELLED."""
    client.cancel_run_batch(batchId=batch_id)
    local.clock.advance(2.5)
    assert client.get_batch(batchId=batch_id)["status"] == "CANCELLED"


def mapping_of(client: Any, batch_id: str) -> dict[str, str]:
    """The mapping as it is, from a client whose answers are not late."""
    rows = client.list_runs_in_batch(batchId=batch_id)["runs"]
    return {row["runSettingId"]: row["runId"] for row in rows if "runId" in row}


@contextmanager
def late_lists(local: Any, batch_id: str, client: Any, seconds: float, late: Late = "absent") -> Iterator[None]:
    """Let clients made from now on read lists as they were some seconds ago.

    ListRunsInBatch shows a run that is late as ``late`` says. ListRuns does not show it, and shows a run whose end is
    late as RUNNING.
    """
    started_at = client.get_batch(batchId=batch_id)["creationTime"]
    seconds_per_run = 1 / local.settings.submission_rate

    def then() -> Any:
        return local.clock.now() - timedelta(seconds=seconds)

    def is_late(row: dict[str, Any]) -> bool:
        number = int(row["runSettingId"].rpartition("-")[2])
        submitted = started_at + timedelta(seconds=_BEFORE_SUBMITTING + (number + 1) * seconds_per_run)
        return bool(submitted > then())

    def change_rows(parsed: dict[str, Any], **_: Any) -> None:
        rows = []
        for row in parsed.get("runs", []):
            if not is_late(row):
                rows.append(row)
            elif late == "unsubmitted":
                rows.append({"runSettingId": row["runSettingId"]})
            elif late == "without run id":
                rows.append({"runSettingId": row["runSettingId"], "submissionStatus": "SUCCESS"})
        if "runs" in parsed:
            parsed["runs"] = rows

    def change_runs(parsed: dict[str, Any], **_: Any) -> None:
        if "items" in parsed:
            runs = [run for run in parsed["items"] if run["creationTime"] <= then()]
            parsed["items"] = [
                {**run, "status": "RUNNING"} if run.get("stopTime") and run["stopTime"] > then() else run
                for run in runs
            ]

    handlers = [
        *botocore.handlers.BUILTIN_HANDLERS,
        ("after-call.omics.ListRunsInBatch", change_rows),
        ("after-call.omics.ListRuns", change_runs),
    ]
    with patch.object(botocore.handlers, "BUILTIN_HANDLERS", handlers):
        yield


def later(local: Any, monkeypatch: pytest.MonkeyPatch, seconds: float, action: Callable[[], object]) -> None:
    """Let something happen when so many seconds of the service's time have passed."""
    due = local.clock.elapsed() + seconds
    advance = local.clock.advance

    def advance_and_act(seconds: float) -> None:
        advance(seconds)
        if local.clock.elapsed() >= due:
            monkeypatch.setattr(local.clock, "advance", advance)
            action()

    monkeypatch.setattr(local.clock, "advance", advance_and_act)
