"""Decide what comes next for a sample whose runs have ended: pure functions over the records at ``runs_s3_uri``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from airflow_provider_omics_cache.healthomics.completion import NOT_SUBMITTED
from airflow_provider_omics_cache.healthomics.states import ENDED_RUN_STATUSES, RunStatus

#: Statuses of runs that can be resumed from the run cache. DELETED is not one of them, because such a run may have
#: completed before it was deleted.
RESUMABLE_STATUSES = frozenset({RunStatus.FAILED, RunStatus.CANCELLED})


class NextStep(StrEnum):
    """What comes next for a sample."""

    #: A run of the sample completed.
    COMPLETED = "completed"
    #: The submission failed, but can succeed later. The sample had no run in this batch.
    SUBMIT_AGAIN = "submit again"
    #: The run failed or was cancelled. A new run continues from the run cache.
    RESUME = "resume"
    #: No new run is started.
    GIVEN_UP = "given up"
    #: It is not certain how the run ended, or whether there is a run. No new run is started.
    UNKNOWN = "unknown"


class Decision(NamedTuple):
    """What comes next for a sample, and why.

    :param step: what comes next.
    :param reason: AWS's reason for the failure or, without one, the status of the run. For UNKNOWN: a text that says
        what is not certain. For COMPLETED: None.
    """

    step: NextStep
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class Retries:
    """Which samples get a new run.

    :param submissions: reasons of failed submissions after which a sample is submitted again.
    :param runs: failure reasons of FAILED runs after which a sample is resumed. They do not apply to CANCELLED runs.
    :param statuses: statuses of runs after which a sample is resumed: members of :data:`RESUMABLE_STATUSES`.
    """

    submissions: frozenset[str]
    runs: frozenset[str]
    statuses: frozenset[str] = frozenset({RunStatus.FAILED})


def decide(record: Mapping[str, Any] | None, retries: Retries) -> Decision:
    """Decide what comes next for a sample with one record.

    :param record: the record of its run at ``runs_s3_uri``; None if there is no record.
    :param retries: which samples get a new run.
    """
    if record is None:
        return Decision(NextStep.UNKNOWN, "the sample has no record")
    status, reason, has_run = record.get("status"), record.get("failure_reason"), bool(record.get("run_id"))
    if status == NOT_SUBMITTED and not has_run:
        step = NextStep.SUBMIT_AGAIN if reason in retries.submissions else NextStep.GIVEN_UP
        return Decision(step, reason or NOT_SUBMITTED)
    if status not in ENDED_RUN_STATUSES:
        return Decision(NextStep.UNKNOWN, f"the status {status} does not show how the run ended")
    if not has_run:
        return Decision(NextStep.UNKNOWN, f"the record has the status {status}, but no run id")
    if status == RunStatus.COMPLETED:
        return Decision(NextStep.COMPLETED, None)
    is_resumed = status in retries.statuses and (status != RunStatus.FAILED or reason in retries.runs)
    return Decision(NextStep.RESUME if is_resumed else NextStep.GIVEN_UP, reason or status)


def decisive(records: Sequence[Mapping[str, Any]]) -> int:
    """Return the position of the record that stands for a sample with records in several batches.

    This is the last record of a completed run. Without such a record, it is the last one of a run that may be active.
    Otherwise it is the last record.

    :param records: the records of the sample, at least one, the oldest first.
    """
    return max(range(len(records)), key=lambda position: (_weight(records[position]), position))


def _weight(record: Mapping[str, Any]) -> int:
    step = decide(record, _NO_RETRIES).step
    return {NextStep.COMPLETED: 2, NextStep.UNKNOWN: 1}.get(step, 0)


_NO_RETRIES = Retries(submissions=frozenset(), runs=frozenset())
