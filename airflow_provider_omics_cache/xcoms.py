"""Types of the XComs that the package's tasks push. A key has the same type in every task."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict, cast


class BatchXCom(TypedDict):
    """XCom ``batch``: what a task knows of its batch. Members that the task does not know are None."""

    #: Id of the batch.
    id: str
    arn: str | None
    uuid: str | None
    #: Last status that the task saw.
    status: str | None
    name: str | None
    #: Number of run settings that StartRunBatchOperator has read.
    expected_runs: int | None
    #: Idempotency token of the batch.
    request_id: str | None
    #: Where the run settings are in S3; None for inline settings.
    settings_s3_uri: str | None
    #: Whether an earlier try had started the batch.
    reattached: bool | None
    #: Number of runs: GetBatch's totalRuns or the number of listed runs, whichever is larger.
    total_runs: int | None
    #: Number of runs that were submitted.
    submitted: int | None
    #: Number of runs that were not submitted.
    failed: int | None
    #: Number of started runs that CancelRunBatchOperator found CANCELLED at the end.
    cancelled: int | None
    #: Number of started runs that had ended otherwise.
    not_cancelled: int | None
    #: Whether DeleteRunBatchOperator deleted the batch too.
    batch_deleted: bool | None
    #: Where DeleteRunBatchOperator saved the mapping.
    mapping_s3_uri: str | None


def batch_xcom(batch_id: str, **known: Any) -> BatchXCom:
    """Make the XCom ``batch``.

    :param batch_id: id of the batch.
    :param known: the members that the task knows.
    """
    return cast("BatchXCom", _complete(BatchXCom, "batch", batch_id, known))


class RunXCom(TypedDict):
    """XCom ``run``: what a task knows of its single run. Members that the task does not know are None."""

    #: Id of the run. HealthOmics reuses the ids of deleted runs; the uuid stays unique.
    id: str
    arn: str | None
    uuid: str | None
    #: Last status that the task saw.
    status: str | None
    name: str | None
    workflow_id: str | None
    #: Where the outputs of the run are.
    run_output_uri: str | None
    #: Times are ISO 8601.
    creation_time: str | None
    start_time: str | None
    stop_time: str | None
    failure_reason: str | None
    status_message: str | None
    #: Idempotency token of the run.
    request_id: str | None
    #: Whether an earlier try had started the run.
    reattached: bool | None


def run_xcom(run_id: str, **known: Any) -> RunXCom:
    """Make the XCom ``run``.

    :param run_id: id of the run.
    :param known: the members that the task knows.
    """
    return cast("RunXCom", _complete(RunXCom, "run", run_id, known))


def _complete(form: Any, key: str, identifier: str, known: dict[str, Any]) -> dict[str, Any]:
    """Add None for each member that the task does not know."""
    members: dict[str, Any] = {**dict.fromkeys(form.__annotations__), "id": identifier}
    unknown = known.keys() - members.keys()
    if unknown:
        raise TypeError(f"the XCom {key} has no members {sorted(unknown)}")
    return {**members, **known}


class RunCacheXCom(TypedDict):
    """XCom ``run_cache``: a run cache as GetRunCache shows it."""

    id: str
    arn: str | None
    name: str | None
    status: str | None
    cache_behavior: str | None
    cache_s3_uri: str | None
    #: ISO 8601.
    creation_time: str | None
    tags: dict[str, str]
    #: Whether the cache did not exist yet when this try of CreateRunCacheOperator looked for it.
    created: NotRequired[bool]
    #: Names of the parameters whose values UpdateRunCacheOperator changed.
    updated: NotRequired[list[str]]


class RunGroupXCom(TypedDict):
    """XCom ``run_group``: a run group as GetRunGroup shows it. A limit that the group does not have is None."""

    id: str
    arn: str | None
    name: str | None
    #: Maximum number of CPUs that the active runs of the group use together.
    max_cpus: int | None
    #: Maximum number of GPUs that the active runs of the group use together.
    max_gpus: int | None
    #: Maximum number of active runs of the group.
    max_runs: int | None
    #: Maximum number of minutes that a run of the group takes.
    max_duration: int | None
    #: ISO 8601.
    creation_time: str | None
    tags: dict[str, str]
    #: Whether the group did not exist yet when this try of CreateRunGroupOperator looked for it.
    created: bool


class SubmissionRecord(TypedDict):
    """One run of the XComs ``failed_submissions`` and ``changed_after_submission``."""

    run_setting_id: str | None
    run_id: str | None
    run_uuid: str | None
    #: submissionStatus of the run.
    status: str | None
    reason: str | None
    message: str | None


class RunCountsXCom(TypedDict):
    """XCom ``run_counts``: how the runs of a batch have ended. A count that the service does not report is None."""

    total: int | None
    completed: int | None
    failed: int | None
    cancelled: int | None
    deleted: int | None
    not_submitted: int | None


class FailedRun(TypedDict):
    """One run of the XCom ``failed_runs``."""

    run_setting_id: str | None
    run_id: str | None
    run_uuid: str | None
    #: Status of the run; ``NOT_SUBMITTED`` for a run that was never submitted, ``UNKNOWN`` for a run that was submitted
    #: but is listed without its id.
    status: str
    failure_reason: str | None
    status_message: str | None


class RunRecord(FailedRun):
    """One line of the file at ``runs_s3_uri``. Runs that were never submitted have a line too."""

    #: Times are ISO 8601.
    creation_time: str | None
    start_time: str | None
    stop_time: str | None
    #: Where the outputs of the run are. None without ``include_outputs``, unless GetRun was called for another reason.
    run_output_uri: str | None
    #: Where ``run_output_uri`` comes from: ``exact`` if GetRun has returned it, ``derived`` if it was derived from
    #: GetRun's answers about other runs of the batch; None without a location.
    output_source: str | None


class EarlierRun(TypedDict):
    """A run or a failed submission of a sample that is not the result of the sample."""

    #: Number of the batch in the cohort, from 1.
    round: int
    batch_id: str
    run_id: str | None
    run_uuid: str | None
    status: str
    failure_reason: str | None
    status_message: str | None
    #: Times are ISO 8601.
    creation_time: str | None
    start_time: str | None
    stop_time: str | None
    run_output_uri: str | None
    #: Number of tasks of the run whose outputs came from the run cache, None if it is not known.
    cache_hits: int | None


class CohortRecord(TypedDict):
    """The result of one sample of a cohort: the record of one of its runs.

    This is the last run that completed. If no run completed, it is the last run that may be active. Otherwise it is the
    last run.
    """

    run_setting_id: str
    #: Status of the run, as in :class:`RunRecord`. ``UNKNOWN`` also if the sample was in a batch but has no record.
    status: str
    #: Number of the batch in the cohort, from 1. None for a sample that was in no batch.
    round: int | None
    batch_id: str | None
    run_id: str | None
    run_uuid: str | None
    run_output_uri: str | None
    #: As in :class:`RunRecord`.
    output_source: str | None
    #: Times are ISO 8601.
    creation_time: str | None
    start_time: str | None
    stop_time: str | None
    failure_reason: str | None
    status_message: str | None
    #: Number of tasks of the run whose outputs came from the run cache, None if it is not known.
    cache_hits: int | None
    #: The other records of the sample, the oldest first.
    history: list[EarlierRun]


class CohortFailure(TypedDict):
    """Samples of a cohort that did not complete for the same reason, with the same message."""

    #: AWS's reason or, without one, the status. For a failed submission: "not submitted" and the reason.
    reason: str
    #: AWS's message. None without a message, or if samples with different messages are counted together.
    message: str | None
    #: What to do before a new run. None if the reason is not one that AWS documents for runs.
    remedy: str | None
    count: int
    #: The first of the samples.
    run_setting_ids: list[str]


class CohortRound(TypedDict):
    """One batch of a cohort."""

    #: Number of the batch in the cohort, from 1.
    round: int
    batch_id: str
    #: Number of samples in the batch.
    samples: int
    #: Number of runs by status, as in :class:`RunRecord`.
    statuses: dict[str, int]
    #: Seconds from the creation of the batch's first run to the end of its last one. None if no run has ended.
    seconds: float | None
    #: Number of tasks whose outputs came from the run cache, None if it is not known.
    cache_hits: int | None


class CohortSummary(TypedDict):
    """XCom ``summary``: how the samples of a cohort have ended."""

    #: Number of samples.
    total: int
    #: Number of samples with a run that completed.
    completed: int
    #: Number of samples by status of their result, as in :class:`CohortRecord`.
    statuses: dict[str, int]
    #: Why samples did not complete, the most frequent reason first. Only the first 20 have messages.
    failures: list[CohortFailure]
    rounds: list[CohortRound]
    #: Seconds from the creation of the first run to the end of the last one. None if no run has ended.
    seconds: float | None
    #: Number of tasks whose outputs came from the run cache, None if it is not known.
    cache_hits: int | None


class PreflightFinding(TypedDict):
    """One finding of the preflight. PreflightOperator returns a list of findings."""

    #: ``error``: the batch or the run would fail. ``warning``: it may fail, or the check could not be made.
    level: Literal["error", "warning"]
    #: What was checked: ``settings``, ``workflow``, ``parameters``, ``run_cache``, ``run_group``, ``configuration``,
    #: ``role``, ``bucket``, ``input`` or ``quota``.
    check: str
    #: What the finding is about, such as the id of the workflow, the name of the parameter or an ``s3://`` URI.
    subject: str
    #: What is wrong, and what to do.
    text: str
