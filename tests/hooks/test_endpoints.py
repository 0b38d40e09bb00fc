"""Which URL is called: the host prefix, the endpoint and the client's settings."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import botocore.session
import pytest
from botocore.config import Config

from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook

if TYPE_CHECKING:
    from pathlib import Path

PRIVATE_LINK = "https://vpce-0a1b2c-xyz.workflows-omics.us-east-1.vpce.amazonaws.com"
KNOWS_PREFIX_VARIABLE = "disable_host_prefix_injection" in str(
    botocore.configprovider.BOTOCORE_DEFAUT_SESSION_VARIABLES
)

try:
    import aiobotocore  # noqa: F401
except ImportError:
    CLIENTS = ["sync"]
else:
    CLIENTS = ["sync", "async"]


class StopHereError(Exception):
    """Raised in place of sending the request."""


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


@pytest.fixture(params=CLIENTS)
def called_url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that returns the URL that GetRunCache of cache 1 would call."""

    async def called_url(extra: dict[str, Any] | None = None, **hook_arguments: Any) -> str:
        connection = {"conn_type": "aws", "extra": {"region_name": "us-east-1", **(extra or {})}}
        monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
        hook = OmicsCacheHook(**hook_arguments)
        urls: list[str] = []

        def stop(request: Any, **_: Any) -> None:
            urls.append(request.url)
            raise StopHereError

        if request.param == "sync":
            hook.conn.meta.events.register("before-send.omics", stop)
            with pytest.raises(StopHereError):
                hook.get_run_cache(run_cache_id="1")
        else:
            async with await hook.get_async_conn() as client:
                client.meta.events.register("before-send.omics", stop)
                with pytest.raises(StopHereError):
                    await client.get_run_cache(id="1")
        return urls[0]

    return called_url


@pytest.mark.parametrize(
    ("endpoint_url", "called"),
    [
        (None, "https://workflows-omics.us-east-1.amazonaws.com"),
        ("http://localhost:5000", "http://localhost:5000"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        (PRIVATE_LINK, PRIVATE_LINK),
        (
            "https://workflows-omics.us-east-1.amazonaws.com",
            "https://workflows-omics.us-east-1.amazonaws.com",
        ),
        ("https://omics.us-east-1.amazonaws.com", "https://workflows-omics.us-east-1.amazonaws.com"),
        ("https://omics-fips.us-west-2.amazonaws.com", "https://workflows-omics-fips.us-west-2.amazonaws.com"),
        ("https://omics.us-east-1.api.aws", "https://workflows-omics.us-east-1.api.aws"),
        ("https://omics.us-east-1.amazonaws.com.evil.test", "https://omics.us-east-1.amazonaws.com.evil.test"),
        ("http://omics.localhost:5000", "http://omics.localhost:5000"),
    ],
)
async def test_only_the_sdks_own_host_gets_the_prefix(called_url: Any, endpoint_url: str | None, called: str) -> None:
    extra = {"endpoint_url": endpoint_url} if endpoint_url else {}
    assert await called_url(extra) == f"{called}/runCache/1"


@pytest.mark.parametrize(
    ("endpoint_url", "called"),
    [
        (PRIVATE_LINK, PRIVATE_LINK),
        ("https://omics.us-east-1.amazonaws.com", "https://workflows-omics.us-east-1.amazonaws.com"),
    ],
)
@pytest.mark.parametrize("place", ["service_config", "environment", "service variable", "file", "services in file"])
async def test_an_endpoint_counts_wherever_it_is_configured(
    called_url: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    endpoint_url: str,
    called: str,
    place: str,
) -> None:
    extra: dict[str, Any] = {}
    if place == "service_config":
        extra = {"service_config": {"omics": {"endpoint_url": endpoint_url}}}
    elif place == "environment":
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint_url)
    elif place == "service variable":
        monkeypatch.setenv("AWS_ENDPOINT_URL_OMICS", endpoint_url)
    elif place == "file":
        (tmp_path / "config").write_text(f"[default]\nendpoint_url = {endpoint_url}\n")
    else:
        (tmp_path / "config").write_text(
            f"[default]\nservices = local\n[services local]\nomics =\n  endpoint_url = {endpoint_url}\n"
        )
    assert await called_url(extra) == f"{called}/runCache/1"


@pytest.mark.parametrize(("inject", "host"), [(True, "workflows-localhost"), (False, "localhost")])
@pytest.mark.parametrize("place", ["connection", "hook", "hook, as Config"])
async def test_the_users_inject_host_prefix_wins(called_url: Any, inject: bool, host: str, place: str) -> None:
    setting = {"inject_host_prefix": inject}
    extra: dict[str, Any] = {"endpoint_url": "http://localhost:5000"}
    arguments: dict[str, Any] = {}
    if place == "connection":
        extra["config_kwargs"] = setting
    else:
        arguments["config"] = setting if place == "hook" else Config(**setting)
    assert await called_url(extra, **arguments) == f"http://{host}:5000/runCache/1"


async def test_the_user_can_leave_the_prefix_away_without_an_endpoint(called_url: Any) -> None:
    called = await called_url(config={"inject_host_prefix": False})
    assert called == "https://omics.us-east-1.amazonaws.com/runCache/1"


@pytest.mark.skipif(not KNOWS_PREFIX_VARIABLE, reason="the installed botocore does not read the variable")
@pytest.mark.parametrize(("disable", "host"), [("true", "localhost"), ("false", "workflows-localhost")])
async def test_the_users_environment_variable_wins(
    called_url: Any, monkeypatch: pytest.MonkeyPatch, disable: str, host: str
) -> None:
    monkeypatch.setenv("AWS_DISABLE_HOST_PREFIX_INJECTION", disable)
    assert await called_url({"endpoint_url": "http://localhost:5000"}) == f"http://{host}:5000/runCache/1"


@pytest.mark.parametrize("place", ["environment", "hook"])
async def test_an_ignored_endpoint_changes_nothing(
    called_url: Any, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:5000")
    arguments = {}
    if place == "environment":
        monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
    else:
        arguments["config"] = {"ignore_configured_endpoint_urls": True}
    called = await called_url(**arguments)
    assert called == "https://workflows-omics.us-east-1.amazonaws.com/runCache/1"


async def test_the_connections_endpoint_beats_the_environment(called_url: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:5000")
    called = await called_url({"endpoint_url": "https://omics.us-east-1.amazonaws.com"})
    assert called == "https://workflows-omics.us-east-1.amazonaws.com/runCache/1"


def client_config(monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any], **hook_arguments: Any) -> Any:
    connection = {"conn_type": "aws", "extra": {"region_name": "us-east-1", **extra}}
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
    return OmicsCacheHook(**hook_arguments).conn.meta.config


@pytest.mark.parametrize(
    ("connection", "hook", "retries"),
    [
        (None, None, {"mode": "standard"}),
        ({"max_attempts": 9}, None, {"mode": "standard", "total_max_attempts": 10}),
        ({"mode": "adaptive"}, None, {"mode": "adaptive"}),
        (None, {"total_max_attempts": 7}, {"mode": "standard", "total_max_attempts": 7}),
        ({"mode": "adaptive"}, {"total_max_attempts": 7}, {"mode": "adaptive", "total_max_attempts": 7}),
        ({"total_max_attempts": 3}, {"max_attempts": 7}, {"mode": "standard", "total_max_attempts": 8}),
    ],
)
def test_retries_are_standard_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
    connection: dict[str, Any] | None,
    hook: dict[str, Any] | None,
    retries: dict[str, Any],
) -> None:
    extra = {"config_kwargs": {"retries": connection}} if connection else {}
    config = client_config(monkeypatch, extra, config={"retries": hook} if hook else None)
    assert config.retries == retries


@pytest.mark.parametrize("place", ["connection", "hook"])
def test_retries_are_standard_for_an_assumed_role_too(
    local_healthomics: Any, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """STS's client is made with the same settings, and botocore writes the mode that it uses into them."""
    retries = {"retries": {"total_max_attempts": 7}}
    extra: dict[str, Any] = {"role_arn": "arn:aws:iam::123456789012:role/omics"}
    if place == "connection":
        extra["config_kwargs"] = retries
    config = client_config(monkeypatch, extra, config=retries if place == "hook" else None)
    assert config.retries == {"mode": "standard", "total_max_attempts": 7}


@pytest.mark.parametrize("place", ["environment", "file"])
def test_the_retry_mode_of_the_environment_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str) -> None:
    if place == "environment":
        monkeypatch.setenv("AWS_RETRY_MODE", "legacy")
    else:
        (tmp_path / "config").write_text("[default]\nretry_mode = legacy\n")
    assert client_config(monkeypatch, {}).retries["mode"] == "legacy"


def test_the_hooks_config_is_merged_over_the_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {"config_kwargs": {"read_timeout": 11, "connect_timeout": 12, "inject_host_prefix": False}}
    config = client_config(monkeypatch, extra, config={"connect_timeout": 13, "max_pool_connections": 14})
    assert (config.read_timeout, config.connect_timeout, config.max_pool_connections) == (11, 13, 14)
    assert not config.inject_host_prefix
    assert "Airflow/" in config.user_agent_extra


def test_credentials_are_never_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short-lived credentials are asked for again while the same client is used."""
    served = iter(["first", "second", "third"])

    class Refreshing(botocore.credentials.RefreshableCredentials):
        def refresh_needed(self, refresh_in: int | None = None) -> bool:
            return True

        def _refresh(self) -> None:
            self._frozen_credentials = botocore.credentials.ReadOnlyCredentials(next(served), "secret", None)

    connection = {"conn_type": "aws", "extra": {"region_name": "us-east-1"}}
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
    monkeypatch.setattr(
        botocore.session.Session,
        "get_credentials",
        lambda self: Refreshing("a", "b", None, expiry_time=None, refresh_using=None, method="test"),
    )
    hook = OmicsCacheHook()
    signed: list[str] = []

    def stop(request: Any, **_: Any) -> None:
        signed.append(request.headers["Authorization"].decode().split("Credential=")[1].split("/")[0])
        raise StopHereError

    hook.conn.meta.events.register("before-send.omics", stop)
    for _ in range(2):
        with pytest.raises(StopHereError):
            hook.get_run_cache(run_cache_id="1")
    assert signed == ["first", "second"]
