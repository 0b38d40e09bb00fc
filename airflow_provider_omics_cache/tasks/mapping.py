"""The link from run settings to runs, saved before it is lost."""

from __future__ import annotations

import tempfile
import time
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from airflow_provider_omics_cache.exceptions import IncompleteListingError, OmicsError, OmicsParameterError
from airflow_provider_omics_cache.healthomics.rounds import Batch
from airflow_provider_omics_cache.healthomics.states import DELETED_BATCH_STATES, BatchStatus
from airflow_provider_omics_cache.healthomics.submission import Submissions
from airflow_provider_omics_cache.hooks.client import VISIBLE_AFTER
from airflow_provider_omics_cache.hooks.omics import api_error
from airflow_provider_omics_cache.hooks.s3 import head_object, put_if_unchanged
from airflow_provider_omics_cache.tasks.ending import CONSISTENCY_SECONDS, EndRunBatchOperator
from airflow_provider_omics_cache.tasks.s3_output import S3OutputMixin

if TYPE_CHECKING:
    from airflow.sdk import Context

#: Names of the object's metadata that tell whose mapping it holds, and how many runs are in it.
_BATCH_METADATA = "healthomics-batch-id"
_ROWS_METADATA = "healthomics-batch-rows"


class SavedMapping(NamedTuple):
    """The object at ``save_mapping_s3_uri``.

    :param batch_id: the batch whose mapping it holds; None if it is something else.
    :param rows: how many runs are in it.
    :param etag: its ETag.
    """

    batch_id: str | None
    rows: int
    etag: str


class SavedMappingMixin(S3OutputMixin, EndRunBatchOperator):
    """Write the full listing of a batch to the task's ``save_mapping_s3_uri``, once."""

    save_mapping_s3_uri: str | None

    def save_mapping(self, context: Context, answer: dict[str, Any]) -> None:
        """Write the listing of the batch, unless an earlier try has done that.

        :param context: Airflow's context of the task.
        :param answer: GetBatch's answer.
        :raises OmicsParameterError: the object does not hold the mapping of this batch.
        :raises IncompleteListingError: the service does not list every run yet.
        :raises OmicsApiError: S3 refuses.
        """
        if self.save_mapping_s3_uri is None:
            return
        saved = self._own_saved_mapping()
        if saved is not None and not self._lacks_runs(saved, answer):
            self.log.info("The mapping of batch %s is in %s already", self.batch_id, self.save_mapping_s3_uri)
            return
        extra_args = self.s3_extra_args or {}
        with tempfile.TemporaryFile() as file:
            rows = self._write_listing(file, answer, context)
            metadata = {_BATCH_METADATA: self.batch_id, _ROWS_METADATA: str(rows)}
            is_written = put_if_unchanged(
                file,
                self.save_mapping_s3_uri,
                parameter="save_mapping_s3_uri",
                s3=self._s3,
                extra_args={**extra_args, "Metadata": {**extra_args.get("Metadata", {}), **metadata}},
                etag=saved and saved.etag,
            )
        if not is_written:
            self.check_saved_mapping()
        self.log.info("Saved the mapping of batch %s to %s", self.batch_id, self.save_mapping_s3_uri)

    def check_saved_mapping(self) -> None:
        """Check that the object is there and holds the mapping of this batch.

        :raises OmicsParameterError: it holds something else.
        :raises OmicsError: it is gone.
        """
        if self._own_saved_mapping() is None:
            raise OmicsError(
                f"batch {self.batch_id}: its mapping is not in {self.save_mapping_s3_uri} any more; the next try "
                "saves it again",
                batch_id=self.batch_id,
            )

    def is_mapping_saved(self) -> bool:
        """Whether the object holds the mapping of this batch."""
        saved = self._saved_mapping()
        return saved is not None and saved.batch_id == self.batch_id

    def _lacks_runs(self, saved: SavedMapping, answer: dict[str, Any]) -> bool:
        """Whether the service lists more runs than were saved, as long as none has been deleted."""
        if answer.get("status") in DELETED_BATCH_STATES:
            return False
        rows = self.hook.list_submissions(batch_id=self.batch_id, max_silence=self.max_silence)
        return sum(1 for _ in rows) > saved.rows

    def _write_listing(self, file: IO[bytes], answer: dict[str, Any], context: Context) -> int:
        """Write the listing to a file, once it holds every run; give how many there are.

        Where no count tells how many there are, the listing has to stay as it is.
        """
        batch = Batch.from_answer(self.batch_id, answer)
        ended: datetime | None = batch.submitted_time or answer.get("failedTime")
        seen: tuple[int, bytes] | None = None
        for delay in (*VISIBLE_AFTER, None):
            listing = self._list_once(file)
            missing = self._missing(batch, listing)
            doubt = missing or _doubt(batch, listing)
            if not doubt:
                return listing.rows
            found = listing.rows, listing.fingerprint()
            has_caught_up = delay is None or (ended and time.time() >= ended.timestamp() + CONSISTENCY_SECONDS)
            if has_caught_up and not missing and found == seen:
                self.log.warning("batch %s: %s; its listing stays as it is and is saved", batch.id, doubt)
                return listing.rows
            if delay is None or delay > self.seconds_left(context):
                break
            self.log.info("batch %s: %s; looking again", batch.id, doubt)
            seen = found
            del listing  # so that there are never two
            self._sleep(delay)
        raise IncompleteListingError(
            f"batch {batch.id}: its mapping cannot be saved yet: {doubt}", batch_id=batch.id, status=batch.status
        )

    def _list_once(self, file: IO[bytes]) -> Submissions:
        file.seek(0)
        file.truncate()
        listing = Submissions(batch_is_over=True, keep_run_ids=False, keep_hashes=True)
        for row in self.hook.list_submissions(batch_id=self.batch_id, max_silence=self.max_silence):
            listing.add(row)
            file.write(Submissions.line(row))
        return listing

    def _missing(self, batch: Batch, listing: Submissions) -> str | None:
        """Say what the listing certainly lacks."""
        started = self.hook.list_started_runs(batch_id=batch.id, max_silence=self.max_silence)
        unlisted = listing.count_unlisted(run["id"] for run in started)
        if unlisted:
            return f"{unlisted:,} started runs are not listed"
        if batch.status == BatchStatus.PROCESSED:
            # Of a batch that was cancelled at its very end, runs may be left that were never submitted.
            most = listing.rows if batch.expected_runs is None else batch.expected_runs
            least = most - (batch.pending or 0)
            return listing.missing(listing.rows if least <= listing.rows <= most else most)
        if batch.status not in DELETED_BATCH_STATES and listing.submitted_count < (batch.submitted or 0):
            return _submitted(batch, listing)
        return None

    def _own_saved_mapping(self) -> SavedMapping | None:
        """Give the mapping that an earlier try has written, None if there is no object.

        :raises OmicsParameterError: the object holds something else.
        """
        saved = self._saved_mapping()
        if saved is not None and saved.batch_id != self.batch_id:
            held = f"the mapping of batch {saved.batch_id}" if saved.batch_id else "something else"
            raise OmicsParameterError(
                "save_mapping_s3_uri", f"has to name another object, this one holds {held}", self.save_mapping_s3_uri
            )
        return saved

    def _saved_mapping(self) -> SavedMapping | None:
        uri = self.save_mapping_s3_uri or ""
        try:
            found = head_object(uri, s3=self._s3, extra_args=self.s3_extra_args or {})
        except (BotoCoreError, ClientError) as error:
            failure = api_error(error, "HeadObject", self._s3.meta.region_name, self._s3.meta.endpoint_url)
            if failure.http_status == 404:
                return None
            raise failure.with_text(
                f"save_mapping_s3_uri must be readable; got {uri!r}: {failure}", batch_id=self.batch_id
            ) from error
        metadata: dict[str, str] = found.get("Metadata") or {}
        return SavedMapping(metadata.get(_BATCH_METADATA), int(metadata.get(_ROWS_METADATA, 0)), found["ETag"])


def _doubt(batch: Batch, listing: Submissions) -> str | None:
    """Say why nothing tells whether the listing is complete."""
    if batch.status == BatchStatus.PROCESSED:
        return None if batch.expected_runs is not None else "nothing tells how many runs the batch has"
    if batch.submitted is None:
        return "nothing tells how many runs were submitted"
    return _submitted(batch, listing) if listing.submitted_count < batch.submitted else None


def _submitted(batch: Batch, listing: Submissions) -> str:
    return f"{listing.submitted_count:,} runs are listed and {batch.submitted:,} were submitted"
