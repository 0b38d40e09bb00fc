"""Check a cohort before it is started. If the check finds errors, the log lists all of them, and nothing is started.

The preflight checks the settings of the runs, the workflow and its parameter template, the role, the bucket, the inputs
and the quotas. It starts and writes nothing.

The DAG runs unchanged against the local HealthOmics (`make demo-ui`). On AWS it needs the connection `aws_default`
and your own params: change the defaults in the file, or set them when you trigger the DAG.
"""

from __future__ import annotations

# [START preflight]
try:
    from airflow.sdk import Param, dag, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task
    from airflow.models.param import Param

from airflow_provider_omics_cache.operators.preflight import PreflightOperator
from airflow_provider_omics_cache.operators.run_batch import StartRunBatchOperator
from airflow_provider_omics_cache.resubmission import RERUN_KEY
from airflow_provider_omics_cache.run_settings import save_run_settings
from airflow_provider_omics_cache.samplesheets import run_settings_from_table

SETTINGS = "{{ params.s3_uri }}/preflight/{{ run_id }}/" + RERUN_KEY + "/settings.json"
DEFAULT_RUN_SETTING = {
    "workflowId": "{{ params.workflow_id }}",
    "roleArn": "{{ params.role_arn }}",
    "outputUri": "{{ params.s3_uri }}/runs/",
}


@dag(
    schedule=None,
    description="Check a cohort before it is started",
    doc_md=__doc__,
    tags=["omics", "example"],
    params={
        "samplesheet": Param("s3://omics-quickstart/samplesheet.csv", type="string", description="URI of the sheet"),
        "workflow_id": Param("1234567", type="string", description="Workflow that runs for each sample"),
        "role_arn": Param("arn:aws:iam::123456789012:role/omics", type="string", description="Role of the runs"),
        "s3_uri": Param("s3://omics-quickstart", type="string", description="Bucket or folder for all that is written"),
        "rerun_key": Param("1", type="string", description="Another key starts another batch in the same DAG run"),
    },
)
def omics_preflight():
    @task
    def save_settings(samplesheet: str, settings_uri: str) -> str:
        return save_run_settings(
            lambda: run_settings_from_table(samplesheet, run_setting_id="sample", parameters={"sample_name": "sample"}),
            settings_uri,
        )

    settings = save_settings("{{ params.samplesheet }}", SETTINGS)
    preflight = PreflightOperator(
        task_id="preflight", default_run_setting=DEFAULT_RUN_SETTING, run_settings=settings, sample_size=100
    )
    batch = StartRunBatchOperator(
        task_id="start_batch",
        default_run_setting=DEFAULT_RUN_SETTING,
        run_settings=settings,
        tags={"managed-by": "airflow"},
        rerun_key=RERUN_KEY,
    )
    preflight >> batch


omics_preflight()
# [END preflight]
