"""URIs of objects that mapped tasks write: they must differ for each map index."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

try:
    from airflow.sdk import DAG, task_group
except ImportError:  # Airflow 2
    from airflow import DAG
    from airflow.decorators import task_group

from airflow_provider_omics_cache.exceptions import OmicsParameterError
from airflow_provider_omics_cache.operators.run_batch import DeleteRunBatchOperator, StartRunBatchOperator
from airflow_provider_omics_cache.sensors.run_batch import BatchCompletionSensor, BatchSubmissionSensor
from tests.conftest import needs_batches

RULE = "must differ for each map index of a mapped task: put {{ ti.map_index }} into it; got 's3://"
SAME = ["s3://results/runs.jsonl", "s3://results/{{ run_id }}/{{ ds }}.jsonl", "{{ params.prefix }}/runs.jsonl"]
DIFFERENT = [
    "s3://results/{{ ti.map_index }}.jsonl",
    "s3://results/{{ run_id }}/{{ task_instance.map_index }}.jsonl",
    "s3://results/{{ task.batch_id }}.jsonl",
    "s3://results/{{ lab_folder(ti) }}.jsonl",
]
TASKS = {
    "mapping_s3_uri": lambda **uri: BatchSubmissionSensor(task_id="wait", batch_id="1000001", **uri),
    "runs_s3_uri": lambda **uri: BatchCompletionSensor(task_id="wait", batch_id="1000001", **uri),
    "save_mapping_s3_uri": lambda **uri: DeleteRunBatchOperator(task_id="delete", batch_id="1000001", **uri),
}


def make_group(make: Callable[..., Any], **uri: str) -> None:
    with DAG("cohorts", schedule=None):

        @task_group
        def batch(sheet: str) -> None:
            make(**uri)

        batch.expand(sheet=["s3://lab/1.csv", "s3://lab/2.csv"])


@pytest.mark.parametrize("uri", SAME)
@pytest.mark.parametrize("parameter", TASKS)
def test_one_uri_in_a_mapped_task_group_is_refused_when_the_dag_is_parsed(parameter: str, uri: str) -> None:
    with pytest.raises(OmicsParameterError) as caught:
        make_group(TASKS[parameter], **{parameter: uri})
    assert str(caught.value).startswith(f"{parameter} must differ for each map index of a mapped task")
    assert str(caught.value).endswith(f"put {{{{ ti.map_index }}}} into it; got {uri!r}")


@pytest.mark.parametrize("uri", DIFFERENT)
@pytest.mark.parametrize("parameter", TASKS)
def test_a_uri_that_can_differ_is_accepted(parameter: str, uri: str) -> None:
    make_group(TASKS[parameter], **{parameter: uri})


@pytest.mark.parametrize("uri", SAME)
def test_a_task_group_that_is_not_mapped_may_have_any_uri(uri: str) -> None:
    with DAG("cohort", schedule=None):

        @task_group
        def batch() -> None:
            TASKS["runs_s3_uri"](runs_s3_uri=uri)

        batch()


def test_the_wait_of_a_start_is_checked_too() -> None:
    def start(**uri: str) -> None:
        StartRunBatchOperator(task_id="start", default_run_setting={}, run_settings=[], wait_for_completion=True, **uri)

    with pytest.raises(OmicsParameterError, match=r"^runs_s3_uri must differ for each map index"):
        make_group(start, runs_s3_uri=SAME[0])


@needs_batches
def test_mapped_tasks_outside_a_group(local_healthomics: Any, local_healthomics_dag_run: Any, tmp_path: Path) -> None:
    """Airflow makes their operators when they run: the check is before the first call of HealthOmics."""
    boto3.client("s3").create_bucket(Bucket="results")
    file = tmp_path / "mapped.py"
    file.write_text(
        f"""
from airflow import DAG
from airflow_provider_omics_cache.sensors.run_batch import BatchSubmissionSensor

with DAG("mapped", schedule=None):
    for task_id, partial, mapped in (
        ("same", {{"mapping_s3_uri": {SAME[1]!r}}}, [{{"batch_id": "1"}}, {{"batch_id": "2"}}]),
        ("template", {{"mapping_s3_uri": {DIFFERENT[0]!r}}}, [{{"batch_id": "1"}}]),
        ("expanded", {{}}, [{{"batch_id": "1", "mapping_s3_uri": {SAME[0]!r}}}]),
    ):
        BatchSubmissionSensor.partial(task_id=task_id, **partial).expand_kwargs(mapped)
"""
    )
    run = local_healthomics_dag_run(file).run()
    assert run.state == "failed"
    for map_index in (0, 1):
        error = run.errors[f"same[{map_index}]"]
        assert isinstance(error, OmicsParameterError)
        assert RULE in str(error)
    for task_id in ("template[0]", "expanded[0]"):
        assert "was not found" in str(run.errors[task_id])
    assert set(local_healthomics.calls) == {"GetBatch"}
