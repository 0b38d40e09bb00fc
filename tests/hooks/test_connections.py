"""An Airflow connection that a task names must exist."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_omics_cache._compat import AirflowFailException
from airflow_provider_omics_cache.exceptions import MissingConnectionError
from airflow_provider_omics_cache.hooks.connections import check_connection
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.hooks.s3 import s3_client
from airflow_provider_omics_cache.resubmission import failed_run_settings
from airflow_provider_omics_cache.samplesheets import run_settings_from_table
from airflow_provider_omics_cache.tables import read_table

SHEET = "s3://sheets/a.csv"
PARAMETERS = {"sample": "sample"}
#: Each way to use a connection, by the parameter that names it.
USES: list[tuple[str, Callable[[str], Any]]] = [
    ("aws_conn_id", lambda conn_id: OmicsCacheHook(aws_conn_id=conn_id).conn),
    ("aws_conn_id", lambda conn_id: OmicsCacheHook(aws_conn_id=conn_id).list_run_caches().__next__()),
    ("aws_conn_id", lambda conn_id: s3_client(aws_conn_id=conn_id)),
    ("s3_conn_id", lambda conn_id: check_connection("s3_conn_id", conn_id)),
    ("conn_id", lambda conn_id: read_table(SHEET, conn_id=conn_id)),
    ("conn_id", lambda conn_id: read_table("gs://sheets/a.csv", conn_id=conn_id, allow=["gs"])),
    ("conn_id", lambda conn_id: failed_run_settings(SHEET, SHEET, conn_id=conn_id)),
    (
        "conn_id",
        lambda conn_id: run_settings_from_table(SHEET, run_setting_id="a", parameters=PARAMETERS, conn_id=conn_id),
    ),
]

pytestmark = pytest.mark.usefixtures("own_credentials")


@pytest.fixture
def own_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials and a Region of the worker, with which a task must not work by mistake."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "worker")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "worker")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.mark.parametrize(("parameter", "use"), USES)
def test_a_connection_that_does_not_exist_is_refused(
    parameter: str, use: Callable[[str], Any], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(MissingConnectionError) as caught:
        use("typo")
    text = str(caught.value)
    assert text.startswith(f"{parameter} must be the id of an existing Airflow connection; got 'typo'. ")
    assert "create the connection" in text
    assert "[omics_cache] allow_missing_connection" in text
    assert not isinstance(caught.value, AirflowFailException), "a secrets backend that does not answer looks the same"
    assert "switching to empty" not in caplog.text
    assert str(pickle.loads(pickle.dumps(caught.value))) == text


@pytest.mark.parametrize("conn_id", ["aws_default", None, ""])
def test_the_default_connection_may_be_missing(conn_id: str | None) -> None:
    hook = OmicsCacheHook(aws_conn_id=conn_id)
    assert hook.conn.meta.region_name == "us-east-1"
    assert not hook.has_connection
    assert s3_client(aws_conn_id=conn_id).meta.region_name == "us-east-1"
    check_connection("s3_conn_id", "aws_default")


def test_a_setting_allows_every_connection_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__OMICS_CACHE__ALLOW_MISSING_CONNECTION", "True")
    assert OmicsCacheHook(aws_conn_id="typo").conn.meta.region_name == "us-east-1"
    assert s3_client(aws_conn_id="typo").meta.region_name == "us-east-1"
    check_connection("s3_conn_id", "typo")


def test_a_connection_that_exists_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LAB", json.dumps({"conn_type": "aws", "extra": {"region_name": "eu-west-1"}}))
    assert OmicsCacheHook(aws_conn_id="lab").conn.meta.region_name == "eu-west-1"
    check_connection("s3_conn_id", "lab")


def test_outside_of_a_task_of_airflow_3_0(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

    def refuse(conn_id: str) -> None:
        raise ImportError("cannot import name 'SUPERVISOR_COMMS' from 'airflow.sdk.execution_time.task_runner'")

    monkeypatch.setattr(AwsBaseHook, "get_connection", staticmethod(refuse))
    with pytest.raises(MissingConnectionError):
        OmicsCacheHook(aws_conn_id="typo").conn_config  # noqa: B018
    with pytest.raises(ImportError):
        OmicsCacheHook.get_connection("aws_default")
