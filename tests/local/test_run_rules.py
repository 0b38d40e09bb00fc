"""Rules for the settings of a run that the model of the API does not have."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import boto3
import pytest
from botocore.exceptions import ClientError

from airflow_provider_omics_cache.local import LocalHealthOmics
from airflow_provider_omics_cache.local.batch import Batch, RunOverrides
from airflow_provider_omics_cache.local.batches import RegionSubmitter
from airflow_provider_omics_cache.local.protocol import Request
from airflow_provider_omics_cache.local.run_rules import LONGEST_RUN_OUTPUT_URI
from tests.conftest import HAS_BATCHES, needs_batches, needs_session_policies
from tests.local.broken_requests import MODEL
from tests.local.conftest import DEFAULT_RUN_SETTING, code_of, run_settings

pytestmark = needs_batches


needs_newer_members = pytest.mark.skipif(
    not HAS_BATCHES or "networkingMode" not in MODEL.shape_for("DefaultRunSetting").members,
    reason="the installed botocore has no networking modes of batches",
)


def start(omics: Any, default: dict[str, Any] | None = None, inline: list[dict[str, Any]] | None = None) -> str:
    batch_id: str = omics.start_run_batch(
        defaultRunSetting={**DEFAULT_RUN_SETTING, **(default or {})},
        batchRunSettings={"inlineSettings": inline or run_settings(2)},
    )["id"]
    return batch_id


def failures(omics: Any, batch_id: str) -> dict[str, str | None]:
    """The message of each failed submission with its reason, by runSettingId; None for a run that was started."""
    return {
        row["runSettingId"]: f"{row['submissionFailureReason']}: {row['submissionFailureMessage']}"
        if "submissionFailureReason" in row
        else None
        for row in omics.list_runs_in_batch(batchId=batch_id)["runs"]
    }


@pytest.mark.parametrize(
    ("default", "text"),
    [
        ({"workflowType": "READY2RUN"}, "defaultRunSetting.workflowType READY2RUN is not supported in a batch"),
        ({"cacheBehavior": "CACHE_ALWAYS"}, "defaultRunSetting.cacheBehavior requires defaultRunSetting.cacheId"),
        pytest.param(
            {"networkingMode": "VPC"},
            "defaultRunSetting.networkingMode VPC requires defaultRunSetting.configurationName",
            marks=needs_newer_members,
        ),
        *(
            pytest.param(
                {"sessionPolicy": policy},
                "defaultRunSetting.sessionPolicy must be a JSON object",
                marks=needs_session_policies,
            )
            for policy in ("s3cret", "[]", '{"Version": NaN}')
        ),
    ],
)
def test_a_default_setting_that_no_batch_can_have_is_refused_at_once(
    omics: Any, default: dict[str, Any], text: str
) -> None:
    with pytest.raises(ClientError) as error:
        start(omics, default)

    assert code_of(error) == ("ValidationException", 400)
    assert error.value.response["Error"]["Message"] == text
    assert omics.list_batch()["items"] == []


def test_a_workflow_that_does_not_exist_is_refused_at_once(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.settings.strict_workflows = True
    local_healthomics.register_workflow("4711")
    local_healthomics.delete_workflow("4712")
    for workflow_id in ("2174942", "4712"):
        with pytest.raises(ClientError) as error:
            start(omics, {"workflowId": workflow_id})
        assert code_of(error) == ("ResourceNotFoundException", 404)
        assert error.value.response["Error"]["Message"] == f"Workflow {workflow_id} not found"
    assert omics.list_batch()["items"] == []

    deleted_later = start(omics)
    local_healthomics.delete_workflow("4711")
    local_healthomics.clock.advance(10)
    assert set(failures(omics, deleted_later).values()) == {"ResourceNotFoundException: Workflow 4711 not found"}


@pytest.mark.parametrize("output_uri", ["not-a-uri", "http://x/y", "s3://", "s3:///key", "s3://UPPER/x", "s3:/results"])
def test_an_output_uri_without_a_bucket_fails_the_submission(
    omics: Any, local_healthomics: LocalHealthOmics, output_uri: str
) -> None:
    own = start(omics, inline=[{"runSettingId": "good"}, {"runSettingId": "bad", "outputUri": output_uri}])
    default = start(
        omics, {"outputUri": output_uri}, [{"runSettingId": "good", "outputUri": "s3://results"}, *run_settings(1)]
    )
    local_healthomics.clock.advance(10)

    text = f"ValidationException: outputUri must begin with s3:// and the name of a bucket; got '{output_uri}'"
    assert failures(omics, own) == {"good": None, "bad": text}
    assert failures(omics, default) == {"good": None, "sample-0": text}


def test_the_tags_of_a_run_have_the_limits_of_a_resource(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    shared = {f"shared-{number}": "" for number in range(49)}
    inline: list[dict[str, Any]] = [
        {"runSettingId": "good", "runTags": {"own": "", "shared-1": "x"}},
        {"runSettingId": "many", "runTags": {"own": "", "other": ""}},
        {"runSettingId": "reserved", "runTags": {"AWS:x": ""}},
    ]
    boto3.client("s3").put_object(Bucket="results", Key="settings.json", Body=json.dumps(inline))
    for settings in ({"inlineSettings": inline}, {"s3UriSettings": "s3://results/settings.json"}):
        batch_id = omics.start_run_batch(
            defaultRunSetting={**DEFAULT_RUN_SETTING, "runTags": shared}, batchRunSettings=settings
        )["id"]
        local_healthomics.clock.advance(10)
        assert failures(omics, batch_id) == {
            "good": None,
            "many": "ValidationException: A resource has at most 50 tags; there were 51",
            "reserved": "ValidationException: Tag keys that start with aws: are reserved",
        }


def test_run_output_uri_fits_the_model(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    assert MODEL.shape_for("RunOutputUri").metadata["max"] == LONGEST_RUN_OUTPUT_URI
    longest = "s3://results/".ljust(694, "x")
    inline = [{"runSettingId": "good"}, {"runSettingId": "long", "outputUri": f"{longest}x"}]
    batch_id = start(omics, {"outputUri": f"{longest}/"}, inline)
    local_healthomics.clock.advance(10)

    text = "outputUri must have at most 694 characters, because runOutputUri has at most 750; got 695"
    assert failures(omics, batch_id) == {"good": None, "long": f"ValidationException: {text}"}
    run_id = omics.list_runs(batchId=batch_id)["items"][0]["id"]
    assert len(omics.get_run(id=run_id)["runOutputUri"]) <= 750


def test_get_run_shows_what_applies(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    def run_of(**default: Any) -> dict[str, Any]:
        batch_id = start(omics, default)
        local_healthomics.clock.advance(10)
        run: dict[str, Any] = omics.get_run(id=omics.list_runs(batchId=batch_id)["items"][0]["id"])
        return run

    cache = omics.create_run_cache(cacheS3Location="s3://caches", cacheBehavior="CACHE_ALWAYS")["id"]
    run = run_of(cacheId=cache)
    applies = {"workflowType": "PRIVATE", "retentionMode": "RETAIN", "storageType": "STATIC", "storageCapacity": 1200}
    assert run.items() >= {**applies, "cacheBehavior": "CACHE_ALWAYS"}.items()
    own = {"cacheBehavior": "CACHE_ON_FAILURE", "retentionMode": "REMOVE", "storageType": "DYNAMIC"}
    run = run_of(cacheId=cache, **own)
    assert run.items() >= own.items()
    assert "storageCapacity" not in run
    local_healthomics.settings.default_storage_type = "DYNAMIC"
    run = run_of()
    assert run["storageType"] == "DYNAMIC"
    assert "cacheBehavior" not in run


@needs_newer_members
def test_get_run_shows_the_configuration(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    batch_id = start(omics, {"networkingMode": "VPC", "configurationName": "lab"})
    local_healthomics.clock.advance(10)

    run = omics.get_run(id=omics.list_runs(batchId=batch_id)["items"][0]["id"])

    assert run["networkingMode"] == "VPC"
    assert run["configuration"]["name"] == "lab"
    assert run["configuration"]["arn"].endswith(":123456789012:configuration/lab")


@pytest.mark.parametrize("number", ["+5", " 5", "5.0", "0x5", "\u0665"])
def test_a_number_in_a_query_has_digits_only(local_healthomics: LocalHealthOmics, number: str) -> None:
    signed = {"authorization": "AWS4-HMAC-SHA256 Credential=x/20261120/us-east-1/omics/aws4_request, Signature=0"}
    answer = local_healthomics.handle(Request("GET", "/runCache", urlencode({"maxResults": number})), signed)

    assert answer.status == 400
    assert b"at 'maxResults' failed to satisfy constraint: Member must be an integer" in answer.body


def nested(depth: int) -> dict[str, Any]:
    value: Any = "x"
    for _ in range(depth - 1):
        value = [value]
    return {"parameters": {"deep": value}}


@pytest.mark.parametrize("depth", [101, 500])
def test_documents_have_a_largest_depth(omics: Any, local_healthomics: LocalHealthOmics, depth: int) -> None:
    text = "Member must be nested at most 100 deep"
    signed = {"authorization": "AWS4-HMAC-SHA256 Credential=x/20261120/us-east-1/omics/aws4_request, Signature=0"}

    def refusal_of(default: dict[str, Any], inline: list[dict[str, Any]]) -> str:
        settings = {
            "defaultRunSetting": {**DEFAULT_RUN_SETTING, **default},
            "batchRunSettings": {"inlineSettings": inline},
        }
        body = json.dumps({"requestId": "a", **settings}).encode()
        answer = local_healthomics.handle(Request("POST", "/runBatch", "", body), signed)
        assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (400, "ValidationException")
        return answer.body.decode()

    assert text in refusal_of(nested(depth), run_settings(1))
    assert text in refusal_of({}, [{"runSettingId": "a", **nested(depth)}])
    assert "Member must be a map" in refusal_of({"runTags": json.loads("[" * depth + "]" * depth)}, run_settings(1))

    file = [{"runSettingId": "a", **nested(100)}, {"runSettingId": "b", **nested(depth)}]
    boto3.client("s3").put_object(Bucket="results", Key="settings.json", Body=json.dumps(file))
    batch_id = omics.start_run_batch(
        defaultRunSetting=DEFAULT_RUN_SETTING, batchRunSettings={"s3UriSettings": "s3://results/settings.json"}
    )["id"]
    start(omics, inline=[file[0]])
    local_healthomics.clock.advance(10)
    assert text in omics.get_batch(batchId=batch_id)["failureReason"]
    assert [batch["status"] for batch in omics.list_batch()["items"]] == ["FAILED", "INPROGRESS"]
    assert len(omics.list_runs()["items"]) == 1


def test_a_request_that_is_nested_too_deeply_to_be_read_is_refused(
    omics: Any, local_healthomics: LocalHealthOmics
) -> None:
    for depth in (970, 100_000):
        body = b'{"requestId": "a", "parameters": ' + b"[" * depth + b"]" * depth + b"}"
        signed = {"authorization": "AWS4-HMAC-SHA256 Credential=x/20261120/us-east-1/omics/aws4_request, Signature=0"}
        answer = local_healthomics.handle(Request("POST", "/run", "", body), signed)
        assert answer.status == 400
        assert "nested" in json.loads(answer.body)["message"]
    assert omics.list_runs()["items"] == []


def test_an_error_in_one_batch_stays_in_it(
    omics: Any, local_healthomics: LocalHealthOmics, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = start(omics, {"name": "bad"}), start(omics)
    load = RegionSubmitter.load_settings

    def fail(self: RegionSubmitter, batch: Batch) -> RunOverrides:
        if batch.default.get("name") == "bad":
            raise RuntimeError("s3cret")
        return load(self, batch)

    monkeypatch.setattr(RegionSubmitter, "load_settings", fail)
    local_healthomics.clock.advance(10)

    assert [batch["status"] for batch in omics.list_batch()["items"]] == ["FAILED", "INPROGRESS"]
    text = "The local HealthOmics failed in this batch; see the error in its log"
    assert omics.get_batch(batchId=bad)["failureReason"] == text
    assert {run["batchId"] for run in omics.list_runs()["items"]} == {good}
    assert omics.list_runs_in_batch(batchId=bad)["runs"] == []
