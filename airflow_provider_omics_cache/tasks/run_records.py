"""Make the record of each run of a batch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from typing import IO, TYPE_CHECKING, Any

from airflow_provider_omics_cache.healthomics.completion import is_same_run, join
from airflow_provider_omics_cache.healthomics.outputs import (
    DERIVED,
    EXACT,
    SAMPLE_SIZE,
    OutputEvidence,
    OutputLocations,
    OutputUris,
    spread,
)
from airflow_provider_omics_cache.healthomics.states import RunStatus, SubmissionStatus
from airflow_provider_omics_cache.hooks.errors import if_found

if TYPE_CHECKING:
    from airflow_provider_omics_cache.hooks.client import Answer
    from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
    from airflow_provider_omics_cache.xcoms import RunRecord

#: Members of an entry of ListRunsInBatch that a record needs.
ROW_MEMBERS = (
    "runSettingId",
    "runId",
    "runInternalUuid",
    "submissionStatus",
    "submissionFailureReason",
    "submissionFailureMessage",
)
#: Members of an entry of ListRuns that a record needs.
RUN_MEMBERS = ("status", "creationTime", "startTime", "stopTime")

#: Statuses of runs for which GetRun adds only the location of the outputs to what ListRuns shows.
_WITHOUT_REASON = frozenset({RunStatus.COMPLETED, RunStatus.CANCELLED, RunStatus.DELETED})


class RunRecords:
    """Joins what ListRunsInBatch, ListRuns and GetRun show of the runs of a batch.

    :param hook: the hook.
    :param batch_id: id of the batch.
    :param rows: a file with :data:`ROW_MEMBERS` of each entry of ListRunsInBatch, one JSON document per line.
    :param started: :data:`RUN_MEMBERS` of what ListRuns shows, by run id.
    :param output_uris: the ``outputUri`` of each run. With None, which means not known, no location is derived.
    :param max_silence: seconds for which an unanswered call is repeated.
    """

    def __init__(
        self,
        hook: OmicsCacheHook,
        *,
        batch_id: str,
        rows: IO[bytes],
        started: Mapping[str, tuple[Any, ...]],
        output_uris: OutputUris | None = None,
        max_silence: float,
    ) -> None:
        self._hook = hook
        self._batch_id = batch_id
        self._rows = rows
        self._started = started
        self._max_silence = max_silence
        self._evidence = OutputEvidence(output_uris) if output_uris else None

    def read(self, *, most_asked: int | None = None) -> Iterator[RunRecord]:
        """Make the records, with the reasons of the runs that failed.

        :param most_asked: maximum number of runs for which GetRun is called. Default: each run that needs it.
        """
        asked = 0
        for row in self._entries():
            listed = self._listed(row)
            run = None
            if _can_be_asked(row) and _needs_reason(listed) and (most_asked is None or asked < most_asked):
                run = self._ask(row)
                asked += 1
                listed = listed if run else None
            yield join(row, listed, run, batch_id=self._batch_id)

    def with_outputs(self, records: IO[bytes], *, exact: bool) -> Iterator[RunRecord]:
        """Add the locations of outputs to records.

        :param records: a file with all records of :meth:`read`, one JSON document per line.
        :param exact: whether GetRun is called for each run of any status. Otherwise only records of completed runs get
            locations, which are derived if this is possible.
        """
        statuses = _WITHOUT_REASON if exact else {RunStatus.COMPLETED}
        answers = {} if exact else self._ask_sample()
        locations = None if exact else self._locations(answers)
        records.seek(0)
        for row, line in zip(self._entries(), records, strict=True):
            record: RunRecord = json.loads(line)
            if _can_be_asked(row) and (self._listed(row) or {}).get("status") in statuses:
                location, source = locations.of(row) if locations else None, DERIVED
                if row["runId"] in answers or location is None:
                    run = answers[row["runId"]] if row["runId"] in answers else self._ask(row)
                    location, source = (run or {}).get("runOutputUri"), EXACT
                record["run_output_uri"], record["output_source"] = location, source if location else None
            yield record

    def _ask_sample(self) -> dict[str, Answer | None]:
        """Call GetRun for completed runs that are spread over the batch; return the answers by run id.

        If the ``outputUri`` of each run is not known, no location can be derived, and GetRun is not called here.
        """
        if self._evidence is None:
            return {}
        completed = [run_id for run_id, known in self._started.items() if known[0] == RunStatus.COMPLETED]
        chosen = {completed[index] for index in spread(len(completed), SAMPLE_SIZE)}
        return {
            row["runId"]: self._ask(row) for row in self._entries() if row["runId"] in chosen and _can_be_asked(row)
        }

    def _locations(self, answers: Mapping[str, Answer | None]) -> OutputLocations | None:
        locations = self._evidence.locations() if self._evidence else None
        if locations:
            self._hook.log.info(
                "Batch %s: the locations of outputs are derived from the answers of %s GetRun calls. Their form is %s",
                self._batch_id,
                len(answers),
                locations.layout,
            )
        else:
            self._hook.log.info(
                "Batch %s: GetRun is called for each completed run, because %s",
                self._batch_id,
                "the locations of outputs do not all have the same form"
                if self._evidence
                else "the outputUri of each run is not known",
            )
        return locations

    def _entries(self) -> Iterator[dict[str, Any]]:
        self._rows.seek(0)
        return map(json.loads, self._rows)

    def _listed(self, row: Mapping[str, Any]) -> dict[str, Any] | None:
        known = self._started.get(row["runId"])
        return dict(zip(RUN_MEMBERS, known, strict=True)) if known else None

    def _ask(self, row: Mapping[str, Any]) -> Answer | None:
        """Call GetRun. Return None if the run is not found, or if its id now belongs to another run."""
        run = if_found(partial(self._hook.get_run, run_id=row["runId"], max_silence=self._max_silence))
        if run is None or not is_same_run(row, run, batch_id=self._batch_id):
            return None
        if self._evidence:
            self._evidence.add(row, run)
        return run


def _can_be_asked(row: Mapping[str, Any]) -> bool:
    return bool(row["runId"]) and row["submissionStatus"] != SubmissionStatus.DELETE_SUCCESS


def _needs_reason(listed: Mapping[str, Any] | None) -> bool:
    """Whether GetRun can add a status or a reason to the entry of ListRuns. The entry may not exist yet."""
    return listed is None or listed["status"] not in _WITHOUT_REASON
