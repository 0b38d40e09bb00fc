"""A password in ``botocore_config`` must not get into the arguments of a trigger."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from airflow_provider_omics_cache.exceptions import OmicsParameterError
from airflow_provider_omics_cache.hooks.arguments import check_deferred_config
from airflow_provider_omics_cache.operators.run_batch import (
    CancelRunBatchOperator,
    DeleteRunBatchOperator,
    StartRunBatchOperator,
)
from airflow_provider_omics_cache.sensors.run_batch import BatchCompletionSensor, BatchSubmissionSensor
from tests.conftest import HAS_SESSION_POLICIES, needs_aiobotocore, needs_batches
from tests.sensor_modes import use_service_time

try:
    from airflow.sdk.exceptions import TaskDeferred
except ImportError:
    from airflow.exceptions import TaskDeferred

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics

PROXIES = {"proxies": {"https": "http://user:s3cret@proxy:3128"}}
SETTING = {
    "workflowId": "1234567",
    "roleArn": "arn:aws:iam::123456789012:role/omics",
    "outputUri": "s3://results/out",
}
START = {
    "default_run_setting": SETTING,
    "run_settings": [{"runSettingId": "sample"}],
    "wait_for_completion": True,
}


@pytest.mark.parametrize(
    ("config", "found"),
    [
        (PROXIES, ["proxies"]),
        ({"proxies": {"https": "user:s3cret@proxy:3128"}}, ["proxies"]),
        ({"proxies": {"https": "http://s3cret@proxy:3128"}}, ["proxies"]),
        ({"proxies_config": {"proxy_client_cert": ("-----BEGIN PRIVATE KEY-----s3cret", "k")}}, ["proxies_config"]),
        ({"user_agent_extra": "see https://user:s3cret@host"}, ["user_agent_extra"]),
    ],
)
def test_a_password_is_found_and_not_shown(config: dict[str, Any], found: list[str]) -> None:
    with pytest.raises(OmicsParameterError, match="config_kwargs in the extra of the Airflow connection") as caught:
        check_deferred_config(config)
    assert caught.value.parameter == "botocore_config"
    assert caught.value.value == str(found)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        None,
        {},
        {"retries": {"mode": "adaptive"}, "read_timeout": 7, "inject_host_prefix": False},
        {"proxies": {"https": "http://proxy:3128", "http": "proxy:3128"}},
        {"proxies_config": {"proxy_ca_bundle": "/etc/ca.pem", "proxy_client_cert": ["/etc/cert.pem", "/etc/key.pem"]}},
    ],
)
def test_other_settings_are_allowed(config: dict[str, Any] | None) -> None:
    check_deferred_config(config)


@needs_batches
@needs_aiobotocore
@pytest.mark.parametrize(
    ("task_class", "parameters"),
    [
        (StartRunBatchOperator, START),
        (CancelRunBatchOperator, {"batch_id": "1234567"}),
        (DeleteRunBatchOperator, {"batch_id": "1234567"}),
        (BatchSubmissionSensor, {"batch_id": "1234567"}),
        (BatchCompletionSensor, {"batch_id": "1234567"}),
    ],
)
def test_a_deferred_task_fails_before_its_first_call(
    task_class: Any, parameters: dict[str, Any], local_healthomics: LocalHealthOmics, task_context: dict[str, Any]
) -> None:
    task = task_class(task_id="task", deferrable=True, botocore_config=PROXIES, **parameters)
    with pytest.raises(OmicsParameterError, match="botocore_config must not hold a password"):
        task.execute(task_context)
    assert local_healthomics.calls.total() == 0


@needs_batches
@needs_aiobotocore
def test_the_arguments_of_a_trigger_hold_no_secret(
    local_healthomics: LocalHealthOmics, task_context: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = {"region_name": "us-east-1", "aws_session_token": "s3cret", "config_kwargs": PROXIES}
    connection = {"conn_type": "aws", "login": "testing", "password": "s3cret", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
    policy = {"sessionPolicy": '{"Sid": "s3cret"}'} if HAS_SESSION_POLICIES else {}
    start = {**START, "default_run_setting": {**SETTING, **policy}}
    with pytest.raises(TaskDeferred) as caught:
        StartRunBatchOperator(task_id="task", deferrable=True, **start).execute(task_context)
    path, arguments = caught.value.trigger.serialize()
    assert path.endswith("StartRunBatchTrigger")
    assert arguments["batch_id"]
    assert "s3cret" not in json.dumps([arguments, caught.value.kwargs, task_context["ti"].xcoms])


@needs_batches
@pytest.mark.parametrize("deferrable", [False, pytest.param(True, marks=needs_aiobotocore)])
def test_a_task_that_is_not_deferred_takes_a_password(
    *,
    deferrable: bool,
    local_healthomics: LocalHealthOmics,
    task_context: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_service_time(monkeypatch, local_healthomics)
    parameters = {**START, "wait_for_completion": not deferrable}
    task = StartRunBatchOperator(task_id="task", deferrable=False, botocore_config=PROXIES, **parameters)
    task.deferrable = deferrable  # as [operators] default_deferrable may set it
    task.execute(task_context)
    assert len(boto3.client("omics").list_batch()["items"]) == 1
