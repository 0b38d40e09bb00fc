from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.handlers import BUILTIN_HANDLERS
from botocore.model import OperationModel

from airflow_provider_omics_cache.local import LocalHealthOmics
from tests.local.broken_requests import OPERATIONS
from tests.local.shapes import problems

DEFAULT_RUN_SETTING = {
    "workflowId": "4711",
    "roleArn": "arn:aws:iam::123456789012:role/omics",
    "outputUri": "s3://results/out",
}


def run_settings(number: int) -> list[dict[str, Any]]:
    return [{"runSettingId": f"sample-{index}"} for index in range(number)]


def _check_answer(response_dict: dict[str, Any], operation_model: OperationModel, **_: Any) -> None:
    if operation_model.name not in OPERATIONS:
        return
    body = response_dict["body"]
    content = json.loads(body, parse_constant=pytest.fail) if body else None
    if response_dict["status_code"] >= 300:
        assert response_dict["headers"]["x-amzn-ErrorType"]
        assert content is not None
        assert set(content) == {"message"}
        return
    assert response_dict["status_code"] == operation_model.http["responseCode"]
    shape = operation_model.output_shape
    if shape is None or not shape.members:
        assert content is None
    else:
        assert problems(shape, content) == []


@pytest.fixture(autouse=True)
def _every_answer_fits_the_model() -> Iterator[None]:
    handler = ("before-parse.omics", _check_answer)
    BUILTIN_HANDLERS.append(handler)
    yield
    BUILTIN_HANDLERS.remove(handler)


@pytest.fixture
def omics(local_healthomics: LocalHealthOmics) -> Any:
    """A client of the local HealthOmics; the buckets ``caches`` and ``results`` exist."""
    for bucket in ("caches", "results"):
        s3_client().create_bucket(Bucket=bucket)
    return new_client("omics")


def s3_client() -> Any:
    return new_client("s3")


def new_client(service: str, region_name: str = "us-east-1") -> Any:
    """A client that does not retry."""
    return _session().client(service, region_name=region_name, config=Config(retries={"total_max_attempts": 1}))


@functools.cache
def _session() -> boto3.session.Session:
    """One session for all tests: it loads botocore's models once. The first test may use it before its own fixtures."""
    session = boto3.session.Session("testing", "testing", region_name="us-east-1")
    session.events.register("before-parse.omics", _check_answer, unique_id="check-answer")
    return session


def code_of(error: pytest.ExceptionInfo[ClientError]) -> tuple[str, int]:
    response = error.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def other_account(service: str) -> Any:
    role = "arn:aws:iam::210987654321:role/other"
    assumed = boto3.client("sts").assume_role(RoleArn=role, RoleSessionName="test")["Credentials"]
    return boto3.client(
        service,
        aws_access_key_id=assumed["AccessKeyId"],
        aws_secret_access_key=assumed["SecretAccessKey"],
        aws_session_token=assumed["SessionToken"],
    )
