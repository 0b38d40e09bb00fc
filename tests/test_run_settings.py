from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from unittest.mock import ANY

import boto3
import pytest
from botocore.stub import Stubber

from airflow_provider_omics_cache import run_settings as module
from airflow_provider_omics_cache.exceptions import (
    MissingConnectionError,
    OmicsApiError,
    OmicsParameterError,
    OmicsVersionError,
)
from airflow_provider_omics_cache.healthomics.identity import digest
from airflow_provider_omics_cache.healthomics.outputs import OWN_OUTPUT_URIS
from airflow_provider_omics_cache.operators.run_batch import StartRunBatchOperator
from airflow_provider_omics_cache.run_settings import save_run_settings
from tests.conftest import HAS_BATCHES, needs_batches

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics

BUCKET = "omics-settings"
URI = f"s3://{BUCKET}/cohort/settings.json"


def settings_of(runs: int, **members: Any) -> list[dict[str, Any]]:
    return [{"runSettingId": f"sample-{n}", "parameters": {"sample": f"é{n}"}, **members} for n in range(runs)]


def saved(uri: str = URI) -> Any:
    key = uri.removeprefix(f"s3://{BUCKET}/")
    return json.loads(boto3.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read())


@pytest.fixture(autouse=True)
def _bucket(local_healthomics: LocalHealthOmics) -> None:
    boto3.client("s3").create_bucket(Bucket=BUCKET)


@needs_batches
def test_a_batch_starts_from_the_saved_settings(
    local_healthomics: LocalHealthOmics, task_context: dict[str, Any]
) -> None:
    settings = settings_of(2_000)
    assert save_run_settings(lambda: settings, URI) == URI
    assert saved() == settings
    arguments: dict[str, Any] = {"Bucket": BUCKET, "Key": "cohort/settings.json"}
    assert boto3.client("s3").head_object(**arguments)["ContentType"] == "application/json"
    start = StartRunBatchOperator(
        task_id="start",
        default_run_setting={
            "workflowId": "1234567",
            "roleArn": "arn:aws:iam::123456789012:role/omics",
            "outputUri": f"s3://{BUCKET}/runs/",
        },
        run_settings=URI,
    )
    batch_id = start.execute(task_context)
    local_healthomics.clock.advance(3_600)
    assert boto3.client("omics").get_batch(batchId=batch_id)["totalRuns"] == 2_000


@needs_batches
def test_what_is_saved_is_neither_changed_nor_asked_for_again() -> None:
    save_run_settings(settings_of(2), URI)

    def read_again() -> list[dict[str, Any]]:
        raise AssertionError("the settings are saved already")

    assert save_run_settings(read_again, URI) == URI
    assert save_run_settings([], URI) == URI
    assert saved() == settings_of(2)


@needs_batches
def test_another_task_that_saves_at_the_same_time_wins() -> None:
    def read_slowly() -> list[dict[str, Any]]:
        save_run_settings(settings_of(3), URI)
        return settings_of(2)

    assert save_run_settings(read_slowly, URI) == URI
    assert saved() == settings_of(3)


@pytest.fixture
def stubber(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stubber]:
    """The S3 of the function."""
    client = boto3.client("s3")
    monkeypatch.setattr(module, "s3_client", lambda **_: client)
    with Stubber(client) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


@needs_batches
@pytest.mark.parametrize("is_there", [False, True])
def test_a_role_that_may_not_list_the_bucket_saves_in_the_bucket_of_the_owner(stubber: Stubber, is_there: bool) -> None:
    target = {"Bucket": BUCKET, "Key": "cohort/settings.json", "ExpectedBucketOwner": "111122223333"}
    metadata = {"project": "cohort", OWN_OUTPUT_URIS: digest({"sample-0": "s3://results/own"})}
    put = {
        **target,
        "Body": ANY,
        "IfNoneMatch": "*",
        "ContentType": "application/json",
        "ACL": "private",
        "Metadata": metadata,
    }
    stubber.add_client_error("head_object", "403", "Forbidden", 403, expected_params=target)
    if is_there:
        stubber.add_client_error("put_object", "PreconditionFailed", "", 412, expected_params=put)
    else:
        stubber.add_response("put_object", {"ETag": "a"}, put)
    extra_args = {"ExpectedBucketOwner": "111122223333", "ACL": "private", "Metadata": {"project": "cohort"}}
    assert save_run_settings(settings_of(1, outputUri="s3://results/own"), URI, s3_extra_args=extra_args) == URI


@needs_batches
@pytest.mark.parametrize(
    ("settings", "arguments", "parameter", "text"),
    [
        (settings_of(1) * 2, {}, "run_settings[1].runSettingId", "must be unique"),
        (settings_of(1, cacheId="1"), {}, "run_settings[0]", "botocore .*'cacheId'"),
        ([], {}, "run_settings", "must have at least one setting"),
        (lambda: None, {}, "run_settings", "must be a list of dicts"),
        (settings_of(1), {"settings_s3_uri": "s3://no-such-bucket/a.json"}, "settings_s3_uri", "a bucket that exists"),
        (settings_of(1), {"settings_s3_uri": f"s3://{BUCKET}"}, "settings_s3_uri", "must be s3://bucket/key"),
        (settings_of(1), {"s3_extra_args": {"Metadata": "mine"}}, "s3_extra_args", "values of the types"),
        (settings_of(1), {"s3_extra_args": {"Key": "mine"}}, "s3_extra_args", "only keys of S3 uploads"),
    ],
)
def test_nothing_is_saved_after_an_error(settings: Any, arguments: dict[str, Any], parameter: str, text: str) -> None:
    with pytest.raises(OmicsParameterError, match=text) as caught:
        save_run_settings(settings, **{"settings_s3_uri": URI, **arguments})
    assert caught.value.parameter == parameter
    assert "Contents" not in boto3.client("s3").list_objects_v2(Bucket=BUCKET)


@needs_batches
def test_an_error_of_s3_is_raised(stubber: Stubber) -> None:
    stubber.add_client_error("head_object", "400", "Bad Request", 400)
    with pytest.raises(OmicsApiError, match="HeadObject"):
        save_run_settings(settings_of(1), URI)


def test_a_misspelt_connection_is_refused() -> None:
    with pytest.raises(MissingConnectionError, match="conn_id"):
        save_run_settings(settings_of(1), URI, conn_id="lba")


@pytest.mark.skipif(HAS_BATCHES, reason="the installed botocore knows batches")
def test_a_botocore_without_batches_is_named() -> None:
    with pytest.raises(OmicsVersionError, match="botocore"):
        save_run_settings(settings_of(1), URI)
