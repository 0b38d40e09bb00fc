"""Start a batch, and process its finished runs in groups with mapped tasks.

Airflow maps a task over at most 1,024 items (``[core] max_map_length``). A task therefore divides the runs into groups.
The DAG runs unchanged against the local HealthOmics (``make demo-ui``). On AWS it needs the connection ``aws_default``
and four Airflow variables: ``omics_workflow_id``, ``omics_role_arn``, ``omics_s3_uri`` and ``omics_samplesheet``.
"""

from __future__ import annotations

# [START fan_out]
try:
    from airflow.sdk import dag, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.operators.run_batch import StartRunBatchOperator
from airflow_provider_omics_cache.run_settings import save_run_settings
from airflow_provider_omics_cache.samplesheets import run_settings_from_table
from airflow_provider_omics_cache.sensors.run_batch import BatchCompletionSensor, BatchSubmissionSensor

S3_URI = "{{ var.value.get('omics_s3_uri', 's3://omics-quickstart') }}"
SAMPLESHEET = "{{ var.value.get('omics_samplesheet', 's3://omics-quickstart/samplesheet.csv') }}"
TAGS = {"managed-by": "{{ var.value.get('omics_managed_by', 'airflow') }}"}
GROUP = 500


@dag(schedule=None)
def omics_fan_out():
    @task
    def save_settings(samplesheet: str, settings_uri: str) -> str:
        return save_run_settings(
            lambda: run_settings_from_table(samplesheet, run_setting_id="sample", parameters={"sample": "sample"}),
            settings_uri,
        )

    batch = StartRunBatchOperator(
        task_id="start_batch",
        default_run_setting={
            "workflowId": "{{ var.value.get('omics_workflow_id', '1234567') }}",
            "roleArn": "{{ var.value.get('omics_role_arn', 'arn:aws:iam::123456789012:role/omics') }}",
            "outputUri": f"{S3_URI}/runs/",
        },
        run_settings=save_settings(SAMPLESHEET, f"{S3_URI}/fan_out/{{{{ run_id }}}}/settings.json"),
        tags=TAGS,
    )
    submission = BatchSubmissionSensor(
        task_id="wait_for_submission", batch_id=batch.output, max_failed_submissions="5%"
    )
    completion = BatchCompletionSensor(task_id="wait_for_completion", batch_id=batch.output, max_failed_runs="5%")

    @task
    def make_groups(runs: dict[str, str]) -> list[dict[str, str]]:
        samples = sorted(runs.items())
        return [dict(samples[start : start + GROUP]) for start in range(0, len(samples), GROUP)]

    @task(max_active_tis_per_dag=2, multiple_outputs=False)
    def find_outputs(runs: dict[str, str]) -> dict[str, str]:
        samples = {run_id: sample for sample, run_id in runs.items()}
        found = OmicsCacheHook().get_runs(samples)
        return {samples[run_id]: run["runOutputUri"] for run_id, run in found if run and run.get("runOutputUri")}

    @task
    def count_outputs(groups: list[dict[str, str]]) -> int:
        return sum(len(outputs) for outputs in groups)

    groups = make_groups(submission.output)
    submission >> completion >> groups
    count_outputs(find_outputs.expand(runs=groups))


omics_fan_out()
# [END fan_out]
