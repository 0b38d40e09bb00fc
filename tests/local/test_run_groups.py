"""Run groups: their operations, and what they do to runs."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from airflow_provider_omics_cache.local import LocalHealthOmics
from tests.conftest import needs_batches
from tests.local.conftest import DEFAULT_RUN_SETTING, code_of, run_settings
from tests.local.test_single_runs import start

#: Seconds from PENDING to the end.
ONE_RUN = 30


def active(omics: Any) -> list[str]:
    statuses = [(run["name"], run["status"]) for run in omics.list_runs()["items"]]
    return [name for name, status in statuses if status in ("STARTING", "RUNNING", "STOPPING")]


def test_the_operations(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.settings.strict_run_groups = True
    local_healthomics.register_run_group("8")
    request = {"name": "a", "maxRuns": 2, "maxDuration": 60, "tags": {"a": "b"}, "requestId": "once"}
    created = omics.create_run_group(**request)
    assert omics.create_run_group(**request)["id"] == created["id"]
    with pytest.raises(ClientError) as error:
        omics.create_run_group(**{**request, "maxRuns": 3})
    assert code_of(error) == ("ConflictException", 409)
    group = omics.get_run_group(id=created["id"])
    assert (group["name"], group["maxRuns"], group["maxDuration"], group["tags"]) == ("a", 2, 60, {"a": "b"})
    assert "maxCpus" not in group
    assert [item["id"] for item in omics.list_run_groups()["items"]] == ["8", created["id"]]
    first = omics.list_run_groups(maxResults=1)
    assert [item["id"] for item in first["items"]] == ["8"]
    second = omics.list_run_groups(maxResults=1, startingToken=first["nextToken"])
    assert [item["id"] for item in second["items"]] == [created["id"]]
    omics.update_run_group(id=created["id"], name="b", maxRuns=3)
    assert [item["maxRuns"] for item in omics.list_run_groups(name="b")["items"]] == [3]
    omics.tag_resource(resourceArn=created["arn"], tags={"c": "d"})
    assert omics.list_tags_for_resource(resourceArn=created["arn"])["tags"] == {"a": "b", "c": "d"}
    for gone in (created["id"], "8"):
        omics.delete_run_group(id=gone)
        for call in (omics.get_run_group, omics.delete_run_group, omics.update_run_group):
            with pytest.raises(ClientError) as error:
                call(id=gone)
            assert code_of(error) == ("ResourceNotFoundException", 404)
    assert omics.list_run_groups()["items"] == []
    local_healthomics.register_run_group("8")
    assert omics.get_run_group(id="8")["id"] == "8"


def test_runs_wait_for_a_place(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    group = omics.create_run_group(maxRuns=1)["id"]
    for name, priority in (("a", 0), ("b", 0), ("c", 9), ("d", 0)):
        start(omics, name=name, runGroupId=group, priority=priority)
    start(omics, name="free")
    local_healthomics.clock.advance(2)
    assert active(omics) == ["c", "free"]
    local_healthomics.clock.advance(ONE_RUN)
    assert active(omics) == ["a"]
    waiting = {run["name"]: run["id"] for run in omics.list_runs(status="PENDING")["items"]}
    assert sorted(waiting) == ["b", "d"]
    omics.cancel_run(id=waiting["b"])
    local_healthomics.clock.advance(ONE_RUN)
    assert active(omics) == ["d"]
    assert omics.get_run(id=waiting["b"])["status"] == "CANCELLED"
    assert "startTime" not in omics.get_run(id=waiting["b"])
    local_healthomics.clock.advance(ONE_RUN)
    assert {run["status"] for run in omics.list_runs()["items"]} == {"COMPLETED", "CANCELLED"}


def test_more_places_are_used_from_then_on(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    group = omics.create_run_group(maxRuns=1)["id"]
    ids = [start(omics, name=name, runGroupId=group) for name in "abc"]
    local_healthomics.clock.advance(12)
    assert active(omics) == ["a"]
    omics.update_run_group(id=group, maxRuns=3)
    omics.cancel_run(id=ids[0])
    assert active(omics) == ["a", "b", "c"]
    local_healthomics.clock.advance(3)
    created, started = (omics.get_run(id=ids[2])[name] for name in ("creationTime", "startTime"))
    assert (started - created).total_seconds() == pytest.approx(15, abs=0.01)


@needs_batches
def test_the_runs_of_a_batch_wait_for_a_place(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    group = omics.create_run_group(maxRuns=2)["id"]
    default = {**DEFAULT_RUN_SETTING, "runGroupId": group}
    batch_id = omics.start_run_batch(defaultRunSetting=default, batchRunSettings={"inlineSettings": run_settings(5)})[
        "id"
    ]
    start(omics, name="single", runGroupId=group)

    def counts() -> dict[str, int]:
        summary = omics.get_batch(batchId=batch_id)["runSummary"]
        return {name.removesuffix("RunCount"): count for name, count in summary.items() if count}

    local_healthomics.clock.advance(10)
    assert counts() == {"running": 1, "pending": 4}
    assert omics.get_batch(batchId=batch_id)["status"] == "INPROGRESS"
    local_healthomics.clock.advance(25)
    assert counts() == {"completed": 1, "running": 1, "starting": 1, "pending": 2}
    local_healthomics.clock.advance(1_000)
    batch = omics.get_batch(batchId=batch_id)
    assert (batch["status"], counts()) == ("PROCESSED", {"completed": 5})
    took = (batch["processedTime"] - batch["submittedTime"]).total_seconds()
    assert 2 * ONE_RUN < took < 4 * ONE_RUN

    batch_id = omics.start_run_batch(defaultRunSetting=default, batchRunSettings={"inlineSettings": run_settings(5)})[
        "id"
    ]
    local_healthomics.clock.advance(15)
    omics.cancel_run_batch(batchId=batch_id)
    local_healthomics.clock.advance(15)
    assert (omics.get_batch(batchId=batch_id)["status"], counts()) == ("CANCELLED", {"cancelled": 5})


def test_a_run_that_takes_too_long_fails(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.register_workflow("4711", tasks=[{"name": "A", "seconds": 50}, {"name": "B", "seconds": 50}])
    run_id = start(omics, runGroupId=omics.create_run_group(maxDuration=1)["id"])
    local_healthomics.clock.advance(200)
    run = omics.get_run(id=run_id)
    assert (run["status"], run["failureReason"]) == ("FAILED", "RUN_TIMED_OUT")
    assert run["statusMessage"] == "The run was RUNNING for longer than 1 minutes"
    assert (run["stopTime"] - run["startTime"]).total_seconds() == 65
    statuses = [(task["name"], task["status"]) for task in omics.list_run_tasks(id=run_id)["items"]]
    assert statuses == [("A", "COMPLETED"), ("B", "CANCELLED")]
