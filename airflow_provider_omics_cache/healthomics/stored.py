"""Read the members of what triggers and events carry, perhaps written by another version of the package."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any


def member(value: Mapping[str, Any], name: str, kind: Any) -> Any:
    """Return a member, None if it is absent.

    :param value: what a trigger or an event carries.
    :param name: name of the member.
    :param kind: type of the member.
    :raises ValueError: the member has another type.
    """
    found = value.get(name)
    if found is not None and (not isinstance(found, kind) or isinstance(found, bool)):
        raise ValueError(f"{name} in the trigger's event has the wrong type {type(found).__name__}")
    return found


def time_member(value: Mapping[str, Any], name: str) -> datetime | None:
    """Return a member that is a time in ISO 8601, None if it is absent.

    :param value: what a trigger or an event carries.
    :param name: name of the member.
    :raises ValueError: the member is not a time.
    """
    text = member(value, name, str)
    return datetime.fromisoformat(text) if text else None
