"""Submit a cohort, resubmit the samples whose submission failed for a transient reason, and write one mapping.

A sample that was submitted is never submitted again. Runs that fail later are reported.
"""

from __future__ import annotations

# [START resubmit_by_parts]
import json
from collections import Counter

try:
    from airflow.sdk import Param, dag, task, task_group
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task, task_group
    from airflow.models.param import Param
try:
    from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
except ImportError:  # Airflow before 3.2
    from airflow.exceptions import AirflowFailException, AirflowSkipException
from airflow.providers.amazon.aws.hooks.s3 import S3Hook

from airflow_provider_omics_cache.operators.run_batch import StartRunBatchOperator
from airflow_provider_omics_cache.resubmission import RERUN_KEY, RETRYABLE_SUBMISSION_FAILURES, failed_run_settings
from airflow_provider_omics_cache.run_settings import save_run_settings
from airflow_provider_omics_cache.samplesheets import run_settings_from_table
from airflow_provider_omics_cache.sensors.run_batch import BatchCompletionSensor, BatchSubmissionSensor
from airflow_provider_omics_cache.tables import read_table

RESULTS = "{{ params.s3_uri }}/resubmit_by_parts/{{ run_id }}/" + RERUN_KEY
# A quota error clears only after runs have ended, so it is not retried; the report names these samples.
REASONS = RETRYABLE_SUBMISSION_FAILURES - {"ServiceQuotaExceededException"}


def submit(run_settings, name):
    """Start a batch, and wait until each of its runs was submitted or its submission failed."""
    batch = StartRunBatchOperator(
        task_id="start_batch",
        default_run_setting={
            "workflowId": "{{ params.workflow_id }}",
            "roleArn": "{{ params.role_arn }}",
            "outputUri": "{{ params.s3_uri }}/runs/",
        },
        run_settings=run_settings,
        tags={"managed-by": "airflow"},
        rerun_key=RERUN_KEY,
    )
    submission = BatchSubmissionSensor(
        task_id="wait_for_submission",
        batch_id=batch.output,
        poke_interval=10,
        max_failed_submissions="100%",
        mapping_s3_uri=f"{RESULTS}/{name}_submissions.jsonl",
    )
    return batch, submission


def wait_for_completion(batch, name):
    return BatchCompletionSensor(
        task_id=f"wait_for_{name}_batch",
        batch_id=batch.output,
        poke_interval=10,
        max_failed_runs="100%",
        runs_s3_uri=f"{RESULTS}/{name}_runs.jsonl",
    )


def read_if_there(uri):
    return list(read_table(uri)) if S3Hook().check_for_key(uri) else []


@dag(
    schedule=None,
    description="Submit the samples of a samplesheet, and again those whose submission failed",
    doc_md=__doc__,
    tags=["omics", "example"],
    params={
        "samplesheet": Param("s3://omics-quickstart/samplesheet.csv", type="string", description="URI of the sheet"),
        "workflow_id": Param("1234567", type="string", description="Workflow that runs for each sample"),
        "role_arn": Param("arn:aws:iam::123456789012:role/omics", type="string", description="Role of the runs"),
        "s3_uri": Param("s3://omics-quickstart", type="string", description="Bucket or folder for all that is written"),
        "max_failed_runs": Param(50, type="integer", minimum=0, description="Runs that may fail"),
        "rerun_key": Param("1", type="string", description="Another key starts another batch in the same DAG run"),
    },
)
def omics_resubmit_by_parts():
    @task
    def save_settings(samplesheet: str, settings_uri: str) -> str:
        return save_run_settings(
            lambda: run_settings_from_table(samplesheet, run_setting_id="sample", parameters={"sample_name": "sample"}),
            settings_uri,
        )

    @task
    def save_retryable(settings_uri: str, submissions_uri: str, batch: dict, results_uri: str) -> str:
        retryable = failed_run_settings(settings_uri, submissions_uri, batch=batch, reasons=REASONS)
        if not retryable:
            raise AirflowSkipException("There is nothing to submit again")
        return save_run_settings(retryable, f"{results_uri}/failed_in_{batch['id']}.json")

    @task(trigger_rule="all_done")
    def merge_mappings(settings_uri: str, first_uri: str, second_uri: str, merged_uri: str) -> str:
        """Write one record for each sample: its run, or the reason of its last failed submission."""
        unknown = {"run_id": None, "reason": "not listed", "message": None}
        merged = {
            setting["runSettingId"]: {"run_setting_id": setting["runSettingId"], **unknown}
            for setting in read_table(settings_uri)
        }
        for record in read_if_there(first_uri) + read_if_there(second_uri):
            if merged[record["run_setting_id"]]["run_id"]:
                raise AirflowFailException(f"submitted twice: {record}")
            merged[record["run_setting_id"]] = record
        S3Hook().load_string("\n".join(map(json.dumps, merged.values())), merged_uri, replace=True)
        return merged_uri

    @task(trigger_rule="all_done")
    def report(merged_uri: str, first_runs_uri: str, second_runs_uri: str, max_failed_runs: str) -> None:
        """Print failures. Fail if a sample was not submitted, a run was cancelled or deleted, or too many failed."""
        records = read_table(merged_uri)
        runs = {run["run_id"]: run for run in read_if_there(first_runs_uri) + read_if_there(second_runs_uri)}
        unknown = {"status": "UNKNOWN", "failure_reason": None}
        not_submitted = [record for record in records if not record["run_id"]]
        submitted = [{**record, **runs.get(record["run_id"], unknown)} for record in records if record["run_id"]]
        failed = [run for run in submitted if run["status"] != "COMPLETED"]
        for record in not_submitted:
            print(f"not submitted: {record['run_setting_id']} {record['reason']} {record['message']}")
        for run in failed:
            print(f"run {run['status']}: {run['run_setting_id']} {run['run_id']} {run['failure_reason']}")
        is_ended = all(run["status"] == "FAILED" for run in failed)
        if not_submitted or not is_ended or len(failed) > int(max_failed_runs):
            reasons = Counter(
                [record["reason"] for record in not_submitted]
                + [run["failure_reason"] or run["status"] for run in failed]
            )
            raise AirflowFailException(
                f"{len(not_submitted)} samples were not submitted and {len(failed)} runs failed: {dict(reasons)}"
            )

    settings_uri = f"{RESULTS}/settings.json"
    first_batch, first = submit(save_settings("{{ params.samplesheet }}", settings_uri), "first")

    @task_group
    def resubmission():
        retryable_uri = save_retryable(settings_uri, first.output, first.output["batch"], RESULTS)
        return submit(retryable_uri, "second")

    second_batch, second = resubmission()
    merged = merge_mappings(
        settings_uri,
        f"{RESULTS}/first_submissions.jsonl",
        f"{RESULTS}/second_submissions.jsonl",
        f"{RESULTS}/mapping.jsonl",
    )
    [first, second] >> merged

    @task_group
    def completion():
        return wait_for_completion(first_batch, "first"), wait_for_completion(second_batch, "second")

    list(completion()) >> report(
        merged, f"{RESULTS}/first_runs.jsonl", f"{RESULTS}/second_runs.jsonl", "{{ params.max_failed_runs }}"
    )


omics_resubmit_by_parts()
# [END resubmit_by_parts]
