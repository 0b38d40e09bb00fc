"""Run a workflow over one sample on AWS HealthOmics, wait without a worker, and print where the outputs are.

The DAG runs unchanged against the local HealthOmics (`make demo-ui`). On AWS it needs the connection `aws_default` and
your own params: change the defaults in the file, or set them when you trigger the DAG.
"""

from __future__ import annotations

# [START single_run]
from datetime import timedelta

try:
    from airflow.sdk import Param, dag, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task
    from airflow.models.param import Param

from airflow_provider_omics_cache.operators.run import CancelRunOperator, DeleteRunOperator, StartRunOperator
from airflow_provider_omics_cache.operators.run_cache import CreateRunCacheOperator
from airflow_provider_omics_cache.sensors.run import RunCompletionSensor

# start_run pushes the XCom `run` as soon as the run is started. It exists even if start_run fails after that.
RUN_ID = "{{ (ti.xcom_pull(task_ids='start_run', key='run') or {}).get('id') or '' }}"
# HealthOmics reuses the ids of deleted runs. With the uuid, the tasks never work with another run.
RUN_UUID = "{{ (ti.xcom_pull(task_ids='start_run', key='run') or {}).get('uuid') }}"


@dag(
    schedule=None,
    description="Run a workflow over one sample, and print where the outputs are",
    doc_md=__doc__,
    tags=["omics", "example"],
    params={
        "sample": Param("HG001", type="string", description="The sample"),
        "workflow_id": Param("1234567", type="string", description="Workflow that takes the parameter sample"),
        "role_arn": Param("arn:aws:iam::123456789012:role/omics", type="string", description="Role of the run"),
        "s3_uri": Param("s3://omics-quickstart", type="string", description="Bucket or folder for all that is written"),
        "delete_run": Param(
            False,
            type="boolean",
            description="Delete the metadata of the completed run. If cleared later, start_run may start another run",
        ),
        "rerun_key": Param("", type="string", description="Another key starts another run in the same DAG run"),
    },
)
def omics_single_run():
    run_cache = CreateRunCacheOperator(
        task_id="ensure_run_cache", name="single-run", cache_s3_location="{{ params.s3_uri }}/cache/"
    )
    start = StartRunOperator(
        task_id="start_run",
        workflow_id="{{ params.workflow_id }}",
        role_arn="{{ params.role_arn }}",
        output_uri="{{ params.s3_uri }}/runs/",
        parameters={"sample": "{{ params.sample }}"},
        cache_id=run_cache.output,
        rerun_key="{{ params.rerun_key }}",
        retries=2,
    )
    wait = RunCompletionSensor(
        task_id="wait_for_run",
        run_id=start.output,
        run_uuid=RUN_UUID,
        deferrable=True,
        poke_interval=10,
        timeout=timedelta(days=2),
    )
    cancel = CancelRunOperator(task_id="cancel_run", run_id=RUN_ID, run_uuid=RUN_UUID, deferrable=True, waiter_delay=10)
    # Airflow does not run a teardown if all its setups have failed. With run_cache as a second setup, cancel_run also
    # runs after start_run has failed.
    cancel.as_teardown(setups=[run_cache, start])

    @task
    def print_outputs(run):
        print(f"Run {run['id']} has written its outputs to {run['run_output_uri']}")

    @task.short_circuit
    def is_deletion_wanted(params=None):
        return params["delete_run"]

    delete = DeleteRunOperator(task_id="delete_run", run_id=start.output, run_uuid=RUN_UUID)
    wait >> print_outputs(wait.output["run"]) >> is_deletion_wanted() >> delete
    wait >> cancel


omics_single_run()
# [END single_run]
