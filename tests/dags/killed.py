"""Tasks that wait for their batches until somebody kills them."""

from __future__ import annotations

from airflow_provider_omics_cache.operators.run_batch import StartRunBatchOperator

try:
    from airflow.sdk import dag
except ImportError:  # Airflow 2
    from airflow.decorators import dag


@dag(schedule=None)
def omics_killed():
    for task_id, deferrable, cancel_on_kill in (
        ("deferred_and_cancelled", True, True),
        ("deferred_and_left", True, False),
        ("running_and_cancelled", False, True),
        ("running_and_left", False, False),
    ):
        StartRunBatchOperator(
            task_id=task_id,
            default_run_setting={
                "workflowId": "1234567",
                "roleArn": "arn:aws:iam::123456789012:role/omics",
                "outputUri": "s3://omics-killed/runs/",
            },
            run_settings=[{"runSettingId": "sample-0"}, {"runSettingId": "sample-1"}],
            wait_for_completion=True,
            waiter_delay=5,
            deferrable=deferrable,
            cancel_on_kill=cancel_on_kill,
        )


omics_killed()
