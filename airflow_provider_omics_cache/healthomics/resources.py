"""What run caches and run groups have in common: they are created once, compared, changed and deleted."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from airflow_provider_omics_cache.exceptions import OmicsApiError, OmicsError, OmicsParameterError
from airflow_provider_omics_cache.healthomics.settings import check_member
from airflow_provider_omics_cache.hooks.arguments import check_id, check_tags
from airflow_provider_omics_cache.hooks.client import VISIBLE_AFTER
from airflow_provider_omics_cache.hooks.errors import if_found

if TYPE_CHECKING:
    from airflow_provider_omics_cache.hooks.client import Answer
    from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook

T = TypeVar("T")

IF_EXISTS = ("reuse", "update", "fail")
#: Maximum number of request tokens that a task tries for one resource.
MAX_GENERATIONS = 10
#: Seconds for which ``until_seen`` repeats a read.
SHOWN_AFTER = sum(VISIBLE_AFTER)
#: Number of reads, within a few seconds, after which an optional member that is absent counts as not set, and a
#: resource that is not found counts as not existing.
FEW_READS = 4

_NO_TIME = datetime.max.replace(tzinfo=UTC)


def check_if_exists(value: Any) -> None:
    """Check the parameter ``if_exists``.

    :param value: the value.
    :raises OmicsParameterError: the value is not ``reuse``, ``update`` or ``fail``.
    """
    if value not in IF_EXISTS:
        raise OmicsParameterError("if_exists", f"must be one of {', '.join(IF_EXISTS)}", value)


def check_tags_are_a_dict(tags: Any) -> None:
    """Check that the parameter ``tags`` is a dict or None.

    :param tags: the value.
    :raises OmicsParameterError: it is something else.
    """
    if not isinstance(tags, Mapping | None):
        raise OmicsParameterError("tags", "must be a dict", tags)


def present(answer: Mapping[str, Any]) -> Answer:
    """Return the members of an answer that have a value.

    :param answer: the answer.
    """
    return {member: value for member, value in answer.items() if value is not None and value != ""}


def oldest_first(resources: Iterable[Answer]) -> list[Answer]:
    """Sort resources by creation time, then by id.

    :param resources: answers with ``id`` and ``creationTime``.
    """
    return sorted(resources, key=lambda found: (found.get("creationTime") or _NO_TIME, len(found["id"]), found["id"]))


def differing_tags(found: Mapping[str, Any], wanted: Mapping[str, str] | None) -> dict[str, tuple[Any, Any]]:
    """Compare tags. Other tags of the resource are ignored.

    :param found: answer with the resource.
    :param wanted: wanted tags, None if they do not matter.
    :return: found and wanted value of the parameter ``tags``, without the tags that are equal.
    """
    has = found.get("tags") or {}
    missing = {key: value for key, value in (wanted or {}).items() if has.get(key) != value}
    return {"tags": ({key: has.get(key) for key in missing}, missing)} if missing else {}


def describe(differing: Mapping[str, tuple[Any, Any]]) -> str:
    """Describe differences in a sentence.

    :param differing: found and wanted value, by parameter.
    """
    return "; ".join(
        f"{parameter} is {found!r}, wanted: {wanted!r}" for parameter, (found, wanted) in differing.items()
    )


class Resources(ABC):
    """The resources of one kind in an account and Region.

    :param hook: the hook.
    """

    #: What a resource is called, such as "run cache".
    kind: ClassVar[str]
    #: Name of the parameter, and of the attribute of errors, with the id of a resource.
    id_parameter: ClassVar[str]
    #: The kind in the names of the service's operations, such as "RunCache".
    operation: ClassVar[str]
    #: Error, without a retry, for a resource that differs from what was asked for.
    error_class: ClassVar[type[OmicsError]]

    def __init__(self, hook: OmicsCacheHook) -> None:
        self.hook = hook

    @abstractmethod
    def read(self, resource_id: str) -> Answer:
        """Call the service's Get operation.

        :param resource_id: id of the resource.
        """

    @abstractmethod
    def update(self, resource_id: str, members: Mapping[str, Any]) -> None:
        """Call the service's Update operation.

        :param resource_id: id of the resource.
        :param members: the new values, by parameter.
        """

    @abstractmethod
    def delete(self, resource_id: str) -> None:
        """Call the service's Delete operation.

        :param resource_id: id of the resource.
        """

    @abstractmethod
    def differences(self, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Compare a resource with the wanted values. Parameters that are None are not compared.

        :param found: the service's answer.
        :param wanted: wanted values, by parameter.
        :return: found and wanted value, by parameter.
        """

    def is_deleted(self, found: Answer | None) -> bool:
        """Whether a resource is deleted.

        :param found: the service's answer, None if it does not find the resource.
        """
        return found is None

    def may_be_deleted(self, found: Answer | None) -> bool:
        """Whether a resource no longer counts as existing after its deletion.

        :param found: the service's answer, None if it does not find the resource.
        """
        return found is None

    def state(self, found: Answer, *, adverb: str = "") -> str:
        """Return the words that follow the id of an existing resource in a message.

        :param found: the service's answer.
        :param adverb: such as "still".
        """
        return " ".join(filter(None, (adverb, "exists")))

    def title(self, resource_id: str) -> str:
        """Return the beginning of a sentence about a resource.

        :param resource_id: id of the resource.
        """
        return f"{self.kind.capitalize()} {resource_id}"

    def about(self, resource_id: str, found: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the attributes of an error about a resource.

        :param resource_id: id of the resource.
        :param found: the service's answer.
        """
        return {self.id_parameter: resource_id, "status": (found or {}).get("status")}

    def get(self, resource_id: str) -> Answer | None:
        """Get a resource. None if the service does not find it.

        :param resource_id: id of the resource.
        """
        found = if_found(partial(self.read, resource_id))
        return None if found is None else {"id": resource_id, **present(found)}

    def get_existing(self, resource_id: str) -> Answer | None:
        """Get a resource. Repeat the call for a few seconds, because the service may not find a new resource at once.

        :param resource_id: id of the resource.
        """
        return self.read_a_few_times(partial(self.get, resource_id), lambda seen: seen is not None)

    def read_a_few_times(self, look: Callable[[], T], is_seen: Callable[[T], bool]) -> T:
        """Repeat a read for a few seconds, until it shows what is expected. Return the last result.

        :param look: function that reads.
        :param is_seen: whether a result shows what is expected.
        """
        reads = itertools.count(1)
        return self.hook.until_seen(look, lambda seen: is_seen(seen) or next(reads) >= FEW_READS)

    def settle(self, found: Answer, wanted: Mapping[str, Any], if_exists: str) -> Answer:
        """Use, change or refuse an existing resource, which may differ from what is wanted.

        :param found: the service's answer.
        :param wanted: the values that can be changed, by parameter.
        :param if_exists: ``reuse`` logs the differences, ``update`` changes them, ``fail`` raises an error.
        :raises OmicsError: the resource differs, and ``if_exists`` is ``fail``; the class is ``error_class``.
        """
        differing = self.differences(found, wanted)
        if differing and if_exists == "fail":
            found = self._read_differences_again(found, wanted)
            differing = self.differences(found, wanted)
        if not differing:
            return found
        resource_id, text = found["id"], describe(differing)
        if if_exists == "fail":
            raise self.error_class(f"{self.title(resource_id)} differs: {text}", **self.about(resource_id, found))
        if if_exists == "reuse":
            self.hook.log.warning("%s is used although it differs: %s", self.title(resource_id), text)
            return found
        return self.change(found, wanted)

    def _read_differences_again(self, found: Answer, wanted: Mapping[str, Any]) -> Answer:
        """Read a resource again, because an answer may lack a member or not show the last change."""
        seen = self.read_a_few_times(
            partial(self.get, found["id"]),
            lambda seen: seen is not None and not self.differences(seen, wanted),
        )
        return {**found, **(seen or {})}

    def change(self, found: Answer, wanted: Mapping[str, Any]) -> Answer:
        """Change what differs, and wait until the service shows it. Rules are checked before the first change.

        :param found: the service's answer.
        :param wanted: wanted values, by parameter.
        :raises OmicsParameterError: a value breaks a rule.
        :raises OmicsError: the service did not show the changes in time.
        """
        differing = self.differences(found, wanted)
        if not differing:
            return found
        resource_id, text = found["id"], describe(differing)
        members = {parameter: value for parameter, (_, value) in differing.items()}
        tags = members.pop("tags", None)
        self._check_changes(found, members, tags or {})
        if members:
            self.hook.patiently(partial(self.update, resource_id, members))
        if tags:
            self.hook.patiently(partial(self.hook.tag_resource, resource_arn=found["arn"], tags=tags))
        changed = self.hook.until_seen(
            partial(self.get, resource_id),
            lambda seen: seen is not None and not self.differences(seen, wanted),
        )
        if changed is None or self.differences(changed, wanted):
            raise OmicsError(
                f"{self.title(resource_id)} does not show its update yet: {text}", **self.about(resource_id)
            )
        self.hook.log.info("Updated %s %s: %s", self.kind, resource_id, text)
        return {**found, **changed}

    def _check_changes(self, found: Answer, members: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        shapes = self.hook.describe_shape(f"Update{self.operation}Request")["members"]
        for parameter in sorted(members.keys() & shapes.keys()):
            check_member(parameter, members[parameter], shape=shapes[parameter]).raise_if_any()
        shape = self.hook.describe_shape("TagResourceRequest")["members"]["tags"]
        for key, value in tags.items():
            check_member("tags: a key", key, shape=shape["key"]).raise_if_any()
            check_member(f"tags: the value of {key!r}", value, shape=shape["value"]).raise_if_any()
        check_tags("tags", tags, present=found.get("tags"))
        if tags and not found.get("arn"):
            raise OmicsError(
                f"Get{self.operation} shows {self.kind} {found['id']} without its arn, which TagResource needs. "
                "Nothing was changed. Retry the task.",
                **self.about(found["id"]),
            )

    def remove(self, resource_id: str) -> bool:
        """Delete a resource, unless it is already deleted, and wait until the service shows that it is deleted.

        :param resource_id: id of the resource.
        :return: whether this call deleted it.
        :raises OmicsApiError: a call failed, or the service refused, for example because a run uses the resource.
        :raises OmicsError: the service did not show the deletion in time.
        """
        resource_id = check_id(self.id_parameter, resource_id)
        if self.is_deleted(self.get_existing(resource_id)):
            self.hook.log.info("%s is already deleted", self.title(resource_id))
            return False
        try:
            if_found(partial(self.hook.patiently, partial(self.delete, resource_id)))
        except OmicsApiError as error:
            found = self.get_existing(resource_id)
            if found is not None and not self.is_deleted(found):
                raise error.with_text(
                    f"{self.title(resource_id)} {self.state(found)} and was not deleted: {error}",
                    **self.about(resource_id, found),
                ) from error.__cause__
        found = self.hook.until_seen(partial(self.get, resource_id), self.may_be_deleted)
        if found is not None and not self.may_be_deleted(found):
            raise OmicsError(
                f"{self.title(resource_id)} {self.state(found, adverb='still')}, {SHOWN_AFTER} s after its deletion",
                **self.about(resource_id, found),
            )
        return True
