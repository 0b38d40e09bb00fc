"""One method for each operation of the HealthOmics API that the package uses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from airflow_provider_omics_cache.exceptions import OmicsParameterError
from airflow_provider_omics_cache.hooks.client import Answer, OmicsClientHook
from airflow_provider_omics_cache.hooks.errors import check_id


class OmicsOperationsHook(OmicsClientHook):
    """One method per API operation, named as the operation, with the operation's members in snake_case."""

    # Run caches

    def create_run_cache(
        self,
        *,
        cache_s3_location: str,
        name: str | None = None,
        cache_behavior: str | None = None,
        cache_bucket_owner_id: str | None = None,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
        request_id: str | None = None,
    ) -> Answer:
        """Create a run cache.

        :param cache_s3_location: S3 URI under which the service makes the cache's folder.
        :param name: name of the cache; not unique.
        :param cache_behavior: ``CACHE_ON_FAILURE`` (the service's default) or ``CACHE_ALWAYS``.
        :param cache_bucket_owner_id: account that has to own the bucket; the service takes the caller's.
        :param description: description of the cache.
        :param tags: tags of the cache.
        :param request_id: idempotency token; botocore makes a new one for each call that has none.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_CreateRunCache.html
        """
        return self._call(
            "CreateRunCache",
            cacheS3Location=cache_s3_location,
            name=name,
            cacheBehavior=cache_behavior,
            cacheBucketOwnerId=cache_bucket_owner_id,
            description=description,
            tags=tags,
            requestId=request_id,
        )

    def get_run_cache(self, *, run_cache_id: str) -> Answer:
        """Get a run cache.

        :param run_cache_id: id of the cache.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_GetRunCache.html
        """
        return self._call("GetRunCache", id=check_id("run_cache_id", run_cache_id))

    def list_run_caches(self, *, max_results: int | None = None, starting_token: str | None = None) -> Iterator[Answer]:
        """List the run caches of the account and Region.

        :param max_results: caches per page, 1 to 100.
        :param starting_token: the ``nextToken`` of a page, to go on behind it.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_ListRunCaches.html
        """
        return self._items("ListRunCaches", "items", starting_token, maxResults=max_results)

    def update_run_cache(
        self,
        *,
        run_cache_id: str,
        name: str | None = None,
        cache_behavior: str | None = None,
        description: str | None = None,
    ) -> Answer:
        """Change a run cache; what is not given stays as it is.

        :param run_cache_id: id of the cache.
        :param name: new name.
        :param cache_behavior: ``CACHE_ON_FAILURE`` or ``CACHE_ALWAYS``.
        :param description: new description.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_UpdateRunCache.html
        """
        return self._call(
            "UpdateRunCache",
            id=check_id("run_cache_id", run_cache_id),
            name=name,
            cacheBehavior=cache_behavior,
            description=description,
        )

    def delete_run_cache(self, *, run_cache_id: str) -> Answer:
        """Delete a run cache. Its data stays in S3 and cannot be linked to a cache again.

        :param run_cache_id: id of the cache.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_DeleteRunCache.html
        """
        return self._call("DeleteRunCache", id=check_id("run_cache_id", run_cache_id))

    # Batches

    def start_run_batch(
        self,
        *,
        default_run_setting: Mapping[str, Any],
        batch_run_settings: Mapping[str, Any],
        batch_name: str | None = None,
        tags: Mapping[str, str] | None = None,
        request_id: str | None = None,
    ) -> Answer:
        """Start a batch of runs.

        :param default_run_setting: what all runs have in common, as ``DefaultRunSetting`` of the API.
        :param batch_run_settings: ``{"inlineSettings": [...]}`` or ``{"s3UriSettings": "s3://..."}``.
        :param batch_name: name of the batch; not unique.
        :param tags: tags of the batch; runs do not inherit them.
        :param request_id: idempotency token; botocore makes a new one for each call that has none.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_StartRunBatch.html
        """
        return self._call(
            "StartRunBatch",
            defaultRunSetting=default_run_setting,
            batchRunSettings=batch_run_settings,
            batchName=batch_name,
            tags=tags,
            requestId=request_id,
        )

    def get_batch(self, *, batch_id: str) -> Answer:
        """Get a batch: its status, counts and times.

        :param batch_id: id of the batch.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_GetBatch.html
        """
        return self._call("GetBatch", batchId=check_id("batch_id", batch_id))

    def list_batch(
        self,
        *,
        status: str | None = None,
        name: str | None = None,
        run_group_id: str | None = None,
        max_items: int | None = None,
        starting_token: str | None = None,
    ) -> Iterator[Answer]:
        """List batches; at most one of the filters can be given.

        :param status: only batches in this status.
        :param name: only batches of this name.
        :param run_group_id: only batches of this run group.
        :param max_items: batches per page, 1 to 100.
        :param starting_token: the ``nextToken`` of a page, to go on behind it.
        :raises OmicsParameterError: more than one filter.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_ListBatch.html
        """
        _check_one_filter("list_batch", status=status, name=name, run_group_id=run_group_id)
        return self._items(
            "ListBatch",
            "items",
            starting_token,
            status=status,
            name=name,
            runGroupId=run_group_id if run_group_id is None else check_id("run_group_id", run_group_id),
            maxItems=max_items,
        )

    def list_runs_in_batch(
        self,
        *,
        batch_id: str,
        submission_status: str | None = None,
        run_setting_id: str | None = None,
        run_id: str | None = None,
        max_items: int | None = None,
        starting_token: str | None = None,
    ) -> Iterator[Answer]:
        """List the submissions of a batch; at most one of the filters can be given.

        :param batch_id: id of the batch.
        :param submission_status: only submissions in this status.
        :param run_setting_id: only the submission of this run setting.
        :param run_id: only the submission that became this run.
        :param max_items: submissions per page, 1 to 100.
        :param starting_token: the ``nextToken`` of a page, to go on behind it.
        :raises OmicsParameterError: more than one filter.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_ListRunsInBatch.html
        """
        _check_one_filter(
            "list_runs_in_batch",
            submission_status=submission_status,
            run_setting_id=run_setting_id,
            run_id=run_id,
        )
        return self._items(
            "ListRunsInBatch",
            "runs",
            starting_token,
            batchId=check_id("batch_id", batch_id),
            submissionStatus=submission_status,
            runSettingId=run_setting_id,
            runId=run_id if run_id is None else check_id("run_id", run_id),
            maxItems=max_items,
        )

    def cancel_run_batch(self, *, batch_id: str) -> Answer:
        """Cancel a batch that is PENDING, SUBMITTING or INPROGRESS, and its runs.

        :param batch_id: id of the batch.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_CancelRunBatch.html
        """
        return self._call("CancelRunBatch", batchId=check_id("batch_id", batch_id))

    def delete_run_batch(self, *, batch_id: str) -> Answer:
        """Delete the runs of a batch that is PROCESSED or CANCELLED; the batch stays.

        :param batch_id: id of the batch.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_DeleteRunBatch.html
        """
        return self._call("DeleteRunBatch", batchId=check_id("batch_id", batch_id))

    def delete_batch(self, *, batch_id: str) -> Answer:
        """Delete a batch's metadata, and with it the link from run settings to runs; the runs stay.

        :param batch_id: id of the batch.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_DeleteBatch.html
        """
        return self._call("DeleteBatch", batchId=check_id("batch_id", batch_id))

    # Runs

    def get_run(self, *, run_id: str, export: Sequence[str] | None = None) -> Answer:
        """Get a run.

        :param run_id: id of the run.
        :param export: what else to put into the answer, such as ``["DEFINITION"]``.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_GetRun.html
        """
        return self._call("GetRun", id=check_id("run_id", run_id), export=export)

    def list_runs(
        self,
        *,
        name: str | None = None,
        run_group_id: str | None = None,
        batch_id: str | None = None,
        status: str | None = None,
        max_results: int | None = None,
        starting_token: str | None = None,
    ) -> Iterator[Answer]:
        """List runs.

        :param name: only runs of this name.
        :param run_group_id: only runs of this run group.
        :param batch_id: only runs of this batch.
        :param status: only runs in this status.
        :param max_results: runs per page, 1 to 100.
        :param starting_token: the ``nextToken`` of a page, to go on behind it.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_ListRuns.html
        """
        return self._items(
            "ListRuns",
            "items",
            starting_token,
            name=name,
            runGroupId=run_group_id if run_group_id is None else check_id("run_group_id", run_group_id),
            batchId=batch_id if batch_id is None else check_id("batch_id", batch_id),
            status=status,
            maxResults=max_results,
        )

    def cancel_run(self, *, run_id: str) -> Answer:
        """Cancel a run.

        :param run_id: id of the run.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_CancelRun.html
        """
        return self._call("CancelRun", id=check_id("run_id", run_id))

    def delete_run(self, *, run_id: str) -> Answer:
        """Delete a run's metadata; its outputs and logs stay.

        :param run_id: id of the run.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_DeleteRun.html
        """
        return self._call("DeleteRun", id=check_id("run_id", run_id))

    # Tags

    def tag_resource(self, *, resource_arn: str, tags: Mapping[str, str]) -> Answer:
        """Set tags of a resource; its other tags stay.

        :param resource_arn: ARN of the resource.
        :param tags: tags to set.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_TagResource.html
        """
        return self._call("TagResource", resourceArn=resource_arn, tags=tags)

    def untag_resource(self, *, resource_arn: str, tag_keys: Sequence[str]) -> Answer:
        """Remove tags from a resource.

        :param resource_arn: ARN of the resource.
        :param tag_keys: keys of the tags to remove.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_UntagResource.html
        """
        return self._call("UntagResource", resourceArn=resource_arn, tagKeys=tag_keys)

    def list_tags_for_resource(self, *, resource_arn: str) -> Answer:
        """List the tags of a resource.

        :param resource_arn: ARN of the resource.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_ListTagsForResource.html
        """
        return self._call("ListTagsForResource", resourceArn=resource_arn)


def _check_one_filter(method: str, **filters: Any) -> None:
    given = {name: value for name, value in filters.items() if value is not None}
    if len(given) > 1:
        raise OmicsParameterError(method, f"takes at most one of {', '.join(filters)}", given)
