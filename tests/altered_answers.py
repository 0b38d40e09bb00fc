"""Change the service's answers on their way to one client: late, without members, with other values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: Changes an answer, or an item of ListRunCaches, in place. Returns False for what the answer must not show.
Change = Callable[[dict[str, Any]], object]


def alter_run_caches(client: Any, change: Change, *operations: str) -> None:
    """Let a client see run caches changed.

    :param client: the client.
    :param change: the change. A cache for which it returns False is not found by GetRunCache, and not listed.
    :param operations: ``GetRunCache`` and ``ListRunCaches``, or one of them. Default: both.
    """
    _alter(client, change, "GetRunCache", "ListRunCaches", operations)


def alter_run_groups(client: Any, change: Change, *operations: str) -> None:
    """Let a client see run groups changed.

    :param client: the client.
    :param change: the change. A group for which it returns False is not found by GetRunGroup, and not listed.
    :param operations: ``GetRunGroup`` and ``ListRunGroups``, or one of them. Default: both.
    """
    _alter(client, change, "GetRunGroup", "ListRunGroups", operations)


def _alter(client: Any, change: Change, get: str, list_all: str, operations: tuple[str, ...]) -> None:

    def alter_one(parsed: dict[str, Any], http_response: Any, **_: Any) -> None:
        if http_response.status_code < 300 and change(parsed) is False:
            http_response.status_code = 404
            parsed["Error"] = {"Code": "ResourceNotFoundException", "Message": "not found"}

    def alter_each(parsed: dict[str, Any], **_: Any) -> None:
        if "items" in parsed:
            parsed["items"] = [item for item in parsed["items"] if change(item) is not False]

    handlers = {get: alter_one, list_all: alter_each}
    for operation in operations or handlers:
        client.meta.events.register(f"after-call.omics.{operation}", handlers[operation])


def without(*members: str, times: int | None = None) -> Change:
    """Make a change that removes members.

    :param members: names of the members.
    :param times: from how many answers. Default: from all.
    """
    left = [times]

    def change(answer: dict[str, Any]) -> None:
        if left[0] is not None:
            if left[0] == 0:
                return
            left[0] -= 1
        for member in members:
            answer.pop(member, None)

    return change


def unseen(times: int) -> Change:
    """Make a change that hides each run cache or run group.

    :param times: number of answers that are changed.
    """
    left = [times]

    def change(_: dict[str, Any]) -> bool:
        left[0] -= 1
        return left[0] < 0

    return change
