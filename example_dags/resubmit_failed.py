"""Submit a cohort, submit again what failed for a reason that passes, and hand on one mapping of all samples.

No sample that was submitted is submitted again: runs that fail later are reported. It runs as it is against the local
HealthOmics (``make demo-ui``). On AWS it needs the connection ``aws_default`` and four Airflow variables:
``omics_workflow_id``, ``omics_role_arn``, ``omics_s3_uri`` and ``omics_samplesheet``.
"""

from __future__ import annotations

# [START resubmit_failed]
import json
from collections import Counter

try:
    from airflow.sdk import dag, task, task_group
    from airflow.sdk.exceptions import AirflowFailException
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task, task_group
    from airflow.exceptions import AirflowFailException
from airflow.providers.amazon.aws.hooks.s3 import S3Hook

from airflow_provider_omics_cache.operators.run_batch import StartRunBatchOperator
from airflow_provider_omics_cache.resubmission import RETRYABLE_SUBMISSION_FAILURES, failed_run_settings
from airflow_provider_omics_cache.samplesheets import run_settings_from_table
from airflow_provider_omics_cache.sensors.run_batch import BatchCompletionSensor, BatchSubmissionSensor
from airflow_provider_omics_cache.tables import read_table

S3_URI = "{{ var.value.get('omics_s3_uri', 's3://omics-quickstart') }}"
SAMPLESHEET = "{{ var.value.get('omics_samplesheet', 's3://omics-quickstart/samplesheet.csv') }}"
RESULTS = S3_URI + "/resubmit_failed/{{ run_id }}"
MAX_FAILED_RUNS = 50


def submit(run_settings, name):
    """Start a batch and wait until each of its runs is submitted, or has failed to be."""
    batch = StartRunBatchOperator(
        task_id="start_batch",
        default_run_setting={
            "workflowId": "{{ var.value.get('omics_workflow_id', '1234567') }}",
            "roleArn": "{{ var.value.get('omics_role_arn', 'arn:aws:iam::123456789012:role/omics') }}",
            "outputUri": f"{S3_URI}/runs/",
        },
        run_settings=run_settings,
        settings_s3_prefix=f"{S3_URI}/settings/",
    )
    submission = BatchSubmissionSensor(
        task_id="wait_for_submission",
        batch_id=batch.output,
        max_failed_submissions="100%",
        mapping_s3_uri=f"{RESULTS}/{name}_submissions.jsonl",
    )
    return batch, submission


def wait_for_completion(batch, name):
    return BatchCompletionSensor(
        task_id=f"wait_for_{name}_batch",
        batch_id=batch.output,
        max_failed_runs="100%",
        runs_s3_uri=f"{RESULTS}/{name}_runs.jsonl",
    )


@dag(schedule=None)
def omics_resubmit_failed():
    @task
    def read_samplesheet(samplesheet: str) -> list[dict]:
        return run_settings_from_table(samplesheet, run_setting_id="sample", parameters={"sample": "sample"})

    @task.short_circuit(ignore_downstream_trigger_rules=False)
    def find_retryable(run_settings: list[dict], submissions_uri: str, batch: dict) -> list[dict]:
        return failed_run_settings(run_settings, submissions_uri, batch=batch, reasons=RETRYABLE_SUBMISSION_FAILURES)

    @task(trigger_rule="none_failed")
    def merge_mappings(run_settings: list[dict], first_uri: str, second_uri: str | None, merged_uri: str) -> str:
        submissions = {record["run_setting_id"]: record for record in read_table(first_uri)}
        for record in read_table(second_uri) if second_uri else []:
            assert not submissions[record["run_setting_id"]]["run_id"], f"submitted twice: {record}"
            submissions[record["run_setting_id"]] = record
        lines = [json.dumps(submissions[setting["runSettingId"]]) for setting in run_settings]
        bucket, key = S3Hook.parse_s3_url(merged_uri)
        S3Hook().load_string("\n".join(lines), key, bucket, replace=True)
        return merged_uri

    @task(trigger_rule="none_failed")
    def report(merged_uri: str, first_runs_uri: str, second_runs_uri: str, second_counts: dict | None) -> None:
        not_submitted = [record for record in read_table(merged_uri) if not record["run_id"]]
        runs = read_table(first_runs_uri) + (read_table(second_runs_uri) if second_counts else [])
        failed = [run for run in runs if run["run_id"] and run["status"] != "COMPLETED"]
        for record in not_submitted:
            print(f"not submitted: {record['run_setting_id']} {record['reason']} {record['message']}")
        for run in failed:
            print(f"run {run['status']}: {run['run_setting_id']} {run['run_id']} {run['failure_reason']}")
        if not_submitted or len(failed) > MAX_FAILED_RUNS:
            reasons = Counter(
                [record["reason"] for record in not_submitted] + [run["failure_reason"] for run in failed]
            )
            raise AirflowFailException(
                f"{len(not_submitted)} samples were not submitted and {len(failed)} runs failed: {dict(reasons)}"
            )

    run_settings = read_samplesheet(SAMPLESHEET)
    first_batch, first = submit(run_settings, "first")

    @task_group
    def resubmission():
        retryable = find_retryable(run_settings, first.output, first.output["batch"])
        return submit(retryable, "second")

    second_batch, second = resubmission()
    merged = merge_mappings(run_settings, first.output, second.output, f"{RESULTS}/mapping.jsonl")

    @task_group
    def completion():
        return wait_for_completion(first_batch, "first"), wait_for_completion(second_batch, "second")

    first_runs, second_runs = completion()
    first >> first_runs
    second >> second_runs
    [first_runs, second_runs] >> report(
        merged, f"{RESULTS}/first_runs.jsonl", f"{RESULTS}/second_runs.jsonl", second_runs.output
    )


omics_resubmit_failed()
# [END resubmit_failed]
