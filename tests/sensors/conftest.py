from __future__ import annotations

from collections.abc import Callable
from typing import Any

import boto3
import botocore.handlers
import pytest
from botocore.awsrequest import AWSResponse

from airflow_provider_omics_cache.local.inprocess import _Answer
from airflow_provider_omics_cache.local.protocol import Response
from tests.sensor_modes import use_service_time


@pytest.fixture
def service(local_healthomics: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The local HealthOmics, whose clock is the sensors' and triggers' clock too."""
    use_service_time(monkeypatch, local_healthomics)
    return local_healthomics


@pytest.fixture
def client(service: Any) -> Any:
    return boto3.client("omics")


@pytest.fixture
def answer_with(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let clients made from now on read other answers than the service sent; the last one is repeated."""

    def script(operation: str, *answers: dict[str, Any] | Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        left = list(answers)

        def change(parsed: dict[str, Any], **_: Any) -> None:
            if "Error" in parsed:
                return
            answer = left.pop(0) if len(left) > 1 else left[0]
            changed = answer(dict(parsed)) if callable(answer) else answer
            parsed.clear()
            parsed.update(changed)

        handlers = [*botocore.handlers.BUILTIN_HANDLERS, (f"after-call.omics.{operation}", change)]
        monkeypatch.setattr(botocore.handlers, "BUILTIN_HANDLERS", handlers)

    return script


@pytest.fixture
def deny_uploads(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function after which S3 refuses PutObject of clients that are made from then on."""

    def refuse(request: Any, **_: Any) -> AWSResponse:
        body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        return _Answer(request.url, Response(403, body, {"Content-Type": "application/xml"}))

    def deny() -> None:
        handlers = [("before-send.s3.PutObject", refuse), *botocore.handlers.BUILTIN_HANDLERS]
        monkeypatch.setattr(botocore.handlers, "BUILTIN_HANDLERS", handlers)

    return deny
