"""The state of one account in one Region, and the state that all Regions share."""

from __future__ import annotations

import hashlib
import itertools
import json
from array import array
from bisect import insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_omics_cache.local.assumptions import Settings
from airflow_provider_omics_cache.local.batch import Batch, Submitter, reached
from airflow_provider_omics_cache.local.cache_entries import CacheEntries
from airflow_provider_omics_cache.local.clock import Clock
from airflow_provider_omics_cache.local.course import DEFAULT_TASKS, TaskDefinition
from airflow_provider_omics_cache.local.faults import Faults
from airflow_provider_omics_cache.local.group_queue import GroupQueue
from airflow_provider_omics_cache.local.protocol import ServiceError, has_reserved_key, validation_error
from airflow_provider_omics_cache.local.quotas import CallQuotas, StartRunQuota
from airflow_provider_omics_cache.local.run_of_batch import RunOfBatch
from airflow_provider_omics_cache.local.single_run import SingleRun

#: Maximum number of tags of a resource.
MAX_TAGS = 50


@dataclass
class WorkflowVersion:
    """A version of a workflow, and what a workflow has in common with a version.

    :param parameter_template: parameter names with their properties, of which only ``optional`` is read; None
        accepts any parameters.
    :param profile_templates: parameter templates that replace it, by name of the profile of ``engineSettings``.
    :param shown: further members of the answers, such as ``name`` and ``storageType``.
    :param status: its state; None: ``CREATING`` for some time, then ``ACTIVE``.
    """

    parameter_template: dict[str, dict[str, Any]] | None = None
    profile_templates: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    shown: dict[str, Any] = field(default_factory=dict)
    status: str | None = "ACTIVE"
    created_at: float = 0.0
    tags: dict[str, str] = field(default_factory=dict)


@dataclass
class Workflow(WorkflowVersion):
    """A workflow.

    :param type: ``PRIVATE`` or ``READY2RUN``; None stands for both.
    :param tasks: its tasks, which run one after the other.
    :param versions: its versions by name, in the order of their creation.
    """

    type: str | None = "PRIVATE"
    tasks: Sequence[TaskDefinition] = DEFAULT_TASKS
    versions: dict[str, WorkflowVersion] = field(default_factory=dict)


@dataclass
class Configuration:
    """A configuration of runs.

    :param shown: members of GetConfiguration's answer, without its status and time.
    """

    shown: dict[str, Any]
    created_at: float
    tags: dict[str, str]


@dataclass
class RunGroup:
    """A run group.

    :param limits: ``maxCpus``, ``maxRuns``, ``maxDuration`` (minutes) and ``maxGpus``, as far as they are set.
    """

    id: str
    created_at: float
    name: str | None = None
    limits: dict[str, int] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    queue: GroupQueue = field(default_factory=GroupQueue)
    deleted: bool = False

    def is_limited(self) -> bool:
        """Return whether the number of its active runs is limited."""
        return "maxRuns" in self.limits

    def give_places(self, now: float) -> None:
        """Let the waiting runs begin that have got a place by now."""
        self.queue.give_places(self.limits.get("maxRuns", float("inf")), now)


@dataclass
class ServiceContext:
    """What all accounts and Regions share, and the time of the current request."""

    clock: Clock
    settings: Settings
    faults: Faults
    #: Returns one checked run setting of a settings file, or raises a ValidationException that names the path.
    check_setting: Callable[[Any, str], dict[str, Any]]
    #: Service time of the current request.
    now: float = 0.0
    #: By workflow id; None for a deleted workflow.
    workflows: dict[str, Workflow | None] = field(default_factory=dict)
    #: By run group id; False for a deleted run group.
    run_groups: dict[str, bool] = field(default_factory=dict)
    #: Ids are unique across Regions, so that a request to the wrong Region finds nothing.
    ids: Iterator[int] = field(default_factory=lambda: itertools.count(1_000_001))


@dataclass
class RunCache:
    """A run cache.

    :param location: ``cacheS3Location``, as CreateRunCache got it.
    :param uri: ``cacheS3Uri``, which is below the location.
    """

    id: str
    arn: str
    location: str
    uri: str
    behavior: str
    created_at: float
    tags: dict[str, str]
    entries: CacheEntries
    name: str | None = None
    description: str | None = None
    bucket_owner_id: str | None = None
    deleted: bool = False


@dataclass(frozen=True)
class _Remembered:
    digest: str
    answer: dict[str, Any]
    until: float


class RequestTokens:
    """The answers given to each idempotency token (``requestId``) of the create and start operations."""

    def __init__(self) -> None:
        self._remembered: dict[tuple[str, str], _Remembered] = {}

    def find(
        self, operation: str, parameters: dict[str, Any], *, now: float, settings: Settings
    ) -> dict[str, Any] | None:
        """Return the answer to the same earlier request, or None if there was none or its token has expired."""
        remembered = self._remembered.get((operation, parameters["requestId"]))
        if remembered is None or now >= remembered.until:
            return None
        if remembered.digest != _digest(parameters) and settings.changed_request_error is not None:
            raise ServiceError(settings.changed_request_error, "The requestId was used before, for another request")
        return dict(remembered.answer)

    def remember(
        self,
        operation: str,
        parameters: dict[str, Any],
        answer: dict[str, Any],
        *,
        now: float,
        settings: Settings,
    ) -> None:
        """Store an answer for ``settings.token_seconds``."""
        self._remembered[operation, parameters["requestId"]] = _Remembered(
            _digest(parameters), dict(answer), now + settings.token_seconds
        )

    def id_of(self, operation: str, request_id: str) -> int | None:
        """Return the id in the answer to the first request with this token, None if the token is not known."""
        remembered = self._remembered.get((operation, request_id))
        return None if remembered is None else int(remembered.answer["id"])

    def release(self, operation: str, request_id: str) -> None:
        """Remove one token."""
        self._remembered.pop((operation, request_id), None)

    def forget(self) -> None:
        """Remove every token."""
        self._remembered.clear()


def _digest(parameters: dict[str, Any]) -> str:
    request = {name: value for name, value in parameters.items() if name != "requestId"}
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


class Region:
    """Run caches, batches, runs, run groups, quotas and request tokens of one account in one Region."""

    def __init__(self, account_id: str, name: str, partition: str) -> None:
        self.account_id = account_id
        self.name = name
        self.partition = partition
        self.run_caches: dict[int, RunCache] = {}
        self.batches: dict[int, Batch] = {}
        #: Runs that StartRun started, until they are deleted.
        self.single_runs: dict[int, SingleRun] = {}
        #: Runs that the current request deleted, until they are announced.
        self.deleted_runs: list[SingleRun | RunOfBatch] = []
        #: Single runs that had not ended at the latest request.
        self.active_runs: dict[int, SingleRun] = {}
        self.run_groups: dict[int, RunGroup] = {}
        #: Workflows that CreateWorkflow created, until they are deleted.
        self.workflows: dict[int, Workflow] = {}
        self.configurations: dict[str, Configuration] = {}
        #: Batches with a run cache or a run group. Other runs may depend on their runs, so every request advances them.
        self.eager_batches: list[Batch] = []
        self.tokens = RequestTokens()
        self.call_quotas = CallQuotas()
        self.start_run_quota = StartRunQuota()
        #: Number of runs that were started and not deleted.
        self.kept_runs = 0
        #: Ids of deleted runs, which ``settings.reuse_run_ids`` gives to new runs.
        self.freed_run_numbers = array("Q")
        #: Number of states that were announced, by kind and id.
        self.announced: dict[tuple[str, int], int] = {}
        self._advanced_to = float("-inf")
        self._files_to_read: list[Batch] = []  # batches whose settings file was not read yet
        self._every_batch: list[Batch] = []
        self._to_begin: list[Batch] = []  # batches that will share the StartRun quota, sorted by when they begin

    def add_batch(self, batch: Batch) -> None:
        """Add a new batch."""
        self.batches[batch.number] = batch
        self._every_batch.append(batch)
        if "cacheId" in batch.default or "runGroupId" in batch.default:
            self.eager_batches.append(batch)
        if batch.settings_uri is not None:
            self._files_to_read.append(batch)
        if batch.start_run_rate is not None:
            insort(self._to_begin, batch, key=lambda batch: batch.submitting_at)

    def remove_batch(self, batch: Batch) -> None:
        """Remove a batch. Its runs stay."""
        del self.batches[batch.number]
        self.free_removed_batches()

    def free_removed_batches(self) -> None:
        """Free the memory of the batches that were removed and whose runs were all deleted."""
        self._every_batch = [batch for batch in self._every_batch if batch.number in self.batches or batch.has_runs]

    def take_files_to_read(self, now: float) -> list[Batch]:
        """Return the batches whose settings file must be read now. Each batch is returned once."""
        due = [batch for batch in self._files_to_read if reached(now, batch.submitting_at)]
        if due:
            self._files_to_read = [batch for batch in self._files_to_read if batch not in due]
        return due

    def every_batch(self) -> Sequence[Batch]:
        """Return every batch that may have runs, deleted batches included, in the order of their creation."""
        return self._every_batch

    def add_run(self, run: SingleRun) -> None:
        """Add a new single run."""
        self.single_runs[run.number] = self.active_runs[run.number] = run

    def begin_batches(self, now: float, submitter: Submitter) -> None:
        """Begin every due batch that shares the StartRun quota, in the order of time."""
        waiting = []
        while self._to_begin and reached(now, self._to_begin[0].submitting_at):
            batch = self._to_begin.pop(0)
            batch.begin(now, submitter)
            if batch.waits_for_file:
                waiting.append(batch)
        self._to_begin[:0] = waiting

    def fail_single_runs(self, now: float, reasons: Mapping[str, str]) -> None:
        """Make single runs fail.

        :param now: the present time.
        :param reasons: failureReason by name of the run.
        """
        since, self._advanced_to = self._advanced_to, now
        for run in self.active_runs.values() if reasons else ():
            reason = reasons.get(run.setting().get("name", ""))
            if reason is not None:
                run.fail(since, reason)

    def free_runs(self, run_numbers: list[int]) -> None:
        """Register that runs were deleted."""
        self.freed_run_numbers.extend(run_numbers)
        self.kept_runs -= len(run_numbers)

    def arn(self, resource: str) -> str:
        """Return the ARN of a resource such as ``runCache/123``."""
        return f"arn:{self.partition}:omics:{self.name}:{self.account_id}:{resource}"


def check_tags(tags: dict[str, str]) -> None:
    """Raise a ValidationException for tags that no resource can have."""
    if len(tags) > MAX_TAGS:
        raise validation_error(f"A resource has at most {MAX_TAGS} tags; there were {len(tags)}")
    if has_reserved_key(tags):
        raise validation_error("Tag keys that start with aws: are reserved")
