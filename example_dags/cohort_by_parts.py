"""Run a workflow over every sample of a samplesheet in S3, and write a table of samples and their outputs to S3.

The DAG runs unchanged against the local HealthOmics (`make demo-ui`). On AWS it needs the connection `aws_default`
and your own params: change the defaults in the file, or set them when you trigger the DAG.
"""

from __future__ import annotations

# [START cohort_by_parts]
import json

try:
    from airflow.sdk import Param, dag, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task
    from airflow.models.param import Param
from airflow.providers.amazon.aws.hooks.s3 import S3Hook

from airflow_provider_omics_cache.operators.run_batch import StartRunBatchOperator
from airflow_provider_omics_cache.operators.run_cache import CreateRunCacheOperator
from airflow_provider_omics_cache.resubmission import RERUN_KEY
from airflow_provider_omics_cache.run_settings import save_run_settings
from airflow_provider_omics_cache.samplesheets import run_settings_from_table
from airflow_provider_omics_cache.sensors.run_batch import BatchCompletionSensor, BatchSubmissionSensor
from airflow_provider_omics_cache.tables import read_table

RESULTS = "{{ params.s3_uri }}/cohort/{{ run_id }}/" + RERUN_KEY


@dag(
    schedule=None,
    description="Run a workflow over a samplesheet, and write a table of its outputs",
    doc_md=__doc__,
    tags=["omics", "example"],
    params={
        "samplesheet": Param("s3://omics-quickstart/samplesheet.csv", type="string", description="URI of the sheet"),
        "workflow_id": Param("1234567", type="string", description="Workflow that runs for each sample"),
        "role_arn": Param("arn:aws:iam::123456789012:role/omics", type="string", description="Role of the runs"),
        "s3_uri": Param("s3://omics-quickstart", type="string", description="Bucket or folder for all that is written"),
        "max_failed": Param("5%", type="string", description="Failures that each sensor allows: number or share"),
        "rerun_key": Param("1", type="string", description="Another key starts another batch in the same DAG run"),
    },
)
def omics_cohort_by_parts():
    @task
    def save_settings(samplesheet: str, settings_uri: str) -> str:
        return save_run_settings(
            lambda: run_settings_from_table(
                samplesheet,
                run_setting_id="sample",
                # workflow parameter: column
                parameters={"sample_name": "sample", "reads_1": "fastq_1", "reads_2": "fastq_2"},
                optional=["fastq_2"],
            ),
            settings_uri,
        )

    run_cache = CreateRunCacheOperator(
        task_id="ensure_run_cache", name="cohort", cache_s3_location="{{ params.s3_uri }}/cache/"
    )
    batch = StartRunBatchOperator(
        task_id="start_batch",
        default_run_setting={
            "workflowId": "{{ params.workflow_id }}",
            "roleArn": "{{ params.role_arn }}",
            "outputUri": "{{ params.s3_uri }}/runs/",
            "cacheId": run_cache.output,
        },
        run_settings=save_settings("{{ params.samplesheet }}", f"{RESULTS}/settings.json"),
        tags={"managed-by": "airflow"},
        rerun_key=RERUN_KEY,
    )
    submission = BatchSubmissionSensor(
        task_id="wait_for_submission",
        batch_id=batch.output,
        poke_interval=10,
        max_failed_submissions="{{ params.max_failed }}",
        mapping_s3_uri=f"{RESULTS}/mapping.jsonl",
    )
    completion = BatchCompletionSensor(
        task_id="wait_for_completion",
        batch_id=batch.output,
        poke_interval=10,
        max_failed_runs="{{ params.max_failed }}",
        runs_s3_uri=f"{RESULTS}/runs.jsonl",
        include_outputs=True,
    )

    @task
    def join_outputs(settings_uri: str, runs_uri: str, results_uri: str) -> str:
        runs = {run["run_setting_id"]: run for run in read_table(runs_uri)}
        lines = []
        for setting in read_table(settings_uri):
            run = runs[setting["runSettingId"]]
            outcome = {"run_id": run["run_id"], "status": run["status"], "output_uri": run["run_output_uri"]}
            lines.append(json.dumps({**setting["parameters"], **outcome}))
        S3Hook().load_string("\n".join(lines), results_uri, replace=True)
        return results_uri

    joined = join_outputs(f"{RESULTS}/settings.json", f"{RESULTS}/runs.jsonl", f"{RESULTS}/samples.jsonl")
    submission >> completion >> joined


omics_cohort_by_parts()
# [END cohort_by_parts]
