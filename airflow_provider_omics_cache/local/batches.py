"""The batch operations, and the submission of a batch's runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import gcd
from typing import Any

from airflow_provider_omics_cache.healthomics.states import BatchStatus
from airflow_provider_omics_cache.local.batch import Batch, RunOverrides
from airflow_provider_omics_cache.local.course import Course, TaskDefinition
from airflow_provider_omics_cache.local.moto_backend import etag_of_object, owner_of_bucket, read_object
from airflow_provider_omics_cache.local.planning import needs_a_course, plan_course
from airflow_provider_omics_cache.local.protocol import (
    ServiceError,
    load_json_array,
    new_uuid,
    not_found,
    number_of,
    page,
    start_of_page,
    validation_error,
)
from airflow_provider_omics_cache.local.quotas import StartRunShare
from airflow_provider_omics_cache.local.region import MAX_TAGS, Region, ServiceContext, check_tags
from airflow_provider_omics_cache.local.run_of_batch import RunOfBatch
from airflow_provider_omics_cache.local.run_rules import (
    MAX_PARAMETER_BYTES,
    check_batch_default,
    output_uri_error,
    parameters_error,
)
from airflow_provider_omics_cache.local.start_rules import (
    check_resources,
    has_templates,
    problem_with_parameters,
    template_of,
)
from airflow_provider_omics_cache.local.workflows import existing_workflow, find_workflow, tasks_of

_CANCELLABLE = frozenset({BatchStatus.PENDING, BatchStatus.SUBMITTING, BatchStatus.INPROGRESS})
_RUNS_DELETABLE = frozenset({BatchStatus.PROCESSED, BatchStatus.CANCELLED})
_DELETABLE = frozenset(
    {
        BatchStatus.PROCESSED,
        BatchStatus.FAILED,
        BatchStatus.CANCELLED,
        BatchStatus.RUNS_DELETE_FAILED,
        BatchStatus.RUNS_DELETED,
    }
)
_BEFORE_SUBMITTING = frozenset({BatchStatus.CREATING, BatchStatus.PENDING})


def start_run_batch(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """StartRunBatch."""
    now, settings = context.now, context.settings
    if settings.failed_batch_token == "starts_again":  # nosec B105  # not a secret
        _release_token_of_failed_batch(region, context, request["requestId"])
    replayed = region.tokens.find("StartRunBatch", request, now=now, settings=settings)
    if replayed is not None:
        batch = region.batches.get(int(replayed["id"]))
        if settings.replayed_status == "current" and batch is not None:
            batch.advance(now, RegionSubmitter(region, context))
            replayed["status"] = batch.status(now)
        return replayed
    check_tags(request.get("tags", {}))
    default = check_documents(request["defaultRunSetting"])
    check_tags(default.get("runTags", {}))
    check_batch_default(default)
    find_workflow(region, context, default["workflowId"])
    source = request["batchRunSettings"]
    for setting in source.get("inlineSettings", []):
        check_documents(setting)
    etag = None
    if "s3UriSettings" in source:
        try:
            etag = etag_of_object(region.account_id, source["s3UriSettings"])
        except LookupError:
            raise validation_error("The s3UriSettings object cannot be accessed") from None
    number = next(context.ids)
    batch = Batch(number=number, uuid=new_uuid(), request=request, etag=etag, created_at=now, settings=settings)
    region.add_batch(batch)
    answer = {
        "id": str(number),
        "arn": _arn(region, batch),
        "uuid": batch.uuid,
        "status": BatchStatus.CREATING,
        "tags": dict(batch.tags),
    }
    region.tokens.remember("StartRunBatch", request, answer, now=now, settings=settings)
    return answer


def get_batch(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """GetBatch."""
    batch, now = _find(region, context, request)
    status = batch.status(now)
    counted_at = now - context.faults.age_of_counts()
    total_runs = batch.total_runs()
    answer: dict[str, Any] = {
        "id": str(batch.number),
        "arn": _arn(region, batch),
        "uuid": batch.uuid,
        "status": status,
        "tags": dict(batch.tags),
        "defaultRunSetting": batch.default,
        "creationTime": context.clock.at(batch.created_at),
    }
    if batch.name is not None:
        answer["name"] = batch.name
    if total_runs is not None:
        answer["totalRuns"] = total_runs
        answer["submissionSummary"] = batch.submission_summary(counted_at)
        if status not in _BEFORE_SUBMITTING:
            answer["runSummary"] = batch.run_summary(counted_at)
    times = {"submittedTime": batch.submitted_at, "failedTime": batch.failed_at}
    if status not in (BatchStatus.SUBMITTING, BatchStatus.INPROGRESS):
        times["processedTime"] = batch.processed_at
    answer.update({name: context.clock.at(time) for name, time in times.items() if time is not None})
    if batch.failure_reason is not None:
        answer["failureReason"] = batch.failure_reason
    return answer


def list_batch(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """ListBatch."""
    _check_one_filter(request, ("status", "name", "runGroupId"))
    after, now = start_of_page("ListBatch", request), context.now
    submitter = RegionSubmitter(region, context)

    def rows() -> Iterator[tuple[int, dict[str, Any]]]:
        for number, batch in region.batches.items():
            if number <= after or not _is_visible(context, batch, now):
                continue
            if request.get("name", batch.name) != batch.name:
                continue
            if "runGroupId" in request and request["runGroupId"] != batch.default.get("runGroupId"):
                continue
            batch.advance(now, submitter)
            status = batch.status(now)
            if request.get("status", status) != status:
                continue
            item = {
                "id": str(number),
                "name": batch.name,
                "status": status,
                "createdAt": context.clock.at(batch.created_at),
                "totalRuns": batch.total_runs(),
                "workflowId": batch.default["workflowId"],
            }
            yield number, {name: value for name, value in item.items() if value is not None}

    return page("ListBatch", request, rows(), size="maxItems", key="items")


def list_runs_in_batch(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """ListRunsInBatch."""
    _check_one_filter(request, ("submissionStatus", "runSettingId", "runId"))
    batch, _ = _find(region, context, request)
    after = start_of_page("ListRunsInBatch", request)
    places = _places(batch, after, request)
    missing = context.faults.missing_rows()
    if missing:
        positions = [position for position, _ in _places(batch, 0, request)]
        last = positions[-missing - 1] if len(positions) > missing else 0
        places = (place for place in places if place[0] <= last)
    rows = ((position, _row(region, batch, index)) for position, index in places)
    return page("ListRunsInBatch", request, rows, size="maxItems", key="runs")


def cancel_run_batch(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """CancelRunBatch."""
    batch, now = _find(region, context, request)
    _check_state(context, batch, now, _CANCELLABLE, "cancelled")
    batch.cancel(now, context.faults.cancel_fails)
    return {}


def delete_run_batch(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """DeleteRunBatch."""
    batch, now = _find(region, context, request)
    _check_state(context, batch, now, _RUNS_DELETABLE, "deleted with its runs")
    freed = batch.delete_runs(now, context.faults.delete_fails)
    region.free_runs(freed)
    if context.settings.send_events or context.settings.write_logs:
        tasks = tasks_of(region, context, batch)
        region.deleted_runs += [RunOfBatch(batch, batch.run_indexes[number], tasks) for number in freed]
    return {}


def delete_batch(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """DeleteBatch."""
    batch, now = _find(region, context, request)
    _check_state(context, batch, now, _DELETABLE, "deleted")
    region.remove_batch(batch)
    return {}


def _release_token_of_failed_batch(region: Region, context: ServiceContext, request_id: str) -> None:
    number = region.tokens.id_of("StartRunBatch", request_id)
    batch = None if number is None else region.batches.get(number)
    if batch is None:
        return
    batch.advance(context.now, RegionSubmitter(region, context))
    if batch.can_start_again:
        region.tokens.release("StartRunBatch", request_id)


def _places(batch: Batch, after: int, request: dict[str, Any]) -> Iterator[tuple[int, int]]:
    """Return position in ListRunsInBatch, counted from 1, and run number of each run to list."""
    if batch.runs is None:
        return
    total = len(batch.runs)
    only = _only_index(batch, request)
    status = request.get("submissionStatus")
    step = _step(total) if batch.settings.listing_order == "shuffled" else 1
    for position in range(after, total):
        index = position * step % total
        if only is not None and index != only:
            continue
        outcome = batch.outcome(index)
        if outcome is None and (status is not None or not batch.settings.list_unsubmitted_runs):
            continue
        if status is not None and outcome != status:
            continue
        yield position + 1, index


def _row(region: Region, batch: Batch, index: int) -> dict[str, Any]:
    assert batch.runs is not None
    row: dict[str, Any] = {"runSettingId": batch.runs.ids[index]}
    outcome = batch.outcome(index)
    if outcome is not None:
        row["submissionStatus"] = outcome
    if batch.was_started(index):
        run_id = str(batch.run_numbers[index])
        row["runId"] = run_id
        row["runInternalUuid"] = batch.run_uuid(index)
        row["runArn"] = region.arn(f"run/{run_id}")
    if index in batch.submission_failures:
        reason, message = batch.submission_failures[index]
        row["submissionFailureReason"] = reason
        row["submissionFailureMessage"] = message
    return row


def _only_index(batch: Batch, request: dict[str, Any]) -> int | None:
    """Return the number of the only run that the filters can match; -1 if they match no run, None if any."""
    assert batch.runs is not None
    index: int | None
    if "runSettingId" in request:
        index = batch.runs.index_of(request["runSettingId"])
    elif "runId" in request:
        index = batch.run_indexes.get(number_of(request["runId"]))
    else:
        return None
    return -1 if index is None else index


def _step(total: int) -> int:
    """Return a step that is coprime to ``total``, so that its multiples visit every position once, out of order."""
    step = max(1, total * 5 // 8)
    while gcd(step, total) != 1:
        step += 1
    return step


def _find(region: Region, context: ServiceContext, request: dict[str, Any]) -> tuple[Batch, float]:
    now = context.now
    batch = region.batches.get(number_of(request["batchId"]))
    if batch is None or not _is_visible(context, batch, now):
        raise not_found("Batch", request["batchId"])
    batch.advance(now, RegionSubmitter(region, context))
    return batch, now


def _is_visible(context: ServiceContext, batch: Batch, now: float) -> bool:
    return now >= batch.created_at + context.settings.batch_visible_after


def _check_state(
    context: ServiceContext, batch: Batch, now: float, allowed: frozenset[BatchStatus], change: str
) -> None:
    status = batch.status(now)
    if status not in allowed:
        raise ServiceError(
            context.settings.wrong_state_error, f"Batch {batch.number} is {status} and cannot be {change}"
        )


def _check_one_filter(request: dict[str, Any], filters: tuple[str, ...]) -> None:
    given = [name for name in filters if name in request]
    if len(given) > 1:
        raise validation_error(f"Only one filter is supported per call; there were {', '.join(given)}")


def _arn(region: Region, batch: Batch) -> str:
    return region.arn(f"runBatch/{batch.number}")


class RegionSubmitter:
    """Checks and submits the runs of the batches of one Region: see ``batch.Submitter``."""

    def __init__(self, region: Region, context: ServiceContext) -> None:
        self.faults = context.faults
        self._region = region
        self._context = context
        self._export_failures: dict[str, tuple[str, str] | None] = {}
        self._tasks: dict[int, Sequence[TaskDefinition] | None] = {}

    def load_settings(self, batch: Batch) -> RunOverrides:
        """Return the checked run settings.

        :raises ServiceError: the settings are not valid.
        """
        given = self._read_settings_file(batch) if batch.inline_settings is None else batch.inline_settings
        settings = RunOverrides(given)
        distinct = len(set(settings.ids))
        if distinct != len(settings):
            raise validation_error(f"Expected {len(settings)} unique runSettingIds but there were {distinct}")
        return settings

    def failure_of_all(self, batch: Batch) -> tuple[str, str] | None:
        """Return reason and message if no run of the batch can be submitted, else None."""
        try:
            check_resources(self._region, self._context, batch.default)
        except ServiceError as error:
            return error.code, error.message
        return None

    def failure_of_run(self, batch: Batch, index: int) -> tuple[str, str] | None:
        """Return reason and message if this run cannot be submitted, else None."""
        assert batch.runs is not None
        kept, limit = self._region.kept_runs, batch.settings.max_runs_kept
        if kept >= limit and batch.default.get("retentionMode") != "REMOVE":
            return "ServiceQuotaExceededException", f"The Region has {kept} runs but {limit:.0f} runs is the max."
        workflow = existing_workflow(self._region, self._context, batch.default["workflowId"])
        has_template = workflow is not None and has_templates(workflow)
        fits = batch.parameters_fit(MAX_PARAMETER_BYTES) and batch.run_tags_fit(MAX_TAGS)
        if not has_template and fits and self._outputs_fit(batch):
            return None
        run = batch.runs[index]
        output_uri = run.get("outputUri", batch.default.get("outputUri"))
        if output_uri is None:
            return "ValidationException", "outputUri must be in the run setting or in the default run setting"
        wrong_uri = output_uri_error(output_uri)
        if wrong_uri is not None:
            return "ValidationException", wrong_uri
        try:
            check_tags(batch.tags_of_run(index))
        except ServiceError as error:
            return error.code, error.message
        parameters = {**batch.default.get("parameters", {}), **run.get("parameters", {})}
        too_large = parameters_error(parameters)
        if too_large is not None:
            return "ValidationException", too_large
        template = None if workflow is None else template_of(workflow, {**batch.default, **run})
        problem = problem_with_parameters(template, parameters)
        if problem is not None:
            return "ValidationException", problem
        return None

    def _outputs_fit(self, batch: Batch) -> bool:
        """Return whether every run has the outputUri of the default setting, and this outputUri is valid."""
        assert batch.runs is not None
        output_uri = batch.default.get("outputUri")
        return output_uri is not None and not batch.runs.have_output_uris and output_uri_error(output_uri) is None

    def failure_of_export(self, batch: Batch, index: int) -> tuple[str, str] | None:
        """Return failureReason and statusMessage if the outputs of this run cannot be written, else None."""
        assert batch.runs is not None
        if not batch.settings.check_output_bucket:
            return None
        setting = batch.merged_setting(index) if batch.runs.have_output_uris else batch.default
        bucket = setting["outputUri"].removeprefix("s3://").partition("/")[0]
        if bucket not in self._export_failures:
            try:
                owner_of_bucket(bucket)
                self._export_failures[bucket] = None
            except LookupError:
                self._export_failures[bucket] = "EXPORT_FAILED", f"The bucket {bucket} of the outputUri does not exist"
        return self._export_failures[bucket]

    def course_of(self, batch: Batch, index: int) -> Course | None:
        """Return the course of a run that is submitted; None if its times are those of the settings."""
        assert batch.runs is not None
        if batch.number not in self._tasks:
            registered = tasks_of(self._region, self._context, batch)
            needed = needs_a_course(self._region, self._context, batch.default, registered)
            self._tasks[batch.number] = registered if needed else None
        tasks = self._tasks[batch.number]
        if tasks is None:
            return None
        return plan_course(
            self._region,
            self._context,
            batch.effective_setting(index),
            name=batch.runs.ids[index],
            tasks=tasks,
            submitted_at=batch.submission_time(index),
            settings=batch.settings,
        )

    def new_run_number(self) -> int:
        """Return an id for a new run."""
        freed = self._region.freed_run_numbers
        self._region.kept_runs += 1
        if self._context.settings.reuse_run_ids and freed:
            return freed.pop(0)
        return next(self._context.ids)

    def share_start_runs(self, runs: int, *, at: float, per_second: float) -> StartRunShare:
        """Return the share of the Region's StartRun quota for a batch that begins to submit."""
        return self._region.start_run_quota.join(runs, at=at, per_second=per_second)

    def _read_settings_file(self, batch: Batch) -> Iterator[dict[str, Any]]:
        assert batch.settings_uri is not None
        try:
            content, etag = read_object(self._region.account_id, batch.settings_uri)
        except LookupError:
            raise validation_error("The s3UriSettings object cannot be accessed") from None
        if etag != batch.settings_etag:
            raise validation_error(
                f"Expected s3UriConfigs etag: {batch.settings_etag} but was: {etag}. "
                "s3UriConfigs have changed since calling StartRunBatch"
            )
        number, limit = 0, batch.settings.max_runs_in_batch
        first_error: ServiceError | None = None
        try:
            text = content.decode("utf-8")
            del content  # it takes as much memory as the text
            for number, setting in enumerate(load_json_array(text), start=1):
                if first_error is None and number <= limit:
                    try:
                        checked = self._context.check_setting(setting, f"runConfigurations.{number}.member")
                        yield check_documents(checked)
                    except ServiceError as error:
                        first_error = error
        except ValueError:
            raise validation_error("Invalid JSON format in run configurations") from None
        if number > limit:
            raise validation_error(f"Batch has {number} runs but {limit} runs is the max.")
        if not number:
            raise validation_error("Batch has 0 runs but 1 run is the min.")
        if first_error is not None:
            raise first_error


def check_documents(setting: dict[str, Any]) -> dict[str, Any]:
    """Return the setting.

    :raises ServiceError: parameters or engineSettings is not a JSON object.
    """
    for name in ("parameters", "engineSettings"):
        if name in setting and not isinstance(setting[name], dict):
            raise validation_error(f"1 validation error detected: {name} must be a JSON object")
    return setting
