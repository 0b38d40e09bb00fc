"""Cancel the rest of a batch if the DAG run fails while runs of the batch are active.

The teardown runs even if a task between its setup and itself fails. If the batch has finished, the teardown does
nothing. It does not run if the setup itself fails. The setup therefore has retries, which find a batch that was started
although the answer was lost.

The DAG runs unchanged against the local HealthOmics (``make demo-ui``). On AWS it needs the connection ``aws_default``
and four Airflow variables: ``omics_workflow_id``, ``omics_role_arn``, ``omics_s3_uri`` and ``omics_samplesheet``.
"""

from __future__ import annotations

# [START cancel_on_failure]
try:
    from airflow.sdk import dag, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task
from airflow_provider_omics_cache.operators.run_batch import CancelRunBatchOperator, StartRunBatchOperator
from airflow_provider_omics_cache.run_settings import save_run_settings
from airflow_provider_omics_cache.samplesheets import run_settings_from_table
from airflow_provider_omics_cache.sensors.run_batch import BatchCompletionSensor, BatchSubmissionSensor

S3_URI = "{{ var.value.get('omics_s3_uri', 's3://omics-quickstart') }}"
SAMPLESHEET = "{{ var.value.get('omics_samplesheet', 's3://omics-quickstart/samplesheet.csv') }}"
TAGS = {"managed-by": "{{ var.value.get('omics_managed_by', 'airflow') }}"}
RERUN_KEY = "{{ var.json.get('omics_rerun_keys', {}).get(run_id, '1') }}"


@dag(schedule=None)
def omics_cancel_on_failure():
    @task
    def save_settings(samplesheet: str, settings_uri: str) -> str:
        return save_run_settings(
            lambda: run_settings_from_table(samplesheet, run_setting_id="sample", parameters={"sample": "sample"}),
            settings_uri,
        )

    start = StartRunBatchOperator(
        task_id="start_batch",
        default_run_setting={
            "workflowId": "{{ var.value.get('omics_workflow_id', '1234567') }}",
            "roleArn": "{{ var.value.get('omics_role_arn', 'arn:aws:iam::123456789012:role/omics') }}",
            "outputUri": f"{S3_URI}/runs/",
        },
        run_settings=save_settings(
            SAMPLESHEET, f"{S3_URI}/cancel_on_failure/{{{{ run_id }}}}/{RERUN_KEY}/settings.json"
        ),
        tags=TAGS,
        rerun_key=RERUN_KEY,
        retries=3,
    )
    submission = BatchSubmissionSensor(
        task_id="wait_for_submission", batch_id=start.output, max_failed_submissions="5%"
    )
    completion = BatchCompletionSensor(
        task_id="wait_for_completion", batch_id=start.output, max_failed_runs="10%", timeout=2 * 24 * 3600
    )
    cancel = CancelRunBatchOperator(task_id="cancel_batch", batch_id=start.output)

    start >> submission >> completion >> cancel.as_teardown(setups=start)


omics_cancel_on_failure()
# [END cancel_on_failure]
