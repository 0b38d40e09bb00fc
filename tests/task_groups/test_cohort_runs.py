"""Runs of a cohort against the local HealthOmics."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from airflow_provider_omics_cache.task_groups.cohort import OmicsCohortTaskGroup, RunCache, Samplesheet
from airflow_provider_omics_cache.task_groups.cohort_tasks import StartCohortBatchOperator
from tests.conftest import needs_batches
from tests.examples.cohorts import all_of

try:
    from airflow.sdk import DAG, task, task_group
except ImportError:  # Airflow 2
    from airflow.decorators import task, task_group
    from airflow.models.dag import DAG

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics
    from airflow_provider_omics_cache.testing.dag_run import LocalDags

pytestmark = needs_batches

GROUPS = Path(__file__).parents[1] / "dags" / "cohort_of_groups.py"
RESULTS = "cohort.results"
WHEN = datetime(2026, 1, 1, tzinfo=UTC)
SAMPLES = [f"S{number:02}" for number in range(40)]
THROTTLED = SAMPLES[:5]
REFUSED = SAMPLES[5]
BROKEN_SERVICE = SAMPLES[6:10]
BROKEN_TASK = SAMPLES[10]


def cohort(group_id: str = "cohort", **parameters: Any) -> OmicsCohortTaskGroup:
    given: dict[str, Any] = {
        "samplesheet": Samplesheet("s3://lab/sheet.csv", run_setting_id="sample", parameters=["sample"]),
        "run_cache": RunCache(name="rnaseq", cache_s3_location="s3://lab/cache/"),
        "poke_interval": 10,
        "staging_s3_prefix": "s3://lab/airflow/",
        **parameters,
    }
    return OmicsCohortTaskGroup(
        group_id,
        workflow_id="1234567",
        role_arn="arn:aws:iam::123456789012:role/omics",
        output_uri="s3://lab/runs/",
        **given,
    )


def cohort_dag(dag_id: str = "rnaseq", **parameters: Any) -> Any:
    with DAG(dag_id, schedule=None, start_date=WHEN) as dag:
        cohort(**parameters)
    return dag


def put_sheet(samples: list[str]) -> None:
    boto3.client("s3").put_object(Bucket="lab", Key="sheet.csv", Body="\n".join(["sample", *samples]).encode())


def read(uri: str) -> str:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read().decode()


def runs_by_sample() -> Counter[str]:
    """How many runs the service has started for each sample, by its own listing."""
    return Counter(
        run["runSettingId"]
        for batch in all_of("list_batch")
        for run in all_of("list_runs_in_batch", "runs", batchId=batch["id"])
        if run.get("runId")
    )


@pytest.fixture
def service(local_healthomics: LocalHealthOmics, quick_dag_runs_of_tests: None) -> LocalHealthOmics:
    boto3.client("s3").create_bucket(Bucket="lab")
    trust = {"Effect": "Allow", "Principal": {"Service": "omics.amazonaws.com"}, "Action": "sts:AssumeRole"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    boto3.client("iam").create_role(RoleName="omics", AssumeRolePolicyDocument=policy)
    local_healthomics.register_workflow("1234567", tasks=[{"name": name} for name in ("qc", "align", "call")])
    return local_healthomics


def test_a_cohort_is_resumed_and_a_cleared_dag_run_starts_nothing(
    service: LocalHealthOmics, local_healthomics_dag_run: LocalDags
) -> None:
    put_sheet(SAMPLES)
    for name in THROTTLED:
        service.faults.fail_submission(name, reason="ThrottlingException", times=1)
    service.faults.fail_submission(REFUSED, reason="ValidationException", message="no such thing", times=None)
    for name in BROKEN_SERVICE:
        service.faults.fail_task("call", run_name=name, reason="SERVICE_ERROR")
    service.faults.fail_task("call", run_name=BROKEN_TASK, reason="RUN_TASK_FAILED")

    dag_run = local_healthomics_dag_run(cohort_dag(max_failed="5%", cancel_on_failure=True)).run(date=WHEN)

    assert dag_run.errors == {}
    assert dag_run.state == "success"
    assert dag_run.states["cohort.round_2.wait_for_completion"] == "success"
    assert dag_run.states["cohort.round_3.choose_samples"] == "skipped"
    assert dag_run.states["cohort.round_3.wait_for_completion"] == "skipped"
    again = dict.fromkeys(BROKEN_SERVICE, 2)
    assert runs_by_sample() == {name: again.get(name, 1) for name in SAMPLES if name != REFUSED}
    uri = dag_run.xcom(RESULTS)
    assert uri == f"s3://lab/airflow/rnaseq/{dag_run.run_id}/cohort/rerun_key=/results.jsonl"
    records = {record["run_setting_id"]: record for record in map(json.loads, read(uri).splitlines())}
    assert list(records) == SAMPLES
    expected = dict.fromkeys(SAMPLES, ("COMPLETED", 1))
    expected |= dict.fromkeys([*THROTTLED, *BROKEN_SERVICE], ("COMPLETED", 2))
    expected |= {REFUSED: ("NOT_SUBMITTED", 1), BROKEN_TASK: ("FAILED", 1)}
    assert {name: (record["status"], record["round"]) for name, record in records.items()} == expected
    assert [run["failure_reason"] for run in records[BROKEN_SERVICE[0]]["history"]] == ["SERVICE_ERROR"]
    assert [run["failure_reason"] for run in records[THROTTLED[0]]["history"]] == ["ThrottlingException"]
    assert records[BROKEN_SERVICE[0]]["cache_hits"] == 2
    resumed = records[BROKEN_SERVICE[0]]
    assert resumed["run_output_uri"] == f"s3://lab/runs/{resumed['run_id']}/{resumed['run_uuid']}"
    summary = dag_run.xcom(RESULTS, "summary")
    assert (summary["total"], summary["completed"]) == (40, 38)
    assert [one["samples"] for one in summary["rounds"]] == [40, 9]
    assert summary["cache_hits"] == 2 * len(BROKEN_SERVICE)
    assert {failure["reason"]: failure["remedy"] for failure in summary["failures"]} == {
        "RUN_TASK_FAILED": "read the log of the task that failed",
        "not submitted, ValidationException": None,
    }

    # The sheet and the DAG have changed, the service has forgotten its tokens, and a preflight would find an error.
    boto3.client("iam").delete_role(RoleName="omics")
    put_sheet([*SAMPLES, "S99"])
    service.forget_tokens()
    changed = cohort_dag(max_failed=1, default_run_setting={"storageType": "DYNAMIC"}, results_format="csv")
    cleared = local_healthomics_dag_run(changed).run(date=WHEN)

    assert cleared.state == "failed"
    assert list(cleared.errors) == ["cohort.results"]
    assert "2 of 40 samples did not complete; max_failed is 1: " in str(cleared.errors["cohort.results"])
    assert cleared.run_id == dag_run.run_id
    assert len(all_of("list_batch")) == 2
    assert sum(runs_by_sample().values()) == 39 + len(BROKEN_SERVICE)
    assert cleared.xcom(RESULTS, "summary") == summary
    rows = list(csv.DictReader(io.StringIO(read(cleared.xcom(RESULTS)))))
    assert [row["run_setting_id"] for row in rows] == [row["sample"] for row in rows] == SAMPLES
    assert rows[0]["status"] == "COMPLETED"


def test_a_round_that_somebody_cancelled_is_in_the_results_also_of_a_cleared_dag_run(
    service: LocalHealthOmics, local_healthomics_dag_run: LocalDags, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_sheet(SAMPLES[:3])
    service.faults.fail_submission("S00", reason="ThrottlingException", times=1)
    execute = StartCohortBatchOperator.execute

    def start_and_cancel(operator: StartCohortBatchOperator, context: Any) -> str:
        batch_id = execute(operator, context)
        if "round_2" in operator.task_id:
            service.settings.run_running_seconds = 100_000
            omics = boto3.client("omics")
            while omics.get_batch(batchId=batch_id)["status"] != "INPROGRESS":
                service.clock.advance(5)
            omics.cancel_run_batch(batchId=batch_id)
        return batch_id

    with monkeypatch.context() as patched:
        patched.setattr(StartCohortBatchOperator, "execute", start_and_cancel)
        dag_run = local_healthomics_dag_run(cohort_dag(max_failed=1)).run(date=WHEN)

    assert dag_run.state == "success"
    assert list(dag_run.errors) == ["cohort.round_2.wait_for_submission", "cohort.round_2.wait_for_completion"]
    assert dag_run.states["cohort.round_3.choose_samples"] == "skipped"
    records = [json.loads(line) for line in read(dag_run.xcom(RESULTS)).splitlines()]
    assert [(record["status"], record["round"], len(record["history"])) for record in records] == [
        ("CANCELLED", 2, 1),
        ("COMPLETED", 1, 0),
        ("COMPLETED", 1, 0),
    ]
    assert runs_by_sample() == dict.fromkeys(SAMPLES[:3], 1)

    # The run cache of the cleared DAG run is not valid, so no batch has an XCom.
    cache = RunCache(name="rnaseq", cache_s3_location="{{ 'nowhere' }}")
    cleared = local_healthomics_dag_run(cohort_dag(run_cache=cache, max_failed=1)).run(date=WHEN)
    assert cleared.state == "success"
    assert list(cleared.errors) == ["cohort.ensure_run_cache"]
    assert cleared.states["cohort.round_1.start_batch"] == "upstream_failed"
    assert [json.loads(line) for line in read(cleared.xcom(RESULTS)).splitlines()] == records
    assert len(all_of("list_batch")) == 2


def test_fail_fast_cancels_the_first_batch_and_starts_no_other(
    service: LocalHealthOmics, local_healthomics_dag_run: LocalDags
) -> None:
    put_sheet(SAMPLES[:3])
    service.settings.run_running_seconds = 10_000_000
    for name in SAMPLES[:2]:
        service.faults.fail_submission(name, reason="ThrottlingException", times=1)
    dag_run = local_healthomics_dag_run(
        cohort_dag(
            run_cache=None,
            preflight=False,
            max_failed=1,
            fail_fast=True,
            cancel_on_failure=True,
            rounds=2,
        )
    ).run()
    assert list(dag_run.errors) == ["cohort.round_1.wait_for_completion", "cohort.results"]
    assert "3 of 3 samples did not complete; max_failed is 1: " in str(dag_run.errors["cohort.results"])
    assert dag_run.states["cohort.round_1.cancel_batch"] == "success"
    assert dag_run.states["cohort.round_2.choose_samples"] == "skipped"
    records = [json.loads(line) for line in read(dag_run.xcom(RESULTS)).splitlines()]
    assert [record["status"] for record in records] == ["NOT_SUBMITTED", "NOT_SUBMITTED", "CANCELLED"]
    assert len(all_of("list_batch")) == 1


def test_samples_of_a_batch_whose_wait_failed_are_unknown_and_get_no_other_run(
    service: LocalHealthOmics, local_healthomics_dag_run: LocalDags
) -> None:
    put_sheet(SAMPLES[:2])
    service.settings.run_running_seconds = 10_000_000
    service.faults.fail_submission(SAMPLES[0], reason="ThrottlingException", times=1)
    given: dict[str, Any] = {"preflight": False, "timeout": 600, "rounds": 2, "run_cache": None}
    dag_run = local_healthomics_dag_run(cohort_dag(**given)).run(date=WHEN)
    assert list(dag_run.errors) == ["cohort.round_1.wait_for_completion", "cohort.results"]
    assert dag_run.states["cohort.round_2.choose_samples"] == "skipped"
    assert dag_run.xcom(RESULTS, "summary")["statuses"] == {"UNKNOWN": 2}
    assert service.calls["StartRunBatch"] == 1

    # The cleared DAG run waits again.
    cleared = local_healthomics_dag_run(cohort_dag(**given)).run(date=WHEN)
    assert list(cleared.errors) == ["cohort.round_1.wait_for_completion", "cohort.results"]
    assert cleared.xcom(RESULTS, "summary")["statuses"] == {"UNKNOWN": 2}
    assert service.calls["StartRunBatch"] == 1

    # In another DAG a teardown cancels the batch, and no other round is started.
    other = local_healthomics_dag_run(cohort_dag("with_teardown", **given, cancel_on_failure=True)).run()
    assert list(other.errors) == ["cohort.round_1.wait_for_completion", "cohort.results"]
    assert other.states["cohort.round_1.cancel_batch"] == "success"
    assert other.states["cohort.round_2.choose_samples"] == "skipped"
    assert [run["status"] for run in all_of("list_runs")].count("CANCELLED") == 2
    assert service.calls["StartRunBatch"] == 2


def test_a_cohort_in_a_mapped_task_group(service: LocalHealthOmics, local_healthomics_dag_run: LocalDags) -> None:
    @task_group
    def one(settings: Any) -> None:
        cohort(
            samplesheet=None, run_settings=settings, run_cache=None, rounds=1, cancel_on_failure=True, deferrable=True
        )

    with DAG("mapped", schedule=None, start_date=WHEN) as dag:
        one.expand(settings=[[{"runSettingId": "A"}, {"runSettingId": "B"}], [{"runSettingId": "C"}]])
    dag_run = local_healthomics_dag_run(dag).run()
    assert dag_run.errors == {}
    names = []
    for map_index in (0, 1):
        uri = dag_run.xcom("one.cohort.results", map_index=map_index)
        assert f"/one.cohort/{map_index}/" in uri
        names.append([json.loads(line)["run_setting_id"] for line in read(uri).splitlines()])
    assert names == [["A", "B"], ["C"]]
    assert len(all_of("list_batch")) == 2


def test_a_cohort_of_groups_of_rows_without_an_airflow_connection(
    service: LocalHealthOmics, local_healthomics_dag_run: LocalDags, monkeypatch: pytest.MonkeyPatch
) -> None:
    unused = {"conn_type": "aws", "extra": {"endpoint_url": "http://unused.invalid"}}
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(unused))
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="my-bucket")
    schema = {"type": "array", "items": {"type": "object", "required": ["sample", "fastq_1"]}}
    s3.put_object(Bucket="my-bucket", Key="schema_input.json", Body=json.dumps(schema).encode())
    sheet = "sample,fastq_1\nA,s3://my-bucket/1.fq\nB,s3://my-bucket/2.fq\nA,s3://my-bucket/3.fq\n"
    s3.put_object(Bucket="my-bucket", Key="samplesheet.csv", Body=sheet.encode())
    local = local_healthomics_dag_run(GROUPS)
    for one in local.dag.tasks:
        setattr(one, "aws_conn_id", None)  # noqa: B010
    dag_run = local.run()
    assert dag_run.state == "success"
    records = [json.loads(line) for line in read(dag_run.xcom(RESULTS)).splitlines()]
    assert [(record["run_setting_id"], record["status"]) for record in records] == [
        ("A", "COMPLETED"),
        ("B", "COMPLETED"),
    ]
    parameters = boto3.client("omics").get_run(id=records[0]["run_id"])["parameters"]
    assert parameters["genome"] == "GRCh38"
    assert parameters["input"].startswith("s3://my-bucket/airflow/samplesheets/")
    assert read(parameters["input"]) == "sample,fastq_1\nA,s3://my-bucket/1.fq\nA,s3://my-bucket/3.fq\n"


def test_an_empty_sheet_writes_nothing_and_a_skipped_cohort_does_not_fail(
    service: LocalHealthOmics, local_healthomics_dag_run: LocalDags
) -> None:
    put_sheet([])

    @task.short_circuit(ignore_downstream_trigger_rules=False)
    def skip() -> bool:
        return False

    with DAG("rnaseq", schedule=None, start_date=WHEN) as dag:
        cohort("empty", rounds=1)
        skip() >> cohort("skipped", rounds=1)
    dag_run = local_healthomics_dag_run(dag).run()
    assert sorted(dag_run.errors) == ["empty.freeze_settings", "empty.results"]
    assert "rows must have at least one row" in str(dag_run.errors["empty.freeze_settings"])
    assert "empty.freeze_settings has not written the run settings" in str(dag_run.errors["empty.results"])
    assert dag_run.states["empty.round_1.wait_for_completion"] == "skipped"
    assert {state for name, state in dag_run.states.items() if name.startswith("skipped.")} == {"skipped"}
    assert boto3.client("s3").list_objects_v2(Bucket="lab")["KeyCount"] == 1
    assert service.calls["StartRunBatch"] == service.calls["CreateRunCache"] == 0


def test_templates_that_break_a_rule_are_named_before_anything_is_written(
    service: LocalHealthOmics, local_healthomics_dag_run: LocalDags
) -> None:
    given: dict[str, dict[str, Any]] = {
        "share": {"max_failed": "{{ '120%' }}"},
        "elsewhere": {"results_s3_uri": "{{ 's3://lab/elsewhere/results.jsonl' }}"},
        "prefix": {"staging_s3_prefix": "{{ 'lab/airflow' }}"},
        "rows": {"samplesheet": None, "run_settings": "{{ [] }}"},
    }
    with DAG("rnaseq", schedule=None, start_date=WHEN, render_template_as_native_obj=True) as dag:
        for group_id, parameters in given.items():
            cohort(group_id, rounds=1, run_cache=None, preflight=False, **parameters)
    dag_run = local_healthomics_dag_run(dag).run()
    errors = {name: str(error) for name, error in dag_run.errors.items() if name.endswith(".freeze_settings")}
    assert len(errors) == len(given)
    assert "max_failed must be an integer, 0 or more, or a share" in errors["share.freeze_settings"]
    assert "results_s3_uri must be below staging_s3_prefix, 's3://lab/airflow/'" in errors["elsewhere.freeze_settings"]
    assert "staging_s3_prefix must be an s3:// URI with a bucket; got 'lab/airflow'" in errors["prefix.freeze_settings"]
    assert "run_settings must" in errors["rows.freeze_settings"]
    assert {state for name, state in dag_run.states.items() if name.endswith(".results")} == {"failed"}
    assert boto3.client("s3").list_objects_v2(Bucket="lab")["KeyCount"] == 0
    assert service.calls["StartRunBatch"] == 0
