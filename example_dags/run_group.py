"""Run a workflow over a samplesheet in a run group, which caps what the cohort costs.

The runs of the group use at most `max_cpus` CPUs together, and at most `max_runs` of them are active at the same time.
The others wait. A run that takes longer than `max_minutes` fails. The group is found by its name: every DAG run uses
the same group, and changes its limits to those of the params. So two DAG runs share one cap. The last DAG run can
delete the group.

The DAG runs unchanged against the local HealthOmics (`make demo-ui`). On AWS it needs the connection `aws_default`
and your own params: change the defaults in the file, or set them when you trigger the DAG.
"""

from __future__ import annotations

# [START run_group]
try:
    from airflow.sdk import Param, dag, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task
    from airflow.models.param import Param

from airflow_provider_omics_cache.operators.run_batch import StartRunBatchOperator
from airflow_provider_omics_cache.operators.run_group import CreateRunGroupOperator, DeleteRunGroupOperator
from airflow_provider_omics_cache.resubmission import RERUN_KEY
from airflow_provider_omics_cache.run_settings import save_run_settings
from airflow_provider_omics_cache.samplesheets import run_settings_from_table

RESULTS = "{{ params.s3_uri }}/run_group/{{ run_id }}/" + RERUN_KEY


@dag(
    schedule=None,
    description="Run a workflow over a samplesheet, with a cap on what it costs",
    doc_md=__doc__,
    tags=["omics", "example"],
    params={
        "samplesheet": Param("s3://omics-quickstart/samplesheet.csv", type="string", description="URI of the sheet"),
        "workflow_id": Param("1234567", type="string", description="Workflow that runs for each sample"),
        "role_arn": Param("arn:aws:iam::123456789012:role/omics", type="string", description="Role of the runs"),
        "s3_uri": Param("s3://omics-quickstart", type="string", description="Bucket or folder for all that is written"),
        "run_group_name": Param("cohort", type="string", description="Name of the run group"),
        "max_cpus": Param(1_000, type="integer", minimum=1, description="CPUs that its runs use together"),
        "max_runs": Param(40, type="integer", minimum=1, description="Runs that are active at the same time"),
        "max_minutes": Param(1_440, type="integer", minimum=1, description="Minutes that a run may take"),
        "delete_run_group": Param(False, type="boolean", description="Whether to delete the run group at the end"),
        "max_failed": Param("5%", type="string", description="Runs that may fail to complete: number or share"),
        "rerun_key": Param("1", type="string", description="Another key starts another batch in the same DAG run"),
    },
)
def omics_run_group():
    run_group = CreateRunGroupOperator(
        task_id="ensure_run_group",
        name="{{ params.run_group_name }}",
        max_cpus="{{ params.max_cpus }}",
        max_runs="{{ params.max_runs }}",
        max_duration="{{ params.max_minutes }}",
        if_exists="update",
    )

    @task
    def save_settings(samplesheet: str, settings_uri: str) -> str:
        return save_run_settings(
            lambda: run_settings_from_table(samplesheet, run_setting_id="sample", parameters={"sample_name": "sample"}),
            settings_uri,
        )

    batch = StartRunBatchOperator(
        task_id="run_samples",
        default_run_setting={
            "workflowId": "{{ params.workflow_id }}",
            "roleArn": "{{ params.role_arn }}",
            "outputUri": "{{ params.s3_uri }}/runs/",
            "runGroupId": run_group.output,
        },
        run_settings=save_settings("{{ params.samplesheet }}", f"{RESULTS}/settings.json"),
        tags={"managed-by": "airflow"},
        rerun_key=RERUN_KEY,
        wait_for_completion=True,
        waiter_delay=10,
        max_failed_runs="{{ params.max_failed }}",
        runs_s3_uri=f"{RESULTS}/runs.jsonl",
        include_outputs=True,
    )
    # Without an id the teardown has nothing to do, and succeeds.
    delete = DeleteRunGroupOperator(
        task_id="delete_run_group",
        run_group_id="{{ ti.xcom_pull('ensure_run_group') if params.delete_run_group else '' }}",
    )
    batch >> delete.as_teardown(setups=run_group)


omics_run_group()
# [END run_group]
