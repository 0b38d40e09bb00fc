"""Start a batch for each of several samplesheets with a mapped task group, and write one table of all their runs.

The tasks of a batch do not wait for other batches. If too many submissions or runs of a batch fail, only this batch is
cancelled.

The DAG runs unchanged against the local HealthOmics (`make demo-ui`). On AWS it needs the connection `aws_default`
and your own params: change the defaults in the file, or set them when you trigger the DAG.
"""

from __future__ import annotations

# [START mapped_batches]
import json

try:
    from airflow.sdk import Param, dag, task, task_group
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task, task_group
    from airflow.models.param import Param
from airflow.providers.amazon.aws.hooks.s3 import S3Hook

from airflow_provider_omics_cache.operators.run_batch import CancelRunBatchOperator, StartRunBatchOperator
from airflow_provider_omics_cache.operators.run_cache import CreateRunCacheOperator
from airflow_provider_omics_cache.resubmission import RERUN_KEY
from airflow_provider_omics_cache.run_settings import save_run_settings
from airflow_provider_omics_cache.samplesheets import run_settings_from_table
from airflow_provider_omics_cache.sensors.run_batch import BatchCompletionSensor, BatchSubmissionSensor
from airflow_provider_omics_cache.tables import read_table

RESULTS = "{{ params.s3_uri }}/mapped_batches/{{ run_id }}/" + RERUN_KEY
# A folder for each batch. The map index differs for each batch of a DAG run.
OWN_RESULTS = RESULTS + "/{{ ti.map_index }}"
SHEETS = [f"s3://omics-quickstart/{tissue}.csv" for tissue in ("lung", "liver", "skin")]


@dag(
    schedule=None,
    description="Run a workflow over several samplesheets, with one batch for each",
    doc_md=__doc__,
    tags=["omics", "example"],
    params={
        "samplesheets": Param(SHEETS, type="array", items={"type": "string"}, description="URIs of the sheets"),
        "workflow_id": Param("1234567", type="string", description="Workflow that runs for each sample"),
        "role_arn": Param("arn:aws:iam::123456789012:role/omics", type="string", description="Role of the runs"),
        "s3_uri": Param("s3://omics-quickstart", type="string", description="Bucket or folder for all that is written"),
        "max_failed": Param("5%", type="string", description="Failures that each sensor allows in its batch"),
        "rerun_key": Param("1", type="string", description="Another key starts other batches in the same DAG run"),
    },
)
def omics_mapped_batches():
    run_cache = CreateRunCacheOperator(
        task_id="ensure_run_cache", name="mapped_batches", cache_s3_location="{{ params.s3_uri }}/cache/", retries=2
    )

    @task
    def list_samplesheets(params: dict) -> list[str]:
        return params["samplesheets"]

    @task(retries=2)
    def save_settings(samplesheet: str, settings_uri: str) -> str:
        return save_run_settings(
            lambda: run_settings_from_table(samplesheet, run_setting_id="sample", parameters={"sample_name": "sample"}),
            settings_uri,
        )

    @task_group
    def run_samplesheet(samplesheet: str):
        start = StartRunBatchOperator(
            task_id="start_batch",
            default_run_setting={
                "workflowId": "{{ params.workflow_id }}",
                "roleArn": "{{ params.role_arn }}",
                "outputUri": "{{ params.s3_uri }}/runs/",
                "cacheId": run_cache.output,
            },
            run_settings=save_settings(samplesheet, f"{OWN_RESULTS}/settings.json"),
            tags={"managed-by": "airflow"},
            rerun_key=RERUN_KEY,
            retries=3,
        )
        submission = BatchSubmissionSensor(
            task_id="wait_for_submission",
            batch_id=start.output,
            poke_interval=10,
            max_failed_submissions="{{ params.max_failed }}",
            fail_fast=True,
            mapping_s3_uri=f"{OWN_RESULTS}/mapping.jsonl",
            retries=2,
        )
        completion = BatchCompletionSensor(
            task_id="wait_for_completion",
            batch_id=start.output,
            poke_interval=10,
            max_failed_runs="{{ params.max_failed }}",
            fail_fast=True,
            runs_s3_uri=f"{OWN_RESULTS}/runs.jsonl",
            timeout=2 * 24 * 3600,
            retries=2,
        )
        cancel = CancelRunBatchOperator(task_id="cancel_batch", batch_id=start.output)
        start >> submission >> completion >> cancel.as_teardown(setups=start)
        return completion.output

    @task
    def join_runs(samplesheets: list[str], run_counts: list[dict], results_uri: str) -> str:
        """Write one record for each run of all batches. If a batch failed, this task does not run."""
        lines = []
        for number, (samplesheet, counts) in enumerate(zip(samplesheets, run_counts, strict=True)):
            print(f"{samplesheet}: {counts}")
            for run in read_table(f"{results_uri}/{number}/runs.jsonl"):
                lines.append(json.dumps({"samplesheet": samplesheet, **run}))
        S3Hook().load_string("\n".join(lines), f"{results_uri}/runs.jsonl", replace=True)
        return f"{results_uri}/runs.jsonl"

    samplesheets = list_samplesheets()
    join_runs(samplesheets, run_samplesheet.expand(samplesheet=samplesheets), RESULTS)


omics_mapped_batches()
# [END mapped_batches]
