"""Pages of the list operations."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from airflow_provider_omics_cache.local.errors import validation_error

_DEFAULT_PAGE_SIZE = 100


def start_of_page(operation: str, parameters: dict[str, Any]) -> int:
    """Return the position after which the page starts; 0 for the first page."""
    token = parameters.get("startingToken")
    if token is None:
        return 0
    try:
        digest, _, position = base64.urlsafe_b64decode(token.encode("ascii")).decode("ascii").partition(".")
        if digest == _digest(operation, parameters) and position.isdecimal():
            return int(position)
    except (ValueError, binascii.Error):
        pass
    raise validation_error("The startingToken is not one of this list and these filters")


def page(
    operation: str,
    parameters: dict[str, Any],
    rows: Iterable[tuple[int, Any]],
    *,
    size: str,
    key: str,
) -> dict[str, Any]:
    """Return one page.

    :param operation: name of the list operation.
    :param parameters: its parameters.
    :param rows: the rows after the page's start, each with its position.
    :param size: name of the parameter that holds the page size.
    :param key: name of the list in the answer.
    """
    limit = parameters.get(size, _DEFAULT_PAGE_SIZE)
    iterator: Iterator[tuple[int, Any]] = iter(rows)
    taken = list(islice(iterator, limit))
    answer: dict[str, Any] = {key: [row for _, row in taken]}
    if len(taken) == limit and next(iterator, None) is not None:
        text = f"{_digest(operation, parameters)}.{taken[-1][0]}"
        answer["nextToken"] = base64.urlsafe_b64encode(text.encode()).decode()
    return answer


def _digest(operation: str, parameters: dict[str, Any]) -> str:
    filters = {
        name: value for name, value in parameters.items() if name not in ("startingToken", "maxItems", "maxResults")
    }
    text = json.dumps([operation, filters], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
