"""The state of one account in one Region, and the state that all Regions share."""

from __future__ import annotations

import hashlib
import itertools
import json
from bisect import insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_omics_cache.local.assumptions import Settings
from airflow_provider_omics_cache.local.batch import Batch, Submitter, reached
from airflow_provider_omics_cache.local.clock import Clock
from airflow_provider_omics_cache.local.course import DEFAULT_TASKS, TaskDefinition
from airflow_provider_omics_cache.local.faults import Faults
from airflow_provider_omics_cache.local.protocol import ServiceError, validation_error
from airflow_provider_omics_cache.local.quotas import CallQuotas, StartRunQuota
from airflow_provider_omics_cache.local.single_run import SingleRun

_MAX_TAGS = 50


@dataclass
class Workflow:
    """A workflow.

    :param parameter_template: parameter names with their properties, of which only ``optional`` is read; None
        accepts any parameters.
    :param type: ``PRIVATE`` or ``READY2RUN``; None stands for both.
    :param name: its name.
    :param created_at: when it was created.
    :param tasks: its tasks, which run one after the other.
    """

    parameter_template: dict[str, dict[str, Any]] | None = None
    type: str | None = "PRIVATE"
    name: str | None = None
    created_at: float = 0.0
    tasks: Sequence[TaskDefinition] = DEFAULT_TASKS


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
    deleted: bool = False


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
    """A run cache."""

    id: str
    arn: str
    location: str
    uuid: str
    behavior: str
    created_at: float
    tags: dict[str, str]
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
        self.run_groups: dict[int, RunGroup] = {}
        self.tokens = RequestTokens()
        self.call_quotas = CallQuotas()
        self.start_run_quota = StartRunQuota()
        #: Number of runs that were started and not deleted.
        self.kept_runs = 0
        #: Ids of deleted runs, which ``settings.reuse_run_ids`` gives to new runs.
        self.freed_run_numbers: list[int] = []
        self._advanced_to = float("-inf")
        self._every_batch: list[Batch] = []
        self._to_begin: list[Batch] = []  # batches that will share the StartRun quota, sorted by when they begin

    def add_batch(self, batch: Batch) -> None:
        """Add a new batch."""
        self.batches[batch.number] = batch
        self._every_batch.append(batch)
        if batch.start_run_rate is not None:
            insort(self._to_begin, batch, key=lambda batch: batch.submitting_at)

    def every_batch(self) -> Sequence[Batch]:
        """Return every batch that may have runs, deleted batches included, in the order of their creation."""
        return self._every_batch

    def begin_batches(self, now: float, submitter: Submitter) -> None:
        """Begin every due batch that shares the StartRun quota, in the order of time."""
        while self._to_begin and reached(now, self._to_begin[0].submitting_at):
            self._to_begin.pop(0).begin(now, submitter)

    def fail_single_runs(self, now: float, reasons: Mapping[str, str]) -> None:
        """Make single runs fail.

        :param now: the present time.
        :param reasons: failureReason by name of the run.
        """
        since, self._advanced_to = self._advanced_to, now
        for run in self.single_runs.values() if reasons else ():
            reason = reasons.get(run.setting().get("name", ""))
            if reason is not None:
                run.fail(since, reason)

    def free_runs(self, run_numbers: list[int]) -> None:
        """Register that runs were deleted."""
        self.freed_run_numbers += run_numbers
        self.kept_runs -= len(run_numbers)

    def arn(self, resource: str) -> str:
        """Return the ARN of a resource such as ``runCache/123``."""
        return f"arn:{self.partition}:omics:{self.name}:{self.account_id}:{resource}"


def check_tags(tags: dict[str, str]) -> None:
    """Raise a ValidationException for tags that no resource can have."""
    if len(tags) > _MAX_TAGS:
        raise validation_error(f"A resource has at most {_MAX_TAGS} tags; there were {len(tags)}")
    if any(key.lower().startswith("aws:") for key in tags):
        raise validation_error("Tag keys that start with aws: are reserved")
