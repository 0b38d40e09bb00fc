"""A batch for each of three samplesheets, with mapped tasks."""

from __future__ import annotations

# [START mapped_batches]
try:
    from airflow.sdk import dag, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task

from airflow_provider_omics_cache.operators.run_batch import StartRunBatchOperator
from airflow_provider_omics_cache.samplesheets import run_settings_from_table
from airflow_provider_omics_cache.sensors.run_batch import BatchSubmissionSensor

SHEETS = [f"s3://omics-mapped/{tissue}.csv" for tissue in ("lung", "liver", "skin")]


@dag(schedule=None)
def omics_mapped_batches():
    settings = (
        task(run_settings_from_table)
        .partial(run_setting_id="sample", parameters={"sample": "sample"})
        .expand(rows=SHEETS)
    )
    batches = StartRunBatchOperator.partial(
        task_id="start_batch",
        default_run_setting={
            "workflowId": "1234567",
            "roleArn": "arn:aws:iam::123456789012:role/omics",
            "outputUri": "s3://omics-mapped/runs/",
        },
        settings_s3_prefix="s3://omics-mapped/settings/",
    ).expand(run_settings=settings)
    submissions = BatchSubmissionSensor.partial(task_id="wait_for_submission").expand(batch_id=batches.output)

    @task
    def count_runs(mappings: list[dict[str, str]]) -> list[int]:
        return [len(mapping) for mapping in mappings]

    count_runs(submissions.output)


omics_mapped_batches()
# [END mapped_batches]
