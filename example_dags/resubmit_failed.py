"""Run a workflow for each sample of a samplesheet, and submit the samples again whose submission failed.

A sample is submitted again if its submission failed for a reason that can pass. A sample that was submitted is never
submitted again. The DAG writes a table of the samples, and fails if more than `max_failed` have no completed run.

The DAG runs unchanged against the local HealthOmics (`make demo-ui`). On AWS it needs the connection `aws_default`
and your own params: change the defaults in the file, or set them when you trigger the DAG.
"""

from __future__ import annotations

# [START resubmit_failed]
try:
    from airflow.sdk import Param, dag
except ImportError:  # Airflow 2
    from airflow.decorators import dag
    from airflow.models.param import Param
from airflow_provider_omics_cache.resubmission import RETRYABLE_SUBMISSION_FAILURES
from airflow_provider_omics_cache.task_groups.cohort import OmicsCohortTaskGroup, Samplesheet


@dag(
    schedule=None,
    description="Run a workflow over a samplesheet, and submit again what failed in submission",
    doc_md=__doc__,
    tags=["omics", "example"],
    params={
        "samplesheet": Param("s3://omics-quickstart/samplesheet.csv", type="string", description="URI of the sheet"),
        "workflow_id": Param("1234567", type="string", description="Workflow that runs for each sample"),
        "role_arn": Param("arn:aws:iam::123456789012:role/omics", type="string", description="Role of the runs"),
        "s3_uri": Param("s3://omics-quickstart", type="string", description="Bucket or folder for all that is written"),
        "max_failed": Param("50", type="string", description="Samples that need not complete: number or share"),
        "rerun_key": Param(
            "1", type="string", description="Another key starts the cohort all over in the same DAG run"
        ),
    },
)
def omics_resubmit_failed():
    OmicsCohortTaskGroup(
        "cohort",
        samplesheet=Samplesheet(
            "{{ params.samplesheet }}", run_setting_id="sample", parameters={"sample_name": "sample"}
        ),
        workflow_id="{{ params.workflow_id }}",
        role_arn="{{ params.role_arn }}",
        output_uri="{{ params.s3_uri }}/runs/",
        staging_s3_prefix="{{ params.s3_uri }}/airflow",
        rounds=2,
        # Another submission succeeds only after runs have ended, or with a larger quota.
        resubmit_reasons=RETRYABLE_SUBMISSION_FAILURES - {"ServiceQuotaExceededException"},
        max_failed="{{ params.max_failed }}",
        results_format="csv",
        tags={"managed-by": "airflow"},
        poke_interval=10,
    )


omics_resubmit_failed()
# [END resubmit_failed]
