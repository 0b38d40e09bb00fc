"""Start a batch, and process its finished runs in groups with mapped tasks.

Airflow maps a task over at most 1,024 items (``[core] max_map_length``). A task therefore divides the runs into groups.

The DAG runs unchanged against the local HealthOmics (`make demo-ui`). On AWS it needs the connection `aws_default`
and your own params: change the defaults in the file, or set them when you trigger the DAG.
"""

from __future__ import annotations

# [START fan_out]
try:
    from airflow.sdk import Param, dag, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task
    from airflow.models.param import Param
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.operators.run_batch import StartRunBatchOperator
from airflow_provider_omics_cache.run_settings import save_run_settings
from airflow_provider_omics_cache.samplesheets import run_settings_from_table
from airflow_provider_omics_cache.sensors.run_batch import BatchCompletionSensor, BatchSubmissionSensor

SETTINGS_URI = "{{ params.s3_uri }}/fan_out/{{ run_id }}/settings.json"
GROUP = 500


@dag(
    schedule=None,
    description="Process the finished runs of a batch in groups, with mapped tasks",
    doc_md=__doc__,
    tags=["omics", "example"],
    params={
        "samplesheet": Param("s3://omics-quickstart/samplesheet.csv", type="string", description="URI of the sheet"),
        "workflow_id": Param("1234567", type="string", description="Workflow that runs for each sample"),
        "role_arn": Param("arn:aws:iam::123456789012:role/omics", type="string", description="Role of the runs"),
        "s3_uri": Param("s3://omics-quickstart", type="string", description="Bucket or folder for all that is written"),
        "max_failed": Param("5%", type="string", description="Failures that each sensor allows: number or share"),
    },
)
def omics_fan_out():
    @task
    def save_settings(samplesheet: str, settings_uri: str) -> str:
        return save_run_settings(
            lambda: run_settings_from_table(samplesheet, run_setting_id="sample", parameters={"sample_name": "sample"}),
            settings_uri,
        )

    batch = StartRunBatchOperator(
        task_id="start_batch",
        default_run_setting={
            "workflowId": "{{ params.workflow_id }}",
            "roleArn": "{{ params.role_arn }}",
            "outputUri": "{{ params.s3_uri }}/runs/",
        },
        run_settings=save_settings("{{ params.samplesheet }}", SETTINGS_URI),
        tags={"managed-by": "airflow"},
    )
    submission = BatchSubmissionSensor(
        task_id="wait_for_submission",
        batch_id=batch.output,
        poke_interval=10,
        max_failed_submissions="{{ params.max_failed }}",
    )
    completion = BatchCompletionSensor(
        task_id="wait_for_completion",
        batch_id=batch.output,
        poke_interval=10,
        max_failed_runs="{{ params.max_failed }}",
    )

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
