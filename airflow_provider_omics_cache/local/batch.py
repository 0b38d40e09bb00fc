"""One batch and its runs: states, times and counts, computed from the time that has passed.

Nothing runs in the background: every request calls :meth:`Batch.advance`, which brings the batch up to the present
time. Submission times follow from the submission rates, and a run's state follows from the time since its submission.
Counting 100,000 runs therefore takes a few bisections.
"""

from __future__ import annotations

import functools
import json
import logging
import zlib
from array import array
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Protocol

from airflow_provider_omics_cache.healthomics.states import BatchStatus, RunStatus, SubmissionStatus
from airflow_provider_omics_cache.local.assumptions import Settings
from airflow_provider_omics_cache.local.course import Course, TaskDefinition
from airflow_provider_omics_cache.local.faults import Faults
from airflow_provider_omics_cache.local.protocol import ServiceError, derived_uuid, dump_json, has_reserved_key
from airflow_provider_omics_cache.local.quotas import StartRunShare

log = logging.getLogger(__name__)

# A run's submission outcome is stored in one byte: its index in this list.
_OUTCOMES: list[SubmissionStatus | None] = [None, *SubmissionStatus]
_CODES = {outcome: code for code, outcome in enumerate(_OUTCOMES)}
_SUCCESS = _CODES[SubmissionStatus.SUCCESS]
_FAILED = _CODES[SubmissionStatus.FAILED]
_CANCEL_SUCCESS = _CODES[SubmissionStatus.CANCEL_SUCCESS]
_CANCEL_FAILED = _CODES[SubmissionStatus.CANCEL_FAILED]
_DELETE_SUCCESS = _CODES[SubmissionStatus.DELETE_SUCCESS]
_DELETE_FAILED = _CODES[SubmissionStatus.DELETE_FAILED]

# Times are sums of floats. Everything that is due within a microsecond counts as due now.
_TOLERANCE = 1e-6

# Untouched runs, failing runs, end times of the cancelled runs, number of deleted runs: see Batch.__init__.
_RunGroups = tuple["array[int]", list[int], list[float], int]

_STATES_BY_AGE = (RunStatus.PENDING, RunStatus.STARTING, RunStatus.RUNNING, RunStatus.STOPPING)
FINISHED_RUN_STATES = frozenset({RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED})

# Number of run settings that are compressed together.
_BLOCK = 100


class RunOverrides:
    """The per-run settings of a batch in their given order, compressed: a batch has up to 100,000 of them.

    ``ids`` lists their runSettingIds, ``longest`` is the size in bytes of the largest setting, ``most_tags`` is the
    largest number of a setting's own runTags, ``have_reserved_tags`` is whether a key of them starts with ``aws:``, and
    ``have_output_uris`` is whether a setting has its own outputUri.

    :param settings: the run settings.
    """

    def __init__(self, settings: Iterable[dict[str, Any]]) -> None:
        self.ids: list[str] = []
        self.longest = 0
        self.most_tags = 0
        self.have_reserved_tags = False
        self.have_output_uris = False
        self._blocks: list[bytes] = []
        remaining = iter(settings)
        while block := list(islice(remaining, _BLOCK)):
            self.ids += [setting["runSettingId"] for setting in block]
            self.have_output_uris = self.have_output_uris or any("outputUri" in setting for setting in block)
            tags = [setting["runTags"] for setting in block if "runTags" in setting]
            self.most_tags = max([self.most_tags, *map(len, tags)])
            self.have_reserved_tags = self.have_reserved_tags or any(has_reserved_key(own) for own in tags)
            lines = [
                dump_json({name: value for name, value in setting.items() if name != "runSettingId"})
                for setting in block
            ]
            self.longest = max(self.longest, *map(len, lines))
            self._blocks.append(zlib.compress(b"\n".join(lines), 1))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the setting of run number ``index`` without its runSettingId."""
        block, place = divmod(index, _BLOCK)
        settings: dict[str, Any] = json.loads(_lines(self._blocks[block])[place])
        return settings

    def index_of(self, run_setting_id: str) -> int | None:
        """Return the number of the run with this runSettingId, None if no run has it."""
        try:
            return self.ids.index(run_setting_id)
        except ValueError:
            return None


@functools.lru_cache(maxsize=4)
def _lines(block: bytes) -> list[bytes]:
    return zlib.decompress(block).split(b"\n")


class Submitter(Protocol):
    """What a batch needs from the service to submit its runs."""

    faults: Faults

    def load_settings(self, batch: Batch) -> RunOverrides:
        """Return the checked run settings.

        :raises ServiceError: the settings are not valid. Its message is the batch's failureReason.
        """

    def failure_of_all(self, batch: Batch) -> tuple[str, str] | None:
        """Return reason and message if no run of the batch can be submitted, else None."""

    def failure_of_run(self, batch: Batch, index: int) -> tuple[str, str] | None:
        """Return reason and message if this run cannot be submitted, else None."""

    def failure_of_export(self, batch: Batch, index: int) -> tuple[str, str] | None:
        """Return failureReason and statusMessage if the outputs of this run cannot be written, else None."""

    def course_of(self, batch: Batch, index: int) -> Course | None:
        """Return the course of a run that is submitted; None if its times are those of the settings."""

    def new_run_number(self) -> int:
        """Return an id for a new run."""

    def share_start_runs(self, runs: int, *, at: float, per_second: float) -> StartRunShare:
        """Return the share of the Region's StartRun quota for a batch that begins to submit."""


class Batch:
    """A batch.

    Runs are numbered from 0, in the order of their settings. All times are seconds of service time.

    :param number: id of the batch.
    :param uuid: uuid of the batch.
    :param request: the parameters of StartRunBatch.
    :param etag: ETag of the settings file, None for inline settings.
    :param created_at: time of StartRunBatch.
    :param settings: the service's settings; the batch keeps a copy.
    """

    def __init__(
        self,
        *,
        number: int,
        uuid: str,
        request: dict[str, Any],
        etag: str | None,
        created_at: float,
        settings: Settings,
    ) -> None:
        self.number = number
        self.uuid = uuid
        self.name: str | None = request.get("batchName")
        self.tags: dict[str, str] = dict(request.get("tags", {}))
        self.default: dict[str, Any] = request["defaultRunSetting"]
        source = request["batchRunSettings"]
        self.inline_settings: list[dict[str, Any]] | None = source.get("inlineSettings")
        self.settings_uri: str | None = source.get("s3UriSettings")
        self.settings_etag = etag
        #: The runs of the settings file, or the error that occurred when it was read. None before the file is read, and
        #: after the batch has used it. The service reads the file before it locks its state.
        self.file_content: RunOverrides | Exception | None = None
        self.settings = settings.copy()
        self.created_at = created_at
        self.pending_at = created_at + settings.creating_seconds
        self.submitting_at = self.pending_at + settings.pending_seconds
        self.runs: RunOverrides | None = None
        self.failed_at: float | None = None
        self.failure_reason: str | None = None
        #: Whether the same request can succeed after the failure.
        self.failure_is_transient = False
        self.cancelled_at: float | None = None
        self.deleted_at: float | None = None
        self.submitted = 0
        self.run_numbers = array("Q")
        self.run_indexes: dict[int, int] = {}
        self.submission_failures: dict[int, tuple[str, str]] = {}
        #: failureReason and statusMessage of the runs that fail, by run number.
        self.run_failures: dict[int, tuple[str, str]] = {}
        #: Tags of runs, by run number, once a tag operation has used them. Other runs have the tags of their settings.
        self.run_tags: dict[int, dict[str, str]] = {}
        self._default_parameters_bytes = len(dump_json(self.default.get("parameters", {})))
        self._outcomes = bytearray()
        self._outcome_counts = [0] * len(_OUTCOMES)
        self._started = array("I")  # runs that were started
        self._untouched = array("I")  # started runs that were neither cancelled nor deleted
        self._failing: list[int] = []  # untouched runs that end FAILED
        # Runs whose times are not those of the settings, for example because they found tasks in the run cache or are
        # in a run group. They are neither in _untouched nor in _cancelled_runs.
        self._courses: dict[int, Course] = {}
        self._cancelled_runs: dict[int, float] = {}  # cancelled runs, with the time at which each has stopped
        self._cancelled_ends: list[float] = []  # these times, sorted
        self._cancelled_at: dict[int, float] = {}  # when these runs were cancelled
        self._cancelled_by_batch = 0
        self._uncancelled_by_batch = 0
        self._deleted_runs: set[int] = set()
        self._changes: list[tuple[float, _RunGroups]] = []  # the groups before the batch was cancelled or deleted
        self._known_faults: dict[str, int | None] = {}
        self._processed_at: float | None = None
        self._advanced_to = float("-inf")
        self._share: StartRunShare | None = None
        # Indexes into _started: runs before the first index have ended, runs before the second were reported.
        self._held_back_to = 0
        self._exported_to = 0  # runs before this index have ended, and their run cache has their entries
        self._reported_to = 0
        # No run that is not yet held back ends before this time.
        self._no_end_before = self.submitting_at + self._ages()[-1]

    # Progress with time

    def advance(self, now: float, submitter: Submitter) -> None:
        """Apply everything that was due until ``now``."""
        with self._failing_on_error(now):
            self._advance(now, submitter)

    def begin(self, now: float, submitter: Submitter) -> None:
        """Load the run settings if the batch has left PENDING by ``now``."""
        with self._failing_on_error(now):
            self._begin(now, submitter)

    @contextmanager
    def _failing_on_error(self, now: float) -> Iterator[None]:
        """Make the batch fail if the local HealthOmics itself raises an error. Other batches can still be used."""
        try:
            yield
        except Exception:
            log.exception("The local HealthOmics failed in batch %s", self.number)
            self._fail(now, "The local HealthOmics failed in this batch; see the error in its log")

    def _advance(self, now: float, submitter: Submitter) -> None:
        self._begin(now, submitter)
        if self.runs is not None and self.failed_at is None and self.cancelled_at is None:
            self._submit_until(self.runs, now, submitter)
        self._mark_failing(submitter.faults)
        processed_at = self.processed_at
        if processed_at is not None and reached(now, processed_at):
            self._processed_at = processed_at
        self._advanced_to = now

    def _begin(self, now: float, submitter: Submitter) -> None:
        if self.runs is not None or self.failed_at is not None or self.cancelled_at is not None:
            return
        faults = submitter.faults
        for after, due_at in (("CREATING", self.pending_at), ("PENDING", self.submitting_at)):
            if not reached(now, due_at):
                return
            fault = faults.batch_failure(self.name, after)
            if fault is not None and not reached(self._advanced_to, due_at):
                faults.use_batch_failure(fault)
                self._fail(due_at, fault.reason, is_transient=True)
                return
        if self.waits_for_file:
            return
        try:
            self.runs = self._allocate(self._loaded(submitter))
        except ServiceError as error:
            self._fail(self.submitting_at, error.message)
            return
        per_second = self.start_run_rate
        if per_second is not None:
            self._share = submitter.share_start_runs(len(self.runs), at=self.submitting_at, per_second=per_second)

    def _loaded(self, submitter: Submitter) -> RunOverrides:
        if self.settings_uri is None:
            return submitter.load_settings(self)
        content, self.file_content = self.file_content, None
        assert content is not None
        if isinstance(content, Exception):
            raise content
        return content

    @property
    def waits_for_file(self) -> bool:
        """Whether the batch must wait until its settings file is read."""
        is_over = self.failed_at is not None or self.cancelled_at is not None
        return self.settings_uri is not None and self.runs is None and self.file_content is None and not is_over

    @property
    def start_run_rate(self) -> float | None:
        """Runs per second that all batches of the Region together may submit; None for no limit."""
        per_second = self.settings.rate_limits.get("StartRun")
        return None if per_second == float("inf") else per_second

    def _submit_until(self, runs: RunOverrides, now: float, submitter: Submitter) -> None:
        due = self._due(now)
        if self.submitted == len(runs):
            return
        faults = submitter.faults
        fault = faults.batch_failure(self.name, "SUBMITTING")
        failure_of_all = submitter.failure_of_all(self)
        while True:
            if fault is not None and len(self._started) >= fault.started_runs:
                faults.use_batch_failure(fault)
                failed_at = self.submission_time(self.submitted - 1) if self.submitted else self.submitting_at
                self._fail(failed_at, fault.reason, is_transient=True)
                return
            if self.submitted >= due:
                return
            self._submit(self.submitted, submitter, failure_of_all)
            self.submitted += 1

    def _allocate(self, runs: RunOverrides) -> RunOverrides:
        """Reserve memory for the state of each run; return the runs."""
        self.inline_settings = None
        self._outcomes = bytearray(len(runs))
        self.run_numbers = array("Q", bytes(8 * len(runs)))
        return runs

    def _submit(self, index: int, submitter: Submitter, failure_of_all: tuple[str, str] | None) -> None:
        assert self.runs is not None
        failure = (
            submitter.faults.submission_failure(self.runs.ids[index])
            or failure_of_all
            or submitter.failure_of_run(self, index)
        )
        if failure is not None:
            self.submission_failures[index] = failure
            self._set_outcome(index, _FAILED)
            return
        number = submitter.new_run_number()
        self.run_numbers[index] = number
        self.run_indexes[number] = index
        self._started.append(index)
        self._set_outcome(index, _SUCCESS)
        course = submitter.course_of(self, index)
        export_failure = submitter.failure_of_export(self, index)
        if course is not None:
            self._courses[index] = course
            if export_failure is not None and course.failure is None:
                course.failure = export_failure
            return
        self._untouched.append(index)
        if export_failure is not None:
            self.run_failures[index] = export_failure
            insort(self._failing, index)

    def _fail(self, failed_at: float, reason: str, *, is_transient: bool = False) -> None:
        self.failed_at = failed_at
        self.failure_reason = reason
        self.failure_is_transient = is_transient

    @property
    def can_start_again(self) -> bool:
        """Whether the batch failed before it started a run, and the same request can succeed."""
        return self.failed_at is not None and self.failure_is_transient and not self._started

    def _mark_failing(self, faults: Faults) -> None:
        reasons = faults.run_failures()
        if not reasons or self.runs is None:
            return
        for run_setting_id, reason in reasons.items():
            if run_setting_id not in self._known_faults:
                self._known_faults[run_setting_id] = self.runs.index_of(run_setting_id)
            index = self._known_faults[run_setting_id]
            if index is not None and index in self._courses and not self._courses[index].has_ended(self._advanced_to):
                self._courses[index].fail((reason, f"The run failed on demand: {reason}"))
            if index is None or index in self.run_failures or not self._is_untouched(index):
                continue
            if self.end_time(index) > self._advanced_to:
                self.run_failures[index] = reason, f"The run failed on demand: {reason}"
                insort(self._failing, index)

    # Times

    def _due(self, at: float) -> int:
        """Return how many runs the rates allow to submit until this time."""
        total = 0 if self.runs is None else len(self.runs)
        passed = at - self.submitting_at + _TOLERANCE
        if passed < 0:
            return 0
        if self.settings.submission_rate != float("inf"):
            total = min(total, int(passed * self.settings.submission_rate))
        if self._share is not None:
            total = min(total, self._share.runs_by(at + _TOLERANCE))
        return total

    def submission_time(self, index: int) -> float:
        """Return when this run was or will be submitted."""
        alone = self.submitting_at + (index + 1) / self.settings.submission_rate
        return alone if self._share is None else max(alone, self._share.time_of(index + 1))

    def start_time(self, index: int) -> float:
        """Return when this run became or will become RUNNING."""
        settings = self.settings
        if index in self._courses:
            return self._courses[index].started_at
        return self.submission_time(index) + settings.run_pending_seconds + settings.run_starting_seconds

    def end_time(self, index: int) -> float:
        """Return when this run ended or will end; infinity while that is unknown."""
        if index in self._courses:
            return self._courses[index].ended_at
        if index in self._cancelled_runs:
            return self._cancelled_runs[index]
        return self.submission_time(index) + self._ages()[-1]

    def _ages(self) -> tuple[float, float, float, float]:
        """Return the seconds from submission until a run is STARTING, RUNNING, STOPPING and finished."""
        settings = self.settings
        starting = settings.run_pending_seconds
        running = starting + settings.run_starting_seconds
        stopping = running + settings.run_running_seconds
        return starting, running, stopping, stopping + settings.run_stopping_seconds

    @property
    def submitted_at(self) -> float | None:
        """Return when the last submission was attempted; None before that."""
        if self.runs is None or self.submitted < len(self.runs):
            return None
        return self.submission_time(len(self.runs) - 1)

    @property
    def processed_at(self) -> float | None:
        """Return when the last run ended or will end.

        None while runs are left to submit, and for a batch that failed or was cancelled before.
        """
        if self._processed_at is not None:
            return self._processed_at
        submitted_at = self.submitted_at
        if submitted_at is None or self.cancelled_at is not None or self.failed_at is not None:
            return None
        if not self._started:
            return submitted_at + self.settings.seconds_in_progress_without_runs
        return max(submitted_at, self._last_end())

    def _last_end(self) -> float:
        """Return when the last run that was not deleted ends."""
        ends = [self.end_time(index) for index in self._untouched[-1:]] + self._cancelled_ends[-1:]
        own_ends = (course.ended_at for course in self._courses.values() if not course.deleted)
        return max(max(ends, default=0.0), max(own_ends, default=0.0))

    # States

    def status(self, now: float) -> BatchStatus:
        """Return the state of the batch."""
        if self.failed_at is not None:
            return BatchStatus.FAILED
        if self.deleted_at is not None:
            if not reached(now, self.deleted_at + self.settings.delete_seconds):
                return BatchStatus.RUNS_DELETING
            failed = self._outcome_counts[_DELETE_FAILED]
            return BatchStatus.RUNS_DELETE_FAILED if failed else BatchStatus.RUNS_DELETED
        if self.cancelled_at is not None:
            stopped = reached(now, self.cancelled_at + self.settings.cancel_seconds)
            return BatchStatus.CANCELLED if stopped else BatchStatus.STOPPING
        if not reached(now, self.pending_at):
            return BatchStatus.CREATING
        if not reached(now, self.submitting_at) or self.waits_for_file:
            return BatchStatus.PENDING
        processed_at = self.processed_at
        if processed_at is None:
            return BatchStatus.SUBMITTING
        processed = reached(now, processed_at) and not self.holds_back()
        return BatchStatus.PROCESSED if processed else BatchStatus.INPROGRESS

    def states_until(self, now: float) -> list[tuple[float, BatchStatus]]:
        """Return the states that the batch has had, with the time at which each began."""
        settings, infinite = self.settings, float("inf")
        submitted_at, processed_at = self.submitted_at, self.processed_at
        states = [
            (self.created_at, BatchStatus.CREATING),
            (self.pending_at, BatchStatus.PENDING),
            (self.submitting_at, BatchStatus.SUBMITTING),
            (infinite if submitted_at is None else submitted_at, BatchStatus.INPROGRESS),
            (infinite if processed_at is None else processed_at, BatchStatus.PROCESSED),
        ]
        if self.failed_at is not None:
            states = [(at, status) for at, status in states if at < self.failed_at]
            states.append((self.failed_at, BatchStatus.FAILED))
        elif self.cancelled_at is not None:
            states = [(at, status) for at, status in states if at <= self.cancelled_at]
            states.append((self.cancelled_at, BatchStatus.STOPPING))
            states.append((self.cancelled_at + settings.cancel_seconds, BatchStatus.CANCELLED))
        if self.deleted_at is not None:
            states.append((self.deleted_at, BatchStatus.RUNS_DELETING))
            deleted = self.status(self.deleted_at + settings.delete_seconds)
            states.append((self.deleted_at + settings.delete_seconds, deleted))
        return [(at, status) for at, status in states if reached(now, at)]

    def started_runs(self) -> Sequence[int]:
        """Return the runs that were started, in the order of their submission."""
        return self._started

    def run_status(self, index: int, now: float) -> RunStatus:
        """Return the state of a started run."""
        if index in self._deleted_runs or self._outcomes[index] == _DELETE_SUCCESS:
            return RunStatus.DELETED
        if index in self._courses:
            status = self._courses[index].status(now)
            held_back = status == RunStatus.COMPLETED and self._is_held_back(index)
            return RunStatus.STOPPING if held_back else status
        if index in self._cancelled_runs:
            stopped = reached(now, self._cancelled_runs[index])
            return RunStatus.CANCELLED if stopped else RunStatus.STOPPING
        for status, until in zip(_STATES_BY_AGE, self._ages(), strict=True):
            if index >= self._due(now - until):
                return status
        if index in self.run_failures:
            return RunStatus.FAILED
        return RunStatus.STOPPING if self._is_held_back(index) else RunStatus.COMPLETED

    def runs_to_list(self, status: str | None, now: float) -> Sequence[int]:
        """Return the started runs, in order, that may be in the given state; None returns all started runs.

        The result leaves out most runs in other states, so that the caller checks few runs.
        """
        if status is None:
            return self._started
        runs = self._regular_runs_to_list(status, now)
        own = [index for index in self._courses if self.run_status(index, now) == status]
        return sorted({*runs, *own}) if own else runs

    def _regular_runs_to_list(self, status: str, now: float) -> Sequence[int]:
        if status == RunStatus.FAILED:
            return self._failing
        if status == RunStatus.CANCELLED:
            return sorted(self._cancelled_runs)
        if status == RunStatus.COMPLETED:
            return self._untouched[: self._reached_ages(self._untouched, now)[-1]]
        if status not in _STATES_BY_AGE:
            return []
        ages = self._reached_ages(self._untouched, now)
        place = _STATES_BY_AGE.index(status)
        runs = self._untouched[ages[place + 1] : ages[place]]
        if status == RunStatus.STOPPING:
            return sorted({*runs, *self._cancelled_runs, *self._started[self._reported_to : self._held_back_to]})
        return runs

    def parameters_fit(self, limit: int) -> bool:
        """Return whether the merged parameters of every run certainly have at most ``limit`` bytes."""
        if self.runs is None:
            return True
        return self._default_parameters_bytes + self.runs.longest <= limit

    def run_tags_fit(self, limit: int) -> bool:
        """Return whether every run certainly has at most ``limit`` tags and no reserved one."""
        if self.runs is None:
            return True
        return len(self.default.get("runTags", {})) + self.runs.most_tags <= limit and not self.runs.have_reserved_tags

    def merged_setting(self, index: int) -> dict[str, Any]:
        """Return the default setting updated with the run's own; parameters and tags are replaced, not merged."""
        assert self.runs is not None
        return {**self.default, **self.runs[index]}

    def tags_of_run(self, index: int) -> dict[str, str]:
        """Return the tags of a run."""
        assert self.runs is not None
        if index in self.run_tags:
            return self.run_tags[index]
        return {**self.default.get("runTags", {}), **self.runs[index].get("runTags", {})}

    def outcome(self, index: int) -> SubmissionStatus | None:
        """Return the submission outcome of a run; None before its submission."""
        return _OUTCOMES[self._outcomes[index]]

    @property
    def has_runs(self) -> bool:
        """Whether the batch has started a run that was not deleted."""
        return len(self._started) > len(self._deleted_runs) + self._outcome_counts[_DELETE_SUCCESS]

    def was_started(self, index: int) -> bool:
        """Return whether the run has an id."""
        return self.run_numbers[index] != 0

    def uses_cache(self, run_cache_id: str, now: float) -> bool:
        """Return whether a run that has not ended uses the run cache."""
        if self.default.get("cacheId") != run_cache_id:
            return False
        return not reached(now, self._last_end())

    # Counts

    def total_runs(self) -> int | None:
        """Return the number of runs of the batch; None while it is unknown."""
        if self.runs is not None:
            return len(self.runs)
        if self.settings.counts_before_submitting and self.inline_settings is not None:
            return len(self.inline_settings) if self.failed_at is None else None
        return None

    def submission_summary(self, at: float) -> dict[str, int]:
        """Return the counts of submissions at this time."""
        attempted = min(self._due(at), self.submitted)
        started = bisect_left(self._started, attempted)
        summary = {
            "successfulStartSubmissionCount": started,
            "failedStartSubmissionCount": attempted - started,
            "pendingStartSubmissionCount": (self.total_runs() or 0) - attempted,
        }
        if self.cancelled_at is not None and self.cancelled_at <= at:
            summary["successfulCancelSubmissionCount"] = self._cancelled_by_batch
            summary["failedCancelSubmissionCount"] = self._uncancelled_by_batch
        if self.deleted_at is not None and self.deleted_at <= at:
            summary["successfulDeleteSubmissionCount"] = self._outcome_counts[_DELETE_SUCCESS]
            summary["failedDeleteSubmissionCount"] = self._outcome_counts[_DELETE_FAILED]
        return summary

    def run_summary(self, at: float) -> dict[str, int]:
        """Return the counts of runs by state at this time."""
        counts = dict.fromkeys(RunStatus, 0)
        groups = (before for changed_at, before in self._changes if at < changed_at)
        untouched, failing, cancelled_ends, deleted = next(groups, self._run_groups())
        ages = self._reached_ages(untouched, at)
        for status, this, following in zip(_STATES_BY_AGE, ages, ages[1:], strict=False):
            counts[status] = this - following
        ended = self._due(at - self._ages()[-1])
        counts[RunStatus.FAILED] = bisect_left(failing, ended)
        held_back = self._count_held_back(untouched, ended) - self._count_held_back(failing, ended)
        counts[RunStatus.STOPPING] += held_back
        counts[RunStatus.COMPLETED] = ages[-1] - counts[RunStatus.FAILED] - held_back
        stopped = bisect_left(cancelled_ends, at + _TOLERANCE)
        counts[RunStatus.CANCELLED] = stopped
        counts[RunStatus.STOPPING] += len(cancelled_ends) - stopped
        counts[RunStatus.DELETED] = deleted
        for index, course in self._courses.items():
            if not course.deleted and course.submitted_at <= at + _TOLERANCE:
                own_status = course.status(at)
                held_back = own_status == RunStatus.COMPLETED and self._is_held_back(index)
                counts[RunStatus.STOPPING if held_back else own_status] += 1
        return {f"{status.lower()}RunCount": count for status, count in counts.items()}

    def _reached_ages(self, untouched: array[int], at: float) -> list[int]:
        """Return how many of these runs had been submitted, and had become STARTING, RUNNING, STOPPING and finished."""
        submitted = min(self._due(at), self.submitted)
        return [bisect_left(untouched, min(self._due(at - age), submitted)) for age in (0.0, *self._ages())]

    def _run_groups(self) -> _RunGroups:
        deleted = len(self._deleted_runs) + self._outcome_counts[_DELETE_SUCCESS]
        return self._untouched, self._failing, self._cancelled_ends, deleted

    # Changes

    def cancel(self, now: float, fails: Callable[[str], bool]) -> None:
        """Start no more runs, and cancel the active ones.

        :param now: time of the cancellation.
        :param fails: returns whether the run with this runSettingId cannot be cancelled.
        """
        self._changes.append((now, self._run_groups()))
        self.cancelled_at = now
        if self._share is not None:
            self._share.leave(now)
        listed = self.settings.cancelled_before_submission == "listed"
        if self.runs is None and self.inline_settings is not None and listed:
            self.runs = self._allocate(RunOverrides(self.inline_settings))
        if self.runs is None:
            return
        for index, course in self._courses.items():
            if course.has_ended(now):
                continue
            if fails(self.runs.ids[index]):
                self._set_outcome(index, _CANCEL_FAILED)
                self._uncancelled_by_batch += 1
            else:
                course.cancel(now, self.settings.cancel_seconds)
                self._set_outcome(index, _CANCEL_SUCCESS)
                self._cancelled_by_batch += 1
        kept = array("I")
        stopped_at = now + self.settings.cancel_seconds
        for index in self._untouched:
            if reached(now, self.end_time(index)):
                kept.append(index)
            elif fails(self.runs.ids[index]):
                self._set_outcome(index, _CANCEL_FAILED)
                self._uncancelled_by_batch += 1
                kept.append(index)
            else:
                self._set_outcome(index, _CANCEL_SUCCESS)
                self._cancelled_by_batch += 1
                self._cancelled_runs[index] = stopped_at
                self._cancelled_at[index] = now
        self._set_untouched(kept)
        self._cancelled_ends = sorted(self._cancelled_runs.values())
        if listed:
            for index in range(self.submitted, len(self.runs)):
                self._set_outcome(index, _CANCEL_SUCCESS)
                self._cancelled_by_batch += 1

    def delete_runs(self, now: float, fails: Callable[[str], bool]) -> list[int]:
        """Delete the finished runs and return their ids.

        :param now: time of the deletion.
        :param fails: returns whether the run with this runSettingId cannot be deleted.
        """
        self._changes.append((now, self._run_groups()))
        self.deleted_at = now
        freed: list[int] = []
        if self.runs is None:
            return freed
        kept = array("I")
        for index in self._started:
            if index in self._deleted_runs:
                continue
            finished = self.run_status(index, now) in FINISHED_RUN_STATES
            if finished and not fails(self.runs.ids[index]):
                self._set_outcome(index, _DELETE_SUCCESS)
                self._cancelled_runs.pop(index, None)
                if index in self._courses:
                    self._courses[index].deleted = True
                freed.append(self.run_numbers[index])
            else:
                self._set_outcome(index, _DELETE_FAILED)
                if index not in self._cancelled_runs and index not in self._courses:
                    kept.append(index)
        self._set_untouched(kept)
        self._cancelled_ends = sorted(self._cancelled_runs.values())
        return freed

    def cancel_run(self, index: int, now: float) -> None:
        """Cancel one run; a second call changes nothing."""
        if index in self._courses:
            self._courses[index].cancel(now, self.settings.run_stopping_seconds)
            return
        if index in self._cancelled_runs:
            return
        kept = array("I", self._untouched)
        del kept[bisect_left(kept, index)]
        self._set_untouched(kept)
        stopped_at = now + self.settings.run_stopping_seconds
        self._cancelled_runs[index] = stopped_at
        self._cancelled_at[index] = now
        insort(self._cancelled_ends, stopped_at)

    def delete_run(self, index: int) -> None:
        """Delete one run."""
        if index in self._courses:
            self._courses[index].deleted = True
        elif index in self._cancelled_runs:
            self._cancelled_ends.remove(self._cancelled_runs.pop(index))
        else:
            kept = array("I", self._untouched)
            del kept[bisect_left(kept, index)]
            self._set_untouched(kept)
        self._deleted_runs.add(index)

    def _set_untouched(self, kept: array[int]) -> None:
        self._untouched = kept
        self._failing = [index for index in self._failing if self._is_untouched(index)]

    # Reporting of completed runs
    #
    # A completed run is held back until LocalHealthOmics.on_run_completed has returned for it: it is shown as STOPPING.

    def hold_back(self, now: float, submitter: Submitter) -> None:
        """Hold back the runs that have completed by now."""
        if not reached(now, self._no_end_before):
            return
        self.advance(now, submitter)
        if self._courses:
            # Completed runs are reported in the order of their submission.
            while self._held_back_to < len(self._started) and self._has_ended(self._held_back_to, now):
                self._held_back_to += 1
            self._no_end_before = now
            return
        ended = bisect_left(self._started, min(self._due(now - self._ages()[-1]), self.submitted))
        self._held_back_to = max(self._held_back_to, ended)
        if self._held_back_to < len(self._started):
            self._no_end_before = self.submission_time(self._started[self._held_back_to]) + self._ages()[-1]
        else:
            self._no_end_before = now + self._ages()[-1]

    def holds_back(self) -> bool:
        """Return whether runs are held back."""
        return self._reported_to < self._held_back_to

    def next_held_back(self) -> int | None:
        """Return the first completed run that is held back, None if no run is; release the runs before it."""
        while self.holds_back():
            index = self._started[self._reported_to]
            if self._completes(index):
                return index
            self.release_next()
        return None

    def release_next(self) -> None:
        """Release the first run that is held back."""
        self._reported_to += 1

    def _completes(self, index: int) -> bool:
        course = self._courses.get(index)
        if course is not None:
            return not course.deleted and course.cancelled_at is None and course.failure_at_end() is None
        return self._is_untouched(index) and index not in self.run_failures

    def _has_ended(self, place: int, now: float) -> bool:
        index = self._started[place]
        return index in self._deleted_runs or reached(now, self.end_time(index))

    def _is_held_back(self, index: int) -> bool:
        return self.holds_back() and self._reported_to <= bisect_left(self._started, index) < self._held_back_to

    def _count_held_back(self, runs: Sequence[int], ended: int) -> int:
        """Return how many of these runs are held back and come before run number ``ended``."""
        if not self.holds_back():
            return 0
        first = self._started[self._reported_to]
        last = max(first, min(ended, self._started[self._held_back_to - 1] + 1))
        return bisect_left(runs, last) - bisect_left(runs, first)

    # Its runs

    def effective_setting(self, index: int) -> dict[str, Any]:
        """Return the settings of a run as the members of StartRun, with merged parameters."""
        assert self.runs is not None
        run = self.runs[index]
        merged = {**self.default, **run}
        if "parameters" in merged:
            merged["parameters"] = {**self.default.get("parameters", {}), **run.get("parameters", {})}
        return merged

    def course(self, index: int, tasks: Sequence[TaskDefinition]) -> Course:
        """Return the tasks, times and states of a started run."""
        if index in self._courses:
            return self._courses[index]
        submitted_at = self.submission_time(index)
        course = Course(self.settings, submitted_at, tasks, submitted_at + self.settings.run_pending_seconds)
        if index in self.run_failures and self.run_failures[index][0] == "EXPORT_FAILED":
            course.failure = self.run_failures[index]
        elif index in self.run_failures:
            course.fail(self.run_failures[index])
        course.cancelled_at, course.cancelled_until = self._cancelled_at.get(index), self._cancelled_runs.get(index)
        return course

    def failure_of(self, index: int) -> tuple[str, str] | None:
        """Return failureReason and statusMessage of a run that fails, None of another."""
        course = self._courses.get(index)
        return self.run_failures.get(index) if course is None else course.failure_at_end()

    def is_settled(self) -> bool:
        """Return whether every run that was or will be started has ended, and was returned by ``ended_runs``."""
        submits = self.failed_at is None and self.cancelled_at is None
        if submits and (self.runs is None or self.submitted < len(self.runs)):
            return False
        return self._exported_to == len(self._started)

    def ended_runs(self, now: float) -> Iterator[int]:
        """Yield the runs that have ended since the last call, in the order of their submission."""
        while self._exported_to < len(self._started) and self._has_ended(self._exported_to, now):
            self._exported_to += 1
            yield self._started[self._exported_to - 1]

    def run_uuid(self, index: int) -> str:
        """Return the uuid of a run."""
        return derived_uuid(f"{self.uuid}/{index}")

    def _is_untouched(self, index: int) -> bool:
        place = bisect_left(self._untouched, index)
        return place < len(self._untouched) and self._untouched[place] == index

    def _set_outcome(self, index: int, code: int) -> None:
        before = self._outcomes[index]
        if before:
            self._outcome_counts[before] -= 1
        self._outcomes[index] = code
        self._outcome_counts[code] += 1


def reached(now: float, at: float) -> bool:
    """Return whether a time is now or in the past."""
    return now + _TOLERANCE >= at
