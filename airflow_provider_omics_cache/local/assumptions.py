"""Settings of the local HealthOmics.

AWS does not document everything about the service. Where a setting replaces a fact that is not documented, its
description says "assumed". The following is assumed and has no setting:

- ValidationException is the answer to a body that is not a JSON object, to a value of a wrong type, and to a second
  filter. UnknownOperationException (404) is the answer to an operation that the local HealthOmics does not have.
  AccessDeniedException is the answer to a request that is not signed, and to a Region without HealthOmics.
- Batches and runs are listed in the order of their creation. ListRuns combines its filters.
- A request with the same ``requestId`` counts as changed if one of the two has empty ``tags`` and the other has no
  ``tags``, or if a list is in another order.
- The texts of errors, apart from those of ``failureReason`` in AWS's user guide, "Workflow 2174942 not found", and the
  form "1 validation error detected: Value ... at ... failed to satisfy constraint: ...".
- A page token of another account, Region, list or filter, or one that was changed, is refused with ValidationException.
- A run looks its tasks up in its run cache when it is submitted. It finds the entries of a run that had ended, with the
  same ``workflowId``, ``workflowVersionName``, ``workflowOwnerId``, ``parameters``, ``engineSettings`` and task names.
  Tasks run one after the other. After the first task that is not found, every task runs. A task that is found takes no
  time. A run that fails with ``RUN_TIMED_OUT``, ``EXPORT_FAILED`` or ``FILE_SYSTEM_OUT_OF_SPACE`` leaves no entries.
- A run waits in ``PENDING`` for a place in its run group, and has the place from ``STARTING`` to its end.
  ``maxDuration`` counts the time ``RUNNING``. DeleteRunGroup does not look for active runs.
- A task is listed from its start, as ``RUNNING``. It is never ``PENDING``, ``STARTING`` or ``STOPPING``.
- StartRun and the submission of a batch fail with ResourceNotFoundException if the workflow is not ``ACTIVE``. A
  configuration is ``ACTIVE`` at once. ListWorkflows lists private workflows unless ``type`` says otherwise.
- A run that duplicates another run takes the members that its request lacks from that run, except the tags.
- The outputs of a run are below its ``outputUri``, in a folder ``{run id}/{run uuid}``. AWS's pages differ: some
  have only the run id. With ``outputUriPrefixMode`` ``NONE_WITH_OVERWRITE`` they are directly below it, and
  ``runOutputUri`` is the ``outputUri``.
- The event of a batch that failed with a transient error has the ``failureReason`` ``INTERNAL_SERVER_EXCEPTION``. The
  events of a batch have ``workflowVersionArn`` and ``workflowOwnerId`` only if its default run setting names them.
- A run is ``DELETED`` immediately after DeleteRun or DeleteRunBatch, and its event is sent at that time.
- StartRunBatch refuses ``networkingMode`` ``VPC`` without ``configurationName`` and a ``sessionPolicy`` that is not a
  JSON object, with ValidationException. StartRun does too.
- A run fails at its submission, with ValidationException, if it has no ``outputUri``, if its tags break a limit, or if
  its ``runOutputUri`` would be longer than the 750 characters of the model.
- GetRun shows the current cacheBehavior of the run cache if the run was started without a ``cacheBehavior``.
- If the workflow does not exist, StartRunBatch answers ResourceNotFoundException with "Workflow 2174942 not found".
  StartRun was seen to answer this. If ``workflowType`` is ``READY2RUN``, StartRunBatch answers ValidationException.
- ``parameters`` and ``engineSettings`` are nested at most 100 deep. Deeper ones are refused with ValidationException.
- One invalid entry of a settings file fails the batch. An empty file fails it too.
- CancelRunBatch does not change the submission status of runs that have ended. CancelRun and DeleteRun never change a
  submission status.
- A batch whose cancellation failed for some runs becomes ``CANCELLED``. Its runs that were never submitted are still
  counted as pending.
- A batch that shares the StartRun quota and fails while it submits keeps its share. If the limit on kept runs is
  reached and runs are then deleted, the batch that a request reads first submits runs first.
- A resource has at most 50 tags, and no tag key starts with ``aws:``.

The following is documented but not modelled:

- at most 50 runs with dynamic storage and 10 runs with static storage are active at once; a run has at most 25 tasks;
  GPUs and the duration of a run are limited;
- CancelRunBatch uses up the CancelRun quota, and DeleteRunBatch the DeleteRun quota;
- when the limit on kept runs is reached, a run with ``retentionMode`` ``REMOVE`` replaces the oldest such run;
- ``maxCpus`` and ``maxGpus`` of a run group limit nothing;
- a ``maxRuns`` that UpdateRunGroup sets for a run group without one applies only to runs that are submitted later.
  Earlier runs neither wait for a place nor take one;
- direct calls of StartRun and batches do not compete for the StartRun quota;
- a workflow's definition is not read: a workflow without ``parameterTemplate`` accepts any parameters;
- a settings file has at most 6 GB.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_type_hints

from airflow_provider_omics_cache.local.protocol import STATUS_OF_CODE

#: Calls per second per account and Region that AWS documents, for ``Settings.rate_limits``. Batches use up the StartRun
#: quota. AWS's pages give different values for it: 5 is the default quota, and AWS can raise it.
DOCUMENTED_RATE_LIMITS: dict[str, float] = {
    "StartRun": 5,
    "StartRunBatch": 1,
    "GetBatch": 10,
    "CancelRunBatch": 10,
    "ListRunsInBatch": 10,
    "CreateRunCache": 10,
    "GetRunCache": 10,
    "ListRunCaches": 10,
    "UpdateRunCache": 10,
    "DeleteRunCache": 10,
    "GetRun": 10,
    "ListRuns": 10,
    "CancelRun": 10,
    "DeleteRun": 10,
    "ListRunTasks": 10,
    "GetRunTask": 10,
    "CreateRunGroup": 10,
    "GetRunGroup": 10,
    "ListRunGroups": 10,
    "UpdateRunGroup": 10,
    "DeleteRunGroup": 10,
    "CreateWorkflow": 5,
    "GetWorkflow": 10,
    "ListWorkflows": 10,
    "UpdateWorkflow": 10,
    "DeleteWorkflow": 10,
    "TagResource": 5,
    "UntagResource": 5,
    "ListTagsForResource": 5,
}
#: Settings that make every workflow and run group exist, and that do not check the buckets of outputs.
LENIENT: dict[str, Any] = {"strict_workflows": False, "strict_run_groups": False, "check_output_bucket": False}
_OPERATIONS = {
    *DOCUMENTED_RATE_LIMITS,
    "ListBatch",
    "DeleteRunBatch",
    "DeleteBatch",
    "CreateWorkflowVersion",
    "GetWorkflowVersion",
    "ListWorkflowVersions",
    "UpdateWorkflowVersion",
    "DeleteWorkflowVersion",
    "CreateConfiguration",
    "GetConfiguration",
    "ListConfigurations",
    "DeleteConfiguration",
}


@dataclass(kw_only=True)
class Settings:
    """Durations, limits and assumptions.

    A batch uses the values that were set when it was started.

    :param creating_seconds: how long a batch is ``CREATING``.
    :param pending_seconds: how long a batch is ``PENDING``; its settings are checked at the end.
    :param submission_rate: runs per second that a batch submits; ``inf`` submits all at once, 0 submits none.
    :param run_pending_seconds: how long a run is ``PENDING``.
    :param run_starting_seconds: how long a run is ``STARTING``.
    :param run_running_seconds: how long a run is ``RUNNING``.
    :param run_stopping_seconds: how long a run is ``STOPPING``, after its work or after CancelRun.
    :param cancel_seconds: how long a batch, and each active run in it, is ``STOPPING`` after CancelRunBatch.
    :param delete_seconds: how long a batch is ``RUNS_DELETING``.
    :param seconds_in_progress_without_runs: how long a batch is ``INPROGRESS`` when all its submissions failed;
        0 makes it ``PROCESSED`` at once (assumed).
    :param max_run_caches: maximum number of run caches per account and Region.
    :param max_runs_in_batch: maximum number of runs per batch.
    :param max_runs_kept: maximum number of runs per account and Region that are not deleted. Further submissions fail
        with ServiceQuotaExceededException, except those with ``retentionMode`` ``REMOVE``. Default: ``inf``, no limit;
        AWS documents 100,000.
    :param rate_limits: calls per second by operation name, per account and Region; further calls are throttled.
        ``StartRun`` limits the runs per second that all batches submit together, in addition to the
        ``submission_rate`` of each batch. The submitting batches share it evenly (assumed). Default: no limits. See
        :data:`DOCUMENTED_RATE_LIMITS`.
    :param replayed_status: status in the answer to a repeated request with the same ``requestId``: ``initial`` or
        ``current`` (assumed: initial).
    :param changed_request_error: error code for a ``requestId`` that is reused for a different request; None returns
        the answer to the first request (assumed: ConflictException).
    :param failed_batch_token: what happens if the ``requestId`` of a failed batch is used again, and the batch failed
        before it started a run, and not because of its settings: ``starts_again`` starts a new batch with a new id,
        also for a changed request; ``replays`` answers with the failed batch. AWS documents that a client must use the
        same ``requestId`` after a transient error. The new id is assumed.
    :param token_seconds: how long a ``requestId`` is remembered (assumed: 24 hours).
    :param wrong_state_error: error code for an operation that the state of the resource does not allow
        (assumed: ConflictException).
    :param list_unsubmitted_runs: whether ListRunsInBatch lists runs that are not yet submitted, without a status
        (assumed: no).
    :param cancelled_before_submission: how ListRunsInBatch shows the runs of a cancelled batch that were never
        submitted: ``hidden``, or ``listed`` as CANCEL_SUCCESS without a run id (assumed: hidden).
    :param listing_order: order of ListRunsInBatch: ``input`` or ``shuffled`` (assumed: input).
    :param counts_before_submitting: whether GetBatch counts the runs of a batch with inline settings before the batch
        is ``SUBMITTING`` (assumed: yes). Settings in S3 are never counted before.
    :param run_cache_order: order of ListRunCaches: ``newest_first``, as in AWS's sample, or ``oldest_first`` (assumed:
        newest_first).
    :param batch_visible_after: seconds until a started batch is found by its id and listed (assumed: 0).
    :param run_cache_visible_after: seconds until a created run cache is found by its id and listed (assumed: 0).
    :param check_cache_bucket: whether CreateRunCache refuses a bucket that does not exist, whose owner is not
        ``cacheBucketOwnerId``, or that is in another Region (assumed: yes, with ValidationException).
    :param show_deleted_run_caches: whether GetRunCache and ListRunCaches show deleted caches, with status ``DELETED``
        (assumed: no).
    :param reuse_run_ids: whether a new run gets the id of a deleted run, if there is one. AWS reuses ids; the moment
        at which it does is assumed.
    :param cache_entries_in_s3: maximum number of entries of each run cache that are written to S3. Runs find further
        entries too.
    :param send_events: whether changes of the states of runs, tasks and batches are sent to the default event bus of
        moto's EventBridge. The request that finds a change sends it. Default: no.
    :param write_logs: whether the log streams of runs, engines and tasks, and the manifests of runs are written to
        moto's CloudWatch Logs. The texts are not AWS's. Default: no.
    :param strict_workflows: whether only registered workflows exist. Otherwise every workflow id exists. If a workflow
        does not exist, StartRunBatch fails with ResourceNotFoundException. If it is deleted later, the submissions of
        its runs fail with the same error.
    :param strict_configurations: whether a run can only use a configuration that was created. Otherwise every
        ``configurationName`` exists. Default: no.
    :param workflow_creating_seconds: how long a workflow or a version is ``CREATING`` after its creation.
    :param static_storage_needs_capacity: whether StartRun refuses ``storageType`` ``STATIC`` if neither the run nor
        the workflow has a ``storageCapacity`` (assumed: yes).
    :param strict_run_groups: whether only registered run groups exist. Otherwise every run group id exists.
    :param default_storage_type: storage of runs without ``storageType``: ``STATIC``, with 1,200 GiB, or ``DYNAMIC``.
        AWS's pages differ: the API says static, the user guide dynamic.
    :param check_output_bucket: whether a run fails if the bucket of its ``outputUri`` does not exist at its
        submission (assumed: the run fails at its end, with ``EXPORT_FAILED``).
    """

    creating_seconds: float = 1.0
    pending_seconds: float = 2.0
    submission_rate: float = 20.0
    run_pending_seconds: float = 2.0
    run_starting_seconds: float = 3.0
    run_running_seconds: float = 20.0
    run_stopping_seconds: float = 5.0
    cancel_seconds: float = 2.0
    delete_seconds: float = 2.0
    seconds_in_progress_without_runs: float = 0.0
    max_run_caches: int = 1_000
    max_runs_in_batch: int = 100_000
    max_runs_kept: float = float("inf")
    rate_limits: dict[str, float] = field(default_factory=dict)
    replayed_status: Literal["initial", "current"] = "initial"
    changed_request_error: str | None = "ConflictException"
    failed_batch_token: Literal["starts_again", "replays"] = "starts_again"
    token_seconds: float = 86_400.0
    wrong_state_error: str = "ConflictException"
    list_unsubmitted_runs: bool = False
    cancelled_before_submission: Literal["hidden", "listed"] = "hidden"
    listing_order: Literal["input", "shuffled"] = "input"
    counts_before_submitting: bool = True
    run_cache_order: Literal["newest_first", "oldest_first"] = "newest_first"
    batch_visible_after: float = 0.0
    run_cache_visible_after: float = 0.0
    check_cache_bucket: bool = True
    show_deleted_run_caches: bool = False
    reuse_run_ids: bool = False
    cache_entries_in_s3: int = 1_000
    send_events: bool = False
    write_logs: bool = False
    strict_workflows: bool = True
    strict_run_groups: bool = True
    strict_configurations: bool = False
    workflow_creating_seconds: float = 5.0
    static_storage_needs_capacity: bool = True
    check_output_bucket: bool = True
    default_storage_type: Literal["STATIC", "DYNAMIC"] = "STATIC"

    def __setattr__(self, name: str, value: Any) -> None:
        types = _types()
        if name not in types:
            raise AttributeError(f"the local HealthOmics has no setting {name!r}")
        if not _fits(value, types[name]):
            raise ValueError(f"{value!r} is not a valid value of setting {name}")
        super().__setattr__(name, value)

    def copy(self) -> Settings:
        """Return a copy of the settings."""
        return dataclasses.replace(self, rate_limits=dict(self.rate_limits))

    def as_dict(self) -> dict[str, Any]:
        """Return the values of all settings by name."""
        return dataclasses.asdict(self)


def _types() -> dict[str, Any]:
    if not _TYPES:
        _TYPES.update(get_type_hints(Settings))
    return _TYPES


_TYPES: dict[str, Any] = {}


def _fits(value: Any, kind: Any) -> bool:
    if kind is bool:
        return isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
    if kind is str:
        return isinstance(value, str) and value in STATUS_OF_CODE
    if kind == (str | None):
        return value is None or _fits(value, str)
    if kind == dict[str, float]:
        return isinstance(value, dict) and all(
            name in _OPERATIONS and _fits(rate, float) and rate > 0 for name, rate in value.items()
        )
    return value in get_args(kind)
