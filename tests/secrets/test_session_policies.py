"""A session policy in the rendered fields, as the installed Airflow makes them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_omics_cache import _compat
from airflow_provider_omics_cache.exceptions import OmicsParameterError
from airflow_provider_omics_cache.operators.run_batch import StartRunBatchOperator
from airflow_provider_omics_cache.tasks.session_policies import MOST_MASKED, with_policies, without_policies
from tests.conftest import AIRFLOW_3, needs_batches, needs_session_policies

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics

POLICY = json.dumps({"Version": "2012-10-17", "Statement": [{"Resource": "arn:aws:s3:::s3cret/*"}]}, indent=1)
SETTING = {
    "workflowId": "1234567",
    "roleArn": "arn:aws:iam::123456789012:role/omics",
    "outputUri": "s3://results/out",
}
SETTINGS = [{"runSettingId": f"sample-{number}"} for number in range(3)]


@pytest.fixture
def masked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is registered at Airflow's masker; it masks nothing, so that it hides no mistake."""
    masked: list[str] = []
    monkeypatch.setattr(_compat, "mask_secret", masked.append)
    return masked


def rendered(task: StartRunBatchOperator) -> dict[str, Any]:
    """Render a task and return the fields as Airflow stores them."""
    task.render_template_fields({"policy": POLICY})  # type: ignore[arg-type]
    if AIRFLOW_3:
        from airflow.sdk.execution_time.task_runner import _serialize_rendered_fields

        return _serialize_rendered_fields(task)
    from airflow.models.renderedtifields import get_serialized_template_fields

    fields: dict[str, Any] = get_serialized_template_fields(task)
    return fields


def task_with(**parameters: Any) -> StartRunBatchOperator:
    return StartRunBatchOperator(
        task_id="start", **{"default_run_setting": SETTING, "run_settings": SETTINGS, **parameters}
    )


@pytest.mark.parametrize("policy", [POLICY, "{{ policy }}"])
@pytest.mark.parametrize("name", ["sessionPolicy", "session_policy", "SessionPolicy"])
def test_the_rendered_setting_shows_everything_but_the_policy(masked: list[str], policy: str, name: str) -> None:
    fields = rendered(task_with(default_run_setting={**SETTING, name: policy}))
    shown = fields["default_run_setting"]
    assert "s3cret" not in json.dumps(fields)
    assert name in str(shown)
    assert "***" in str(shown)
    assert "role/omics" in str(shown)
    assert fields["run_settings"] == SETTINGS


def test_fields_without_a_policy_do_not_change(masked: list[str]) -> None:
    fields = rendered(task_with())
    assert (fields["default_run_setting"], fields["run_settings"]) == (SETTING, SETTINGS)
    assert masked == []


@pytest.mark.parametrize(
    "parameters",
    [
        {"run_settings": [*SETTINGS, {"runSettingId": "sample", "sessionPolicy": POLICY}]},
        {"run_settings": json.dumps([{"runSettingId": "sample", "sessionPolicy": POLICY}])},
        {"default_run_setting": json.dumps({**SETTING, "sessionPolicy": POLICY})},
        {"default_run_setting": {**SETTING, "sessionPolicy": {"Resource": "s3cret"}}},
        {"default_run_setting": {**SETTING, "sessionPolicy": POLICY, "name": "x" * 10_000}},
    ],
)
def test_a_policy_in_the_wrong_place_is_hidden_too(masked: list[str], parameters: dict[str, Any]) -> None:
    assert "s3cret" not in json.dumps(rendered(task_with(**parameters)))


def test_a_uri_is_shown() -> None:
    uri = "s3://bucket/session-policy/settings.json"
    assert rendered(task_with(run_settings=uri))["run_settings"] == uri


def test_airflow_masks_the_policy_in_every_form_in_which_texts_show_it(masked: list[str]) -> None:
    policy = POLICY.replace("s3cret", "s3crét")
    rendered(task_with(default_run_setting={**SETTING, "sessionPolicy": policy}))
    request = json.dumps({"sessionPolicy": policy})
    for text in (policy, str({"sessionPolicy": policy}), request, str(request.encode())):
        assert any(form in text for form in masked)
        for form in sorted(masked, key=len, reverse=True):
            text = text.replace(form, "***")
        assert "arn:aws" not in text


def test_a_policy_that_repeats_is_masked_once(masked: list[str]) -> None:
    rendered(task_with(run_settings=[{"runSettingId": str(n), "sessionPolicy": POLICY} for n in range(1_000)]))
    assert len(set(masked)) == 4


def test_few_of_many_policies_are_masked_in_logs_and_all_are_hidden(masked: list[str]) -> None:
    settings = [{"runSettingId": str(n), "sessionPolicy": f"s3cret number {n}"} for n in range(1_000)]
    fields = rendered(task_with(run_settings=settings))
    assert "s3cret" not in json.dumps(fields)
    assert len(set(masked)) <= 4 * MOST_MASKED


def test_the_settings_are_whole_again() -> None:
    settings = [*SETTINGS, {"runSettingId": "sample", "sessionPolicy": POLICY}]
    hidden = without_policies(settings)
    assert "s3cret" not in f"{hidden} {hidden!r}"
    assert with_policies(hidden) == settings
    assert with_policies(without_policies(hidden)) == settings, "a task can be rendered twice"
    assert without_policies(SETTINGS) is SETTINGS
    assert with_policies(SETTINGS) is SETTINGS


@needs_session_policies
def test_the_service_gets_the_policy_of_a_rendered_task(
    local_healthomics: LocalHealthOmics, task_context: dict[str, Any]
) -> None:
    import boto3

    task = task_with(default_run_setting={**SETTING, "sessionPolicy": "{{ policy }}"})
    rendered(task)
    batch_id = task.execute(task_context)
    found = boto3.client("omics").get_batch(batchId=batch_id)
    assert found["defaultRunSetting"]["sessionPolicy"] == POLICY
    assert "s3cret" not in json.dumps(task_context["ti"].xcoms)


@needs_batches
@pytest.mark.parametrize("parameter", ["default_run_setting", "run_settings"])
def test_the_error_for_a_text_names_what_it_must_be(
    local_healthomics: LocalHealthOmics, task_context: dict[str, Any], parameter: str
) -> None:
    task = task_with(**{parameter: json.dumps({"sessionPolicy": POLICY})})
    rendered(task)
    with pytest.raises(OmicsParameterError, match=f"{parameter} must be a (dict|list)") as caught:
        task.execute(task_context)
    assert "s3cret" not in str(caught.value)
