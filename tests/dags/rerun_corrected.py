"""Run the samples of a DAG run of omics_cohort_by_parts that are not completed again, with a corrected samplesheet."""

from __future__ import annotations

# [START rerun_corrected]
try:
    from airflow.sdk import Param, dag, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task
    from airflow.models.param import Param
try:
    from airflow.sdk.exceptions import AirflowSkipException
except ImportError:  # Airflow before 3.2
    from airflow.exceptions import AirflowSkipException

from airflow_provider_omics_cache.operators.run_batch import StartRunBatchOperator
from airflow_provider_omics_cache.operators.run_cache import CreateRunCacheOperator
from airflow_provider_omics_cache.run_settings import save_run_settings
from airflow_provider_omics_cache.samplesheets import run_settings_from_table
from airflow_provider_omics_cache.sensors.run_batch import BatchCompletionSensor
from airflow_provider_omics_cache.tables import read_table

RESULTS = "{{ params.s3_uri }}/rerun_corrected/{{ run_id }}"


@dag(
    schedule=None,
    params={
        "failed_results": Param("s3://my-bucket/cohort/...", type="string", description="Folder of the DAG run"),
        "samplesheet": Param("s3://my-bucket/samplesheet.csv", type="string", description="The corrected sheet"),
        "leave_out": Param([], type="array", items={"type": "string"}, description="Samples that do not run again"),
        "s3_uri": Param("s3://my-bucket", type="string", description="Bucket or folder for all that is written"),
    },
)
def omics_rerun_corrected():
    @task
    def save_corrected(settings_uri: str, params: dict) -> str:
        settings = read_table(f"{params['failed_results']}/settings.json")
        runs = read_table(f"{params['failed_results']}/runs.jsonl")
        completed = {run["run_setting_id"] for run in runs if run["status"] == "COMPLETED"}
        samples = {setting["runSettingId"] for setting in settings} - completed - set(params["leave_out"])
        if not samples:
            raise AirflowSkipException("No sample is to run again")
        corrected = run_settings_from_table(
            params["samplesheet"],
            run_setting_id="sample",
            parameters={"sample_name": "sample", "reads_1": "fastq_1", "reads_2": "fastq_2"},
            optional=["fastq_2"],
        )
        again = [setting for setting in corrected if setting["runSettingId"] in samples]
        if missing := sorted(samples - {setting["runSettingId"] for setting in again}):
            raise ValueError(
                f"The samplesheet lacks {len(missing)} samples: {', '.join(missing[:20])}. Add them, or set leave_out"
            )
        return save_run_settings(again, settings_uri)

    run_cache = CreateRunCacheOperator(
        task_id="ensure_run_cache", name="cohort", cache_s3_location="{{ params.s3_uri }}/cache/"
    )
    batch = StartRunBatchOperator(
        task_id="start_batch",
        default_run_setting={
            "workflowId": "1234567",
            "roleArn": "arn:aws:iam::123456789012:role/omics",
            "outputUri": "{{ params.s3_uri }}/runs/",
            "cacheId": run_cache.output,
        },
        run_settings=save_corrected(f"{RESULTS}/settings.json"),
        retries=3,
    )
    BatchCompletionSensor(
        task_id="wait_for_completion", batch_id=batch.output, runs_s3_uri=f"{RESULTS}/runs.jsonl", include_outputs=True
    )


omics_rerun_corrected()
# [END rerun_corrected]
