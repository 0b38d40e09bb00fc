"""A cohort of a pipeline that takes a samplesheet: each group of rows is a run."""

from __future__ import annotations

try:
    from airflow.sdk import Param, dag
except ImportError:  # Airflow 2
    from airflow.decorators import dag
    from airflow.models.param import Param
from airflow_provider_omics_cache.task_groups.cohort import OmicsCohortTaskGroup, RunCache, Samplesheet


@dag(schedule=None, params={"sheet": Param("s3://my-bucket/samplesheet.csv", type="string")})
def omics_cohort_of_groups():
    OmicsCohortTaskGroup(
        "cohort",
        samplesheet=Samplesheet(
            "{{ params.sheet }}",
            group_by="sample",
            parameters={"genome": "GRCh38"},
            schema="s3://my-bucket/schema_input.json",
        ),
        workflow_id="1234567",
        role_arn="arn:aws:iam::123456789012:role/omics",
        output_uri="s3://my-bucket/runs/",
        run_cache=RunCache(name="rnaseq", cache_s3_location="s3://my-bucket/cache/"),
        staging_s3_prefix="s3://my-bucket/airflow/",
        preflight=False,
        rounds=2,
    )


omics_cohort_of_groups()
