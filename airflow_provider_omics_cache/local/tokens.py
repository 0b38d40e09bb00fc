"""Idempotency tokens: the ``requestId`` of the create and start operations."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from airflow_provider_omics_cache.local.errors import ServiceError
from airflow_provider_omics_cache.local.settings import Settings


@dataclass(frozen=True)
class _Remembered:
    digest: str
    answer: dict[str, Any]
    until: float


class RequestTokens:
    """What was answered to each ``requestId``."""

    def __init__(self) -> None:
        self._remembered: dict[tuple[str, str], _Remembered] = {}

    def find(
        self, operation: str, parameters: dict[str, Any], *, now: float, settings: Settings
    ) -> dict[str, Any] | None:
        """Return the answer that was given to the same request before, if it is still remembered."""
        remembered = self._remembered.get((operation, parameters["requestId"]))
        if remembered is None or now >= remembered.until:
            return None
        if remembered.digest != _digest(parameters) and settings.changed_request_error is not None:
            raise ServiceError(settings.changed_request_error, "The requestId was used before, for another request")
        return dict(remembered.answer)

    def remember(
        self,
        operation: str,
        parameters: dict[str, Any],
        answer: dict[str, Any],
        *,
        now: float,
        settings: Settings,
    ) -> None:
        """Remember what was answered."""
        self._remembered[operation, parameters["requestId"]] = _Remembered(
            _digest(parameters), dict(answer), now + settings.token_seconds
        )

    def forget(self) -> None:
        """Forget every token."""
        self._remembered.clear()


def _digest(parameters: dict[str, Any]) -> str:
    request = {name: value for name, value in parameters.items() if name != "requestId"}
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
