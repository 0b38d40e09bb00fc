"""What runs find in a run cache: tasks that an earlier run with the same settings completed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_omics_cache.local import LocalHealthOmics
from tests.conftest import needs_batches
from tests.local.conftest import DEFAULT_RUN_SETTING, run_settings, s3_client
from tests.local.test_single_runs import start

SAMPLE = {"parameters": {"sample": "a"}}


@pytest.fixture
def cache(omics: Any) -> str:
    run_cache: str = omics.create_run_cache(cacheS3Location="s3://caches/x")["id"]
    return run_cache


def hits(omics: Any, run_id: str) -> list[bool]:
    return [task["cacheHit"] for task in omics.list_run_tasks(id=run_id)["items"]]


def seconds(omics: Any, run_id: str) -> float:
    run = omics.get_run(id=run_id)
    return round((run["stopTime"] - run["startTime"]).total_seconds(), 3)


def finished(omics: Any, local: LocalHealthOmics, **members: Any) -> str:
    run_id = start(omics, **members)
    local.clock.advance(100)
    return run_id


def test_a_run_that_failed_in_its_third_task_is_continued(
    omics: Any, local_healthomics: LocalHealthOmics, cache: str
) -> None:
    local_healthomics.faults.fail_task("Report", message="no space")
    failed = finished(omics, local_healthomics, cacheId=cache, **SAMPLE)
    run = omics.get_run(id=failed)
    assert (run["status"], run["failureReason"], run["statusMessage"]) == ("FAILED", "RUN_TASK_FAILED", "no space")
    first, second, third = omics.list_run_tasks(id=failed)["items"]
    assert [task["status"] for task in (first, second, third)] == ["COMPLETED", "COMPLETED", "FAILED"]
    assert omics.get_run_task(id=failed, taskId=third["taskId"])["failureReason"] == "RUN_TASK_FAILED"

    same = finished(omics, local_healthomics, cacheId=cache, **SAMPLE)
    without = finished(omics, local_healthomics, **SAMPLE)
    other = finished(omics, local_healthomics, cacheId=cache, parameters={"sample": "b"})

    assert hits(omics, same) == [True, True, False]
    assert hits(omics, without) == hits(omics, other) == [False] * 3
    saved = sum((task["stopTime"] - task["startTime"]).total_seconds() for task in (first, second))
    assert seconds(omics, same) == pytest.approx(seconds(omics, without) - saved, abs=0.01)
    assert seconds(omics, other) == seconds(omics, without) == 25
    assert omics.get_run(id=same)["status"] == "COMPLETED"

    found = omics.list_run_tasks(id=same)["items"][0]
    uri = omics.get_run_cache(id=cache)["cacheS3Uri"]
    assert found["cacheS3Uri"].startswith(f"{uri}{failed}/{first['taskId']}/")
    assert not {"startTime", "stopTime", "instanceType"} & set(found)
    entry = found["cacheS3Uri"].rstrip("/").rpartition("/")[2]
    key = f"{found['cacheS3Uri']}{entry}.json".removeprefix("s3://caches/")
    manifest = json.loads(s3_client().get_object(Bucket="caches", Key=key)["Body"].read())
    assert manifest["s3uri"] == found["cacheS3Uri"]
    assert manifest["taskArn"].endswith(f"task/{first['taskId']}")

    s3_client().delete_object(Bucket="caches", Key=key)
    assert hits(omics, finished(omics, local_healthomics, cacheId=cache, **SAMPLE)) == [False] * 3


@pytest.mark.parametrize(
    ("behavior", "end", "expected"),
    [
        (None, "completed", 0),
        ("CACHE_ON_FAILURE", "completed", 0),
        ("CACHE_ALWAYS", "completed", 3),
        (None, "failed", 1),
        (None, "cancelled", 1),
        ("CACHE_ALWAYS", "timed out", 0),
        ("CACHE_ALWAYS", "EXPORT_FAILED", 0),
        ("CACHE_ALWAYS", "FILE_SYSTEM_OUT_OF_SPACE", 0),
    ],
)
def test_which_runs_leave_entries(
    omics: Any, local_healthomics: LocalHealthOmics, cache: str, behavior: str | None, end: str, expected: int
) -> None:
    members = {"cacheId": cache, "name": "one", **SAMPLE}
    given: dict[str, Any] = {} if behavior is None else {"cacheBehavior": behavior}
    if end == "timed out":
        local_healthomics.settings.run_running_seconds = 90
        given["runGroupId"] = omics.create_run_group(maxDuration=1)["id"]
    elif end == "failed":
        local_healthomics.faults.fail_task("CallVariants", run_name="one")
    elif end.isupper():
        local_healthomics.faults.fail_run("one", reason=end)
    run_id = start(omics, **members, **given)
    local_healthomics.clock.advance(15)
    if end == "cancelled":
        omics.cancel_run(id=run_id)
    local_healthomics.clock.advance(100)
    run = omics.get_run(id=run_id)
    if end == "timed out":
        assert (run["failureReason"], seconds(omics, run_id)) == ("RUN_TIMED_OUT", 65)

    assert sum(hits(omics, finished(omics, local_healthomics, **{**members, "name": "two"}))) == expected


@needs_batches
def test_a_resumed_cohort_is_shorter(omics: Any, local_healthomics: LocalHealthOmics, cache: str) -> None:
    settings = [{**setting, "parameters": {"sample": setting["runSettingId"]}} for setting in run_settings(4)]
    local_healthomics.faults.fail_task("Report", run_name="sample-1")
    local_healthomics.faults.fail_task("CallVariants", run_name="sample-2")

    def run_batch() -> tuple[dict[str, Any], dict[str, str]]:
        batch_id = omics.start_run_batch(
            defaultRunSetting={**DEFAULT_RUN_SETTING, "cacheId": cache}, batchRunSettings={"inlineSettings": settings}
        )["id"]
        local_healthomics.clock.advance(20)
        counts = omics.get_batch(batchId=batch_id)["runSummary"]
        assert sum(counts.values()) == 4
        local_healthomics.clock.advance(80)
        rows = omics.list_runs_in_batch(batchId=batch_id)["runs"]
        return omics.get_batch(batchId=batch_id), {row["runSettingId"]: row["runId"] for row in rows}

    first, before = run_batch()
    assert (first["status"], first["runSummary"]["failedRunCount"], first["runSummary"]["completedRunCount"]) == (
        "PROCESSED",
        2,
        2,
    )
    assert {run["id"] for run in omics.list_runs(batchId=first["id"], status="FAILED")["items"]} == {
        before["sample-1"],
        before["sample-2"],
    }
    second, after = run_batch()
    assert second["runSummary"]["completedRunCount"] == 4
    assert [sum(hits(omics, after[f"sample-{number}"])) for number in range(4)] == [0, 2, 1, 0]
    full = seconds(omics, after["sample-0"])
    third = 20 / 3
    assert seconds(omics, after["sample-1"]) == pytest.approx(full - 2 * third, abs=0.01)
    assert seconds(omics, after["sample-2"]) == pytest.approx(full - third, abs=0.01)
    assert len(omics.list_runs(batchId=second["id"], status="COMPLETED")["items"]) == 4
    omics.delete_run_batch(batchId=second["id"])
    local_healthomics.clock.advance(10)
    assert omics.get_batch(batchId=second["id"])["status"] == "RUNS_DELETED"
    assert omics.list_runs(batchId=second["id"])["items"] == []
