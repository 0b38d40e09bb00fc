"""Start a single run once: find the run that an earlier try of the task started, or start a new one.

It follows the `guide on starting a run <https://docs.aws.amazon.com/omics/latest/dev/starting-a-run.html>`__.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from botocore import xform_name

from airflow_provider_omics_cache import timing
from airflow_provider_omics_cache.exceptions import (
    OmicsApiError,
    OmicsError,
    OmicsParameterError,
    OmicsRequestError,
    RunCancelledError,
    RunConflictError,
    RunDeletedError,
    RunFailedError,
)
from airflow_provider_omics_cache.healthomics.awaited_run import Run
from airflow_provider_omics_cache.healthomics.once import (
    DIGEST_TAG,
    GENERATION_TAG,
    Decided,
    StartDecision,
    StartOnce,
    StartRequest,
    decide,
)
from airflow_provider_omics_cache.healthomics.rounds import CONSISTENCY_SECONDS
from airflow_provider_omics_cache.healthomics.states import RunMeaning, WhenFound, meaning_of_run, shown
from airflow_provider_omics_cache.healthomics.tokens import names_token
from airflow_provider_omics_cache.hooks.client import LONGEST_SILENCE
from airflow_provider_omics_cache.hooks.errors import if_found

if TYPE_CHECKING:
    from airflow_provider_omics_cache.hooks.client import Answer
    from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook

#: Tags that the operator sets.
OWN_RUN_TAGS = frozenset({DIGEST_TAG, GENERATION_TAG})

_ERRORS = {"conflict": RunConflictError, "failed": RunFailedError, "missing": OmicsError}
#: Members of StartRun that name a resource: the parameter, its rule, and the word for the resource in AWS's messages.
_RESOURCES = {
    "workflowVersionName": ("workflow_version_name", "must name an active version of the workflow", "version"),
    "configurationName": ("configuration_name", "must name an active configuration", "configuration"),
    "runGroupId": ("run_group_id", "must name an existing run group", "run ?group"),
    "cacheId": ("cache_id", "must name an active run cache", "cache"),
    "runId": ("run_id", "must name an existing run", "run"),
    "workflowId": ("workflow_id", "must name an active workflow", "workflow"),
}
_REFUSALS = frozenset({"ResourceNotFoundException", "ValidationException"})
_READY2RUN = "READY2RUN"
#: Matches the service's text about a resource that is missing or not active.
_NOT_USABLE = re.compile(r"not found|does not exist|doesn't exist|not active|\binactive\b", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class RunRequest(StartRequest):
    """The run that a task asks for.

    :param run_name: beginning of the run's name.
    :param members: members of StartRun's request, without the name, the tags and the token.
    """

    run_name: str
    members: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Name of the run. It ends in a hash of the identity."""
        return self.identity.run_name(self.run_name)

    def token(self, generation: int) -> str:
        """Return the idempotency token.

        :param generation: 0 for the task's first run; it increases when a new run replaces an old one.
        """
        return self.request_id or self.identity.run_token(generation=generation)


def decide_start_run(status: str | None, **known: Any) -> StartDecision:
    """Decide what to do about a run that has the task's own run name.

    :param status: GetRun's status.
    :param known: what is known of the request and of the run; see :func:`~.once.decide`.
    """
    return decide(meaning_of_run(status), **known)


def check_combinations(members: Mapping[str, Any]) -> None:
    """Check what members of StartRun's request must, or must not, be given together.

    :param members: members of the request.
    :raises OmicsParameterError: a rule is broken.
    """
    workflow_id, run_id = members.get("workflowId"), members.get("runId")
    if (workflow_id is None) == (run_id is None):
        rule = "must be given unless run_id is given, and not together with it"
        raise OmicsParameterError("workflow_id", rule, workflow_id)
    is_ready2run = members.get("workflowType") == _READY2RUN
    for member, parameter, allowed in (
        ("storageType", "storage_type", "DYNAMIC"),
        ("storageCapacity", "storage_capacity", None),
    ):
        if is_ready2run and members.get(member, allowed) != allowed:
            rule = f"must not be given for a {_READY2RUN} workflow, which has its own storage"
            raise OmicsParameterError(parameter, rule, members[member])
    if is_ready2run and members.get("cacheId") is not None:
        rule = f"must not be given for a {_READY2RUN} workflow, which cannot use a run cache"
        raise OmicsParameterError("cache_id", rule, members["cacheId"])
    if members.get("storageType") == "STATIC" and members.get("storageCapacity") is None and run_id is None:
        raise OmicsParameterError("storage_capacity", "must be given for storage_type STATIC, in GiB", None)
    if members.get("cacheBehavior") is not None and members.get("cacheId") is None and run_id is None:
        rule = "has no effect without cache_id: set cache_id, or remove cache_behavior"
        raise OmicsParameterError("cache_behavior", rule, members["cacheBehavior"])
    if members.get("networkingMode") == "VPC" and members.get("configurationName") is None and run_id is None:
        raise OmicsParameterError("configuration_name", "must be given for networking_mode VPC", None)


class Refusal(NamedTuple):
    """The member of StartRun's request that the service refuses.

    :param member: a member that names a resource, or ``parameters``.
    :param rule: the rule that its value breaks. Empty if the service's text does not say that a resource is missing or
        not active.
    """

    member: str
    rule: str


def refusal_of(code: str, text: str, members: Mapping[str, Any]) -> Refusal | None:
    """Return the member of StartRun's request that the service refuses. Return None if the refusal is about something
    else, or may be about the request token.

    :param code: the error code.
    :param text: the service's text.
    :param members: members of the request.
    """
    if code not in _REFUSALS or names_token(text):
        return None
    is_not_found = code == "ResourceNotFoundException"
    is_missing = is_not_found or _NOT_USABLE.search(text) is not None
    given = [name for name in _RESOURCES if members.get(name) is not None]
    for name in given:
        value = rf"(?<!\w){re.escape(str(members[name]))}(?!\w)"
        is_named = re.search(value, text) is not None and (is_not_found or (is_missing and _is_about(name, text)))
        if name in text or is_named:
            return Refusal(name, _RESOURCES[name][1] if is_missing else "")
    if is_not_found:
        found = next((name for name in given if _is_about(name, text)), None)
        return Refusal(found, _RESOURCES[found][1]) if found else None
    is_about_parameters = re.search(r"\bparameters?\b", text, re.IGNORECASE) is not None
    if is_about_parameters and not any(name in text for name in members):
        return Refusal("parameters", "must fit the parameter template of the workflow")
    return None


def _is_about(member: str, text: str) -> bool:
    return re.search(rf"\b{_RESOURCES[member][2]}\b", text, re.IGNORECASE) is not None


class StartRunOnce(StartOnce):
    """Finds or starts the single run of a task.

    :param hook: the hook.
    :param request: the run that the task asks for.
    """

    noun = "run"
    start_operation = "StartRun"
    get_operation = "GetRun"
    name_parameter = "name"
    created_member = "creationTime"

    def __init__(self, hook: OmicsCacheHook, request: RunRequest) -> None:
        super().__init__(hook, request)
        self._run_request = request

    def list_named(self) -> Iterable[Answer]:
        """List the runs with the request's name. Runs of batches are left out, because other tasks started them."""
        runs = self.hook.list_runs(name=self.request.name, max_silence=LONGEST_SILENCE)
        return (run for run in runs if run.get("batchId") is None)

    def get(self, item: Answer) -> Answer | None:
        """Get a run; None if the service does not show it.

        HealthOmics reuses the ids of deleted runs. Therefore a run with another uuid is another run. If one of the
        uuids is not known, a run with another name is another run.

        :param item: the item of the list, or the answer to the start.
        """
        get = partial(self.hook.get_run, run_id=item["id"], max_silence=LONGEST_SILENCE)
        run = if_found(get)
        if run is None or run.get("batchId") is not None:
            return None
        uuid, seen = item.get("uuid"), run.get("uuid")
        if None not in {uuid, seen}:
            return run if uuid == seen else None
        return {**run, "uuid": seen or uuid} if run.get("name") in {None, self.request.name} else None

    def check_owner(self, answer: Answer) -> None:
        """Check that the run that StartRun returned has the task's own name.

        :param answer: GetRun's answer.
        :raises RunConflictError: it has another name.
        """
        name = answer.get("name")
        if name in {None, self.request.name}:
            return
        if self.request.request_id:
            raise self.token_taken(answer)
        text = (
            f"The request token of this task belongs to run {answer['id']} ({name}), which is "
            f"{shown(answer.get('status'))}. Set the name of the first try, or set rerun_key to start, and pay for, a "
            "new run."
        )
        raise self.error("conflict", text, answer)

    def call_start(self, generation: int) -> Answer:
        """Call StartRun.

        :param generation: generation of the run.
        :raises OmicsApiError: the call failed. If the service refuses a resource, the error names the parameter.
        """
        request = self._run_request
        members = request.members
        try:
            return self.hook.start_run(
                **{xform_name(member): value for member, value in members.items()},
                name=request.name,
                tags={**request.tags, **request.own_tags(generation)},
                request_id=request.token(generation),
            )
        except OmicsApiError as error:
            refusal = refusal_of(error.code, error.reason or "", members)
            if refusal is None:
                raise
            member, value = refusal.member, members.get(refusal.member)
            parameter = _RESOURCES[member][0] if member in _RESOURCES else member
            # The values of parameters are not shown.
            shown_value = sorted(value) if isinstance(value, dict) else repr(value)
            rule = f"{refusal.rule}; got" if refusal.rule else "was refused; got"
            text = f"{parameter} {rule} {shown_value}: {error}"
            if isinstance(error, OmicsRequestError):
                raise OmicsRequestError(
                    text,
                    code=error.code,
                    http_status=error.http_status,
                    operation=error.operation,
                    request_id=error.request_id,
                    # The reason names the member, so that the error does not count as a refusal of the request token.
                    reason=f"'{member}': {error.reason}",
                ) from error.__cause__
            raise error.with_text(text) from error.__cause__

    def meaning_of(self, answer: Answer) -> RunMeaning:
        """Return what the status of a run means.

        :param answer: GetRun's answer.
        """
        return meaning_of_run(answer.get("status"))

    def may_start_again(self, answer: Answer) -> bool:
        """Return False: AWS documents that the request token of a FAILED run does not start a run.

        :param answer: GetRun's answer.
        """
        return False

    def contents(self) -> str:
        """Describe the run for the log."""
        members = self._run_request.members
        text = (
            f"workflow {members['workflowId']}"
            if "workflowId" in members
            else f"the settings of run {members['runId']}"
        )
        if "cacheId" in members:
            text += f", run cache {members['cacheId']}"
        return f"{text}, outputs under {members['outputUri']}"

    def failed_start(self, name: str, times: int = 1) -> str:
        """Say that a run failed before it was started.

        :param name: its id or name.
        :param times: how often it failed.
        """
        return f"Run {name} failed {f'{times} times ' if times > 1 else ''}before it was RUNNING"

    def decide(self, answer: Answer, *, is_newest: bool = True) -> Decided:
        """Decide what to do about a run. First wait until the service shows what the decision needs.

        :param answer: GetRun's answer.
        :param is_newest: whether the run is the newest one of its name.
        """
        runs_started = 0
        if self.meaning_of(answer).when_found == WhenFound.REPLACE_IF_UNUSED and is_newest:
            answer, runs_started = self._wait_for_start_time(answer)
        answer = self._with_uuid(self.with_digest(answer))
        decision = decide_start_run(
            answer.get("status"),
            request_digest=self.request.digest,
            found_digest=(answer.get("tags") or {}).get(DIGEST_TAG),
            runs_started=runs_started,
        )
        return Decided(answer, decision, runs_started)

    def _with_uuid(self, answer: Answer) -> Answer:
        """Get a run again if the answer lacks the uuid. Later tasks recognise the run by its uuid."""
        if answer.get("uuid") is not None:
            return answer
        look = partial(self.get, answer)
        return self.hook.until_seen(look, lambda seen: seen is None or seen["uuid"] is not None) or answer

    def _wait_for_start_time(self, answer: Answer) -> tuple[Answer, int]:
        """Repeat GetRun until it shows the start time of a FAILED run, or the start time can no longer be late.

        :return: GetRun's newest answer, and 1 if the run was started, else 0.
        """

        def look() -> Answer:
            return self.get(answer) or answer

        def is_known(seen: Answer) -> bool:
            stopped = seen.get("stopTime")
            is_old = stopped is not None and timing.time() >= stopped.timestamp() + CONSISTENCY_SECONDS
            return seen.get("startTime") is not None or is_old

        seen = answer if is_known(answer) else self.hook.until_seen(look, is_known)
        return seen, int(seen.get("startTime") is not None)

    def refusal(self, found: Decided) -> OmicsError:
        """Return the error for a run that can neither be used nor replaced.

        :param found: the run.
        """
        run, decision, _ = found
        text, details = self.title(run), _details(run)
        if decision == StartDecision.REFUSE_RUNS_STARTED:
            failure = Run.from_answer(run["id"], run).failure
            return RunFailedError(
                f"{text} ({failure}). It failed after it was started. Correct the cause, and set rerun_key to "
                "start, and pay for, a new run. With a run cache, the new run does not repeat the tasks that are "
                "cached.",
                **details,
            )
        if decision == StartDecision.REFUSE_CANCELLED:
            return RunCancelledError(f"{text}: it was cancelled. Set rerun_key to start a new run.", **details)
        if decision == StartDecision.REFUSE_DELETED:
            return RunDeletedError(f"{text}: it was deleted. Set rerun_key to start a new run.", **details)
        if decision == StartDecision.REFUSE_UNKNOWN_SETTINGS:
            return self.unknown_settings(run)
        return self.other_settings(run)

    def error(self, kind: str, text: str, answer: Answer) -> OmicsError:
        """Return an error about a run.

        :param kind: ``conflict``, ``failed`` or ``missing``.
        :param text: text of the error.
        :param answer: the answer that shows the run.
        """
        return _ERRORS[kind](text, **_details(answer))


def _details(run: Answer) -> dict[str, Any]:
    return {"run_id": run["id"], "status": run.get("status"), "reason": run.get("failureReason")}
