"""Compare run groups with what a task asks for; create them once, change and delete them.

It follows the guide on `run groups <https://docs.aws.amazon.com/omics/latest/dev/creating-run-groups.html>`__.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_omics_cache.exceptions import OmicsApiError, OmicsError, RunGroupError
from airflow_provider_omics_cache.healthomics.identity import run_group_token
from airflow_provider_omics_cache.healthomics.resources import (
    MAX_GENERATIONS,
    SHOWN_AFTER,
    Resources,
    check_if_exists,
    check_tags_are_a_dict,
    differing_tags,
    oldest_first,
)
from airflow_provider_omics_cache.healthomics.settings import check_member
from airflow_provider_omics_cache.healthomics.tokens import is_token_refused
from airflow_provider_omics_cache.hooks.arguments import check_request_id, check_tags
from airflow_provider_omics_cache.hooks.client import LARGEST_PAGE, LONGEST_SILENCE

if TYPE_CHECKING:
    from airflow_provider_omics_cache.hooks.client import Answer
    from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
    from airflow_provider_omics_cache.xcoms import RunGroupXCom

#: The service's names of the limits of a run group, by parameter.
LIMITS = {"max_cpus": "maxCpus", "max_gpus": "maxGpus", "max_runs": "maxRuns", "max_duration": "maxDuration"}


def run_group_xcom(run_group: Mapping[str, Any], *, created: bool) -> RunGroupXCom:
    """Return a run group in the form of the XCom ``run_group``.

    :param run_group: GetRunGroup's answer.
    :param created: whether the group did not exist before.
    """
    creation_time = run_group.get("creationTime")
    return {
        "id": run_group["id"],
        "arn": run_group.get("arn"),
        "name": run_group.get("name"),
        "max_cpus": run_group.get("maxCpus"),
        "max_gpus": run_group.get("maxGpus"),
        "max_runs": run_group.get("maxRuns"),
        "max_duration": run_group.get("maxDuration"),
        "creation_time": creation_time.isoformat() if creation_time else None,
        "tags": run_group.get("tags") or {},
        "created": created,
    }


class RunGroupRequest(NamedTuple):
    """The run group that a task asks for. Its name identifies it.

    :param name: name of the group.
    :param limits: limits by parameter; None if a limit does not matter.
    :param tags: tags; other tags of an existing group are ignored.
    """

    name: str
    limits: Mapping[str, int | None]
    tags: Mapping[str, str] | None = None

    @property
    def changeable(self) -> dict[str, Any]:
        """The values that can be changed after the creation."""
        return {**self.limits, "tags": self.tags}


class EnsuredRunGroup(NamedTuple):
    """A run group that exists.

    :param run_group: GetRunGroup's answer.
    :param created: whether it did not exist before.
    """

    run_group: Answer
    created: bool


def differences(run_group: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Compare a run group with the wanted values. Values that are None are not compared.

    :param run_group: GetRunGroup's answer.
    :param wanted: wanted limits and tags, by parameter. Other tags of the group are ignored.
    :return: found and wanted value, by parameter. Tags that are equal are left out.
    """
    differing = {
        parameter: (run_group.get(member), wanted[parameter])
        for parameter, member in LIMITS.items()
        if wanted.get(parameter) is not None and wanted[parameter] != run_group.get(member)
    }
    return differing | differing_tags(run_group, wanted.get("tags"))


def ensure_run_group(
    hook: OmicsCacheHook,
    *,
    name: str,
    max_cpus: int | str | None = None,
    max_gpus: int | str | None = None,
    max_runs: int | str | None = None,
    max_duration: int | str | None = None,
    tags: Mapping[str, str] | None = None,
    request_id: str | None = None,
    if_exists: str = "reuse",
) -> EnsuredRunGroup:
    """Return the run group with this name; create it if it does not exist.

    All tasks that ask for the same name, even at the same time, get the same group. If it is not known whether the
    group exists, no group is created.

    :param hook: the hook.
    :param name: name of the group.
    :param max_cpus: CPUs that the active runs of the group may use together. Limits that are None are not compared.
    :param max_gpus: GPUs that the active runs of the group may use together.
    :param max_runs: number of runs of the group that may be active together.
    :param max_duration: minutes that a run of the group may take.
    :param tags: tags. Other tags of an existing group are ignored.
    :param request_id: idempotency token. Default: derived from name and Region.
    :param if_exists: what to do with an existing group whose limits or tags differ: ``reuse`` it with a warning,
        ``update`` it, or ``fail``.
    :return: the group, and whether it was created.
    :raises OmicsParameterError: a parameter breaks a rule.
    :raises RunGroupError: the existing group differs, or the group could not be created.
    :raises OmicsApiError: a call failed.
    :raises OmicsError: the service did not show in time whether the group exists.
    """
    check_if_exists(if_exists)
    limits = {"max_cpus": max_cpus, "max_gpus": max_gpus, "max_runs": max_runs, "max_duration": max_duration}
    request = _checked(hook, name, limits, tags)
    request_id = check_request_id(request_id)
    search = _RunGroupSearch(hook, request.name)
    run_group = search.find()
    is_new = run_group is None
    if run_group is None:
        run_group = _create_run_group_once(search, request, request_id)
    return EnsuredRunGroup(_RunGroups(hook).settle(run_group, request.changeable, if_exists), is_new)


def remove_run_group(hook: OmicsCacheHook, *, run_group_id: str) -> None:
    """Delete a run group, unless it is already deleted, and wait until the service no longer finds it.

    :param hook: the hook.
    :param run_group_id: id of the group.
    :raises OmicsApiError: a call failed, or the service refused.
    :raises OmicsError: GetRunGroup still found the group after its deletion.
    """
    if _RunGroups(hook).remove(run_group_id):
        hook.log.info("Deleted run group %s", run_group_id)


def _checked(
    hook: OmicsCacheHook, name: Any, limits: Mapping[str, Any], tags: Mapping[str, str] | None
) -> RunGroupRequest:
    """Check the parameters by the installed botocore's model. A limit can be a string, because templates return one."""
    shapes = hook.describe_shape("CreateRunGroupRequest")["members"]
    check_member("name", name, shape=shapes["name"]).raise_if_any()
    checked: dict[str, int | None] = {}
    for parameter, value in limits.items():
        is_number = isinstance(value, str) and value.strip().isascii() and value.strip().isdecimal()
        checked[parameter] = int(value) if is_number else value
        if value is not None:
            check_member(parameter, checked[parameter], shape=shapes[LIMITS[parameter]]).raise_if_any()
    check_tags_are_a_dict(tags)
    if tags is not None:
        check_member("tags", dict(tags), shape=shapes["tags"]).raise_if_any()
        check_tags("tags", tags)
    return RunGroupRequest(name, checked, tags)


class _RunGroups(Resources):
    kind = "run group"
    id_parameter = "run_group_id"
    operation = "RunGroup"
    error_class = RunGroupError

    def read(self, resource_id: str) -> Answer:
        return self.hook.get_run_group(run_group_id=resource_id, max_silence=LONGEST_SILENCE)

    def update(self, resource_id: str, members: Mapping[str, Any]) -> None:
        self.hook.update_run_group(run_group_id=resource_id, **members)

    def delete(self, resource_id: str) -> None:
        self.hook.delete_run_group(run_group_id=resource_id)

    def differences(self, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        return differences(found, wanted)


class _RunGroupSearch:
    """Looks for the run group with a name.

    ListRunGroups and GetRunGroup may each be late. While ListRunGroups shows a group that GetRunGroup does not find, it
    is unclear whether the group exists.
    """

    def __init__(self, hook: OmicsCacheHook, name: str) -> None:
        self.hook = hook
        self.name = name
        self.run_groups = _RunGroups(hook)
        self._matching: list[Answer] = []
        self._unclear: list[str] = []

    def find(self) -> Answer | None:
        """Find the group.

        :return: the oldest group with the name, None if there is no such group.
        :raises OmicsError: a group is listed, but GetRunGroup does not find it.
        """
        self.hook.until_seen(self._look, lambda _: bool(self._matching) or not self._unclear)
        return self._found()

    def find_created(self) -> Answer | None:
        """Find a group that is known to have been created. It may be too new to be listed, or deleted.

        :return: the oldest group with the name, None if ListRunGroups does not show it in time.
        :raises OmicsError: a group is listed, but GetRunGroup does not find it.
        """
        self.hook.until_seen(self._look, lambda _: bool(self._matching))
        return self._found()

    def _found(self) -> Answer | None:
        matching = oldest_first(self._matching)
        if not matching:
            if self._unclear:
                raise OmicsError(
                    f"HealthOmics does not show whether run group {self.name!r} exists: {'; '.join(self._unclear)}. "
                    "No run group was created. Retry the task."
                )
            return None
        run_group = matching[0]
        if len(matching) > 1:
            self.hook.log.warning(
                "Run groups %s have the same name; using the oldest, %s",
                ", ".join(found["id"] for found in matching),
                run_group["id"],
            )
        self.hook.log.info("Run group %s with the name %r exists", run_group["id"], self.name)
        return run_group

    def _look(self) -> None:
        self._matching, self._unclear = [], []
        for run_group_id in self.hook.list_whole(self._list):
            run_group = self.run_groups.get(run_group_id)
            if run_group is None:
                self._unclear.append(f"ListRunGroups shows run group {run_group_id}, but GetRunGroup does not find it")
            elif self.has_name(run_group):
                self._matching.append(run_group)

    def _list(self) -> list[str]:
        listed = self.hook.list_run_groups(name=self.name, max_results=LARGEST_PAGE, max_silence=LONGEST_SILENCE)
        # A group can be on two pages if another one is deleted in the meantime.
        return list(dict.fromkeys(item["id"] for item in listed if self.has_name(item)))

    def has_name(self, run_group: Mapping[str, Any]) -> bool:
        """Whether a group has the name. An answer without a name counts as having it.

        :param run_group: GetRunGroup's answer, or an item of ListRunGroups.
        """
        return run_group.get("name") in {None, self.name}


def _create_run_group_once(search: _RunGroupSearch, request: RunGroupRequest, request_id: str | None) -> Answer:
    hook = search.hook
    for generation in range(1 if request_id else MAX_GENERATIONS):
        token = request_id or run_group_token(name=request.name, region=hook.client_region, generation=generation)
        create = partial(
            hook.create_run_group, name=request.name, **request.limits, tags=request.tags, request_id=token
        )
        try:
            run_group_id = hook.patiently(create)["id"]
        except OmicsApiError as error:
            if not is_token_refused(hook, error):
                raise
            run_group = search.find_created()
            if run_group is not None:
                return run_group
            if request_id:
                raise
            whose = "a run group"
        else:
            run_group = hook.until_seen(partial(search.run_groups.get, run_group_id), lambda seen: seen is not None)
            if run_group is not None and search.has_name(run_group):
                hook.log.info("Created run group %s with the name %r", run_group_id, request.name)
                return run_group
            run_group = search.find()
            if run_group is not None:
                return run_group
            whose = f"run group {run_group_id}"
        hook.log.info(
            "The request token of generation %s belongs to %s, which has another name or is not found after %s s",
            generation,
            whose,
            SHOWN_AFTER,
        )
    which = f"request token {request_id!r} was" if request_id else f"last {MAX_GENERATIONS} request tokens were"
    raise RunGroupError(
        f"Could not create run group {request.name!r}: the {which} used by run groups that were deleted or renamed. "
        "Set another request_id."
    )
