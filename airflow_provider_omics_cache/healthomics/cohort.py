"""Merge the records of a cohort's batches into one record for each sample: pure functions over files of records.

The records stay in the files. Only the ids of the samples and the position of each record are in memory.
"""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from fractions import Fraction
from typing import IO, TYPE_CHECKING, Any, NamedTuple, cast

from airflow_provider_omics_cache.exceptions import OmicsParameterError
from airflow_provider_omics_cache.healthomics.completion import WITHOUT_RUN_ID, reason_of
from airflow_provider_omics_cache.healthomics.failures import (
    ALLOWANCE_RULE,
    Failures,
    counted,
    exceeds,
    parse_allowance,
)
from airflow_provider_omics_cache.healthomics.next_steps import Decision, Retries, decide, decisive
from airflow_provider_omics_cache.healthomics.run_failures import remedy_of
from airflow_provider_omics_cache.healthomics.settings import BrokenRules
from airflow_provider_omics_cache.healthomics.states import RunStatus

if TYPE_CHECKING:
    from airflow_provider_omics_cache.xcoms import (
        CohortFailure,
        CohortRecord,
        CohortRound,
        CohortSummary,
        EarlierRun,
        RunRecord,
    )

#: Maximum number of failures of a summary that are counted by reason and message. The others are counted by reason.
MAX_FAILURES = 20

#: Takes the place of the position if the sample is not in the batch.
_NOT_IN_BATCH = 2**64 - 1
#: Takes the place of the position if the sample is in the batch, but has no record.
_NOT_LISTED = 2**64 - 2

_TEXT_MEMBERS = (
    "run_id",
    "run_uuid",
    "status",
    "failure_reason",
    "status_message",
    "creation_time",
    "start_time",
    "stop_time",
    "run_output_uri",
    "output_source",
)


class _Round(NamedTuple):
    batch_id: str
    runs: IO[bytes]
    #: Position of the record of each sample in ``runs``.
    positions: array[int]
    cache_hits: Mapping[str, int] | None

    def record(self, sample: int) -> RunRecord | None:
        """Read the record of a sample. Return None if the sample is not in the batch."""
        position = self.positions[sample]
        if position == _NOT_IN_BATCH:
            return None
        if position == _NOT_LISTED:
            return cast("RunRecord", {"status": WITHOUT_RUN_ID})
        self.runs.seek(position)
        return cast("RunRecord", json.loads(self.runs.readline()))


class Cohort:
    """The samples of a cohort, and the records of its batches.

    :param run_setting_ids: the runSettingId of each sample.
    :raises OmicsParameterError: an id is not valid, or is not unique.
    """

    def __init__(self, run_setting_ids: Iterable[str]) -> None:
        self._samples: dict[str, int] = {}
        self._rounds: list[_Round] = []
        broken = BrokenRules("run_settings")
        for index, run_setting_id in enumerate(run_setting_ids):
            if not isinstance(run_setting_id, str) or not run_setting_id:
                broken.add(
                    "must be a non-empty string", type(run_setting_id).__name__, member="runSettingId", index=index
                )
            elif run_setting_id in self._samples:
                broken.add("must be unique", run_setting_id, member="runSettingId", index=index)
            else:
                self._samples[run_setting_id] = len(self._samples)
        broken.raise_if_any()

    def __len__(self) -> int:
        return len(self._samples)

    def add_round(
        self,
        batch_id: str,
        run_setting_ids: Iterable[str],
        runs: IO[bytes],
        *,
        cache_hits: Mapping[str, int] | None = None,
    ) -> None:
        """Add the records of a batch. Batches are added in the order in which they were started.

        :param batch_id: id of the batch.
        :param run_setting_ids: the runSettingId of each run setting of the batch. A sample of the batch without a
            record counts as UNKNOWN, because a run of it may exist.
        :param runs: the content of the object at ``runs_s3_uri`` as a file, at any position. The file must stay open.
            If the object was not written: an empty file.
        :param cache_hits: number of tasks of each run whose outputs came from the run cache, by runSettingId. Default:
            None, the numbers are not known.
        :raises OmicsParameterError: the batch was added before, an id or a record is not valid, or a sample is not in
            the cohort or not in the batch. The error names the lines.
        """
        if batch_id in self.batch_ids:
            raise OmicsParameterError("batch_id", "must be unique: the batch was added before", batch_id)
        positions = self._positions(batch_id, run_setting_ids)
        broken = _BrokenLines(f"runs of batch {batch_id}")
        runs.seek(0)
        position = 0
        for number, line in enumerate(runs, 1):
            sample = self._sample_of(line, number, broken) if line.strip() else None
            if sample is not None and positions[sample] == _NOT_LISTED:
                positions[sample] = position
            elif sample is not None:
                rule = "must be of the batch" if positions[sample] == _NOT_IN_BATCH else "must be unique"
                broken.add(rule, json.loads(line)["run_setting_id"], member="run_setting_id", index=number)
            position += len(line)
        broken.raise_if_any()
        self._rounds.append(_Round(batch_id, runs, positions, cache_hits))

    def records(self) -> Iterator[CohortRecord]:
        """Yield the record of each sample, in the order of the samples."""
        for run_setting_id, found in self._found():
            yield self._merge(run_setting_id, found)

    def decisions(self, retries: Retries) -> Iterator[tuple[str, Decision]]:
        """Yield what comes next for each sample, with its runSettingId, in the order of the samples.

        A sample never gets a new run if one of its runs, in any batch, completed or may be active.

        :param retries: which samples get a new run.
        """
        for run_setting_id, found in self._found():
            records = [record for _, record in found]
            yield run_setting_id, decide(records[decisive(records)] if records else None, retries)

    @property
    def batch_ids(self) -> list[str]:
        """Ids of the batches, in the order in which they were added."""
        return [batch.batch_id for batch in self._rounds]

    def _positions(self, batch_id: str, run_setting_ids: Iterable[str]) -> array[int]:
        """Return the positions of the records of a batch before its records are read."""
        broken = BrokenRules(f"run_setting_ids of batch {batch_id}")
        positions = array("Q", [_NOT_IN_BATCH]) * len(self._samples)
        for index, run_setting_id in enumerate(run_setting_ids):
            sample = self._sample(run_setting_id)
            if sample is None:
                broken.add("must be of the cohort", run_setting_id, index=index)
            else:
                positions[sample] = _NOT_LISTED
        broken.raise_if_any()
        return positions

    def _found(self) -> Iterator[tuple[str, list[tuple[int, RunRecord]]]]:
        """Yield the records of each sample with the numbers of their rounds, the oldest first."""
        for run_setting_id, sample in self._samples.items():
            records = ((number, batch.record(sample)) for number, batch in enumerate(self._rounds, 1))
            yield run_setting_id, [(number, record) for number, record in records if record is not None]

    def _merge(self, run_setting_id: str, found: list[tuple[int, RunRecord]]) -> CohortRecord:
        if not found:
            record: dict[str, Any] = dict.fromkeys(_TEXT_MEMBERS)
            record |= {"status": WITHOUT_RUN_ID, "round": None, "batch_id": None, "cache_hits": None, "history": []}
        else:
            chosen = decisive([record for _, record in found])
            record = self._run(run_setting_id, *found[chosen])
            earlier = found[:chosen] + found[chosen + 1 :]
            record["history"] = [
                {name: value for name, value in self._run(run_setting_id, *one).items() if name != "output_source"}
                for one in earlier
            ]
        return cast("CohortRecord", {"run_setting_id": run_setting_id, **record})

    def _run(self, run_setting_id: str, number: int, record: RunRecord) -> dict[str, Any]:
        batch, members = self._rounds[number - 1], cast("Mapping[str, Any]", record)
        return {
            **{name: members.get(name) for name in _TEXT_MEMBERS},
            "round": number,
            "batch_id": batch.batch_id,
            "cache_hits": None if batch.cache_hits is None else batch.cache_hits.get(run_setting_id),
        }

    def _sample(self, run_setting_id: Any) -> int | None:
        return self._samples.get(run_setting_id) if isinstance(run_setting_id, str) else None

    def _sample_of(self, line: bytes, number: int, broken: BrokenRules) -> int | None:
        """Check the line of a record, and return its sample. Return None if the line is not valid."""
        try:
            record = json.loads(line)
        except ValueError as error:
            broken.add("must be valid JSON", str(error), index=number)
            return None
        if not isinstance(record, dict):
            broken.add("must be an object", type(record).__name__, index=number)
            return None
        wrong = [name for name in _TEXT_MEMBERS if not isinstance(record.get(name), str | None)]
        wrong += [] if record.get("status") else ["status"]
        for name in wrong:
            rule = "must be a non-empty string" if name == "status" else "must be a string or null"
            broken.add(rule, type(record.get(name)).__name__, member=name, index=number)
        run_setting_id = record.get("run_setting_id")
        sample = self._sample(run_setting_id)
        if sample is None:
            broken.add("must be of the cohort", run_setting_id, member="run_setting_id", index=number)
        return None if wrong else sample


class CohortResult:
    """Counts the samples of a cohort while their records are written.

    :param batch_ids: ids of the cohort's batches, in the order in which they were started.
    """

    def __init__(self, batch_ids: Iterable[str]) -> None:
        self._batch_ids = list(batch_ids)
        self._statuses: Counter[str] = Counter()
        self._failures = Failures()
        self._rounds = [_Runs() for _ in self._batch_ids]
        self._all = _Runs()

    def count(self, records: Iterable[CohortRecord]) -> Iterator[CohortRecord]:
        """Count records, and pass them on one by one.

        :param records: what :meth:`Cohort.records` yields.
        """
        for record in records:
            self._add(record)
            yield record

    @property
    def total(self) -> int:
        """Number of samples."""
        return self._statuses.total()

    @property
    def completed(self) -> int:
        """Number of samples with a run that completed."""
        return self._statuses[RunStatus.COMPLETED]

    def complaint(self, max_failed: int | str) -> str | None:
        """Describe why too few samples completed. None if enough did.

        :param max_failed: number or share of the samples that may end without a completed run, such as ``5`` or
            ``"2%"``.
        :raises OmicsParameterError: ``max_failed`` is neither a number nor a share.
        """
        failed = self.total - self.completed
        if not exceeds(failed, parse_max_failed(max_failed), self.total):
            return None
        return (
            f"{failed:,} of {counted(self.total, 'sample')} did not complete; max_failed is {max_failed}: "
            f"{self._failures.summary()}"
        )

    def summary(self) -> CohortSummary:
        """Return the counts as an XCom."""
        rounds: list[CohortRound] = [
            {
                "round": number,
                "batch_id": batch_id,
                "samples": runs.statuses.total(),
                "statuses": dict(runs.statuses),
                "seconds": runs.seconds,
                "cache_hits": runs.cache_hits,
            }
            for number, (batch_id, runs) in enumerate(zip(self._batch_ids, self._rounds, strict=True), 1)
        ]
        failures: list[CohortFailure] = [
            {
                "reason": group.reason,
                "message": group.message or None,
                "remedy": remedy_of(group.reason),
                "count": group.number,
                "run_setting_ids": group.run_setting_ids,
            }
            for group in self._failures.groups(MAX_FAILURES)
        ]
        return {
            "total": self.total,
            "completed": self.completed,
            "statuses": dict(self._statuses),
            "failures": failures,
            "rounds": rounds,
            "seconds": self._all.seconds,
            "cache_hits": self._all.cache_hits,
        }

    def _add(self, record: CohortRecord) -> None:
        status = record["status"]
        self._statuses[status] += 1
        if status != RunStatus.COMPLETED:
            reason = reason_of(status, record["failure_reason"])
            self._failures.add(reason, record["run_setting_id"], record["status_message"])
        own: list[CohortRecord | EarlierRun] = [record] if record["round"] is not None else []
        for run in [*own, *record["history"]]:
            self._rounds[cast("int", run["round"]) - 1].add(run)
            self._all.add(run)


class _Runs:
    """Counts runs, and finds when the first one was created and when the last one ended."""

    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()
        self.cache_hits: int | None = None
        self._created: datetime | None = None
        self._stopped: datetime | None = None

    def add(self, run: CohortRecord | EarlierRun) -> None:
        self.statuses[run["status"]] += 1
        if run["cache_hits"] is not None:
            self.cache_hits = (self.cache_hits or 0) + run["cache_hits"]
        if created := _time(run["creation_time"]):
            self._created = min(created, self._created or created)
        if stopped := _time(run["stop_time"]):
            self._stopped = max(stopped, self._stopped or stopped)

    @property
    def seconds(self) -> float | None:
        if self._created is None or self._stopped is None:
            return None
        return max(0.0, (self._stopped - self._created).total_seconds())


class _BrokenLines(BrokenRules):
    """The errors of a file of records."""

    entries = "lines"

    def place(self, index: Any) -> str:
        return f"line {index}"

    def path(self, member: str, index: Any) -> str:
        return ", ".join(filter(None, (self._parameter, self.place(index), member)))


def parse_max_failed(max_failed: Any) -> int | Fraction:
    """Return how many samples may end without a completed run: a number, or a share of all samples.

    :param max_failed: value of the parameter ``max_failed``.
    :raises OmicsParameterError: the value is neither.
    """
    try:
        return parse_allowance(max_failed)
    except ValueError:
        raise OmicsParameterError("max_failed", ALLOWANCE_RULE, max_failed) from None


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
