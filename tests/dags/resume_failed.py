"""Start a batch, and resume the runs of it that failed in a second batch, from the run cache."""

from __future__ import annotations

try:
    from airflow.sdk import dag, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task
try:
    from airflow.sdk.exceptions import AirflowSkipException
except ImportError:  # Airflow before 3.2
    from airflow.exceptions import AirflowSkipException

from airflow_provider_omics_cache.operators.run_batch import StartRunBatchOperator
from airflow_provider_omics_cache.operators.run_cache import CreateRunCacheOperator
from airflow_provider_omics_cache.resubmission import resumable_run_settings
from airflow_provider_omics_cache.run_settings import save_run_settings
from airflow_provider_omics_cache.sensors.run_batch import BatchCompletionSensor

RESULTS = "s3://omics-quickstart/resume_failed/{{ run_id }}"
SAMPLES = ["HG001", "HG002", "HG003", "HG004"]


@dag(schedule=None)
def omics_resume_failed():
    @task
    def save_settings(settings_uri: str) -> str:
        return save_run_settings(
            [{"runSettingId": name, "parameters": {"sample": name}} for name in SAMPLES], settings_uri
        )

    run_cache = CreateRunCacheOperator(
        task_id="ensure_run_cache", name="resume", cache_s3_location="s3://omics-quickstart/cache/"
    )
    # [START resume_failed]
    default_run_setting = {
        "workflowId": "1234567",
        "roleArn": "arn:aws:iam::123456789012:role/omics",
        "outputUri": "s3://omics-quickstart/runs/",
        "cacheId": run_cache.output,
    }

    @task
    def save_resumable(settings_uri: str, runs_uri: str, default_run_setting: dict, resumed_uri: str) -> str:
        resumable = resumable_run_settings(settings_uri, runs_uri, default_run_setting=default_run_setting)
        if not resumable:
            raise AirflowSkipException("There is nothing to resume")
        return save_run_settings(resumable, resumed_uri)

    def run(name, run_settings):
        batch = StartRunBatchOperator(
            task_id=f"start_{name}_batch", default_run_setting=default_run_setting, run_settings=run_settings
        )
        return BatchCompletionSensor(
            task_id=f"wait_for_{name}_batch",
            batch_id=batch.output,
            max_failed_runs="100%",
            runs_s3_uri=f"{RESULTS}/{name}_runs.jsonl",
        )

    settings_uri = save_settings(f"{RESULTS}/settings.json")
    first = run("first", settings_uri)
    resumed_uri = save_resumable(
        settings_uri, f"{RESULTS}/first_runs.jsonl", default_run_setting, f"{RESULTS}/resumed.json"
    )
    first >> resumed_uri
    run("second", resumed_uri)
    # [END resume_failed]


omics_resume_failed()
