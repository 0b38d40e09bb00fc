"""Run a workflow over every sample of a samplesheet in S3, and write a table of samples and their outputs to S3.

The DAG runs unchanged against the local HealthOmics (``make demo-ui``). On AWS it needs the connection ``aws_default``
and four Airflow variables: ``omics_workflow_id``, ``omics_role_arn``, ``omics_s3_uri`` and ``omics_samplesheet``.
"""

from __future__ import annotations

# [START cohort]
import json

try:
    from airflow.sdk import dag, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task
from airflow.providers.amazon.aws.hooks.s3 import S3Hook

from airflow_provider_omics_cache.operators.run_batch import StartRunBatchOperator
from airflow_provider_omics_cache.operators.run_cache import CreateRunCacheOperator
from airflow_provider_omics_cache.run_settings import save_run_settings
from airflow_provider_omics_cache.samplesheets import run_settings_from_table
from airflow_provider_omics_cache.sensors.run_batch import BatchCompletionSensor, BatchSubmissionSensor
from airflow_provider_omics_cache.tables import read_table

S3_URI = "{{ var.value.get('omics_s3_uri', 's3://omics-quickstart') }}"
SAMPLESHEET = "{{ var.value.get('omics_samplesheet', 's3://omics-quickstart/samplesheet.csv') }}"
TAGS = {"managed-by": "{{ var.value.get('omics_managed_by', 'airflow') }}"}
RERUN_KEY = "{{ var.json.get('omics_rerun_keys', {}).get(run_id, '1') }}"
RESULTS = f"{S3_URI}/cohort/{{{{ run_id }}}}/{RERUN_KEY}"


@dag(schedule=None)
def omics_cohort():
    @task
    def save_settings(samplesheet: str, settings_uri: str) -> str:
        return save_run_settings(
            lambda: run_settings_from_table(
                samplesheet,
                run_setting_id="sample",
                parameters={"sample": "sample", "fastq_1": "fastq_1", "fastq_2": "fastq_2"},
                optional=["fastq_2"],
            ),
            settings_uri,
        )

    run_cache = CreateRunCacheOperator(task_id="ensure_run_cache", name="cohort", cache_s3_location=f"{S3_URI}/cache/")
    batch = StartRunBatchOperator(
        task_id="start_batch",
        default_run_setting={
            "workflowId": "{{ var.value.get('omics_workflow_id', '1234567') }}",
            "roleArn": "{{ var.value.get('omics_role_arn', 'arn:aws:iam::123456789012:role/omics') }}",
            "outputUri": f"{S3_URI}/runs/",
            "cacheId": run_cache.output,
        },
        run_settings=save_settings(SAMPLESHEET, f"{RESULTS}/settings.json"),
        tags=TAGS,
        rerun_key=RERUN_KEY,
    )
    submission = BatchSubmissionSensor(
        task_id="wait_for_submission",
        batch_id=batch.output,
        max_failed_submissions="5%",
        mapping_s3_uri=f"{RESULTS}/mapping.jsonl",
    )
    completion = BatchCompletionSensor(
        task_id="wait_for_completion",
        batch_id=batch.output,
        max_failed_runs="5%",
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


omics_cohort()
# [END cohort]
