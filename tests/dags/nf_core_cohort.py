"""Run an nf-core pipeline for each sample of a samplesheet, as a cohort."""

from __future__ import annotations

# [START nf_core_cohort]
from airflow.sdk import dag, task  # Airflow 2: from airflow.decorators import dag, task

from airflow_provider_omics_cache.tables import read_table
from airflow_provider_omics_cache.task_groups.cohort import OmicsCohortTaskGroup, RunCache, Samplesheet

BUCKET = "s3://my-bucket"


@dag(schedule=None, params={"samplesheet": f"{BUCKET}/samplesheet.csv"}, default_args={"retries": 2})
def rnaseq():
    cohort = OmicsCohortTaskGroup(
        "cohort",
        samplesheet=Samplesheet(
            "{{ params.samplesheet }}",
            group_by="sample",
            parameters={"genome": "GRCh38", "outdir": "/mnt/workflow/pubdir"},
            schema=f"{BUCKET}/rnaseq/assets/schema_input.json",
        ),
        workflow_id="1234567",
        role_arn="arn:aws:iam::123456789012:role/omics",
        output_uri=f"{BUCKET}/runs/",
        run_cache=RunCache(name="rnaseq", cache_s3_location=f"{BUCKET}/cache/"),
        staging_s3_prefix=f"{BUCKET}/airflow/",
        max_failed="2%",
        deferrable=True,
    )

    @task
    def multiqc(results_uri: str):
        for record in read_table(results_uri):
            print(record["run_setting_id"], record["status"], record["run_output_uri"])

    multiqc(cohort.results)


rnaseq()
# [END nf_core_cohort]
