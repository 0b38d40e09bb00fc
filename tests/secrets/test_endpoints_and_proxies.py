"""Passwords in the URLs of endpoints and proxies, with the errors that botocore and aiobotocore really raise."""

from __future__ import annotations

import json
import logging
import socket
import traceback
from collections.abc import Callable, Iterator
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_omics_cache import _compat
from airflow_provider_omics_cache.exceptions import OmicsApiError
from airflow_provider_omics_cache.healthomics.end import cancel_batch_of_killed_task
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.hooks.s3 import put_object, s3_client
from airflow_provider_omics_cache.local.clock import Clock
from airflow_provider_omics_cache.triggers.run_batch import BatchSubmissionTrigger
from tests.conftest import needs_aiobotocore, needs_batches
from tests.sensor_modes import fire, use_service_time

FAST = {"retries": {"total_max_attempts": 1}, "inject_host_prefix": False, "connect_timeout": 2}
PLACES = ["endpoint", "service endpoint", "proxy", "no host", "proxy of the environment", "endpoint of the environment"]


@pytest.fixture
def closed() -> Iterator[str]:
    """A host and port that accept no connection."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield f"user:s3cret@127.0.0.1:{unused.getsockname()[1]}"


@pytest.fixture(params=PLACES)
def masked(request: pytest.FixtureRequest, closed: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Put a password into a connection or into the environment; give what is registered at Airflow's masker."""
    extra: dict[str, Any] = {"region_name": "us-east-1", "config_kwargs": FAST}
    url = f"http://{closed}"
    match request.param:
        case "endpoint":
            extra["endpoint_url"] = url
        case "service endpoint":
            extra["service_config"] = {name: {"endpoint_url": url} for name in ("omics", "s3")}
        case "proxy":
            extra["config_kwargs"] = {**FAST, "proxies": {"http": url, "https": url}}
        case "no host":
            extra["endpoint_url"] = "http://user:s3cret@no_host!"
        case "proxy of the environment":
            monkeypatch.setenv("HTTPS_PROXY", url)
        case "endpoint of the environment":
            monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    connection = {"conn_type": "aws", "login": "testing", "password": "testing", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
    masked: list[str] = []
    monkeypatch.setattr(_compat, "mask_secret", masked.append)
    return masked


def texts_of(error: OmicsApiError) -> str:
    return "".join([*traceback.format_exception(error), repr(error), str(vars(error)), repr(error.__cause__)])


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """What this package and Airflow have logged, with tracebacks; Airflow 3 logs to the standard output too."""
    formatter = logging.Formatter()

    def logged() -> str:
        records = [
            record for record in caplog.records if not record.name.startswith(("aiobotocore", "botocore", "urllib3"))
        ]
        return "\n".join([capsys.readouterr().out, *map(formatter.format, records)])

    # Not botocore's loggers: what they log at DEBUG is Airflow's masker's to hide.
    for name in ("airflow_provider_omics_cache", "airflow.task.hooks.airflow_provider_omics_cache"):
        caplog.set_level(logging.DEBUG, logger=name)
    return logged


def test_a_call(masked: list[str], logged: Callable[[], str]) -> None:
    with pytest.raises(OmicsApiError) as caught:
        OmicsCacheHook().get_run_cache(run_cache_id="1", max_silence=60)
    assert "***@" in str(caught.value) or "***:***@" in str(caught.value)
    assert "s3cret" not in texts_of(caught.value)
    assert "s3cret" in masked
    assert "s3cret" not in logged()


def test_an_upload(masked: list[str]) -> None:
    with pytest.raises(OmicsApiError) as caught:
        put_object(
            BytesIO(),
            "s3://bucket/key",
            parameter="mapping_s3_uri",
            s3=s3_client(aws_conn_id="aws_default"),
            extra_args={},
        )
    assert "s3cret" not in texts_of(caught.value)


@needs_batches
def test_a_batch_of_a_killed_task(masked: list[str], logged: Callable[[], str]) -> None:
    cancel_batch_of_killed_task(OmicsCacheHook(), "1234567")
    text = logged()
    assert "was not cancelled" in text
    assert "***" in text
    assert "s3cret" not in text


@needs_batches
@needs_aiobotocore
def test_the_event_of_a_trigger(masked: list[str], logged: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    use_service_time(monkeypatch, SimpleNamespace(clock=Clock()))
    event = fire(BatchSubmissionTrigger(batch_id="1234567", poke_interval=1, max_silence=0))
    assert event["status"] == "error"
    assert "s3cret" not in json.dumps(event)
    assert "s3cret" not in logged()
    assert "s3cret" in masked


def test_a_password_is_masked_before_the_amazon_provider_logs_the_connection(
    closed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = {"config_kwargs": {"proxies": {"http": f"http://{closed}"}}}
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps({"conn_type": "aws", "extra": extra}))
    order: list[str] = []
    monkeypatch.setattr(_compat, "mask_secret", lambda secret: order.append(f"masked {secret}"))
    from airflow.providers.amazon.aws.utils.connection_wrapper import AwsConnectionWrapper

    monkeypatch.setattr(AwsConnectionWrapper, "__post_init__", lambda *_: order.append("logged"))
    _ = OmicsCacheHook().conn_config
    assert order[:2] == ["masked s3cret", "logged"]
