"""The graph of a cohort, and what is refused when the DAG is parsed."""

from __future__ import annotations

import inspect
import re
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest

from airflow_provider_omics_cache.exceptions import OmicsParameterError
from airflow_provider_omics_cache.task_groups.cohort import OmicsCohortTaskGroup, RunCache, Samplesheet

try:
    from airflow.sdk import DAG, task_group
except ImportError:  # Airflow 2
    from airflow.decorators import task_group
    from airflow.models.dag import DAG

SHEET = Samplesheet("s3://lab/sheet.csv", run_setting_id="sample", parameters=["sample"])
WHOLE: dict[str, Any] = {
    "samplesheet": SHEET,
    "workflow_id": "1234567",
    "role_arn": "arn:aws:iam::123456789012:role/omics",
    "output_uri": "s3://lab/runs/",
    "staging_s3_prefix": "s3://lab/airflow/",
}


def dag_with(**parameters: Any) -> tuple[Any, OmicsCohortTaskGroup]:
    given = {**WHOLE, **parameters}
    with DAG("rnaseq", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        cohort = OmicsCohortTaskGroup("cohort", **{name: value for name, value in given.items() if value is not ...})
    return dag, cohort


def test_the_graph_shows_each_round() -> None:
    cache = RunCache(name="rnaseq", cache_s3_location="s3://lab/cache/")
    dag, cohort = dag_with(run_cache=cache, rounds=2, cancel_on_failure=True)
    edges = {(task.task_id, after) for task in dag.tasks for after in task.downstream_task_ids}
    in_round = ("start_batch", "wait_for_submission", "wait_for_completion", "cancel_batch")
    expected = [("cohort.freeze_settings", "cohort.ensure_run_cache"), ("cohort.ensure_run_cache", "cohort.preflight")]
    expected += [("cohort.preflight", "cohort.round_1.start_batch")]
    expected += [("cohort.round_1.wait_for_completion", "cohort.round_2.choose_samples")]
    expected += [("cohort.round_2.choose_samples", "cohort.round_2.start_batch")]
    for number in (1, 2):
        names = [f"cohort.round_{number}.{name}" for name in in_round]
        expected += [*pairwise(names), (names[-2], "cohort.results")]
    assert set(expected) <= edges
    assert [task.task_id for task in cohort.get_leaves()] == ["cohort.results"]
    assert [task.task_id for task in cohort.get_roots()] == ["cohort.freeze_settings"]
    assert cohort.results.operator.task_id == cohort.summary.operator.task_id == "cohort.results"
    assert cohort.summary.key == "summary"


def test_default_args_decide_about_what_the_group_does_not_choose() -> None:
    given = {"aws_conn_id": None, "region_name": "eu-west-1", "poke_interval": 300, "retries": 2}
    cache = RunCache(name="rnaseq", cache_s3_location="s3://lab/cache/")
    dag, _ = dag_with(default_args=given, run_cache=cache, region_name="us-west-2", cancel_on_failure=True)
    for one in dag.tasks:
        assert (one.aws_conn_id, one.region_name, one.retries) == (None, "us-west-2", 2)
    assert dag.get_task("cohort.round_3.wait_for_completion").poke_interval == 300


def test_default_args_do_not_change_what_the_tasks_do() -> None:
    given = {"trigger_rule": "none_failed", "wait_for_completion": True, "do_xcom_push": False}
    given |= {"batch_name": "mine", "request_id": "mine"}
    dag, _ = dag_with(default_args=given, run_cache=RunCache(name="rnaseq", cache_s3_location="s3://lab/cache/"))
    # A round after a skipped choose_samples would start a batch of settings that nobody has written.
    always = {"wait_for_completion", "choose_samples", "results"}
    rules = {one.task_id: str(getattr(one.trigger_rule, "value", one.trigger_rule)) for one in dag.tasks}
    assert rules.pop("cohort.freeze_settings") == "none_failed"
    assert rules == {name: "all_done" if name.split(".")[-1] in always else "all_success" for name in rules}
    start = dag.get_task("cohort.round_1.start_batch")
    assert (start.wait_for_completion, start.batch_name, start.request_id, start.do_xcom_push) == (
        False,
        None,
        None,
        True,
    )
    assert dag.get_task("cohort.results").do_xcom_push is True


def test_without_a_run_cache_nothing_is_resumed() -> None:
    dag, _ = dag_with(rounds=2)
    choose = dag.get_task("cohort.round_2.choose_samples")
    assert choose.resume_reasons == []
    assert "ThrottlingException" in choose.resubmit_reasons
    dag, _ = dag_with(rounds=2, run_cache="9876543")
    assert "SERVICE_ERROR" in dag.get_task("cohort.round_2.choose_samples").resume_reasons
    assert dag.get_task("cohort.round_2.start_batch").default_run_setting["cacheId"] == "9876543"


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ({"rounds": 0}, "rounds must be an integer from 1 to 10; got 0"),
        ({"rounds": True}, "rounds must be an integer from 1 to 10; got True"),
        ({"max_failed": "120%"}, "max_failed must be an integer, 0 or more, or a share"),
        ({"results_s3_uri": "s3://lab/elsewhere/r.jsonl"}, "results_s3_uri must be below staging_s3_prefix, 's3://lab"),
        ({"results_s3_uri": "s3://lab/airflow-2/r.jsonl"}, "results_s3_uri must be below staging_s3_prefix, 's3://lab"),
        ({"results_s3_uri": "/tmp/results.jsonl"}, "results_s3_uri must be an s3:// URI with a bucket"),
        ({"results_format": "parquet"}, "results_format must be one of jsonl, csv; got 'parquet'"),
        ({"staging_s3_prefix": "lab/airflow"}, "staging_s3_prefix must be an s3:// URI with a bucket"),
        ({"samplesheet": None}, "samplesheet must be given, or else run_settings, and not both"),
        ({"run_settings": [{"runSettingId": "S1"}]}, "samplesheet must be given, or else run_settings, and not both"),
        ({"samplesheet": None, "run_settings": []}, "run_settings must have at least one run setting"),
        ({"samplesheet": "s3://lab/sheet.csv"}, "samplesheet must be a Samplesheet"),
        ({"workflow_id": None}, "default_run_setting.workflowId must be given"),
        ({"default_run_setting": {"roleArn": "x"}}, "default_run_setting.roleArn must not be given twice"),
        ({"default_run_setting": "x"}, "default_run_setting must be a dict"),
        ({"run_cache": "1", "default_run_setting": {"cacheId": "1"}}, "run_cache must not be given twice"),
        ({"resume_reasons": ["RUN_TASK_FAILED"]}, "resume_reasons needs a run cache"),
        ({"resubmit_reasons": "ThrottlingException"}, "resubmit_reasons must be a list of reasons"),
        ({"s3_extra_args": {"ACLs": "x"}}, "s3_extra_args must have only keys of S3 uploads"),
        ({"fail_fast": True}, "fail_fast needs cancel_on_failure=True"),
        ({"run_cache": "rnaseq"}, "run_cache must be a RunCache, or the id of a cache (1 to 18 digits); got 'rnaseq'"),
        ({"preflight": "no"}, "preflight must be True or False"),
    ],
)
def test_bad_parameters_are_named_when_the_dag_is_parsed(parameters: dict[str, Any], error: str) -> None:
    with pytest.raises(OmicsParameterError) as raised:
        dag_with(**parameters)
    assert error in str(raised.value)


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ({}, "samplesheet must have either run_setting_id (a run for each row) or group_by"),
        ({"group_by": ""}, "samplesheet must have either run_setting_id (a run for each row) or group_by"),
        ({"group_by": ["a"]}, "samplesheet.group_by must be the name of a column, or a template of columns"),
        ({"group_by": "a", "parameters": {"input": "x"}}, "samplesheet.parameters must not have 'input', which is set"),
        (
            {"group_by": "a", "run_setting_id": "a"},
            "samplesheet must have either run_setting_id (a run for each row) or",
        ),
        ({"run_setting_id": "a"}, "samplesheet.parameters must be a dict, or a list of columns"),
        ({"run_setting_id": "a", "parameters": "a"}, "samplesheet.parameters must be a dict, or a list of columns"),
        ({"run_setting_id": "a", "parameters": ["a"], "schema": {"a": 1}}, "samplesheet.schema has no effect without"),
        ({"group_by": "a", "optional": ["b"]}, "samplesheet.optional has no effect without run_setting_id"),
    ],
)
def test_bad_samplesheets_are_named_when_the_dag_is_parsed(parameters: dict[str, Any], error: str) -> None:
    with pytest.raises(OmicsParameterError) as raised:
        Samplesheet("s3://lab/sheet.csv", **parameters)
    assert error in str(raised.value)


def test_each_map_index_of_a_mapped_group_has_its_own_files() -> None:
    def mapped(**parameters: Any) -> Any:
        @task_group
        def one(sheet: Any) -> None:
            samplesheet = Samplesheet(sheet, run_setting_id="sample", parameters=["sample"])
            OmicsCohortTaskGroup("cohort", **{**WHOLE, "samplesheet": samplesheet, **parameters})

        with DAG("rnaseq", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
            one.expand(sheet=["s3://lab/a.csv", "s3://lab/b.csv"])
        return dag

    results = mapped().get_task("one.cohort.results")
    assert "/one.cohort/{{ ti.map_index }}/rerun_key=" in results.results_s3_uri
    with pytest.raises(OmicsParameterError, match="results_s3_uri must differ for each map index"):
        mapped(results_s3_uri="s3://lab/airflow/results.jsonl")


def test_templates_are_checked_when_the_dag_runs() -> None:
    dag_with(max_failed="{{ params.max_failed }}", results_s3_uri="{{ params.s3_uri }}/results.jsonl")


@pytest.mark.parametrize("found", [OmicsCohortTaskGroup, RunCache, Samplesheet])
def test_every_parameter_is_described(found: type) -> None:
    parameters = set(inspect.signature(found.__init__).parameters) - {"self"}
    assert parameters == set(re.findall(r":param (\w+):", found.__doc__ or ""))
