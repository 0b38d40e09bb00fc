"""A batch from its cache to its deletion, and tasks that fail, with secrets that a test has planted."""

from __future__ import annotations

import os

from airflow_provider_omics_cache.hooks import client
from airflow_provider_omics_cache.operators.run_batch import (
    CancelRunBatchOperator,
    DeleteRunBatchOperator,
    StartRunBatchOperator,
)
from airflow_provider_omics_cache.operators.run_cache import CreateRunCacheOperator, DeleteRunCacheOperator
from airflow_provider_omics_cache.sensors.run_batch import BatchCompletionSensor, BatchSubmissionSensor
from airflow_provider_omics_cache.tasks import ending, mapping
from airflow_provider_omics_cache.triggers import poller

try:
    from airflow.sdk import dag
except ImportError:  # Airflow 2
    from airflow.decorators import dag

DEFERRABLE = os.environ.get("OMICS_TEST_DEFERRABLE", "0") == "1"
PROXY = os.environ.get("OMICS_TEST_PROXY", "")
BUCKET = "s3://omics-secrets"
if "OMICS_TEST_DEFERRABLE" in os.environ:  # other tests only parse this folder
    # The tasks with an endpoint that cannot be reached must fail soon, and nothing of the local service is late. No
    # scheduler can lose a task whose trigger fires early.
    client._MISSPELT_SECONDS = poller.EARLIEST_EVENT = 0
    ending.CONSISTENCY_SECONDS = mapping.CONSISTENCY_SECONDS = 0
UNREACHABLE = ("closed_endpoint", "closed_proxy", "invalid_endpoint")
SETTING = {
    "workflowId": "1234567",
    "roleArn": "arn:aws:iam::123456789012:role/omics",
    "outputUri": f"{BUCKET}/runs/",
}
POLICY = "{{ var.value.omics_session_policy }}"
if os.environ.get("OMICS_TEST_SESSION_POLICY", "1") == "1":
    SETTING["sessionPolicy"] = POLICY
SETTINGS = [{"runSettingId": f"sample-{number}"} for number in range(150)]


@dag(schedule=None, default_args={"retries": 0, "trigger_rule": "all_done"})
def omics_secrets():
    cache = CreateRunCacheOperator(
        task_id="cache", name="secrets", cache_s3_location=f"{BUCKET}/cache/", aws_conn_id="endpoint_with_password"
    )
    batch = StartRunBatchOperator(
        task_id="start", default_run_setting=SETTING, run_settings=SETTINGS, settings_s3_prefix=f"{BUCKET}/settings/"
    )
    submission = BatchSubmissionSensor(
        consistency_timeout=0, task_id="submission", batch_id=batch.output, poke_interval=1, deferrable=DEFERRABLE
    )
    completion = BatchCompletionSensor(
        consistency_timeout=0,
        task_id="completion",
        batch_id=batch.output,
        poke_interval=1,
        runs_s3_uri=f"{BUCKET}/runs.jsonl",
        aws_conn_id="endpoint_with_password",
        deferrable=False,
    )
    delete = DeleteRunBatchOperator(
        task_id="delete",
        batch_id=batch.output,
        waiter_delay=1,
        delete_batch=True,
        save_mapping_s3_uri=f"{BUCKET}/mapping.jsonl",
        deferrable=False,
    )
    other = StartRunBatchOperator(task_id="start_other", default_run_setting=SETTING, run_settings=SETTINGS[:3])
    cancel = CancelRunBatchOperator(
        task_id="cancel", batch_id=other.output, waiter_delay=1, deferrable=False, aws_conn_id="endpoint_with_password"
    )
    last = cache >> batch >> submission >> completion >> other >> cancel >> delete
    last >> DeleteRunCacheOperator(task_id="denied", run_cache_id=cache.output)
    last >> StartRunBatchOperator.partial(task_id="start_mapped", default_run_setting=SETTING).expand(
        run_settings=[SETTINGS[:2]]
    )
    last >> StartRunBatchOperator(
        task_id="password_for_the_trigger",
        default_run_setting=SETTING,
        run_settings=SETTINGS[:3],
        wait_for_completion=True,
        deferrable=DEFERRABLE,
        botocore_config={"proxies": {"http": PROXY}},
    )
    last >> StartRunBatchOperator(
        task_id="unknown_member",
        default_run_setting={**SETTING, "session_policy": POLICY},
        run_settings=[{**setting, "sessionPolicy": POLICY} for setting in SETTINGS],
    )
    last >> StartRunBatchOperator(
        task_id="not_rendered",
        default_run_setting={**SETTING, "workflowId": "{{ nothing.at.all }}"},
        run_settings=SETTINGS[:3],
    )
    for conn_id in UNREACHABLE:
        last >> CreateRunCacheOperator(
            task_id=f"cache_at_{conn_id}",
            name="unreachable",
            cache_s3_location=f"{BUCKET}/cache/",
            aws_conn_id=conn_id,
        )
        last >> StartRunBatchOperator(
            task_id=f"settings_at_{conn_id}",
            default_run_setting=SETTING,
            run_settings=SETTINGS,
            settings_s3_prefix=f"{BUCKET}/settings/",
            s3_conn_id=conn_id,
        )
    last >> BatchSubmissionSensor(
        consistency_timeout=0,
        task_id="unreachable_submission",
        batch_id="1234567",
        aws_conn_id="closed_proxy",
        deferrable=DEFERRABLE,
    )


omics_secrets()
