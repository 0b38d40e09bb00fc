"""Run an nf-core pipeline once for each sample of a samplesheet."""

from __future__ import annotations

# [START nf_core]
from airflow.sdk import dag, task  # Airflow 2: from airflow.decorators import dag, task

from airflow_provider_omics_cache.operators.run_batch import StartRunBatchOperator
from airflow_provider_omics_cache.run_settings import save_run_settings
from airflow_provider_omics_cache.samplesheets import run_settings_from_samplesheet

BUCKET = "s3://my-bucket"


@dag(schedule=None, params={"samplesheet": f"{BUCKET}/samplesheet.csv"})
def rnaseq():
    @task
    def save_samples(samplesheet: str, settings_uri: str) -> str:
        return save_run_settings(
            lambda: run_settings_from_samplesheet(
                samplesheet,
                group_by="sample",
                samplesheet_s3_prefix=f"{BUCKET}/samplesheets/",
                parameters={"genome": "GRCh38", "outdir": "/mnt/workflow/pubdir"},
                schema=f"{BUCKET}/rnaseq/assets/schema_input.json",
            ),
            settings_uri,
        )

    settings = save_samples("{{ params.samplesheet }}", f"{BUCKET}/settings/{{{{ run_id }}}}.json")
    role = "arn:aws:iam::123456789012:role/omics"
    setting = {"workflowId": "1234567", "roleArn": role, "outputUri": f"{BUCKET}/runs/"}
    StartRunBatchOperator(
        task_id="run_samples", default_run_setting=setting, run_settings=settings, wait_for_completion=True
    )


rnaseq()
# [END nf_core]
