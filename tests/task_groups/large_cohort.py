"""A cohort of 2,000 samples: what fails in it, and which runs and records it must have in the end."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics

SAMPLES = [f"S{number:04}" for number in range(2_000)]
#: Their submission fails once.
THROTTLED = SAMPLES[:100]
#: Their submission always fails.
REFUSED = SAMPLES[100:150]
#: Their run fails once, in its third task, for a reason of AWS.
RESUMED = SAMPLES[150:200]
#: Their run fails in its third task for a reason of their own.
BROKEN = SAMPLES[200:210]
#: 50 refused and 10 broken samples do not complete.
MAX_FAILED = "3%"

#: Status, round and the reasons of earlier failures.
Outcome = tuple[str, int, list[str]]


def let_fail(service: LocalHealthOmics) -> None:
    """Let the samples fail."""
    service.settings.submission_rate = float("inf")
    for name in THROTTLED:
        service.faults.fail_submission(name, reason="ThrottlingException", times=1)
    for name in REFUSED:
        service.faults.fail_submission(name, reason="ValidationException", times=None)
    for names, reason in ((RESUMED, "SERVICE_ERROR"), (BROKEN, "RUN_TASK_FAILED")):
        for name in names:
            service.faults.fail_task("call", run_name=name, reason=reason)


def expected_outcomes(*, throttled: str = "COMPLETED") -> dict[str, Outcome]:
    """Return the outcome of each sample.

    :param throttled: how the second submission of the throttled samples ends.
    """
    outcomes: dict[str, Outcome] = dict.fromkeys(SAMPLES, ("COMPLETED", 1, []))
    outcomes |= dict.fromkeys(THROTTLED, (throttled, 2, ["ThrottlingException"]))
    outcomes |= dict.fromkeys(REFUSED, ("NOT_SUBMITTED", 1, []))
    outcomes |= dict.fromkeys(RESUMED, ("COMPLETED", 2, ["SERVICE_ERROR"]))
    return outcomes | dict.fromkeys(BROKEN, ("FAILED", 1, []))


def outcomes_of(results: str) -> dict[str, Outcome]:
    """Return the outcome of each sample by the records of the cohort, in their order."""
    records = [json.loads(line) for line in results.splitlines()]
    assert [record["run_setting_id"] for record in records] == SAMPLES
    assert {record["cache_hits"] for record in records if record["run_setting_id"] in RESUMED} == {2}
    return {
        record["run_setting_id"]: (
            record["status"],
            record["round"],
            [earlier["failure_reason"] for earlier in record["history"]],
        )
        for record in records
    }


def expected_runs() -> Counter[str]:
    """Return how many runs each sample must have."""
    return Counter({name: 1 + (name in RESUMED) for name in SAMPLES if name not in REFUSED})


def batches_and_runs(omics: Any) -> tuple[int, Counter[str]]:
    """Return how many batches and how many runs of each sample the service has started, by its own listing."""
    batches = [batch["id"] for page in omics.get_paginator("list_batch").paginate() for batch in page["items"]]
    runs = Counter(
        run["runSettingId"]
        for batch_id in batches
        for page in omics.get_paginator("list_runs_in_batch").paginate(batchId=batch_id)
        for run in page["runs"]
        if run.get("runId")
    )
    return len(batches), runs
