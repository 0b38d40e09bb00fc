"""What can be set about the local HealthOmics.

A setting whose description says "assumed" stands for something that AWS does not document. Assumed and not to be set:

- a body that is no JSON object, a value of a wrong type and a second filter are answered with ValidationException,
  an operation that is not served with UnknownOperationException (404), and a request that is not signed, or for a
  Region without HealthOmics, with AccessDeniedException;
- caches, batches and runs are listed in the order of their creation, and ListRuns combines its filters;
- ``cacheBehavior`` without ``cacheId`` is refused by StartRunBatch, and a run without ``outputUri`` fails at its
  submission;
- one bad entry of a settings file fails the batch, as does an empty file;
- CancelRunBatch leaves the submission status of runs that have ended, and CancelRun and DeleteRun leave every one;
- a batch whose cancellation failed for some runs ends ``CANCELLED``, and the runs that were never submitted stay
  counted as pending;
- a batch that shares the StartRun quota and fails while it submits keeps its share; at the cap of runs kept the batch
  that is looked at first submits;
- a resource has at most 50 tags, and none of them starts with ``aws:``.

Documented and not modelled:

- at most 50 runs with dynamic storage and 10 with static storage run at once, and 25 tasks in a run; limits on GPUs and
  on the duration of a run;
- CancelRunBatch spends the CancelRun quota, and DeleteRunBatch the DeleteRun quota;
- at the cap of runs kept, a run with ``retentionMode`` ``REMOVE`` takes the place of the oldest such run;
- 1,000 run groups; 6 GB for a settings file.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_type_hints

from airflow_provider_omics_cache.local.protocol import STATUS_OF_CODE

#: Calls per second that AWS documents, per account and Region, for ``Settings.rate_limits``. AWS's pages differ about
#: StartRun, which batches spend: 5 is the default quota, and it is adjustable.
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
    "TagResource": 5,
    "UntagResource": 5,
    "ListTagsForResource": 5,
}
_OPERATIONS = {*DOCUMENTED_RATE_LIMITS, "ListBatch", "DeleteRunBatch", "DeleteBatch"}


@dataclass(kw_only=True)
class Settings:
    """Durations, limits and everything that AWS leaves open.

    A batch keeps the values that held when it was started.

    :param creating_seconds: how long a batch is ``CREATING``.
    :param pending_seconds: how long a batch is ``PENDING``; its settings are checked at the end of it.
    :param submission_rate: runs per second that a batch submits; ``inf`` submits all at once, 0 none.
    :param run_pending_seconds: how long a run is ``PENDING``.
    :param run_starting_seconds: how long a run is ``STARTING``.
    :param run_running_seconds: how long a run is ``RUNNING``.
    :param run_stopping_seconds: how long a run is ``STOPPING``, after its work or when cancelled.
    :param cancel_seconds: how long a cancelled batch is ``STOPPING``.
    :param delete_seconds: how long a batch is ``RUNS_DELETING``.
    :param seconds_in_progress_without_runs: how long a batch whose submissions all failed is ``INPROGRESS``;
        0 goes straight to ``PROCESSED`` (assumed).
    :param max_run_caches: run caches per account and Region.
    :param max_runs_in_batch: runs per batch.
    :param max_runs_kept: runs per account and Region that are not deleted; submissions above it fail with
        ServiceQuotaExceededException, except with ``retentionMode`` ``REMOVE``. Default: ``inf``, no limit; AWS
        documents 100,000.
    :param rate_limits: calls per second by operation name, per account and Region; a call above it is
        throttled. ``StartRun`` is what all batches submit together, shared evenly among those that submit (assumed),
        beside each one's ``submission_rate``. Default: none. See :data:`DOCUMENTED_RATE_LIMITS`.
    :param replayed_status: whether a repeated request with the same ``requestId`` is answered with the
        ``initial`` or the ``current`` status (assumed: initial).
    :param changed_request_error: error code for a ``requestId`` that comes again with another request;
        None answers as for an unchanged one (assumed: ConflictException).
    :param token_seconds: how long a ``requestId`` is remembered (assumed: 24 hours).
    :param wrong_state_error: error code for an operation that the resource's state does not allow
        (assumed: ConflictException).
    :param list_unsubmitted_runs: ListRunsInBatch lists runs that are not submitted yet, without a status
        (assumed: it does not).
    :param cancelled_before_submission: how ListRunsInBatch shows the never submitted runs of a cancelled
        batch: not at all, or as CANCEL_SUCCESS without a run (assumed: not at all).
    :param listing_order: order of ListRunsInBatch (assumed: input).
    :param counts_before_submitting: GetBatch counts the runs of a batch with inline settings before it is
        ``SUBMITTING`` (assumed: yes; settings in S3 are never counted before).
    :param batch_visible_after: seconds until a started batch is found by its id and listed (assumed: 0).
    :param run_cache_visible_after: seconds until a created run cache is found by its id and listed
        (assumed: 0).
    :param check_cache_bucket: CreateRunCache refuses a bucket that does not exist, has another owner than
        ``cacheBucketOwnerId``, or lies in another Region (assumed: ValidationException).
    :param show_deleted_run_caches: GetRunCache and ListRunCaches still show deleted caches, with status
        ``DELETED`` (assumed: they do not).
    :param reuse_run_ids: a new run gets the id of a deleted one, when there is one. AWS does reuse ids; when
        is assumed.
    :param strict_workflows: only registered workflows exist. Default: every workflow id exists.
    :param strict_run_groups: only registered run groups exist. Default: every run group id exists.
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
    token_seconds: float = 86_400.0
    wrong_state_error: str = "ConflictException"
    list_unsubmitted_runs: bool = False
    cancelled_before_submission: Literal["hidden", "listed"] = "hidden"
    listing_order: Literal["input", "shuffled"] = "input"
    counts_before_submitting: bool = True
    batch_visible_after: float = 0.0
    run_cache_visible_after: float = 0.0
    check_cache_bucket: bool = True
    show_deleted_run_caches: bool = False
    reuse_run_ids: bool = False
    strict_workflows: bool = False
    strict_run_groups: bool = False

    def __setattr__(self, name: str, value: Any) -> None:
        types = _types()
        if name not in types:
            raise AttributeError(f"the local HealthOmics has no setting {name!r}")
        if not _fits(value, types[name]):
            raise ValueError(f"setting {name} does not take {value!r}")
        super().__setattr__(name, value)

    def copy(self) -> Settings:
        """Return the settings as they are now."""
        return dataclasses.replace(self, rate_limits=dict(self.rate_limits))

    def as_dict(self) -> dict[str, Any]:
        """Return every setting by name."""
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
