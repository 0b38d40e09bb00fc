"""Cancel the rest of a batch as soon as too many of its submissions or runs have failed.

With `fail_fast` a sensor fails in the first round that counts too many failures. The teardown then cancels the batch.
If the batch has finished, the teardown does nothing. It does not run if the setup itself fails. The setup therefore has
retries, which find a batch that was started although the answer was lost.

For several batches use a mapped task group, as `omics_mapped_batches` does. If each operator is mapped by itself, one
failed batch makes the teardown cancel all batches.

The DAG runs unchanged against the local HealthOmics (`make demo-ui`). On AWS it needs the connection `aws_default`
and your own params: change the defaults in the file, or set them when you trigger the DAG.
"""

from __future__ import annotations

# [START cancel_on_failure]
try:
    from airflow.sdk import Param, dag, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task
    from airflow.models.param import Param
from airflow_provider_omics_cache.operators.run_batch import CancelRunBatchOperator, StartRunBatchOperator
from airflow_provider_omics_cache.resubmission import RERUN_KEY
from airflow_provider_omics_cache.run_settings import save_run_settings
from airflow_provider_omics_cache.samplesheets import run_settings_from_table
from airflow_provider_omics_cache.sensors.run_batch import BatchCompletionSensor, BatchSubmissionSensor

SETTINGS_URI = "{{ params.s3_uri }}/cancel_on_failure/{{ run_id }}/" + RERUN_KEY + "/settings.json"


@dag(
    schedule=None,
    description="Cancel the rest of a batch if too many of its runs fail",
    doc_md=__doc__,
    tags=["omics", "example"],
    params={
        "samplesheet": Param("s3://omics-quickstart/failing.csv", type="string", description="URI of the sheet"),
        "workflow_id": Param("1234567", type="string", description="Workflow that runs for each sample"),
        "role_arn": Param("arn:aws:iam::123456789012:role/omics", type="string", description="Role of the runs"),
        "s3_uri": Param("s3://omics-quickstart", type="string", description="Bucket or folder for all that is written"),
        "max_failed": Param("5%", type="string", description="Failures that each sensor allows: number or share"),
        "rerun_key": Param("1", type="string", description="Another key starts another batch in the same DAG run"),
    },
)
def omics_cancel_on_failure():
    @task
    def save_settings(samplesheet: str, settings_uri: str) -> str:
        return save_run_settings(
            lambda: run_settings_from_table(samplesheet, run_setting_id="sample", parameters={"sample_name": "sample"}),
            settings_uri,
        )

    start = StartRunBatchOperator(
        task_id="start_batch",
        default_run_setting={
            "workflowId": "{{ params.workflow_id }}",
            "roleArn": "{{ params.role_arn }}",
            "outputUri": "{{ params.s3_uri }}/runs/",
        },
        run_settings=save_settings("{{ params.samplesheet }}", SETTINGS_URI),
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
    )
    completion = BatchCompletionSensor(
        task_id="wait_for_completion",
        batch_id=start.output,
        poke_interval=10,
        max_failed_runs="{{ params.max_failed }}",
        fail_fast=True,
        timeout=2 * 24 * 3600,
    )
    cancel = CancelRunBatchOperator(task_id="cancel_batch", batch_id=start.output)

    start >> submission >> completion >> cancel.as_teardown(setups=start)


omics_cancel_on_failure()
# [END cancel_on_failure]
