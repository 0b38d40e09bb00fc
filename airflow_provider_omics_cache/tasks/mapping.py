"""Save the mapping from run settings to runs, before it is deleted with the batch."""

from __future__ import annotations

import tempfile
from functools import partial
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from airflow_provider_omics_cache import timing
from airflow_provider_omics_cache.exceptions import (
    IncompleteListingError,
    OmicsApiError,
    OmicsError,
    OmicsParameterError,
)
from airflow_provider_omics_cache.healthomics.batch_runs import list_started_runs, list_submissions
from airflow_provider_omics_cache.healthomics.end import get_batch_patiently
from airflow_provider_omics_cache.healthomics.rounds import CONSISTENCY_SECONDS, Batch
from airflow_provider_omics_cache.healthomics.states import End, ToDelete
from airflow_provider_omics_cache.healthomics.submission import Submissions, unlisted_submissions
from airflow_provider_omics_cache.hooks.client import VISIBLE_AFTER
from airflow_provider_omics_cache.hooks.s3 import head_object, put_object, with_metadata
from airflow_provider_omics_cache.tasks.ending import EndRunBatchOperator
from airflow_provider_omics_cache.tasks.s3_output import S3OutputTask

if TYPE_CHECKING:
    from airflow.sdk import Context

#: Metadata keys of the object: id of the batch whose mapping it contains, and number of runs in the mapping.
_BATCH_METADATA = "healthomics-batch-id"
_ROWS_METADATA = "healthomics-batch-rows"


class SavedMapping(NamedTuple):
    """The object at ``save_mapping_s3_uri``.

    :param batch_id: id of the batch whose mapping the object contains; None if it contains no mapping.
    :param rows: number of runs in the mapping.
    :param etag: ETag of the object.
    """

    batch_id: str | None
    rows: int
    etag: str


class MappingSavingOperator(S3OutputTask, EndRunBatchOperator):
    """Base of operators that write the full listing of a batch to ``save_mapping_s3_uri``, once."""

    save_mapping_s3_uri: str | None

    def save_mapping(self, context: Context, answer: dict[str, Any]) -> None:
        """Write the listing of the batch, unless an earlier try has written it.

        :param context: Airflow's context of the task.
        :param answer: GetBatch's answer.
        :raises OmicsParameterError: the object exists and is not the mapping of this batch.
        :raises IncompleteListingError: the service does not list every run yet.
        :raises OmicsApiError: a call to AWS failed.
        """
        if self.save_mapping_s3_uri is None:
            return
        batch = Batch.from_answer(self.batch_id, answer)
        saved = self._own_saved_mapping()
        if saved is not None and not self._lacks_runs(saved, batch):
            self.log.info("Batch %s: its mapping is already in %s", self.batch_id, self.save_mapping_s3_uri)
            return
        self._save(batch, saved, context)

    def is_mapping_saved(self) -> bool:
        """Whether the object contains the mapping of this batch."""
        saved = self._saved_mapping()
        return saved is not None and saved.batch_id == self.batch_id

    def save_mapping_again(self, batch: Batch, context: Context) -> bool:
        """Write the listing of the batch again if the service now lists more runs than were saved.

        :param batch: the batch.
        :param context: Airflow's context of the task.
        :return: whether the listing was written.
        :raises OmicsParameterError: the object is not the mapping of this batch.
        :raises OmicsError: the object does not exist.
        :raises IncompleteListingError: the service does not list every run yet.
        :raises OmicsApiError: a call to AWS failed.
        """
        saved = self._existing_saved_mapping()
        if not self._lists_more_than(saved):
            return False
        self.log.warning(
            "Batch %s: the service lists more runs than the %s in %s; saving its mapping again",
            batch.id,
            f"{saved.rows:,}",
            self.save_mapping_s3_uri,
        )
        self._save(batch, saved, context)
        return True

    def _lacks_runs(self, saved: SavedMapping, batch: Batch) -> bool:
        """Whether the service lists more runs than were saved. A batch whose runs were deleted is not listed again."""
        return batch.meaning.end != End.DELETED and self._lists_more_than(saved)

    def _lists_more_than(self, saved: SavedMapping) -> bool:
        list_rows = partial(list_submissions, self.hook, self.batch_id, max_silence=self.max_silence)
        return self.hook.list_whole(lambda: sum(1 for _ in list_rows())) > saved.rows

    def _save(self, batch: Batch, saved: SavedMapping | None, context: Context) -> None:
        with tempfile.TemporaryFile() as file:
            rows = self._write_listing(file, batch, context)
            metadata = {_BATCH_METADATA: self.batch_id, _ROWS_METADATA: str(rows)}
            refusal = put_object(
                file,
                self.save_mapping_s3_uri or "",
                parameter="save_mapping_s3_uri",
                s3=self._s3,
                extra_args=with_metadata(self.s3_extra_args or {}, metadata),
                condition={"IfMatch": saved.etag} if saved else {"IfNoneMatch": "*"},
            )
        if refusal:
            self._existing_saved_mapping()
        self.log.info("Batch %s: saved its mapping to %s", self.batch_id, self.save_mapping_s3_uri)

    def _write_listing(self, file: IO[bytes], batch: Batch, context: Context) -> int:
        """Write the listing to a file as soon as it has every run, and return the number of runs.

        Only the listing of a PROCESSED batch can show that it has every run. Counts and listings may lag behind for
        :data:`CONSISTENCY_SECONDS`. Until then every other batch is listed again. The last two listings must be equal.

        :param file: the file.
        :param batch: the batch. GetBatch is called again before each further listing.
        :param context: Airflow's context of the task.
        """
        first_asked = asked_at = timing.time()
        waited = 0
        previous: tuple[int, bytes] | None = None
        for delay in (*VISIBLE_AFTER, VISIBLE_AFTER[-1], None):
            listing = self.hook.list_whole(partial(self._list_once, file))
            missing = self._missing(batch, listing)
            if not missing and _is_complete(batch, listing):
                return listing.rows
            doubt = _doubt(batch, listing)
            found = listing.rows, listing.fingerprint()
            since = batch.settled_time.timestamp() if batch.settled_time else first_asked
            has_caught_up = waited >= CONSISTENCY_SECONDS or asked_at >= since + CONSISTENCY_SECONDS
            if has_caught_up and not missing and found == previous:
                if doubt:
                    self.log.warning("Batch %s: %s; saving its listing, which has not changed", batch.id, doubt)
                return listing.rows
            reason = missing or doubt or f"runs may be listed {CONSISTENCY_SECONDS} s late"
            if delay is None or delay > self.seconds_left(context):
                break
            self.log.info("Batch %s is %s: %s; listing again", batch.id, batch.shown_status, reason)
            previous = found
            del listing  # two listings are never in memory at the same time
            timing.sleep(delay)
            waited += delay
            asked_at = timing.time()
            answer = get_batch_patiently(self.hook, self.batch_id, max_silence=self.max_silence)
            batch = Batch.from_answer(self.batch_id, answer)
        raise IncompleteListingError(
            f"Batch {batch.id} is {batch.shown_status}, and its mapping cannot be saved yet: {reason}. Retry the task; "
            f"timeout must leave at least {CONSISTENCY_SECONDS} s for it",
            batch_id=batch.id,
            status=batch.status,
        )

    def _list_once(self, file: IO[bytes]) -> Submissions:
        file.seek(0)
        file.truncate()
        listing = Submissions(batch_is_over=True)
        for row in list_submissions(self.hook, self.batch_id, max_silence=self.max_silence):
            listing.add(row)
            file.write(Submissions.line(row))
        return listing

    def _missing(self, batch: Batch, listing: Submissions) -> str | None:
        """Describe what the listing lacks. Return None if nothing is known to be missing."""
        if batch.meaning.to_delete in {ToDelete.ACTIVE, ToDelete.UNKNOWN}:
            return f"GetBatch shows it as {batch.shown_status}"
        list_runs = partial(list_started_runs, self.hook, batch.id, max_silence=self.max_silence)
        unlisted = self.hook.list_whole(lambda: listing.count_unlisted(run["id"] for run in list_runs()))
        if unlisted:
            return f"{unlisted:,} started runs are not listed"
        if batch.meaning.end == End.PROCESSED:
            # A batch can be PROCESSED although it was cancelled. It may then have runs that were never submitted.
            most = listing.rows if batch.expected_runs is None else batch.expected_runs
            return listing.missing(most, at_least=most - (batch.pending or 0)) or unlisted_submissions(batch, listing)
        if batch.meaning.end == End.DELETED:
            return listing.contradiction()
        return listing.contradiction() or unlisted_submissions(batch, listing)

    def _existing_saved_mapping(self) -> SavedMapping:
        saved = self._own_saved_mapping()
        if saved is None:
            raise OmicsError(
                f"Batch {self.batch_id}: its mapping is no longer in {self.save_mapping_s3_uri}. The next try saves it "
                "again.",
                batch_id=self.batch_id,
            )
        return saved

    def _own_saved_mapping(self) -> SavedMapping | None:
        """Return the mapping that an earlier try has written, None if there is no object.

        :raises OmicsParameterError: the object is not the mapping of this batch.
        """
        saved = self._saved_mapping()
        if saved is not None and saved.batch_id != self.batch_id:
            held = f"has the mapping of batch {saved.batch_id}" if saved.batch_id else "is not a mapping"
            raise OmicsParameterError(
                "save_mapping_s3_uri",
                f"must not name an object with other content: the object exists and {held}. Choose another URI",
                self.save_mapping_s3_uri,
            )
        return saved

    def _saved_mapping(self) -> SavedMapping | None:
        uri = self.save_mapping_s3_uri or ""
        try:
            found = head_object(uri, s3=self._s3, extra_args=self.s3_extra_args or {})
        except OmicsApiError as error:
            if error.http_status == 404:
                return None
            raise error.with_text(
                f"Cannot read save_mapping_s3_uri {uri!r}: {error}", batch_id=self.batch_id
            ) from error.__cause__
        metadata: dict[str, str] = found.get("Metadata") or {}
        return SavedMapping(metadata.get(_BATCH_METADATA), int(metadata.get(_ROWS_METADATA, 0)), found["ETag"])


def _is_complete(batch: Batch, listing: Submissions) -> bool:
    """Whether the listing alone shows that it has every run. A later listing then has the same mapping."""
    return (
        batch.meaning.end == End.PROCESSED
        and batch.total_runs is not None
        and not listing.assumed_failures
        and listing.missing(batch.total_runs) is None
    )


def _doubt(batch: Batch, listing: Submissions) -> str | None:
    """Describe which count cannot confirm the listing. Return None if each count does."""
    if batch.meaning.end == End.PROCESSED:
        return None if batch.expected_runs is not None else "the service does not report how many runs the batch has"
    if batch.submitted is None:
        return "the service does not report how many runs were submitted"
    return unlisted_submissions(batch, listing)
