"""Tasks that wait for their batches until somebody kills them, and tasks that nobody kills."""

from __future__ import annotations

from airflow_provider_omics_cache.operators.run_batch import StartRunBatchOperator

try:
    from airflow.sdk import dag
except ImportError:  # Airflow 2
    from airflow.decorators import dag


@dag(schedule=None)
def omics_killed():
    arguments = {
        "default_run_setting": {
            "workflowId": "1234567",
            "roleArn": "arn:aws:iam::123456789012:role/omics",
            "outputUri": "s3://omics-killed/runs/",
        },
        "wait_for_completion": True,
        "waiter_delay": 5,
    }
    settings = [{"runSettingId": "sample-0"}, {"runSettingId": "sample-1"}]
    for task_id, deferrable, cancel_on_kill in (
        ("deferred_and_cancelled", True, True),
        ("deferred_and_left", True, False),
        ("running_and_cancelled", False, True),
        ("running_and_left", False, False),
    ):
        StartRunBatchOperator(
            task_id=task_id,
            run_settings=settings,
            deferrable=deferrable,
            cancel_on_kill=cancel_on_kill,
            **arguments,
        )
    StartRunBatchOperator(task_id="deferred_to_the_end", run_settings=settings, deferrable=True, **arguments)
    StartRunBatchOperator.partial(task_id="mapped_to_the_end", deferrable=True, **arguments).expand(
        run_settings=[settings, settings[:1]]
    )


omics_killed()
