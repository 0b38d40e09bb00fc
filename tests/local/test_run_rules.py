"""Rules for the settings of a run that the model of the API does not have."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from airflow_provider_omics_cache.local import LocalHealthOmics
from tests.conftest import needs_batches
from tests.local.conftest import DEFAULT_RUN_SETTING, code_of, run_settings

pytestmark = needs_batches


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
    [({"workflowType": "READY2RUN"}, "defaultRunSetting.workflowType READY2RUN is not supported in a batch")],
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
