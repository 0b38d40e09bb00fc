"""Tasks expanded over a batch's mapping: run by run, and in groups."""

from __future__ import annotations

from airflow_provider_omics_cache.operators.run_batch import StartRunBatchOperator
from airflow_provider_omics_cache.sensors.run_batch import BatchSubmissionSensor

try:
    from airflow.sdk import Param, dag, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task
    from airflow.models.param import Param

GROUP = 500


def submitted_runs() -> BatchSubmissionSensor:
    """Start as many runs as the parameter ``runs`` says, and wait until they are submitted."""

    @task
    def settings(params: dict[str, int]) -> list[dict[str, str]]:
        return [{"runSettingId": f"sample-{n}"} for n in range(params["runs"])]

    batch = StartRunBatchOperator(
        task_id="start_batch",
        default_run_setting={
            "workflowId": "1234567",
            "roleArn": "arn:aws:iam::123456789012:role/omics",
            "outputUri": "s3://omics-mapped/runs/",
        },
        run_settings=settings(),
        settings_s3_prefix="s3://omics-mapped/settings/",
    )
    return BatchSubmissionSensor(task_id="wait_for_submission", batch_id=batch.output, poke_interval=0)


@dag(schedule=None, params={"runs": Param(3, type="integer")})
def omics_run_by_run():
    @task
    def use(run):
        run_setting_id, run_id = run
        print(f"run {run_setting_id}={run_id}")

    use.expand(run=submitted_runs().output)


@dag(schedule=None, params={"runs": Param(3, type="integer")})
def omics_in_groups():
    @task
    def groups(runs):
        items = sorted(runs.items())
        return [dict(items[start : start + GROUP]) for start in range(0, len(items), GROUP)]

    @task
    def use(runs):
        print(f"group of {len(runs)}")

    use.expand(runs=groups(submitted_runs().output))


omics_run_by_run()
omics_in_groups()
