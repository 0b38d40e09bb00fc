"""PreflightOperator against the local HealthOmics."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields

from airflow_provider_omics_cache._compat import AirflowFailException
from airflow_provider_omics_cache.exceptions import MissingConnectionError, OmicsParameterError, PreflightError
from airflow_provider_omics_cache.operators.preflight import PreflightOperator
from airflow_provider_omics_cache.operators.run import StartRunOperator
from airflow_provider_omics_cache.operators.run_batch import StartRunBatchOperator
from tests.conftest import HAS_BATCHES, needs_batches, needs_session_policies

TRUST = {"Effect": "Allow", "Principal": {"Service": "omics.amazonaws.com"}, "Action": "sts:AssumeRole"}
DEFAULT = {
    "workflowId": "7654321",
    "roleArn": "arn:aws:iam::123456789012:role/omics",
    "outputUri": "s3://cohort-data/runs",
}
SETTINGS = [{"runSettingId": "HG001", "parameters": {"sample": "HG001"}}]


@pytest.fixture
def local(local_healthomics: Any) -> Any:
    local_healthomics.register_workflow("7654321", parameter_template={"sample": {}})
    boto3.client("s3").create_bucket(Bucket="cohort-data")
    policy = {"Version": "2012-10-17", "Statement": [TRUST]}
    boto3.client("iam").create_role(RoleName="omics", AssumeRolePolicyDocument=json.dumps(policy))
    return local_healthomics


@pytest.fixture
def execute(local: Any, task_context: dict[str, Any]) -> Callable[..., Any]:
    if not HAS_BATCHES:
        pytest.skip("the installed botocore has no HealthOmics batches")

    def execute(**parameters: Any) -> Any:
        task = make(**parameters)
        task.render_template_fields(task_context)
        return task.execute(task_context)

    return execute


def make(**parameters: Any) -> PreflightOperator:
    given = {"task_id": "preflight", "default_run_setting": DEFAULT, "run_settings": SETTINGS, **parameters}
    return PreflightOperator(**given)


def test_it_returns_and_logs_the_warnings(
    execute: Any, local: Any, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute() == []
    local.faults.error("ListRuns", code="AccessDeniedException", message="not authorized")
    with caplog.at_level(logging.WARNING):
        (found,) = execute()
    assert set(found) == {"level", "check", "subject", "text"}
    assert json.loads(json.dumps(found)) == found
    assert f"quota: runs kept: {found['text']}" in caplog.text + capsys.readouterr().out


def test_it_fails_once_with_every_error(execute: Any, local: Any) -> None:
    local.calls.clear()
    settings = [{"runSettingId": "HG001", "parameters": {"sampel": "HG001"}}]
    with pytest.raises(PreflightError) as raised:
        execute(run_settings=settings, default_run_setting={**DEFAULT, "cacheId": "9"}, settings_s3_prefix="s3://no-b/")
    assert isinstance(raised.value, AirflowFailException)
    lines = str(raised.value).splitlines()
    assert lines[0] == "The preflight found 4 errors. Nothing was started:"
    assert [line.split(":")[0] for line in lines[1:]] == ["- parameters", "- parameters", "- run_cache", "- bucket"]
    copy = pickle.loads(pickle.dumps(raised.value))
    assert (str(copy), copy.findings) == (str(raised.value), raised.value.findings)
    assert not [operation for operation in local.calls if not operation.startswith(("Get", "List"))]


def test_the_settings_of_an_upstream_task_that_returned_nothing_are_an_error(execute: Any) -> None:
    with pytest.raises(PreflightError, match="None usually means that the upstream task returned None"):
        execute(run_settings=None)


@needs_session_policies
def test_a_session_policy_is_shown_nowhere(local: Any, task_context: dict[str, Any]) -> None:
    task = make(default_run_setting={**DEFAULT, "sessionPolicy": "the-policy"})
    task.render_template_fields(task_context)
    assert "the-policy" not in str(task.default_run_setting)
    assert "***" in str(task.default_run_setting)
    assert "the-policy" not in str(task.default_run_setting) + str(task.execute(task_context))


def test_parameters(local: Any, execute: Any) -> None:
    assert set(PreflightOperator.template_fields) == set(
        aws_template_fields("default_run_setting", "run_settings", "settings_s3_prefix", "s3_conn_id")
    )
    for size in (-1, True, "5"):
        with pytest.raises(OmicsParameterError, match="sample_size must be an integer, 0 or more"):
            make(sample_size=size)
    with pytest.raises(MissingConnectionError, match="s3_conn_id must be the id of an existing"):
        execute(s3_conn_id="missing")
    assert execute(s3_conn_id="aws_default", region_name="us-east-1", botocore_config={"read_timeout": 77}) == []


# Of the operators that start


def start_batch(**parameters: Any) -> StartRunBatchOperator:
    given = {"task_id": "start_batch", "default_run_setting": DEFAULT, "run_settings": SETTINGS, **parameters}
    return StartRunBatchOperator(**given)


def start_run(**parameters: Any) -> StartRunOperator:
    given = {"workflow_id": "7654321", "role_arn": DEFAULT["roleArn"], "output_uri": DEFAULT["outputUri"], **parameters}
    return StartRunOperator(task_id="start_batch", **given)


WRITES = ("StartRunBatch", "StartRun")


@needs_batches
def test_a_batch_with_an_error_is_not_started_and_its_settings_are_not_uploaded(
    local: Any, new_task_context: Callable[[], dict[str, Any]]
) -> None:
    settings = [{"runSettingId": str(number), "parameters": {"sampel": "x"}} for number in range(101)]
    given: dict[str, Any] = {"run_settings": settings, "settings_s3_prefix": "s3://cohort-data/settings"}
    with pytest.raises(PreflightError, match="101 of 101 runs: 0, 1, 2"):
        start_batch(preflight=True, **given).execute(new_task_context())
    assert "Contents" not in boto3.client("s3").list_objects_v2(Bucket="cohort-data")
    assert not {*WRITES} & local.calls.keys()
    start_batch(**given).execute(new_task_context())
    assert local.calls["StartRunBatch"] == 1


@needs_batches
def test_a_batch_of_an_earlier_try_is_used_without_a_preflight(
    local: Any, new_task_context: Callable[[], dict[str, Any]]
) -> None:
    first = start_batch(preflight=True).execute(new_task_context())
    assert local.calls["GetWorkflow"] == 1
    boto3.client("iam").delete_role(RoleName="omics")
    assert start_batch(preflight=True).execute(new_task_context()) == first
    assert local.calls["GetWorkflow"] == 1


def test_a_single_run_is_checked_before_it_is_started(
    local: Any, new_task_context: Callable[[], dict[str, Any]]
) -> None:
    with pytest.raises(PreflightError, match="- parameters: sample: is required by workflow 7654321"):
        start_run(preflight=True, parameters={}).execute(new_task_context())
    with pytest.raises(PreflightError, match="input: s3://cohort-data/gone: does not exist"):
        start_run(preflight=True, parameters={"sample": "s3://cohort-data/gone"}).execute(new_task_context())
    assert not {*WRITES} & local.calls.keys()
    first = start_run(preflight=True, parameters={"sample": "HG001"}).execute(new_task_context())
    boto3.client("iam").delete_role(RoleName="omics")
    assert start_run(preflight=True, parameters={"sample": "HG001"}).execute(new_task_context()) == first


def test_what_preflight_takes() -> None:
    with pytest.raises(OmicsParameterError, match="preflight must be True or False"):
        start_batch(preflight="True")
    with pytest.raises(OmicsParameterError, match="preflight must be True or False"):
        start_run(preflight=1)
    start_batch(preflight=True, s3_conn_id="aws_default")
    with pytest.raises(OmicsParameterError, match="s3_conn_id has no effect"):
        start_batch(s3_conn_id="aws_default")
