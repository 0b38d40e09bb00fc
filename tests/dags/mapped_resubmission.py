"""Submit again what failed, in a mapped task group."""

from __future__ import annotations

try:
    from airflow.sdk import dag, task, task_group
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task, task_group
try:
    from airflow.sdk.exceptions import AirflowSkipException
except ImportError:  # Airflow before 3.2
    from airflow.exceptions import AirflowSkipException

from airflow_provider_omics_cache.operators.run_batch import StartRunBatchOperator
from airflow_provider_omics_cache.resubmission import failed_run_settings
from airflow_provider_omics_cache.sensors.run_batch import BatchSubmissionSensor

RESULTS = "s3://omics-mapped/{{ run_id }}/{{ ti.map_index }}"
DEFAULT = {
    "workflowId": "1234567",
    "roleArn": "arn:aws:iam::123456789012:role/omics",
    "outputUri": "s3://omics-mapped/runs/",
}


@dag(schedule=None)
def omics_mapped_resubmission():
    @task
    def find_failed(settings, listing_uri, batch):
        failed = failed_run_settings(settings, listing_uri, batch=batch)
        if not failed:
            raise AirflowSkipException("There is nothing to submit again")
        return failed

    @task_group
    def submit(settings):
        first = StartRunBatchOperator(task_id="start_first", default_run_setting=DEFAULT, run_settings=settings)
        listing = BatchSubmissionSensor(
            task_id="wait_for_first",
            batch_id=first.output,
            max_failed_submissions="100%",
            mapping_s3_uri=f"{RESULTS}/first.jsonl",
        )
        failed = find_failed(settings, listing.output, listing.output["batch"])
        second = StartRunBatchOperator(task_id="start_second", default_run_setting=DEFAULT, run_settings=failed)
        BatchSubmissionSensor(
            task_id="wait_for_second", batch_id=second.output, mapping_s3_uri=f"{RESULTS}/second.jsonl"
        )

    submit.expand(settings=[[{"runSettingId": f"{lane}-{n}"} for n in range(2)] for lane in "AB"])


omics_mapped_resubmission()
