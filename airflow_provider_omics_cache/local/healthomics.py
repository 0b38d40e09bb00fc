"""The local HealthOmics: its operations, and the class that tests use and that answers every request."""

from __future__ import annotations

import functools
import logging
import re
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from airflow_provider_omics_cache.healthomics.states import RunStatus
from airflow_provider_omics_cache.local import batches, caches, configurations, groups, runs, workflows
from airflow_provider_omics_cache.local.announcements import announce
from airflow_provider_omics_cache.local.assumptions import LENIENT, Settings
from airflow_provider_omics_cache.local.batch import Batch, RunOverrides
from airflow_provider_omics_cache.local.clock import Clock
from airflow_provider_omics_cache.local.course import task_definitions
from airflow_provider_omics_cache.local.faults import Faults
from airflow_provider_omics_cache.local.moto_backend import State, account_of
from airflow_provider_omics_cache.local.overview import page_answer
from airflow_provider_omics_cache.local.planning import export
from airflow_provider_omics_cache.local.protocol import (
    ConnectionDropped,
    Protocol,
    Request,
    Response,
    ServiceError,
    error_answer,
    not_found,
    number_of,
    open_page_token,
    seal_page_token,
    validation_error,
)
from airflow_provider_omics_cache.local.region import Region, ServiceContext, Workflow, WorkflowVersion, check_tags
from airflow_provider_omics_cache.local.run_of_batch import RunOfBatch
from airflow_provider_omics_cache.local.single_run import SingleRun

log = logging.getLogger(__name__)

_CREDENTIAL = re.compile(r"Credential=([^/,\s]+)/\d+/([^/]+)/([^/]+)/aws4_request")
_ARN = re.compile(
    r"arn:[^:]+:omics:[^:]*:[^:]*:"
    r"(runCache|runBatch|runGroup|run|workflow|configuration)/([A-Za-z0-9][A-Za-z0-9._-]*)(?:/version/([^/]+))?"
)

_WORKFLOW_STATUSES = ("ACTIVE", "CREATING", "DELETED", "FAILED", "INACTIVE", "UPDATING")

Operation = Callable[[Region, ServiceContext, dict[str, Any]], dict[str, Any]]


def tag_resource(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """TagResource."""
    tags = _tags_of(region, context, request["resourceArn"])
    check_tags({**tags, **request["tags"]})
    tags.update(request["tags"])
    return {}


def untag_resource(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """UntagResource."""
    tags = _tags_of(region, context, request["resourceArn"])
    for key in request["tagKeys"]:
        tags.pop(key, None)
    return {}


def list_tags_for_resource(region: Region, context: ServiceContext, request: dict[str, Any]) -> dict[str, Any]:
    """ListTagsForResource."""
    return {"tags": dict(_tags_of(region, context, request["resourceArn"]))}


def _tags_of(region: Region, context: ServiceContext, arn: str) -> dict[str, str]:
    match = _ARN.fullmatch(arn)
    if match is None:
        raise validation_error(
            "The resourceArn is not the ARN of a run cache, a batch, a run, a run group, a workflow or a configuration"
        )
    kind, number = match[1], number_of(match[2])
    if kind == "workflow" and arn.startswith(region.arn("workflow/")):
        workflow = workflows.find_workflow(region, context, match[2])
        return (workflow if match[3] is None else workflows.find_version(workflow, match[2], match[3])).tags
    if arn == region.arn(f"{kind}/{match[2]}"):
        if kind == "configuration":
            return configurations.find_configuration(region, match[2]).tags
        if kind == "runCache" and number in region.run_caches and not region.run_caches[number].deleted:
            return region.run_caches[number].tags
        if kind == "runBatch" and number in region.batches:
            return region.batches[number].tags
        if kind == "run":
            run, _ = runs.any_run(region, context, match[2])
            return run.changeable_tags()
        if kind == "runGroup":
            return groups.find_run_group(region, context, match[2]).tags
    raise not_found("Resource", arn)


OPERATIONS: dict[str, Operation] = {
    "CreateRunCache": caches.create_run_cache,
    "GetRunCache": caches.get_run_cache,
    "ListRunCaches": caches.list_run_caches,
    "UpdateRunCache": caches.update_run_cache,
    "DeleteRunCache": caches.delete_run_cache,
    "StartRunBatch": batches.start_run_batch,
    "GetBatch": batches.get_batch,
    "ListBatch": batches.list_batch,
    "ListRunsInBatch": batches.list_runs_in_batch,
    "CancelRunBatch": batches.cancel_run_batch,
    "DeleteRunBatch": batches.delete_run_batch,
    "DeleteBatch": batches.delete_batch,
    "StartRun": runs.start_run,
    "GetRun": runs.get_run,
    "ListRuns": runs.list_runs,
    "CancelRun": runs.cancel_run,
    "DeleteRun": runs.delete_run,
    "ListRunTasks": runs.list_run_tasks,
    "GetRunTask": runs.get_run_task,
    "CreateRunGroup": groups.create_run_group,
    "GetRunGroup": groups.get_run_group,
    "ListRunGroups": groups.list_run_groups,
    "UpdateRunGroup": groups.update_run_group,
    "DeleteRunGroup": groups.delete_run_group,
    "CreateWorkflow": workflows.create_workflow,
    "GetWorkflow": workflows.get_workflow,
    "ListWorkflows": workflows.list_workflows,
    "UpdateWorkflow": workflows.update_workflow,
    "DeleteWorkflow": workflows.delete_workflow,
    "CreateWorkflowVersion": workflows.create_workflow_version,
    "GetWorkflowVersion": workflows.get_workflow_version,
    "ListWorkflowVersions": workflows.list_workflow_versions,
    "UpdateWorkflowVersion": workflows.update_workflow_version,
    "DeleteWorkflowVersion": workflows.delete_workflow_version,
    "CreateConfiguration": configurations.create_configuration,
    "GetConfiguration": configurations.get_configuration,
    "ListConfigurations": configurations.list_configurations,
    "DeleteConfiguration": configurations.delete_configuration,
    "TagResource": tag_resource,
    "UntagResource": untag_resource,
    "ListTagsForResource": list_tags_for_resource,
}


#: Operations that neither show runs nor change what happens to them. They never wait for a settings file.
_WITHOUT_RUNS = frozenset(
    {
        "CreateRunCache",
        "GetRunCache",
        "ListRunCaches",
        "CreateRunGroup",
        "GetRunGroup",
        "ListRunGroups",
        "CreateWorkflow",
        "GetWorkflow",
        "ListWorkflows",
        "CreateWorkflowVersion",
        "GetWorkflowVersion",
        "ListWorkflowVersions",
        "CreateConfiguration",
        "GetConfiguration",
        "ListConfigurations",
        "TagResource",
        "UntagResource",
        "ListTagsForResource",
    }
)


class LocalHealthOmics:
    """An in-memory HealthOmics.

    :param speed: service seconds per real second; 0, the default, means that time stands still.
    :param strict: whether only registered workflows and run groups exist, and whether runs fail if the bucket of their
        outputs does not exist. With False the settings are those of
        :data:`~airflow_provider_omics_cache.local.assumptions.LENIENT`.
    """

    def __init__(self, *, speed: float = 0.0, strict: bool = True) -> None:
        #: Service time.
        self.clock = Clock(speed=speed)
        #: Durations, limits and assumptions.
        self.settings = Settings() if strict else Settings(**LENIENT)
        #: Faults to inject.
        self.faults = Faults(clock=self.clock, operations=OPERATIONS)
        #: Number of received requests by name of the operation.
        self.calls: Counter[str] = Counter()
        #: The latest requests: arrival in seconds of service time, name of the operation, and HTTP status of the
        #: answer (0: no answer).
        self.call_log: deque[tuple[float, str, int]] = deque(maxlen=100_000)
        #: Function that is called for each completed run, with GetRun's answer and, for a run of a batch,
        #: the ``runSettingId``. Until it
        #: returns, the run is shown as STOPPING. If it raises an error, the request is answered with CallbackFailed,
        #: and the next request calls the function again.
        self.on_run_completed: Callable[[dict[str, Any]], None] | None = None
        self._lock = threading.RLock()
        self._reporting = threading.Lock()
        self._protocol = _protocol()
        self._state = State()
        self._context = ServiceContext(
            clock=self.clock,
            settings=self.settings,
            faults=self.faults,
            check_setting=self._protocol.check_setting,
        )

    @property
    def operations(self) -> frozenset[str]:
        """Names of the operations that are served. The installed botocore must know them."""
        return self._protocol.operations

    def absent(self) -> list[str]:
        """Return the operations and members that the installed botocore does not know. They are refused."""
        return self._protocol.absent()

    @property
    def roots(self) -> frozenset[str]:
        """First parts of the paths of the operations, such as ``runCache``."""
        return self._protocol.roots

    def register_workflow(
        self,
        workflow_id: str,
        *,
        parameter_template: dict[str, dict[str, Any]] | None = None,
        name: str | None = None,
        workflow_type: str = "PRIVATE",
        status: str = "ACTIVE",
        profile_templates: Mapping[str, dict[str, dict[str, Any]]] | None = None,
        tasks: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """Register a workflow in every Region. Its runs are checked against its parameter template, if it has one.

        :param workflow_id: id of the workflow.
        :param parameter_template: parameter names with their properties, as in CreateWorkflow. Only the property
            ``optional`` is used. Default: any parameters are accepted.
        :param name: name of the workflow.
        :param workflow_type: ``PRIVATE`` or ``READY2RUN``. Default PRIVATE.
        :param status: its status; only runs of an ``ACTIVE`` workflow start. Default ACTIVE.
        :param profile_templates: parameter templates by name of the profile of ``engineSettings`` that uses them.
        :param tasks: the tasks of each run, in their order: the arguments of
            :class:`~airflow_provider_omics_cache.local.course.TaskDefinition`. Default: three tasks.
        """
        _check_id("workflow_id", workflow_id)
        _check_template("parameter_template", parameter_template)
        for profile, template in (profile_templates or {}).items():
            _check_template(f"profile_templates[{profile!r}]", template)
        if workflow_type not in ("PRIVATE", "READY2RUN"):
            raise ValueError(f"workflow_type must be PRIVATE or READY2RUN; got {workflow_type!r}")
        _check_status(status)
        workflow = Workflow(
            parameter_template, dict(profile_templates or {}), {} if name is None else {"name": name}, status
        )
        workflow.type = workflow_type
        if tasks is not None:
            workflow.tasks = task_definitions(tasks)
        self._context.workflows[workflow_id] = workflow

    def register_workflow_version(
        self,
        workflow_id: str,
        version_name: str,
        *,
        parameter_template: dict[str, dict[str, Any]] | None = None,
        status: str = "ACTIVE",
    ) -> None:
        """Register a version of a workflow that was registered.

        :param workflow_id: id of the workflow.
        :param version_name: name of the version.
        :param parameter_template: as for :meth:`register_workflow`.
        :param status: as for :meth:`register_workflow`.
        """
        _check_template("parameter_template", parameter_template)
        _check_status(status)
        workflow = self._context.workflows.get(workflow_id)
        if workflow is None:
            raise ValueError(f"workflow_id must be the id of a registered workflow; got {workflow_id!r}")
        workflow.versions[version_name] = WorkflowVersion(parameter_template, status=status)

    def delete_workflow(self, workflow_id: str) -> None:
        """Mark a workflow as deleted. Batches with it are refused, and further submissions of its runs fail."""
        _check_id("workflow_id", workflow_id)
        self._context.workflows[workflow_id] = None

    def register_run_group(self, run_group_id: str) -> None:
        """Register a run group without limits in every Region."""
        _check_id("run_group_id", run_group_id)
        with self._lock:
            for region in self._state.regions():
                if int(run_group_id) in region.run_groups and region.run_groups[int(run_group_id)].deleted:
                    del region.run_groups[int(run_group_id)]
        self._context.run_groups[run_group_id] = True

    def delete_run_group(self, run_group_id: str) -> None:
        """Mark a run group as deleted. Submissions of its runs fail."""
        _check_id("run_group_id", run_group_id)
        self._context.run_groups[run_group_id] = False

    def forget_tokens(self) -> None:
        """Forget every ``requestId``, as AWS does after some time."""
        with self._lock:
            for region in self._state.regions():
                region.tokens.forget()

    def reset(self) -> None:
        """Remove run caches, batches, workflows, run groups, faults and the log of calls. Clock and settings stay."""
        with self._lock:
            self._state.reset()
            self._context.workflows.clear()
            self._context.run_groups.clear()
            self.faults.clear()
            self.calls.clear()
            self.call_log.clear()

    def page(self) -> Response:
        """Return a page for a browser: the batches, runs, run caches and run groups of every account and Region."""
        with self._lock:
            regions = self._state.regions()
        for region in regions:
            self._read_files(region)
        with self._lock:
            self._context.now = self.clock.elapsed()
            for region in regions:
                self._catch_up(region)
                submitter = batches.RegionSubmitter(region, self._context)
                for batch in region.every_batch():
                    batch.advance(self._context.now, submitter)
            return page_answer(regions, self._context, title="Local HealthOmics")

    def handle(self, request: Request, headers: Mapping[str, str]) -> Response:
        """Answer a request.

        :param request: the request.
        :param headers: headers of the request by lower-case name.
        :raises ConnectionDropped: the connection must be closed without an answer.
        """
        try:
            name = self._protocol.route(request)
        except ServiceError as error:
            return error_answer(error)
        arrived_at, status = self.clock.elapsed(), 0
        try:
            answer = self._answer(name, request, headers)
            if answer.status < 300:
                self.faults.after_call(name)
            status = answer.status
            return answer
        finally:
            self.call_log.append((arrived_at, name, status))

    def _answer(self, name: str, request: Request, headers: Mapping[str, str]) -> Response:
        try:
            with self._lock:
                self.calls[name] += 1
                self.clock.advance(self.clock.tick)
            self.faults.before_call(name)
            return self._serve(name, request, headers)
        except ServiceError as error:
            return error_answer(error)
        except ConnectionDropped:
            raise
        except Exception:
            log.exception("The local HealthOmics failed")
            return error_answer(ServiceError("InternalServerException", "The local HealthOmics failed"))

    def _serve(self, name: str, request: Request, headers: Mapping[str, str]) -> Response:
        access_key, region_name, _ = credential_scope(headers, request.query)
        account_id = account_of(access_key, headers.get("x-moto-account-id"))
        parameters = self._protocol.read(name, request)
        owner = f"{account_id}/{region_name}"
        if "startingToken" in parameters:
            parameters["startingToken"] = open_page_token(parameters["startingToken"], owner)
        with self._lock:
            region = self._state.region(account_id, region_name)
            rate = self.settings.rate_limits.get(name)
            if rate is not None:
                region.call_quotas.spend(name, per_second=rate, now=self.clock.elapsed())
        if name not in _WITHOUT_RUNS:
            self._read_files(region)
        with self._lock:
            self._catch_up(region)
        self._report_completed_runs(region)
        with self._lock:
            self._catch_up(region)
            self._announce(region)
            answer = OPERATIONS[name](region, self._context, parameters)
            if "nextToken" in answer:
                answer["nextToken"] = seal_page_token(answer["nextToken"], owner)
            response = self._protocol.answer(name, answer)
            self._announce(region)
            return response

    def _read_files(self, region: Region) -> None:
        """Read the settings files that are due.

        Other requests do not wait. They see the batches as PENDING until the files are read.
        """
        with self._lock:
            due = region.take_files_to_read(self.clock.elapsed())
        submitter = batches.RegionSubmitter(region, self._context)
        for batch in due:
            content: RunOverrides | Exception
            try:
                content = submitter.load_settings(batch)
            except Exception as error:
                content = error
            with self._lock:
                batch.file_content = content

    def _catch_up(self, region: Region) -> None:
        now = self._context.now = self.clock.elapsed()
        submitter = batches.RegionSubmitter(region, self._context)
        region.begin_batches(now, submitter)
        region.fail_single_runs(now, self.faults.run_failures())
        self._settle_runs(region, now, submitter)
        if self.on_run_completed is None:
            return
        for batch in region.every_batch():
            batch.hold_back(now, submitter)

    def _settle_runs(self, region: Region, now: float, submitter: batches.RegionSubmitter) -> None:
        """Update the runs on which other runs depend, through a run group or a run cache."""
        for batch in region.eager_batches:
            batch.advance(now, submitter)
        for group in region.run_groups.values():
            group.give_places(now)
        for batch in region.eager_batches:
            tasks = workflows.tasks_of(region, self._context, batch)
            for index in batch.ended_runs(now):
                export(region, self._context, RunOfBatch(batch, index, tasks))
        region.eager_batches = [batch for batch in region.eager_batches if not batch.is_settled()]
        for run in [run for run in region.active_runs.values() if run.course().has_ended(now)]:
            del region.active_runs[run.number]
            export(region, self._context, run)
            # Until on_run_completed has returned, the run is shown as STOPPING.
            run.held_back = self.on_run_completed is not None and run.course().status(now) == RunStatus.COMPLETED

    def _announce(self, region: Region) -> None:
        if self.settings.send_events or self.settings.write_logs:
            announce(region, self._context)
        region.deleted_runs.clear()

    def _report_completed_runs(self, region: Region) -> None:
        if not self._reporting.acquire(blocking=False):
            return  # another request reports them, or the callback itself sent this request
        try:
            with self._lock:
                holding_back = [batch for batch in region.every_batch() if batch.holds_back()]
                completed = [run for run in region.single_runs.values() if run.held_back]
            for run in completed:
                self._report_run(region, run)
            for batch in holding_back:
                self._report_runs_of(region, batch)
        except Exception as error:
            log.exception("on_run_completed failed")
            raise ServiceError("CallbackFailed", f"on_run_completed failed: {error!r}") from error
        finally:
            self._reporting.release()

    def _report_run(self, region: Region, run: SingleRun) -> None:
        report = self.on_run_completed
        with self._lock:
            answer = runs.describe_run(region, self._context, run, RunStatus.COMPLETED)
        if report is not None and run.held_back:
            report(answer)
        run.held_back = False

    def _report_runs_of(self, region: Region, batch: Batch) -> None:
        while True:
            report = self.on_run_completed
            with self._lock:
                index = batch.next_held_back()
                if index is None:
                    return
                if report is not None:
                    run = self._completed_run(region, batch, index)
            if report is not None:
                report(run)
            with self._lock:
                batch.release_next()

    def _completed_run(self, region: Region, batch: Batch, index: int) -> dict[str, Any]:
        assert batch.runs is not None
        run = RunOfBatch(batch, index, workflows.tasks_of(region, self._context, batch))
        answer = runs.describe_run(region, self._context, run, RunStatus.COMPLETED)
        return {**answer, "runSettingId": batch.runs.ids[index]}


def _check_id(parameter: str, value: str) -> None:
    if not isinstance(value, str) or number_of(value) == -1:
        raise ValueError(f"{parameter} must be a string of 1 to 18 digits; got {value!r}")


def _check_template(parameter: str, template: dict[str, dict[str, Any]] | None) -> None:
    if template is not None and not (
        isinstance(template, dict) and all(isinstance(about, dict) for about in template.values())
    ):
        raise ValueError(f"{parameter} must be None or a dict of dicts; got {template!r}")


def _check_status(status: str) -> None:
    if status not in _WORKFLOW_STATUSES:
        raise ValueError(f"status must be one of {', '.join(_WORKFLOW_STATUSES)}; got {status!r}")


def credential_scope(headers: Mapping[str, str], query: str) -> tuple[str, str, str]:
    """Return the access key id, Region and service of a request's signature."""
    match = _CREDENTIAL.search(headers.get("authorization") or unquote(query))
    if match is None:
        raise ServiceError("AccessDeniedException", "The request is not signed")
    return match[1], match[2], match[3]


@functools.cache
def _protocol() -> Protocol:
    return Protocol(OPERATIONS)
