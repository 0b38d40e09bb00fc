"""The hook for AWS HealthOmics: one method for each operation of the API that the package uses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from airflow_provider_omics_cache import timing
from airflow_provider_omics_cache.hooks import pace
from airflow_provider_omics_cache.hooks.arguments import check_id, check_one_filter
from airflow_provider_omics_cache.hooks.client import LONGEST_SILENCE, Answer, OmicsClientHook
from airflow_provider_omics_cache.hooks.errors import if_found


class OmicsCacheHook(OmicsClientHook):
    """Calls AWS HealthOmics: run caches, batches, runs and their tasks, run groups, workflows, and tags.

    There is one method for each API operation. It has the operation's name and members in snake_case. Only the given
    members are sent. Answers are botocore's dictionaries without ``ResponseMetadata``. Lists are lazy iterators
    over all pages.

    Methods that only read take ``max_silence``: the number of seconds for which a call is repeated while it is
    throttled, the service fails, or the connection is lost. The default 0 makes one attempt, in addition to the SDK's
    own retries. Methods that list repeat only the call for the current page.

    A configured endpoint (the connection's ``endpoint_url`` or ``service_config``, ``AWS_ENDPOINT_URL``, the AWS config
    file) is used as given, without the SDK's host prefix (``workflows-``, ``tags-``), unless the user sets
    ``inject_host_prefix``.

    Additional arguments (such as ``aws_conn_id``, ``region_name``, ``verify`` and ``config``) are passed to
    :class:`~airflow.providers.amazon.aws.hooks.base_aws.AwsBaseHook`. ``config`` is merged over the connection's
    ``config_kwargs``.

    .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_Operations_Amazon_Omics.html
    """

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
        :param cache_bucket_owner_id: account that must own the bucket. The service's default is the caller's account.
        :param description: description of the cache.
        :param tags: tags of the cache.
        :param request_id: idempotency token. Default: botocore makes a new one for each call.

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

    def get_run_cache(self, *, run_cache_id: str, max_silence: float = 0) -> Answer:
        """Get a run cache.

        :param run_cache_id: id of the cache.
        :param max_silence: seconds for which an unanswered call is repeated. Default: one attempt.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_GetRunCache.html
        """
        return self._call("GetRunCache", id=check_id("run_cache_id", run_cache_id), max_silence=max_silence)

    def list_run_caches(
        self, *, max_results: int | None = None, starting_token: str | None = None, max_silence: float = 0
    ) -> Iterator[Answer]:
        """List the run caches of the account and Region.

        :param max_results: caches per page, 1 to 100.
        :param starting_token: the ``nextToken`` of a page; the list continues with the next page.
        :param max_silence: seconds for which an unanswered call is repeated. Default: one attempt.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_ListRunCaches.html
        """
        return self._items("ListRunCaches", "items", starting_token, max_silence=max_silence, maxResults=max_results)

    def update_run_cache(
        self,
        *,
        run_cache_id: str,
        name: str | None = None,
        cache_behavior: str | None = None,
        description: str | None = None,
    ) -> Answer:
        """Change a run cache. Members that are not given do not change.

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

        :param default_run_setting: the settings that all runs share (``DefaultRunSetting`` of the API).
        :param batch_run_settings: ``{"inlineSettings": [...]}`` or ``{"s3UriSettings": "s3://..."}``.
        :param batch_name: name of the batch; not unique.
        :param tags: tags of the batch; runs do not inherit them.
        :param request_id: idempotency token. Default: botocore makes a new one for each call.

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

    def get_batch(self, *, batch_id: str, max_silence: float = 0) -> Answer:
        """Get a batch: its status, counts and times.

        :param batch_id: id of the batch.
        :param max_silence: seconds for which an unanswered call is repeated. Default: one attempt.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_GetBatch.html
        """
        return self._call("GetBatch", batchId=check_id("batch_id", batch_id), max_silence=max_silence)

    def list_batch(
        self,
        *,
        status: str | None = None,
        name: str | None = None,
        run_group_id: str | None = None,
        max_items: int | None = None,
        starting_token: str | None = None,
        max_silence: float = 0,
    ) -> Iterator[Answer]:
        """List batches. At most one filter can be given.

        :param status: only batches in this status.
        :param name: only batches of this name.
        :param run_group_id: only batches of this run group.
        :param max_items: batches per page, 1 to 100.
        :param starting_token: the ``nextToken`` of a page; the list continues with the next page.
        :param max_silence: seconds for which an unanswered call is repeated. Default: one attempt.
        :raises OmicsParameterError: more than one filter is given.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_ListBatch.html
        """
        check_one_filter("list_batch", status=status, name=name, run_group_id=run_group_id)
        return self._items(
            "ListBatch",
            "items",
            starting_token,
            max_silence=max_silence,
            status=status,
            name=name,
            runGroupId=_id_or_none("run_group_id", run_group_id),
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
        max_silence: float = 0,
    ) -> Iterator[Answer]:
        """List the submissions of a batch. At most one filter can be given.

        :param batch_id: id of the batch.
        :param submission_status: only submissions in this status.
        :param run_setting_id: only the submission of this run setting.
        :param run_id: only the submission that became this run.
        :param max_items: submissions per page, 1 to 100.
        :param starting_token: the ``nextToken`` of a page; the list continues with the next page.
        :param max_silence: seconds for which an unanswered call is repeated. Default: one attempt.
        :raises OmicsParameterError: more than one filter is given.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_ListRunsInBatch.html
        """
        check_one_filter(
            "list_runs_in_batch",
            submission_status=submission_status,
            run_setting_id=run_setting_id,
            run_id=run_id,
        )
        return self._items(
            "ListRunsInBatch",
            "runs",
            starting_token,
            max_silence=max_silence,
            batchId=check_id("batch_id", batch_id),
            submissionStatus=submission_status,
            runSettingId=run_setting_id,
            runId=_id_or_none("run_id", run_id),
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
        """Delete the metadata of a batch. The mapping from run settings to runs is lost; the runs stay.

        :param batch_id: id of the batch.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_DeleteBatch.html
        """
        return self._call("DeleteBatch", batchId=check_id("batch_id", batch_id))

    # Runs

    def start_run(
        self,
        *,
        role_arn: str,
        output_uri: str,
        workflow_id: str | None = None,
        workflow_type: str | None = None,
        workflow_owner_id: str | None = None,
        workflow_version_name: str | None = None,
        run_id: str | None = None,
        name: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        cache_id: str | None = None,
        cache_behavior: str | None = None,
        run_group_id: str | None = None,
        priority: int | None = None,
        storage_type: str | None = None,
        storage_capacity: int | None = None,
        log_level: str | None = None,
        retention_mode: str | None = None,
        networking_mode: str | None = None,
        scratch_storage_mode: str | None = None,
        configuration_name: str | None = None,
        output_uri_prefix_mode: str | None = None,
        session_policy: str | None = None,
        engine_settings: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        request_id: str | None = None,
    ) -> Answer:
        """Start a run of a workflow, or repeat a run. Either ``workflow_id`` or ``run_id`` says what runs.

        :param role_arn: service role of the run.
        :param output_uri: S3 URI under which the service makes the folder with the run's outputs.
        :param workflow_id: id of the workflow.
        :param workflow_type: ``PRIVATE`` (the service's default) or ``READY2RUN``.
        :param workflow_owner_id: account that owns a shared workflow.
        :param workflow_version_name: version of the workflow. The service's default is the workflow's default version.
        :param run_id: id of a run to repeat with its settings.
        :param name: name of the run; not unique.
        :param parameters: parameters of the workflow.
        :param cache_id: id of the run cache.
        :param cache_behavior: ``CACHE_ON_FAILURE`` or ``CACHE_ALWAYS``. The service's default is the cache's behavior.
        :param run_group_id: id of the run group.
        :param priority: priority among the runs of the group, 0 to 100,000.
        :param storage_type: ``STATIC`` or ``DYNAMIC``.
        :param storage_capacity: capacity of static storage, in GiB.
        :param log_level: ``OFF``, ``FATAL``, ``ERROR`` or ``ALL``.
        :param retention_mode: ``RETAIN`` (the service's default) or ``REMOVE``.
        :param networking_mode: ``RESTRICTED`` (the service's default) or ``VPC``.
        :param scratch_storage_mode: ``LOCAL`` or ``SHARED`` (the service's default).
        :param configuration_name: name of the configuration.
        :param output_uri_prefix_mode: with ``SERVICE_DEFINED`` (the service's default), the outputs are in a folder of
            the run below ``output_uri``. With ``NONE_WITH_OVERWRITE`` they are directly below it, and existing objects
            are overwritten. It needs boto3 1.43.123 or newer.
        :param session_policy: IAM policy, as JSON, that limits the role of the run.
        :param engine_settings: settings of the workflow engine.
        :param tags: tags of the run.
        :param request_id: idempotency token. Default: botocore makes a new one for each call.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_StartRun.html
        """
        return self._call(
            "StartRun",
            roleArn=role_arn,
            outputUri=output_uri,
            workflowId=_id_or_none("workflow_id", workflow_id),
            workflowType=workflow_type,
            workflowOwnerId=workflow_owner_id,
            workflowVersionName=workflow_version_name,
            runId=_id_or_none("run_id", run_id),
            name=name,
            parameters=parameters,
            cacheId=_id_or_none("cache_id", cache_id),
            cacheBehavior=cache_behavior,
            runGroupId=_id_or_none("run_group_id", run_group_id),
            priority=priority,
            storageType=storage_type,
            storageCapacity=storage_capacity,
            logLevel=log_level,
            retentionMode=retention_mode,
            networkingMode=networking_mode,
            scratchStorageMode=scratch_storage_mode,
            configurationName=configuration_name,
            outputUriPrefixMode=output_uri_prefix_mode,
            sessionPolicy=session_policy,
            engineSettings=engine_settings,
            tags=tags,
            requestId=request_id,
        )

    def get_run(self, *, run_id: str, export: Sequence[str] | None = None, max_silence: float = 0) -> Answer:
        """Get a run.

        All hooks of a process together make at most ``[omics_cache] max_get_run_per_second`` of these calls per second
        in a Region. A call that comes earlier waits for its turn.

        :param run_id: id of the run.
        :param export: what the answer contains in addition, such as ``["DEFINITION"]``.
        :param max_silence: seconds for which an unanswered call is repeated. Default: one attempt.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_GetRun.html
        """
        self.rest(pace.get_run_pace.seconds_to_wait(self.client_region, timing.monotonic()))
        return self._call("GetRun", id=check_id("run_id", run_id), export=export, max_silence=max_silence)

    def get_runs(
        self, run_ids: Iterable[str], *, max_silence: float = LONGEST_SILENCE
    ) -> Iterator[tuple[str, Answer | None]]:
        """Get runs one by one, at the pace of :meth:`get_run`.

        :param run_ids: ids of the runs.
        :param max_silence: seconds for which an unanswered call is repeated. Default: an hour.
        :return: pairs of id and GetRun's answer. The answer is None if the service does not know the run.
        """
        for run_id in run_ids:
            yield run_id, if_found(partial(self.get_run, run_id=run_id, max_silence=max_silence))

    def list_runs(
        self,
        *,
        name: str | None = None,
        run_group_id: str | None = None,
        batch_id: str | None = None,
        status: str | None = None,
        max_results: int | None = None,
        starting_token: str | None = None,
        max_silence: float = 0,
    ) -> Iterator[Answer]:
        """List runs.

        :param name: only runs of this name.
        :param run_group_id: only runs of this run group.
        :param batch_id: only runs of this batch.
        :param status: only runs in this status.
        :param max_results: runs per page, 1 to 100.
        :param starting_token: the ``nextToken`` of a page; the list continues with the next page.
        :param max_silence: seconds for which an unanswered call is repeated. Default: one attempt.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_ListRuns.html
        """
        return self._items(
            "ListRuns",
            "items",
            starting_token,
            max_silence=max_silence,
            name=name,
            runGroupId=_id_or_none("run_group_id", run_group_id),
            batchId=_id_or_none("batch_id", batch_id),
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
        """Delete the metadata of a run; its outputs and logs stay.

        :param run_id: id of the run.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_DeleteRun.html
        """
        return self._call("DeleteRun", id=check_id("run_id", run_id))

    # Tasks of a run

    def list_run_tasks(
        self,
        *,
        run_id: str,
        status: str | None = None,
        max_results: int | None = None,
        starting_token: str | None = None,
        max_silence: float = 0,
    ) -> Iterator[Answer]:
        """List the tasks of a run.

        :param run_id: id of the run.
        :param status: only tasks in this status.
        :param max_results: tasks per page, 1 to 100.
        :param starting_token: the ``nextToken`` of a page; the list continues with the next page.
        :param max_silence: seconds for which an unanswered call is repeated. Default: one attempt.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_ListRunTasks.html
        """
        return self._items(
            "ListRunTasks",
            "items",
            starting_token,
            max_silence=max_silence,
            id=check_id("run_id", run_id),
            status=status,
            maxResults=max_results,
        )

    def get_run_task(self, *, run_id: str, task_id: str, max_silence: float = 0) -> Answer:
        """Get a task of a run.

        :param run_id: id of the run.
        :param task_id: id of the task.
        :param max_silence: seconds for which an unanswered call is repeated. Default: one attempt.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_GetRunTask.html
        """
        return self._call(
            "GetRunTask",
            id=check_id("run_id", run_id),
            taskId=check_id("task_id", task_id),
            max_silence=max_silence,
        )

    # Run groups

    def create_run_group(
        self,
        *,
        name: str | None = None,
        max_cpus: int | None = None,
        max_gpus: int | None = None,
        max_runs: int | None = None,
        max_duration: int | None = None,
        tags: Mapping[str, str] | None = None,
        request_id: str | None = None,
    ) -> Answer:
        """Create a run group.

        :param name: name of the group; not unique.
        :param max_cpus: CPUs that the active runs of the group use together, 1 to 100,000.
        :param max_gpus: GPUs that the active runs of the group use together, 1 to 100,000.
        :param max_runs: active runs of the group, 1 to 100,000.
        :param max_duration: minutes after which the service fails a run of the group, 1 to 100,000.
        :param tags: tags of the group.
        :param request_id: idempotency token. Default: botocore makes a new one for each call.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_CreateRunGroup.html
        """
        return self._call(
            "CreateRunGroup",
            name=name,
            maxCpus=max_cpus,
            maxGpus=max_gpus,
            maxRuns=max_runs,
            maxDuration=max_duration,
            tags=tags,
            requestId=request_id,
        )

    def get_run_group(self, *, run_group_id: str, max_silence: float = 0) -> Answer:
        """Get a run group.

        :param run_group_id: id of the group.
        :param max_silence: seconds for which an unanswered call is repeated. Default: one attempt.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_GetRunGroup.html
        """
        return self._call("GetRunGroup", id=check_id("run_group_id", run_group_id), max_silence=max_silence)

    def list_run_groups(
        self,
        *,
        name: str | None = None,
        max_results: int | None = None,
        starting_token: str | None = None,
        max_silence: float = 0,
    ) -> Iterator[Answer]:
        """List the run groups of the account and Region.

        :param name: only groups of this name.
        :param max_results: groups per page, 1 to 100.
        :param starting_token: the ``nextToken`` of a page; the list continues with the next page.
        :param max_silence: seconds for which an unanswered call is repeated. Default: one attempt.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_ListRunGroups.html
        """
        return self._items(
            "ListRunGroups", "items", starting_token, max_silence=max_silence, name=name, maxResults=max_results
        )

    def update_run_group(
        self,
        *,
        run_group_id: str,
        name: str | None = None,
        max_cpus: int | None = None,
        max_gpus: int | None = None,
        max_runs: int | None = None,
        max_duration: int | None = None,
    ) -> Answer:
        """Change a run group. Members that are not given do not change.

        :param run_group_id: id of the group.
        :param name: new name.
        :param max_cpus: CPUs that the active runs of the group use together, 1 to 100,000.
        :param max_gpus: GPUs that the active runs of the group use together, 1 to 100,000.
        :param max_runs: active runs of the group, 1 to 100,000.
        :param max_duration: minutes after which the service fails a run of the group, 1 to 100,000.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_UpdateRunGroup.html
        """
        return self._call(
            "UpdateRunGroup",
            id=check_id("run_group_id", run_group_id),
            name=name,
            maxCpus=max_cpus,
            maxGpus=max_gpus,
            maxRuns=max_runs,
            maxDuration=max_duration,
        )

    def delete_run_group(self, *, run_group_id: str) -> Answer:
        """Delete a run group.

        :param run_group_id: id of the group.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_DeleteRunGroup.html
        """
        return self._call("DeleteRunGroup", id=check_id("run_group_id", run_group_id))

    # Workflows

    def get_workflow(
        self,
        *,
        workflow_id: str,
        workflow_type: str | None = None,
        export: Sequence[str] | None = None,
        workflow_owner_id: str | None = None,
        max_silence: float = 0,
    ) -> Answer:
        """Get a workflow.

        :param workflow_id: id of the workflow.
        :param workflow_type: ``PRIVATE`` or ``READY2RUN``.
        :param export: what the answer contains in addition, such as ``["DEFINITION"]``.
        :param workflow_owner_id: account that owns a shared workflow.
        :param max_silence: seconds for which an unanswered call is repeated. Default: one attempt.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_GetWorkflow.html
        """
        return self._call(
            "GetWorkflow",
            id=check_id("workflow_id", workflow_id),
            type=workflow_type,
            export=export,
            workflowOwnerId=workflow_owner_id,
            max_silence=max_silence,
        )

    def get_workflow_version(
        self,
        *,
        workflow_id: str,
        version_name: str,
        workflow_type: str | None = None,
        export: Sequence[str] | None = None,
        workflow_owner_id: str | None = None,
        max_silence: float = 0,
    ) -> Answer:
        """Get a version of a workflow.

        :param workflow_id: id of the workflow.
        :param version_name: name of the version.
        :param workflow_type: ``PRIVATE`` or ``READY2RUN``.
        :param export: what the answer contains in addition, such as ``["DEFINITION"]``.
        :param workflow_owner_id: account that owns a shared workflow.
        :param max_silence: seconds for which an unanswered call is repeated. Default: one attempt.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_GetWorkflowVersion.html
        """
        return self._call(
            "GetWorkflowVersion",
            workflowId=check_id("workflow_id", workflow_id),
            versionName=version_name,
            type=workflow_type,
            export=export,
            workflowOwnerId=workflow_owner_id,
            max_silence=max_silence,
        )

    def list_workflows(
        self,
        *,
        workflow_type: str | None = None,
        name: str | None = None,
        max_results: int | None = None,
        starting_token: str | None = None,
        max_silence: float = 0,
    ) -> Iterator[Answer]:
        """List workflows.

        :param workflow_type: only workflows of this type: ``PRIVATE`` or ``READY2RUN``.
        :param name: only workflows of this name.
        :param max_results: workflows per page, 1 to 100.
        :param starting_token: the ``nextToken`` of a page; the list continues with the next page.
        :param max_silence: seconds for which an unanswered call is repeated. Default: one attempt.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_ListWorkflows.html
        """
        return self._items(
            "ListWorkflows",
            "items",
            starting_token,
            max_silence=max_silence,
            type=workflow_type,
            name=name,
            maxResults=max_results,
        )

    # Configurations

    def get_configuration(self, *, name: str, max_silence: float = 0) -> Answer:
        """Get a configuration of runs.

        :param name: name of the configuration.
        :param max_silence: seconds for which an unanswered call is repeated. Default: one attempt.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_GetConfiguration.html
        """
        return self._call("GetConfiguration", name=name, max_silence=max_silence)

    # Tags

    def tag_resource(self, *, resource_arn: str, tags: Mapping[str, str]) -> Answer:
        """Set tags of a resource; its other tags do not change.

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

    def list_tags_for_resource(self, *, resource_arn: str, max_silence: float = 0) -> Answer:
        """List the tags of a resource.

        :param resource_arn: ARN of the resource.
        :param max_silence: seconds for which an unanswered call is repeated. Default: one attempt.

        .. seealso:: https://docs.aws.amazon.com/omics/latest/api/API_ListTagsForResource.html
        """
        return self._call("ListTagsForResource", max_silence=max_silence, resourceArn=resource_arn)


def _id_or_none(parameter: str, value: str | None) -> str | None:
    return None if value is None else check_id(parameter, value)
