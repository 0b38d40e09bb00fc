"""When the memory of a batch is freed, and which requests wait while a settings file is read."""

from __future__ import annotations

import gc
import json
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from airflow_provider_omics_cache.local import LocalHealthOmics, batches
from airflow_provider_omics_cache.local.batch import Batch
from tests.conftest import needs_batches
from tests.local.conftest import DEFAULT_RUN_SETTING, run_settings, s3_client

pytestmark = needs_batches


def start(omics: Any, number: int = 3, **source: Any) -> str:
    batch_id: str = omics.start_run_batch(
        defaultRunSetting=DEFAULT_RUN_SETTING,
        batchRunSettings=source or {"inlineSettings": run_settings(number)},
    )["id"]
    return batch_id


@pytest.mark.parametrize("delete_first", ["runs", "batch"])
def test_a_batch_whose_runs_were_deleted_is_freed(
    omics: Any, local_healthomics: LocalHealthOmics, delete_first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[Batch]] = []
    init = Batch.__init__

    def remember(self: Batch, **kwargs: Any) -> None:
        init(self, **kwargs)
        made.append(weakref.ref(self))

    monkeypatch.setattr(Batch, "__init__", remember)
    local_healthomics.settings.rate_limits = {"StartRun": 100}
    batch_id = start(omics)
    local_healthomics.clock.advance(1_000)
    runs = [run["id"] for run in omics.list_runs()["items"]]
    if delete_first == "runs":
        omics.delete_run_batch(batchId=batch_id)
        local_healthomics.clock.advance(10)
        omics.delete_batch(batchId=batch_id)
    else:
        omics.delete_batch(batchId=batch_id)
        assert omics.get_run(id=runs[0])["batchId"] == batch_id
        for run_id in runs:
            omics.delete_run(id=run_id)
    gc.collect()

    assert [reference() for reference in made] == [None]
    assert omics.list_runs()["items"] == []
    assert start(omics) != batch_id


def test_a_request_that_is_not_about_runs_reads_no_settings_file(
    omics: Any, local_healthomics: LocalHealthOmics, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_client().put_object(Bucket="caches", Key="settings.json", Body=json.dumps(run_settings(150)))
    batch_id = start(omics, s3UriSettings="s3://caches/settings.json")
    local_healthomics.clock.advance(4)
    with monkeypatch.context() as patch:
        patch.setattr(batches, "read_object", pytest.fail)
        cache = omics.create_run_cache(cacheS3Location="s3://caches")
        group = omics.create_run_group(name="capped")["id"]
        assert omics.get_run_cache(id=cache["id"])["status"] == omics.get_workflow(id="4711")["status"] == "ACTIVE"
        assert [item["id"] for item in omics.list_run_groups()["items"]] == [group]
        omics.tag_resource(resourceArn=cache["arn"], tags={"a": "b"})

    # DeleteRunCache must know the active runs.
    omics.delete_run_cache(id=cache["id"])
    assert local_healthomics.calls["GetBatch"] == 0
    monkeypatch.setattr(batches, "read_object", pytest.fail)
    assert omics.get_batch(batchId=batch_id)["totalRuns"] == 150


def test_no_request_waits_for_the_settings_file_of_another(
    omics: Any, local_healthomics: LocalHealthOmics, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_client().put_object(Bucket="caches", Key="settings.json", Body=json.dumps(run_settings(150)))
    of_file, inline = start(omics, s3UriSettings="s3://caches/settings.json"), start(omics)
    local_healthomics.clock.advance(4)
    reading, may_go_on = threading.Event(), threading.Event()
    read = batches.read_object

    def read_slowly(*arguments: Any) -> Any:
        reading.set()
        assert may_go_on.wait(60)
        return read(*arguments)

    monkeypatch.setattr(batches, "read_object", read_slowly)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(omics.get_batch, batchId=of_file)
        assert reading.wait(60)
        try:
            assert omics.list_run_caches()["items"] == []
            assert omics.get_batch(batchId=inline)["totalRuns"] == 3
            assert [batch["status"] for batch in omics.list_batch()["items"]] == ["PENDING", "INPROGRESS"]
            assert {run["batchId"] for run in omics.list_runs()["items"]} == {inline}
            assert local_healthomics.page().status == 200
        finally:
            may_go_on.set()
        batch = slow.result(60)

    assert (batch["status"], batch["totalRuns"]) == ("SUBMITTING", 150)
    assert batch["submissionSummary"]["successfulStartSubmissionCount"] == 20
