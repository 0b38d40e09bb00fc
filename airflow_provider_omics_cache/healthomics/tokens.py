"""Recognise that the service refused a request because its token was used before."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_omics_cache.exceptions import OmicsApiError
    from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook

_TOKEN_WORDS = re.compile("request.?id|token|idempoten", re.IGNORECASE)


def is_token_refused(hook: OmicsCacheHook, error: OmicsApiError) -> bool:
    """Whether the service may have refused a request because its token was used before.

    :param hook: the hook.
    :param error: the refusal.
    """
    if error.code not in {"ConflictException", "ValidationException"}:
        return False
    names = frozenset(_member_names(hook.describe_shape(f"{error.operation}Request")))
    return may_be_about_token(error.code, error.reason or "", names)


def names_token(text: str) -> bool:
    """Whether a refusal names the request token.

    :param text: the service's text.
    """
    return _TOKEN_WORDS.search(text) is not None


def may_be_about_token(code: str, text: str, members: frozenset[str]) -> bool:
    """Whether a refusal may be about the request token.

    AWS does not document the answer to a used token with a changed request. A ValidationException that names another
    member of the request is about that member. A name without capital letters can be an everyday word, and counts only
    in quotes.

    :param code: the error code.
    :param text: the service's text.
    :param members: names of the request's other members.
    """
    if code == "ConflictException":
        return True
    if code != "ValidationException":
        return False
    return names_token(text) or not any(_is_named(name, text) for name in members)


def _is_named(name: str, text: str) -> bool:
    before = "['\"`]" if name.islower() else r"\b"
    return re.search(rf"{before}{name}\b", text) is not None


def _member_names(shape: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of a request's members, apart from its token."""
    for name, member in shape.get("members", {}).items():
        if name != "requestId":
            yield name
        yield from _member_names(member)
    if "member" in shape:
        yield from _member_names(shape["member"])
