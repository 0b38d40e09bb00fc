"""What one account has in one Region."""

from __future__ import annotations

import itertools
from bisect import insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from airflow_provider_omics_cache.local.batch import Batch, Submitter, reached
from airflow_provider_omics_cache.local.clock import Clock
from airflow_provider_omics_cache.local.errors import ServiceError
from airflow_provider_omics_cache.local.faults import Faults
from airflow_provider_omics_cache.local.settings import Settings
from airflow_provider_omics_cache.local.start_run_quota import StartRunQuota
from airflow_provider_omics_cache.local.tokens import RequestTokens


class ObjectStore(Protocol):
    """What the service asks of S3. Every method raises ``LookupError`` when there is no such thing."""

    def read(self, account_id: str, uri: str) -> tuple[bytes, str]:
        """Return content and ETag of an object."""

    def etag(self, account_id: str, uri: str) -> str:
        """Return the ETag of an object."""

    def bucket_owner(self, bucket: str) -> str:
        """Return the account of a bucket."""

    def bucket_region(self, account_id: str, bucket: str) -> str:
        """Return the Region of a bucket."""


class SettingChecker(Protocol):
    """Checks one run setting of a settings file."""

    def __call__(self, value: Any, path: str) -> dict[str, Any]:
        """Return the setting; raise a ValidationException."""


@dataclass
class Workflow:
    """A workflow that the service knows.

    :param parameter_template: parameter names with their properties, of which ``optional`` is looked at; None
        takes any parameters.
    """

    parameter_template: dict[str, dict[str, Any]] | None = None


@dataclass
class Surroundings:
    """What every Region shares."""

    clock: Clock
    settings: Settings
    faults: Faults
    object_store: ObjectStore
    check_setting: SettingChecker
    #: Service time of the request that is answered.
    now: float = 0.0
    #: By workflow id; None stands for a deleted workflow.
    workflows: dict[str, Workflow | None] = field(default_factory=dict)
    #: By run group id; False stands for a deleted run group.
    run_groups: dict[str, bool] = field(default_factory=dict)
    #: Ids differ between Regions, so that asking the wrong one finds nothing.
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


class Region:
    """Run caches and batches of one account in one Region."""

    def __init__(self, account_id: str, name: str, partition: str) -> None:
        self.account_id = account_id
        self.name = name
        self.partition = partition
        self.run_caches: dict[int, RunCache] = {}
        self.batches: dict[int, Batch] = {}
        #: How many runs were started and not deleted.
        self.kept_runs = 0
        self.start_run_quota = StartRunQuota()
        self._every_batch: list[Batch] = []
        self._to_begin: list[Batch] = []  # those that will spend from the quota, in the order in which they begin
        self.tokens = RequestTokens()
        self.freed_run_numbers: list[int] = []
        self._used_quota: dict[str, tuple[float, float]] = {}

    def add_batch(self, batch: Batch) -> None:
        """Take a new batch in."""
        self.batches[batch.number] = batch
        self._every_batch.append(batch)
        if batch.start_run_rate is not None:
            insort(self._to_begin, batch, key=lambda batch: batch.submitting_at)

    def every_batch(self) -> Sequence[Batch]:
        """Every batch that may have runs, in the order of their creation: those that were deleted, too."""
        return self._every_batch

    def begin_batches(self, now: float, submitter: Submitter) -> None:
        """Let the batches begin that share the StartRun quota, in their order, whichever is looked at first."""
        while self._to_begin and reached(now, self._to_begin[0].submitting_at):
            self._to_begin.pop(0).begin(now, submitter)

    def free_runs(self, run_numbers: list[int]) -> None:
        """Take note of runs that were deleted."""
        self.freed_run_numbers += run_numbers
        self.kept_runs -= len(run_numbers)

    def arn(self, resource: str) -> str:
        """Return the ARN of a resource such as ``runCache/123``."""
        return f"arn:{self.partition}:omics:{self.name}:{self.account_id}:{resource}"

    def spend_quota(self, operation: str, *, per_second: float, now: float) -> None:
        """Count a call; raise ThrottlingException when there were too many."""
        burst = max(per_second, 1.0)
        left, counted_at = self._used_quota.get(operation, (burst, now))
        left = min(burst, left + (now - counted_at) * per_second)
        if left < 1.0:
            self._used_quota[operation] = (left, now)
            raise ServiceError("ThrottlingException", "Rate exceeded")
        self._used_quota[operation] = (left - 1.0, now)
