"""Judges a schedule by the service's own state.

It shares no code with the package, apart from the local HealthOmics.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from airflow_provider_omics_cache.local.batches import RegionSubmitter
from airflow_provider_omics_cache.local.runs import find_run
from tests.faults.schedule import MOST_LAG
from tests.faults.single_runs import SingleRuns

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics
    from airflow_provider_omics_cache.local.batch import Batch
    from airflow_provider_omics_cache.local.region import Region

#: Errors of the results of a cohort, which ``cohorts.py`` judges.
_JUDGED_BY_COHORT = frozenset({"CohortError", "TooManyFailedSamplesError"})
LIVING = frozenset({"PENDING", "STARTING", "RUNNING", "STOPPING"})
ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "DELETED"})

#: What each invariant demands, by name.
INVARIANTS = {
    "second-cache": "at most one ACTIVE run cache of a name and location is created",
    "wrong-cache": "a run cache task that succeeds returns a run cache that is as asked for",
    "second-group": "at most one run group with the same name is created",
    "wrong-group": "a run group task that succeeds returns a run group that is as asked for",
    "paid-twice": "no sample is started again for the same request while its run is active or has completed",
    "restarted-cancelled": "no batch that was cancelled is started again",
    "wrong-batch": "a task that starts a batch returns the batch that it has started",
    "wrong-mapping": "a mapping of a sensor that succeeds is the service's own",
    "early-submission": "a sensor for submission succeeds only after the last submission",
    "early-completion": "a wait for completion succeeds only after the last run has ended",
    "wrong-counts": "counts and records of runs are the service's own",
    "wrong-output": "a location of outputs in a record of a run is the service's own",
    "living-run": "a cancellation that succeeds leaves no active run",
    "foreign-run": "no run of another batch is cancelled or deleted",
    "unsaved-mapping": "nothing is deleted before the whole mapping is saved",
    "not-deleted": "a deletion that succeeds leaves no run",
    "wrong-results": "the results of a cohort have one record for each sample, with its runs as the service has them",
    "resubmitted-run": "no sample that has a run is selected to be submitted again",
    "hang": "a try ends within its deadline and a fixed bound of service time",
    "raw-error": "a task fails with an error of the package, of Airflow, or of botocore",
    "final-failure": "an error that forbids a retry is true",
    "ignored-failure": "a wait succeeds only if the service has no more failures than are allowed",
    "early-failure": "a wait fails because of failures only if the service has more than are allowed",
    "missed-failure": "with fail_fast a wait ends in the first round that counts more failures than are allowed",
    "unpushed-failure": "a wait that fails fast pushes what is known",
    "false-claim": "an error that ends a wait early says truly whether the batch continues or was cancelled",
    "wrong-cancellation": "cancel_on_failure cancels its own batch only, after more failures than are allowed",
    "secret": "no secret is in a log, an error or an XCom",
}


@dataclass(frozen=True)
class Violation:
    """A broken invariant.

    :param invariant: its name in :data:`INVARIANTS`.
    :param text: what was found.
    """

    invariant: str
    text: str


class Oracle:
    """Reads the state of the service.

    :param local: the service.
    :param choices: choices of the schedule.
    """

    def __init__(self, local: LocalHealthOmics, choices: Mapping[str, Any]) -> None:
        self._local = local
        self.violations: list[Violation] = []
        #: By the number of each batch that a task has started: the request that it belongs to.
        self.request_of: dict[int, str] = {}
        self.single_runs = SingleRuns(lambda: self.region, lambda: self.now, self.found, choices)
        self._cancelled_runs: dict[int, int] = {}

    def found(self, invariant: str, text: str) -> None:
        """Report a violation, once."""
        violation = Violation(invariant, text)
        if violation not in self.violations:
            self.violations.append(violation)

    # The state

    @property
    def region(self) -> Region:
        """The only Region that is used."""
        return self._local._state.region("123456789012", "us-east-1")

    @property
    def submitter(self) -> RegionSubmitter:
        """What a batch needs to proceed."""
        return RegionSubmitter(self.region, self._local._context)

    @property
    def now(self) -> float:
        """Service time."""
        now = self._local._context.now = self._local.clock.elapsed()
        return now

    def batch(self, batch_id: str | int) -> Batch:
        """Return a batch as it is now, deleted or not."""
        self._local._read_files(self.region)
        batch = next(batch for batch in self.region.every_batch() if batch.number == int(batch_id))
        batch.advance(self.now, self.submitter)
        return batch

    def status(self, batch_id: str | int) -> str:
        """Return the status of a batch."""
        return str(self.batch(batch_id).status(self.now))

    def mapping(self, batch_id: str | int) -> dict[str, str]:
        """Return the id of each run that a batch has started, by runSettingId."""
        batch = self.batch(batch_id)
        if batch.runs is None:
            return {}
        return {name: str(number) for name, number in zip(batch.runs.ids, batch.run_numbers, strict=True) if number}

    def run_statuses(self, batch_id: str | int) -> dict[str, str]:
        """Return the status of each started run, by runSettingId."""
        batch = self.batch(batch_id)
        return (
            {}
            if batch.runs is None
            else {batch.runs.ids[index]: str(batch.run_status(index, self.now)) for index in batch._started}
        )

    def counts(self, batch_id: str | int) -> dict[str, int]:
        """Return how many runs of a batch have ended in which way."""
        statuses = list(self.run_statuses(batch_id).values())
        batch = self.batch(batch_id)
        total = batch.total_runs() or 0
        return {
            "total": total,
            **{name: statuses.count(name.upper()) for name in ("completed", "failed", "cancelled", "deleted")},
            "not_submitted": total - len(statuses),
        }

    def failures(self, batch_id: str | int, *, runs: bool) -> int:
        """Return how many runs of a batch were not submitted, and, with ``runs``, have ended without completing."""
        batch = self.batch(batch_id)
        failed = len(batch.submission_failures)
        if batch.cancelled_at is not None or batch.failed_at is not None:
            failed += max(0, (batch.total_runs() or 0) - batch.submitted)
        if runs:
            failed += sum(status in ENDED - {"COMPLETED"} for status in self.run_statuses(batch_id).values())
        return failed

    def seconds_since_submission(self, url: str, run_setting_id: str | None) -> float:
        """Return how long ago a run was submitted; ``url`` is that of a ListRunsInBatch call."""
        batch = self.batch(re.search(r"/runBatch/(\d+)/run", url)[1])  # type: ignore[index]
        assert batch.runs is not None
        index = batch.runs.index_of(run_setting_id or "")
        return MOST_LAG if index is None else self.now - batch.submission_time(index)

    def object_at(self, uri: str) -> bytes | None:
        """Return the content of an object in S3, None if there is none."""
        from airflow_provider_omics_cache.local.moto_backend import read_object

        try:
            return read_object("123456789012", uri)[0]
        except LookupError:
            return None

    # Invariants of single calls

    def started(self, before: set[int], request: str) -> None:
        """Note the batches that a task has started."""
        for number in self.region.batches.keys() - before:
            self.request_of[number] = request

    def created(self) -> None:
        """Check the run caches and run groups after one of them was created."""
        active: dict[tuple[str | None, str], list[str]] = {}
        for cache in self.region.run_caches.values():
            if not cache.deleted:
                active.setdefault((cache.name, cache.location.rstrip("/")), []).append(cache.id)
        for (name, location), ids in active.items():
            if len(ids) > 1:
                self.found("second-cache", f"{len(ids)} run caches {name} at {location}")
        names = Counter(group.name for group in self.region.run_groups.values() if not group.deleted)
        for name, number in names.items():
            if number > 1:
                self.found("second-group", f"{number} run groups {name}")

    def run_of(self, url: str) -> tuple[int, str] | None:
        """Return the batch of the run that CancelRun or DeleteRun is about, and the status of the run."""
        run_id = re.search(r"/run/(\d+)", url)
        assert run_id is not None
        self.now  # noqa: B018 - brings the service's time up to the present
        try:
            batch, index, now = find_run(self.region, self._local._context, run_id[1])
        except Exception:
            return None
        return batch.number, str(batch.run_status(index, now))

    def ended_run(self, operation: str, found: tuple[int, str] | None, batch_id: str) -> None:
        """Check that a run that was cancelled or deleted belongs to the batch."""
        if found is not None and found[0] != int(batch_id):
            self.found("foreign-run", f"{operation} of a run of batch {found[0]} by a task of batch {batch_id}")

    def deleting(self, operation: str, batch_id: str, mapping_uri: str | None) -> None:
        """Check before a deletion that the mapping is saved."""
        if mapping_uri is None:
            return
        content = self.object_at(mapping_uri)
        saved = {} if content is None else _mapping_of(content)
        missing = {name: run for name, run in self.mapping(batch_id).items() if saved.get(name) != run}
        if missing:
            self.found("unsaved-mapping", f"{operation} while {len(missing)} runs are not in {mapping_uri}")

    # Invariants of the whole schedule

    def settle(self) -> None:
        """Let everything that was started run to its end, and check what was started."""
        self._local.clock.advance(7 * 24 * 3600)
        batches = [self.batch(number) for number in self.request_of]
        for first, second in combinations(sorted(batches, key=lambda batch: batch.number), 2):
            request = _owner(self.request_of[first.number])
            if request == _owner(self.request_of[second.number]):
                self._check_pair(first, second, request)
        self.single_runs.settle()
        self.created()

    def _check_pair(self, first: Batch, second: Batch, request: str) -> None:
        if first.cancelled_at is not None and second.created_at > first.cancelled_at:
            count = len(first._cancelled_runs)
            if first.failed_at is None or count:
                text = f"batch {second.number} of {request} was started after batch {first.number} was cancelled"
                self.found("restarted-cancelled", text)
        if first.runs is None or second.runs is None:
            return
        twice = []
        for index in second._started:
            name, at = second.runs.ids[index], second.submission_time(index)
            earlier = first.runs.index_of(name)
            if earlier is None or not first.run_numbers[earlier]:
                continue
            status = str(first.run_status(earlier, max(at, first.submission_time(earlier))))
            if (status in LIVING or status == "COMPLETED") and earlier not in first._cancelled_runs:
                twice.append(name)
        if twice:
            text = f"{len(twice)} runs of {request} in batch {first.number} and again in batch {second.number}"
            self.found("paid-twice", text)

    # Invariants of tasks that succeed

    def is_submitted(self, batch_id: str, mapping: Any, written: bytes | None) -> None:
        """Check the result of BatchSubmissionSensor."""
        batch = self.batch(batch_id)
        if batch.runs is None or batch.submitted < len(batch.runs):
            self.found("early-submission", f"batch {batch_id} has runs left to submit")
        given = mapping if written is None else _mapping_of(written)
        truth = self.mapping(batch_id)
        if given != truth:
            missing, wrong = truth.keys() - given.keys(), given.items() - truth.items()
            self.found("wrong-mapping", f"batch {batch_id}: {len(missing)} missing, {len(wrong)} wrong")

    def is_completed(self, batch_id: str, counts: Any, written: bytes | None) -> None:
        """Check the result of a wait for the end of the runs."""
        living = [name for name, status in self.run_statuses(batch_id).items() if status not in ENDED]
        batch = self.batch(batch_id)
        if living or batch.runs is None or (batch.submitted < len(batch.runs) and batch.cancelled_at is None):
            self.found("early-completion", f"batch {batch_id}: {len(living)} runs are active")
            return
        truth = self.counts(batch_id)
        # A count that the service has not reported is None.
        if counts is not None and {**counts, **{name: truth[name] for name in truth if counts[name] is None}} != truth:
            self.found("wrong-counts", f"batch {batch_id}: {counts}, but {truth}")
        if written is not None:
            self._check_records(batch_id, [json.loads(line) for line in written.splitlines()])

    def _check_records(self, batch_id: str, records: list[dict[str, Any]]) -> None:
        given = {record["run_setting_id"]: (record["run_id"], record["status"]) for record in records}
        statuses, mapping = self.run_statuses(batch_id), self.mapping(batch_id)
        truth = {name: (mapping[name], status) for name, status in statuses.items()}
        wrong = {name for name, run in truth.items() if given.get(name) != run}
        wrong |= {name for name, (run_id, _) in given.items() if run_id and name not in truth}
        batch = self.batch(batch_id)
        places = {
            str(number): f"{batch.merged_setting(index)['outputUri'].rstrip('/')}/{number}/{batch.run_uuid(index)}"
            for index, number in ((index, batch.run_numbers[index]) for index in batch._started)
        }
        for record in records:
            place = places.get(record["run_id"] or "")
            if record["run_output_uri"] not in (None, place):
                self.found("wrong-output", f"batch {batch_id}: {record['run_output_uri']}, not {place}")
        if wrong or len(given) != len(records):
            name = min(wrong, default="")
            self.found("wrong-counts", f"batch {batch_id}: record {name} is {given.get(name)}, not {truth.get(name)}")

    def is_cancelled(self, batch_id: str) -> None:
        """Check that no run of a batch is active."""
        living = {name: status for name, status in self.run_statuses(batch_id).items() if status in LIVING}
        batch = self.batch(batch_id)
        more = batch.failed_at is None and batch.cancelled_at is None and batch.processed_at is None
        if living or more:
            self.found("living-run", f"batch {batch_id} is {self.status(batch_id)}, active runs: {living}")

    def is_deleted(self, batch_id: str, *, batch_too: bool) -> None:
        """Check that no run of a batch is left."""
        left = [name for name, status in self.run_statuses(batch_id).items() if status != "DELETED"]
        if left or (batch_too and int(batch_id) in self.region.batches):
            self.found("not-deleted", f"batch {batch_id}: {len(left)} runs are left")

    def is_cache(self, run_cache_id: str, **wanted: Any) -> None:
        """Check a run cache that a task has returned."""
        cache = self.region.run_caches.get(int(run_cache_id))
        if cache is None:
            self.found("wrong-cache", f"run cache {run_cache_id} does not exist")
            return
        given = {name: getattr(cache, name) for name in wanted}
        if given != wanted:
            self.found("wrong-cache", f"run cache {run_cache_id} is {given}, not {wanted}")

    def is_group(self, run_group_id: str, *, deleted: bool = False, **limits: int) -> None:
        """Check a run group that a task has returned."""
        group = self.region.run_groups.get(int(run_group_id))
        if group is None or group.deleted != deleted or not limits.items() <= group.limits.items():
            self.found("wrong-group", f"run group {run_group_id} is {group}, not {limits}, deleted: {deleted}")

    def select_again(self, batch_id: str, names: list[str]) -> None:
        """Check the settings that are to be submitted again."""
        again = self.mapping(batch_id).keys() & set(names)
        lost = set(self.batch(batch_id).runs.ids if self.batch(batch_id).runs else ()) - set(names)  # type: ignore[union-attr]
        lost -= self.mapping(batch_id).keys()
        if again or lost:
            self.found("resubmitted-run", f"batch {batch_id}: {len(again)} samples have a run, {len(lost)} are lost")

    # Invariants of tasks that fail

    def failed(
        self,
        error: BaseException,
        batch_id: str | None,
        request: str | None,
        kinds: Mapping[str, int],
        run_uuid: str | None = None,
    ) -> None:
        """Check the error of a task.

        :param error: the error.
        :param batch_id: id of the batch that the task is about.
        :param request: the request that the task may have started batches for.
        :param kinds: the faults that have happened, by kind.
        :param run_uuid: uuid of the single run that the task is about.
        """
        names = [cls.__name__ for cls in type(error).__mro__]
        module = type(error).__module__
        if not module.startswith(("airflow.", "airflow_provider_omics_cache.exceptions", "botocore.")):
            self.found("raw-error", f"{module}.{names[0]}: {_first_line(error)}")
            return
        if "AirflowFailException" not in names or names[0] in _JUDGED_BY_COHORT:
            return
        if names[0].startswith("Run") and names[0] != "RunCacheError":
            if not self.single_runs.is_true(error, request, run_uuid, kinds):
                self.found("final-failure", f"{names[0]}: {_first_line(error)}")
            return
        own = [number for number, owner in self.request_of.items() if request is not None and owner == request]
        subjects = [self.batch(number) for number in ([int(batch_id)] if batch_id else own)]
        strange = kinds.get("unknown_status", 0) + kinds.get("old_answer", 0)
        late = (
            kinds.get("batch_visible_after", 0)
            + kinds.get("not_found", 0)
            + kinds.get("alternate", 0)
            + kinds.get("old_answer", 0)
        )
        cancelled = any(batch.cancelled_at is not None or batch._cancelled_runs for batch in subjects)
        status = {str(batch.status(self.now)) for batch in subjects}
        failed_runs = sum(
            count
            for batch in subjects
            for name, count in self.counts(batch.number).items()
            if name not in ("total", "completed")
        )
        is_true = {
            "BatchError": "could not be cancelled" in str(error) and not cancelled,
            "BatchCancelledError": cancelled,
            "BatchFailedError": any(batch.failed_at is not None for batch in subjects),
            "BatchDeletedError": any(batch.deleted_at is not None for batch in subjects),
            "BatchNotFoundError": bool(late) or any(b.number not in self.region.batches for b in subjects),
            "TooManyFailedSubmissionsError": any(batch.submission_failures for batch in subjects) or cancelled,
            "TooManyFailedRunsError": failed_runs > 0,
            "BatchConflictError": bool(strange)
            or (
                batch_id is not None
                and bool(
                    status
                    & {
                        "PROCESSED",
                        "CREATING",
                        "PENDING",
                        "SUBMITTING",
                        "INPROGRESS",
                        "STOPPING",
                        "RUNS_DELETED",
                        "RUNS_DELETING",
                        "RUNS_DELETE_FAILED",
                    }
                )
            ),
        }.get(names[0], False)
        if not is_true:
            self.found("final-failure", f"{names[0]}: {_first_line(error)}")


def _owner(request: str) -> str:
    """Return who must not run a sample twice: a request, or all rounds of a cohort."""
    return request.partition(":")[0]


def _mapping_of(content: bytes) -> dict[str, str]:
    rows = [json.loads(line) for line in content.splitlines()]
    return {row["run_setting_id"]: row["run_id"] for row in rows if row["run_id"]}


def _first_line(error: BaseException) -> str:
    return re.sub(r"\d{6,}", "N", (str(error).splitlines() or [""])[0])[:300]
