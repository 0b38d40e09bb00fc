"""Run a workflow for each sample of a samplesheet in S3, run again what can succeed, and write one record per sample.

A sample is submitted again if its submission failed for a reason that can pass. It is resumed from the run cache if its
run failed for a reason of AWS. The DAG run fails if more than `max_failed` samples have no completed run in the end.

The DAG runs unchanged against the local HealthOmics (`make demo-ui`). On AWS it needs the connection `aws_default`
and your own params: change the defaults in the file, or set them when you trigger the DAG.
"""

from __future__ import annotations

# [START cohort]
try:
    from airflow.sdk import Param, dag, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task
    from airflow.models.param import Param
from airflow_provider_omics_cache.task_groups.cohort import OmicsCohortTaskGroup, RunCache, Samplesheet


@dag(
    schedule=None,
    description="Run a workflow over a samplesheet, and run again what can succeed",
    doc_md=__doc__,
    tags=["omics", "example"],
    params={
        "samplesheet": Param("s3://omics-quickstart/samplesheet.csv", type="string", description="URI of the sheet"),
        "workflow_id": Param("1234567", type="string", description="Workflow that runs for each sample"),
        "role_arn": Param("arn:aws:iam::123456789012:role/omics", type="string", description="Role of the runs"),
        "s3_uri": Param("s3://omics-quickstart", type="string", description="Bucket or folder for all that is written"),
        "max_failed": Param("5%", type="string", description="Samples that need not complete: number or share"),
        "rerun_key": Param(
            "1", type="string", description="Another key starts the cohort all over in the same DAG run"
        ),
    },
)
def omics_cohort():
    cohort = OmicsCohortTaskGroup(
        "cohort",
        samplesheet=Samplesheet(
            "{{ params.samplesheet }}",
            run_setting_id="sample",
            # workflow parameter: column
            parameters={"sample_name": "sample", "reads_1": "fastq_1", "reads_2": "fastq_2"},
            optional=["fastq_2"],
        ),
        workflow_id="{{ params.workflow_id }}",
        role_arn="{{ params.role_arn }}",
        output_uri="{{ params.s3_uri }}/runs/",
        run_cache=RunCache(name="cohort", cache_s3_location="{{ params.s3_uri }}/cache/"),
        staging_s3_prefix="{{ params.s3_uri }}/airflow",
        max_failed="{{ params.max_failed }}",
        sample_size=0,  # the demo has no reads; leave this out, and the preflight looks at 100 inputs
        tags={"managed-by": "airflow"},
        poke_interval=10,
    )

    @task
    def report(results_uri: str, summary: dict) -> None:
        print(f"{summary['completed']} of {summary['total']} samples completed: {results_uri}")

    report(cohort.results, cohort.summary)


omics_cohort()
# [END cohort]
