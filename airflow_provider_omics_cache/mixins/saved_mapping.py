"""The link from run settings to runs, saved before it is lost."""

from __future__ import annotations

import tempfile
from typing import IO, Any

from botocore.exceptions import BotoCoreError, ClientError

from airflow_provider_omics_cache import submission
from airflow_provider_omics_cache.exceptions import IncompleteListingError, OmicsParameterError
from airflow_provider_omics_cache.hooks.omics import api_error
from airflow_provider_omics_cache.hooks.s3 import head_object, upload
from airflow_provider_omics_cache.mixins.batch_wait import BatchWaitMixin
from airflow_provider_omics_cache.mixins.s3_output import S3OutputMixin
from airflow_provider_omics_cache.states import DELETED_BATCH_STATES, BatchStatus
from airflow_provider_omics_cache.submission import Submissions
from airflow_provider_omics_cache.waiting import Batch

#: Name of the object's metadata that tells whose mapping it holds.
_BATCH_METADATA = "healthomics-batch-id"


class SavedMappingMixin(S3OutputMixin, BatchWaitMixin):
    """Write the full listing of a batch to the task's ``save_mapping_s3_uri``, once."""

    save_mapping_s3_uri: str | None

    def save_mapping(self, answer: dict[str, Any]) -> None:
        """Write the listing of the batch, unless an earlier try has done that.

        :param answer: GetBatch's answer.
        :raises OmicsParameterError: the object holds the mapping of another batch.
        :raises IncompleteListingError: the service does not list every run yet.
        :raises OmicsApiError: S3 refuses.
        """
        if self.save_mapping_s3_uri is None:
            return
        status = answer.get("status")
        saved = self.saved_mapping()
        if saved is not None and (_BATCH_METADATA in saved or status in DELETED_BATCH_STATES):
            self.log.info("The mapping of batch %s is in %s already", self.batch_id, self.save_mapping_s3_uri)
            return
        batch = Batch.from_answer(self.batch_id, answer)
        extra_args = self.s3_extra_args or {}
        metadata = {**extra_args.get("Metadata", {}), _BATCH_METADATA: self.batch_id}
        with tempfile.TemporaryFile() as file:
            self._list_mapping(batch, file)
            upload(
                file,
                self.save_mapping_s3_uri,
                parameter="save_mapping_s3_uri",
                s3=self._s3,
                extra_args={**extra_args, "Metadata": metadata},
            )
        self.log.info("Saved the mapping of batch %s to %s", self.batch_id, self.save_mapping_s3_uri)

    def _list_mapping(self, batch: Batch, file: IO[bytes]) -> None:
        submissions = Submissions(batch_is_over=True)
        for row in self.hook.list_submissions(batch_id=batch.id, max_silence=self.max_silence):
            submissions.add(row)
            file.write(Submissions.line(row))
        missing = None
        if batch.status == BatchStatus.PROCESSED:
            missing = submissions.missing(submission.expected_number(None, batch))
        elif batch.status not in DELETED_BATCH_STATES and len(submissions.run_ids) < (batch.submitted or 0):
            missing = f"{len(submissions.run_ids):,} runs are listed and {batch.submitted:,} were submitted"
        if missing:
            raise IncompleteListingError(
                f"batch {batch.id}: its mapping cannot be saved yet: {missing}", batch_id=batch.id, status=batch.status
            )

    def saved_mapping(self) -> dict[str, str] | None:
        """Give the metadata of the object that an earlier try has written; None if there is none.

        :raises OmicsParameterError: the object holds the mapping of another batch.
        """
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
        if metadata.get(_BATCH_METADATA, self.batch_id) != self.batch_id:
            raise OmicsParameterError(
                "save_mapping_s3_uri",
                f"has to name another object, this one holds the mapping of batch {metadata[_BATCH_METADATA]}",
                uri,
            )
        return metadata
