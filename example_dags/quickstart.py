"""Run a workflow over a few samples on AWS HealthOmics, with a run cache, and print the id of each run.

The DAG runs unchanged against the local HealthOmics (`make demo-ui`). On AWS it needs the connection `aws_default` and
your own params: change the defaults in the file, or set them when you trigger the DAG.
"""

from __future__ import annotations

# [START quickstart]
try:
    from airflow.sdk import Param, dag, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task
    from airflow.models.param import Param

from airflow_provider_omics_cache.operators.run_batch import StartRunBatchOperator
from airflow_provider_omics_cache.operators.run_cache import CreateRunCacheOperator
from airflow_provider_omics_cache.sensors.run_batch import BatchSubmissionSensor

SAMPLES = ["HG001", "HG002", "HG003", "HG004", "HG005"]


@dag(
    schedule=None,
    description="Run a workflow over five samples, and print the id of each run",
    doc_md=__doc__,
    tags=["omics", "example"],
    params={
        "workflow_id": Param("1234567", type="string", description="Workflow that runs for each sample"),
        "role_arn": Param("arn:aws:iam::123456789012:role/omics", type="string", description="Role of the runs"),
        "s3_uri": Param("s3://omics-quickstart", type="string", description="Bucket or folder for all that is written"),
    },
)
def omics_quickstart():
    run_cache = CreateRunCacheOperator(
        task_id="ensure_run_cache", name="quickstart", cache_s3_location="{{ params.s3_uri }}/cache/"
    )
    batch = StartRunBatchOperator(
        task_id="start_batch",
        default_run_setting={
            "workflowId": "{{ params.workflow_id }}",
            "roleArn": "{{ params.role_arn }}",
            "outputUri": "{{ params.s3_uri }}/runs/",
            "cacheId": run_cache.output,
        },
        run_settings=[{"runSettingId": sample, "parameters": {"sample": sample}} for sample in SAMPLES],
    )
    submission = BatchSubmissionSensor(
        task_id="wait_for_submission", batch_id=batch.output, poke_interval=10, timeout=3600
    )

    @task
    def print_runs(runs: dict[str, str]) -> None:
        print(f"{'runSettingId':14} runId")
        for run_setting_id, run_id in sorted(runs.items()):
            print(f"{run_setting_id:14} {run_id}")

    print_runs(submission.output)


omics_quickstart()
# [END quickstart]
