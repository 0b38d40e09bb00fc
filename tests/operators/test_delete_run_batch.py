"""DeleteRunBatchOperator against the local HealthOmics."""

from __future__ import annotations

import importlib.util
import json
import logging
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import boto3
import botocore.handlers
import pytest
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields
from botocore.exceptions import ClientError

from airflow_provider_omics_cache._compat import AirflowFailException, AirflowOptionalProviderFeatureException
from airflow_provider_omics_cache.exceptions import (
    BatchConflictError,
    BatchNotFoundError,
    BatchTimeoutError,
    IncompleteListingError,
    OmicsApiError,
    OmicsError,
    OmicsParameterError,
)
from airflow_provider_omics_cache.healthomics import end
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.operators import run_batch as operator_module
from airflow_provider_omics_cache.operators.run_batch import DeleteRunBatchOperator
from airflow_provider_omics_cache.sensors.run_batch import BatchSubmissionSensor
from airflow_provider_omics_cache.tasks import mapping as mapping_module
from airflow_provider_omics_cache.xcoms import BatchXCom
from tests.conftest import needs_aiobotocore, needs_batches
from tests.operators.batch_states import (
    ONE_ATTEMPT,
    STATUSES,
    batch_in,
    changed_answers,
    die,
    each_mode,
    run_operator,
    runs_of,
    status_of,
)
from tests.sensor_modes import start_batch

pytestmark = needs_batches

BUCKET = "cohort-mappings"
URI = f"s3://{BUCKET}/mapping.jsonl"
DELETABLE = ("CANCELLED", "FAILED", "PROCESSED", "RUNS_DELETING", "RUNS_DELETE_FAILED", "RUNS_DELETED")
ACTIVE = tuple(status for status in STATUSES if status not in DELETABLE)
KNOWN = ("id", "arn", "uuid", "status", "batch_deleted", "mapping_s3_uri")
GONE = {"delete_batch": True, "save_mapping_s3_uri": URI}


@pytest.fixture(autouse=True)
def _bucket(local: Any) -> None:
    boto3.client("s3").create_bucket(Bucket=BUCKET)


@pytest.fixture
def delete(local: Any, new_task_context: Callable[[], dict[str, Any]]) -> Any:
    """Run one try of the operator, and return what it pushed, without members that it never knows."""

    def delete(batch_id: Any, mode: str = "sync", **parameters: Any) -> dict[str, Any]:
        def make(**arguments: Any) -> DeleteRunBatchOperator:
            delay = {"waiter_delay": 5} if parameters.get("wait_for_completion", True) else {}
            return DeleteRunBatchOperator(task_id="delete", batch_id=batch_id, **{**delay, **parameters, **arguments})

        context = new_task_context()
        returned = run_operator(make, mode, context, local.clock)
        xcoms = {key: value for key, value in context["ti"].xcoms.items() if not key.startswith("_")}
        assert set(xcoms) == {"batch", "return_value"}
        pushed: dict[str, Any] = xcoms["batch"]
        assert pushed["id"] == returned == str(batch_id)
        assert set(pushed) == set(BatchXCom.__annotations__)
        known = {name: pushed.pop(name) for name in KNOWN}
        assert set(pushed.values()) == {None}
        return known

    return delete


def ended_batch_in(status: str, local: Any, client: Any, runs: int = 3) -> str:
    """Bring a batch into a status in which none of its runs is active."""
    batch_id = batch_in(status, local, client, runs)
    if status == "FAILED":
        local.clock.advance(100)
    local.faults.clear()
    return batch_id


def mapping(uri: str = URI) -> list[dict[str, Any]] | None:
    """Read the saved mapping; None if the object does not exist."""
    bucket, key = uri.removeprefix("s3://").split("/", 1)
    s3 = boto3.client("s3")
    if key not in {item["Key"] for item in s3.list_objects_v2(Bucket=bucket).get("Contents", [])}:
        return None
    return [json.loads(line) for line in s3.get_object(Bucket=bucket, Key=key)["Body"].read().splitlines()]


def is_gone(client: Any, batch_id: str) -> bool:
    try:
        client.get_batch(batchId=batch_id)
    except client.exceptions.ResourceNotFoundException:
        return True
    return False


def submissions_of(client: Any, batch_id: str) -> dict[str, str]:
    rows = client.list_runs_in_batch(batchId=batch_id)["runs"]
    return {row["runSettingId"]: row["runId"] for row in rows if "runId" in row}


# What it does in each status


@each_mode
@pytest.mark.parametrize("status", DELETABLE)
def test_after_it_no_run_is_left(delete: Any, local: Any, client: Any, mode: str, status: str) -> None:
    batch_id = ended_batch_in(status, local, client)
    before = local.calls["DeleteRunBatch"]
    pushed = delete(batch_id, mode)
    assert runs_of(client, batch_id) == {}
    found = client.get_batch(batchId=batch_id)
    end = status if status in {"FAILED", "RUNS_DELETE_FAILED"} else "RUNS_DELETED"
    assert found["status"] == end
    assert pushed == {
        "id": batch_id,
        "arn": found["arn"],
        "uuid": found["uuid"],
        "status": end,
        "batch_deleted": False,
        "mapping_s3_uri": None,
    }
    assert local.calls["DeleteRunBatch"] - before == (1 if status in {"PROCESSED", "CANCELLED"} else 0)
    assert local.calls["DeleteRun"] == {"FAILED": 2, "RUNS_DELETE_FAILED": 1}.get(status, 0)


@each_mode
@pytest.mark.parametrize("status", DELETABLE)
def test_after_it_the_batch_is_gone_and_its_mapping_saved(
    delete: Any, local: Any, client: Any, mode: str, status: str
) -> None:
    batch_id = ended_batch_in(status, local, client)
    run_ids = submissions_of(client, batch_id)
    pushed = delete(batch_id, mode, **GONE)
    assert is_gone(client, batch_id)
    assert client.list_runs().get("items", []) == []
    assert (pushed["batch_deleted"], pushed["mapping_s3_uri"]) == (True, URI)
    saved = mapping()
    assert saved is not None
    assert {record["run_setting_id"]: record["run_id"] for record in saved} == run_ids
    again = delete(batch_id, mode, **GONE)
    assert again == {**pushed, "arn": None, "uuid": None, "status": None}
    assert mapping() == saved


@pytest.mark.parametrize("status", DELETABLE)
def test_a_second_try_changes_nothing(delete: Any, local: Any, client: Any, status: str) -> None:
    batch_id = ended_batch_in(status, local, client)
    first = delete(batch_id, save_mapping_s3_uri=URI)
    before = status_of(client, batch_id), mapping()
    calls = local.calls["DeleteRunBatch"], local.calls["DeleteRun"]
    assert delete(batch_id, save_mapping_s3_uri=URI) == first
    assert (status_of(client, batch_id), mapping()) == before
    assert (local.calls["DeleteRunBatch"], local.calls["DeleteRun"]) == calls


@each_mode
@pytest.mark.parametrize("status", ACTIVE)
def test_an_active_batch_is_left_alone(delete: Any, local: Any, client: Any, mode: str, status: str) -> None:
    batch_id = batch_in(status, local, client)
    with pytest.raises(
        BatchConflictError,
        match=rf"^Cannot delete the runs of batch {batch_id}: it is still {status}\. Cancel it first \(CancelRunBatchO",
    ) as caught:
        delete(batch_id, mode, **GONE)
    assert (caught.value.batch_id, caught.value.status) == (batch_id, status)
    assert isinstance(caught.value, AirflowFailException)
    assert mapping() is None
    assert local.calls["DeleteRunBatch"] == local.calls["DeleteBatch"] == local.calls["DeleteRun"] == 0


@each_mode
@pytest.mark.parametrize(("status", "shown"), [("RUNS_ARCHIVED", "RUNS_ARCHIVED"), (None, "without a status")])
def test_an_unknown_status_is_left_alone(
    delete: Any, local: Any, client: Any, caplog: Any, capsys: Any, mode: str, status: str | None, shown: str
) -> None:
    batch_id = batch_in("PROCESSED", local, client)
    unknown = f"it is {shown}, and this version of the package does not know that status"
    with (
        changed_answers("GetBatch", {"status": status}),
        pytest.raises(BatchConflictError, match=f"^Cannot delete the runs of batch {batch_id}: {unknown}") as caught,
    ):
        delete(batch_id, mode, **GONE)
    assert caught.value.status == status
    assert "None" not in str(caught.value) + caplog.text + capsys.readouterr().out
    assert mapping() is None
    assert local.calls["DeleteRunBatch"] == local.calls["DeleteRun"] == local.calls["DeleteBatch"] == 0


def test_a_batch_without_a_run(delete: Any, local: Any, client: Any) -> None:
    for run_setting_id in ("sample-0", "sample-1", "sample-2"):
        local.faults.fail_submission(run_setting_id, reason="AccessDeniedException")
    batch_id = batch_in("PROCESSED", local, client)
    delete(batch_id, **GONE)
    assert is_gone(client, batch_id)
    saved = mapping()
    assert saved is not None
    assert [record["reason"] for record in saved] == ["AccessDeniedException"] * 3


# Parameters


def test_a_batch_is_not_deleted_without_its_mapping(delete: Any, local: Any, client: Any) -> None:
    batch_id = batch_in("PROCESSED", local, client)
    before = sum(local.calls.values())
    with pytest.raises(
        OmicsParameterError,
        match="save_mapping_s3_uri must be set for delete_batch=True, because the mapping is deleted with the batch",
    ):
        delete(batch_id, delete_batch=True)
    assert sum(local.calls.values()) == before


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"batch_id": None}, "batch_id must be an id of 1 to 18 digits; got None"),
        ({"batch_id": ""}, "batch_id must be an id of 1 to 18 digits; got ''"),
        ({"batch_id": "None"}, "batch_id must be an id of 1 to 18 digits; got 'None'"),
        ({**GONE, "save_mapping_s3_uri": ""}, "save_mapping_s3_uri must be an s3:// URI with a bucket; got ''"),
        ({"save_mapping_s3_uri": "/tmp/mapping"}, "save_mapping_s3_uri must be an s3:// URI with a bucket"),
        ({"save_mapping_s3_uri": f"s3://{BUCKET}"}, "save_mapping_s3_uri must be s3://bucket/key"),
        ({**GONE, "s3_extra_args": {"Colour": "red"}}, "s3_extra_args must have only keys of S3 uploads, for"),
        ({**GONE, "wait_for_completion": False}, "wait_for_completion must be True for delete_batch=True"),
    ],
)
def test_bad_input_is_refused_before_the_first_call(delete: Any, local: Any, parameters: Any, text: str) -> None:
    with pytest.raises(OmicsParameterError) as caught:
        delete(**{"batch_id": "7", **parameters})
    assert text in str(caught.value)
    assert sum(local.calls.values()) == 0


@pytest.mark.parametrize("value", [None, "", "None"])
def test_as_a_teardown_it_needs_no_batch(local: Any, task_context: dict[str, Any], value: Any) -> None:
    operator = DeleteRunBatchOperator(task_id="delete", batch_id=value, **GONE).as_teardown()
    assert operator.execute(task_context) is None
    assert sum(local.calls.values()) == 0


def test_a_batch_that_is_not_found(delete: Any, local: Any) -> None:
    for parameters in ({}, {"save_mapping_s3_uri": URI}, GONE):
        with pytest.raises(
            BatchNotFoundError, match=r"^Batch 7 was not found in account 123456789012, Region us-east-1"
        ) as caught:
            delete("7", **parameters)
        assert isinstance(caught.value.__cause__, ClientError)


def test_a_batch_that_is_gone_needs_its_own_mapping(delete: Any, local: Any, client: Any) -> None:
    batch_id = batch_in("PROCESSED", local, client)
    delete(batch_id, **GONE)
    with pytest.raises(BatchNotFoundError):
        delete(batch_id, **{**GONE, "save_mapping_s3_uri": f"s3://{BUCKET}/other.jsonl"})
    with pytest.raises(BatchNotFoundError):
        delete("7", **GONE)
    boto3.client("s3").put_object(Bucket=BUCKET, Key="mapping.jsonl", Body=b"precious")
    with pytest.raises(BatchNotFoundError):
        delete(batch_id, **GONE)


def test_the_mapping_of_another_batch_is_not_overwritten(delete: Any, local: Any, client: Any) -> None:
    first = batch_in("PROCESSED", local, client)
    delete(first, **GONE)
    saved = mapping()
    second = batch_in("PROCESSED", local, client)
    with pytest.raises(
        OmicsParameterError,
        match="^save_mapping_s3_uri must not name an object with other content: the object exists and has the "
        f"mapping of batch {first}. Choose another URI; ",
    ):
        delete(second, **GONE)
    assert mapping() == saved
    assert len(runs_of(client, second)) == 3


# The mapping


def test_the_mapping_is_that_of_the_submission_sensor(
    delete: Any, local: Any, client: Any, task_context: dict[str, Any]
) -> None:
    local.faults.fail_submission("sample-1", reason="ValidationException", message="bad")
    batch_id = batch_in("PROCESSED", local, client)
    by_sensor = f"s3://{BUCKET}/sensor.jsonl"
    BatchSubmissionSensor(
        task_id="wait", batch_id=batch_id, mapping_s3_uri=by_sensor, max_failed_submissions=1
    ).execute(task_context)
    delete(batch_id, save_mapping_s3_uri=URI)
    assert mapping() == mapping(by_sensor)


@pytest.mark.parametrize("status", DELETABLE)
def test_something_else_is_not_taken_for_the_mapping(delete: Any, local: Any, client: Any, status: str) -> None:
    batch_id = ended_batch_in(status, local, client)
    runs = runs_of(client, batch_id)
    s3 = boto3.client("s3")
    s3.put_object(Bucket=BUCKET, Key="mapping.jsonl", Body=b"precious", Metadata={"team": "a"})
    with pytest.raises(
        OmicsParameterError, match=f"the object exists and is not a mapping. Choose another URI; got '{URI}'"
    ):
        delete(batch_id, **GONE)
    assert s3.get_object(Bucket=BUCKET, Key="mapping.jsonl")["Body"].read() == b"precious"
    assert runs_of(client, batch_id) == runs
    assert not is_gone(client, batch_id)


@pytest.mark.parametrize("wins", ["this one", "the other one"])
def test_of_two_batches_that_are_saved_to_one_object_one_is_left(
    delete: Any, local: Any, client: Any, monkeypatch: pytest.MonkeyPatch, wins: str
) -> None:
    """The other batch's task looks before this one writes, and writes afterwards; or it writes first."""
    first, second = ended_batch_in("PROCESSED", local, client), ended_batch_in("PROCESSED", local, client)
    list_submissions = mapping_module.list_submissions

    def delete_second() -> None:
        monkeypatch.setattr(mapping_module, "list_submissions", list_submissions)
        if wins == "the other one":
            delete(second, **GONE)
        else:
            with pytest.raises(OmicsParameterError, match=f"exists and has the mapping of batch {first}\\. Choose"):
                delete(second, **GONE)

    def interrupted(*args: Any, **members: Any) -> Any:
        delete_second()
        return list_submissions(*args, **members)

    if wins == "this one":
        delete(first, **GONE)
        delete_second()
    else:
        monkeypatch.setattr(mapping_module, "list_submissions", interrupted)
        with pytest.raises(OmicsParameterError, match=f"exists and has the mapping of batch {second}\\. Choose"):
            delete(first, **GONE)
    kept, gone = (second, first) if wins == "this one" else (first, second)
    assert is_gone(client, gone)
    assert len(runs_of(client, kept)) == 3


def test_a_mapping_that_is_gone_or_replaced_keeps_the_batch(delete: Any, local: Any, client: Any) -> None:
    batch_id = ended_batch_in("PROCESSED", local, client)
    s3 = boto3.client("s3")
    delete(batch_id, save_mapping_s3_uri=URI)
    delete_existing_runs = operator_module.delete_existing_runs
    changes = [
        partial(s3.delete_object, Bucket=BUCKET, Key="mapping.jsonl"),
        partial(s3.put_object, Bucket=BUCKET, Key="mapping.jsonl", Body=b"", Metadata={"healthomics-batch-id": "7"}),
    ]
    for change, error in zip(changes, [OmicsError, OmicsParameterError], strict=True):

        def interrupted(*args: Any, change: Any = change, **members: Any) -> None:
            delete_existing_runs(*args, **members)
            change()

        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(operator_module, "delete_existing_runs", interrupted)
            with pytest.raises(error) as caught:
                delete(batch_id, **GONE)
        assert isinstance(caught.value, AirflowFailException) == (error is OmicsParameterError)
        assert not is_gone(client, batch_id)
    s3.delete_object(Bucket=BUCKET, Key="mapping.jsonl")
    delete(batch_id, **GONE)
    assert is_gone(client, batch_id)
    assert len(mapping() or ()) == 3


def test_what_an_earlier_try_has_saved_is_kept(delete: Any, local: Any, client: Any) -> None:
    local.settings.delete_seconds = 10_000
    batch_id = batch_in("PROCESSED", local, client)
    delete(batch_id, save_mapping_s3_uri=URI, wait_for_completion=False)
    saved = mapping()
    assert {record["status"] for record in saved or ()} == {"SUCCESS"}
    assert status_of(client, batch_id) == "RUNS_DELETING"
    assert {row["submissionStatus"] for row in client.list_runs_in_batch(batchId=batch_id)["runs"]} == {
        "DELETE_SUCCESS"
    }
    delete(batch_id, **GONE)
    assert mapping() == saved
    assert is_gone(client, batch_id)


@pytest.mark.parametrize("status", ["PROCESSED", "CANCELLED", "FAILED"])
def test_an_incomplete_listing_is_not_saved_and_deletes_nothing(
    delete: Any, local: Any, client: Any, status: str
) -> None:
    batch_id = ended_batch_in(status, local, client, runs=5)
    runs = runs_of(client, batch_id)
    local.faults.lagging_listing(rows=3)
    with pytest.raises(
        IncompleteListingError, match=r"its mapping cannot be saved yet: \d started runs are not listed"
    ) as caught:
        delete(batch_id, **GONE)
    assert not isinstance(caught.value, AirflowFailException)
    assert mapping() is None
    assert runs_of(client, batch_id) == runs
    local.faults.clear()
    delete(batch_id, **GONE)
    assert is_gone(client, batch_id)


NO_COUNTS = {"submissionSummary": None, "totalRuns": None, "runSummary": None}


@pytest.mark.parametrize("answer", [{}, NO_COUNTS], ids=["counted", "not counted"])
@pytest.mark.parametrize("status", DELETABLE)
def test_a_listing_that_lags_behind_is_waited_for(
    delete: Any, local: Any, client: Any, status: str, answer: dict[str, Any]
) -> None:
    batch_id = ended_batch_in(status, local, client, runs=5)
    run_ids = submissions_of(client, batch_id)
    local.faults.lagging_listing(rows=3, seconds=60)
    with changed_answers("GetBatch", answer):
        delete(batch_id, save_mapping_s3_uri=URI, wait_for_completion=False)
    assert {record["run_setting_id"]: record["run_id"] for record in mapping() or () if record["run_id"]} == run_ids


def test_of_an_old_batch_two_listings_that_agree_are_enough(delete: Any, local: Any, client: Any) -> None:
    batch_id = ended_batch_in("PROCESSED", local, client)
    local.clock.advance(300)
    start = local.clock.elapsed()
    with changed_answers("GetBatch", NO_COUNTS):
        delete(batch_id, save_mapping_s3_uri=URI, wait_for_completion=False)
    assert local.clock.elapsed() - start < 5
    assert len(mapping() or ()) == 3


def swap_run_ids(rows: list[dict[str, Any]]) -> None:
    rows[0]["runId"], rows[1]["runId"] = rows[1]["runId"], rows[0]["runId"]


@pytest.mark.parametrize(
    ("change", "looks"),
    [
        (lambda rows: rows.reverse(), 2),
        (lambda rows: rows[0].update(submissionStatus="SUCCESS"), 2),
        (lambda rows: rows[0].update(runId="9999999"), 3),
        (lambda rows: rows[0].pop("runId"), 3),
        (lambda rows: rows[0].pop("runSettingId"), 3),
        (lambda rows: rows[0].update(runSettingId="sample-1"), 3),
        (lambda rows: rows.append({**rows[0], "runId": "9999999"}), 3),
        (swap_run_ids, 3),
    ],
    ids=["order", "status", "run id", "no run id", "no setting", "repeated", "one more", "swapped"],
)
def test_listings_agree_whose_mapping_is_the_same(
    delete: Any, local: Any, client: Any, change: Callable[[list[dict[str, Any]]], Any], looks: int
) -> None:
    """The first listing is another one; what is saved was listed twice."""
    batch_id = ended_batch_in("RUNS_DELETED", local, client)
    local.clock.advance(300)
    rows = client.list_runs_in_batch(batchId=batch_id)["runs"]
    run_ids = submissions_of(client, batch_id)
    change(rows)
    calls = local.calls["ListRunsInBatch"]
    with changed_answers("GetBatch", NO_COUNTS), changed_answers("ListRunsInBatch", {"runs": rows}, times=1):
        delete(batch_id, save_mapping_s3_uri=URI, wait_for_completion=False)
    assert local.calls["ListRunsInBatch"] - calls == looks
    assert {record["run_setting_id"]: record["run_id"] for record in mapping() or ()} == run_ids


@pytest.mark.parametrize(
    ("change", "unlisted"),
    [
        (lambda rows: rows[0].pop("runSettingId"), 1),
        (lambda rows: rows[0].pop("runId"), 1),
        (lambda rows: rows[0].update(runId="9999999"), 1),
        (lambda rows: rows.append({**rows[0], "runId": "9999999"}), 1),
        (lambda rows: [row.update(runSettingId="sample-0") for row in rows], 2),
    ],
    ids=["no setting", "no run id", "another run id", "another run id at last", "one setting"],
)
@pytest.mark.parametrize("status", ["PROCESSED", "CANCELLED"])
def test_a_run_without_a_setting_is_not_listed(
    delete: Any, local: Any, client: Any, status: str, change: Callable[[list[dict[str, Any]]], Any], unlisted: int
) -> None:
    batch_id = ended_batch_in(status, local, client)
    rows = client.list_runs_in_batch(batchId=batch_id)["runs"]
    change(rows)
    with (
        changed_answers("ListRunsInBatch", {"runs": rows}),
        pytest.raises(IncompleteListingError, match=f": {unlisted} started runs are not listed"),
    ):
        delete(batch_id, **GONE)
    assert mapping() is None
    assert len(runs_of(client, batch_id)) == 3


def test_a_listing_that_repeats_a_run_is_not_saved(delete: Any, local: Any, client: Any) -> None:
    batch_id = ended_batch_in("PROCESSED", local, client)
    rows = client.list_runs_in_batch(batchId=batch_id)["runs"]
    with (
        changed_answers("ListRunsInBatch", {"runs": [*rows, rows[0]]}),
        pytest.raises(IncompleteListingError, match="1 of 4 listed runs repeat a runSettingId"),
    ):
        delete(batch_id, **GONE)
    assert mapping() is None


@pytest.mark.large
def test_saving_a_mapping_takes_at_most_twice_the_memory_of_the_mapping(
    delete: Any, local: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two listings are compared. What the local service and its S3 keep of them does not count."""
    runs = 30_000
    peaks: list[int] = []

    def listed(*_: Any, number: int, **__: Any) -> Iterator[dict[str, str]]:
        for n in range(number):
            run_id = str(1_000_000 + n)
            yield {"runSettingId": f"sample-{n}", "runId": run_id, "id": run_id, "submissionStatus": "SUCCESS"}

    def measure(*_: Any, **__: Any) -> None:
        peaks.append(tracemalloc.get_traced_memory()[1])

    tracemalloc.start()
    try:
        held = {row["runSettingId"]: row["runId"] for row in listed(number=runs)}
        size = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(held) == runs
    monkeypatch.setattr(mapping_module, "put_object", measure)
    for number in (100, 100, runs):  # the first one loads what is loaded once, the second one measures the client
        batch_id = ended_batch_in("PROCESSED", local, client)
        local.clock.advance(300)
        monkeypatch.setattr(mapping_module, "list_submissions", partial(listed, number=number))
        monkeypatch.setattr(mapping_module, "list_started_runs", partial(listed, number=number))
        with changed_answers("GetBatch", NO_COUNTS):
            tracemalloc.start()
            try:
                delete(batch_id, save_mapping_s3_uri=URI, wait_for_completion=False)
            finally:
                tracemalloc.stop()
    _, client_alone, peak = peaks
    assert peak - client_alone <= 2 * size


def test_the_wait_for_a_listing_ends_at_the_deadline(delete: Any, local: Any, client: Any) -> None:
    batch_id = ended_batch_in("PROCESSED", local, client, runs=5)
    local.faults.lagging_listing(rows=3)
    start = local.clock.elapsed()
    with pytest.raises(IncompleteListingError):
        delete(batch_id, save_mapping_s3_uri=URI, timeout=20)
    assert local.clock.elapsed() - start <= 20


def test_a_partial_mapping_is_saved_again_while_no_run_is_deleted(delete: Any, local: Any, client: Any) -> None:
    batch_id = ended_batch_in("PROCESSED", local, client)
    own = {"healthomics-batch-id": batch_id, "healthomics-batch-rows": "1"}
    boto3.client("s3").put_object(Bucket=BUCKET, Key="mapping.jsonl", Body=b'{"partial": true}', Metadata=own)
    local.faults.error("DeleteRunBatch", code="AccessDeniedException")
    with pytest.raises(OmicsApiError, match="AccessDenied"):
        delete(batch_id, **GONE)
    assert len(mapping() or ()) == 3
    boto3.client("s3").put_object(Bucket=BUCKET, Key="mapping.jsonl", Body=b'{"partial": true}', Metadata=own)
    client.delete_run_batch(batchId=batch_id)
    delete(batch_id, save_mapping_s3_uri=URI)
    assert mapping() == [{"partial": True}]


def test_a_mapping_whose_upload_is_sent_twice(delete: Any, local: Any, client: Any) -> None:
    """The answer to the first one is lost, so that S3 refuses the second one."""
    batch_id = ended_batch_in("PROCESSED", local, client)
    sent: list[Any] = []

    def upload_before(params: dict[str, Any], **_: Any) -> None:
        if not sent:
            sent.append(params)
            body = params["Body"].read()
            params["Body"].seek(0)
            boto3.client("s3").put_object(**{**params, "Body": body})

    hook = ("provide-client-params.s3.PutObject", upload_before)
    with patch.object(botocore.handlers, "BUILTIN_HANDLERS", [*botocore.handlers.BUILTIN_HANDLERS, hook]):
        delete(batch_id, **GONE)
    assert sent
    assert is_gone(client, batch_id)
    assert len(mapping() or ()) == 3


def test_s3_that_refuses_the_mapping_deletes_nothing(delete: Any, local: Any, client: Any) -> None:
    batch_id = batch_in("PROCESSED", local, client)
    uri = "s3://missing-bucket/mapping.jsonl"
    with pytest.raises(OmicsApiError, match=f"^Cannot write save_mapping_s3_uri '{uri}': .*NoSuchBucket"):
        delete(batch_id, delete_batch=True, save_mapping_s3_uri=uri)
    denied = {"Error": {"Code": "403", "Message": "Forbidden"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
    deny = ("before-call.s3.HeadObject", lambda **_: (SimpleNamespace(status_code=403), denied))
    with (
        patch.object(botocore.handlers, "BUILTIN_HANDLERS", [*botocore.handlers.BUILTIN_HANDLERS, deny]),
        pytest.raises(
            OmicsApiError, match=f"^Cannot read save_mapping_s3_uri '{URI}': HeadObject failed: 403: Forbidden"
        ),
    ):
        delete(batch_id, **GONE)
    assert len(runs_of(client, batch_id)) == 3
    assert status_of(client, batch_id) == "PROCESSED"


def test_encryption_with_a_bucket_key(delete: Any, local: Any, client: Any) -> None:
    batch_id = batch_in("PROCESSED", local, client)
    delete(batch_id, **GONE, s3_extra_args={"ServerSideEncryption": "aws:kms", "BucketKeyEnabled": True})
    found = boto3.client("s3").head_object(Bucket=BUCKET, Key="mapping.jsonl")
    assert (found["ServerSideEncryption"], found["BucketKeyEnabled"]) == ("aws:kms", True)
    assert len(mapping() or ()) == 3
    assert is_gone(client, batch_id)


def test_an_unknown_option_of_the_upload_deletes_nothing(delete: Any, local: Any, client: Any) -> None:
    batch_id = batch_in("PROCESSED", local, client)
    options = {"ServerSideEncryption": "aws:kms", "BucketKeyEnabld": True}
    with pytest.raises(
        OmicsParameterError, match=r"^s3_extra_args must have only .*; got \['BucketKeyEnabld'\]$"
    ) as caught:
        delete(batch_id, **GONE, s3_extra_args=options)
    assert caught.value.parameter == "s3_extra_args"
    assert mapping() is None
    assert len(runs_of(client, batch_id)) == 3
    assert status_of(client, batch_id) == "PROCESSED"


def test_options_reach_s3(delete: Any, local: Any, client: Any) -> None:
    batch_id = batch_in("PROCESSED", local, client)
    options = {"ServerSideEncryption": "AES256", "Metadata": {"team": "a"}, "ExpectedBucketOwner": "123456789012"}
    delete(batch_id, **GONE, s3_extra_args=options)
    found = boto3.client("s3").head_object(Bucket=BUCKET, Key="mapping.jsonl")
    assert found["ServerSideEncryption"] == "AES256"
    assert found["Metadata"] == {
        "team": "a",
        "healthomics-batch-id": batch_id,
        "healthomics-batch-rows": "3",
    }


# Waiting


def test_without_waiting_it_asks_and_ends(delete: Any, local: Any, client: Any) -> None:
    batch_id = batch_in("PROCESSED", local, client)
    assert delete(batch_id, wait_for_completion=False)["status"] == "PROCESSED"
    assert status_of(client, batch_id) == "RUNS_DELETING"
    assert delete(batch_id, wait_for_completion=False)["status"] == "RUNS_DELETING"
    assert local.calls["DeleteRunBatch"] == 1


@each_mode
def test_a_timeout_is_an_error_to_retry(delete: Any, local: Any, client: Any, mode: str) -> None:
    local.settings.delete_seconds = 1_000
    batch_id = batch_in("PROCESSED", local, client)
    with pytest.raises(BatchTimeoutError) as caught:
        delete(batch_id, mode, timeout=100, **GONE)
    assert not isinstance(caught.value, AirflowFailException)
    assert not is_gone(client, batch_id)
    delete(batch_id, mode, **GONE)
    assert is_gone(client, batch_id)
    assert local.calls["DeleteRunBatch"] == 1


@each_mode
def test_answers_that_lag_behind_are_waited_out(delete: Any, local: Any, client: Any, mode: str) -> None:
    batch_id = batch_in("PROCESSED", local, client)
    with changed_answers("GetBatch", {"status": "PROCESSED"}, times=3):
        delete(batch_id, mode, **GONE)
    assert is_gone(client, batch_id)
    assert local.calls["DeleteRunBatch"] == 1


# Refusals, faults and crashes


@pytest.mark.parametrize("error", ["ConflictException", "ValidationException"])
def test_a_batch_that_changes_between_look_and_call(delete: Any, local: Any, client: Any, error: str) -> None:
    local.settings.wrong_state_error = error
    batch_id = batch_in("RUNS_DELETED", local, client)
    with changed_answers("GetBatch", {"status": "PROCESSED"}, times=1):
        assert delete(batch_id)["status"] == "RUNS_DELETED"


def test_the_mapping_is_saved_once_however_often_the_service_refuses(delete: Any, local: Any, client: Any) -> None:
    batch_id = batch_in("RUNS_DELETED", local, client)
    written: list[str] = []
    hook = ("provide-client-params.s3.PutObject", lambda params, **_: written.append(params["Key"]))
    with (
        changed_answers("GetBatch", {"status": "PROCESSED"}, times=2),
        patch.object(botocore.handlers, "BUILTIN_HANDLERS", [*botocore.handlers.BUILTIN_HANDLERS, hook]),
    ):
        delete(batch_id, save_mapping_s3_uri=URI)
    assert local.calls["DeleteRunBatch"] == 3, "one call brought the batch into its status, two were refused"
    assert written == ["mapping.jsonl"]


def test_a_refusal_that_stays_is_an_error(delete: Any, local: Any, client: Any) -> None:
    batch_id = batch_in("PROCESSED", local, client)
    local.faults.error("DeleteRunBatch", code="ConflictException", message="busy", times=None)
    with pytest.raises(
        OmicsApiError, match=f"^Batch {batch_id} is PROCESSED, and its runs were not deleted: .*busy"
    ) as (caught):
        delete(batch_id)
    assert isinstance(caught.value.__cause__, ClientError)
    assert not isinstance(caught.value, AirflowFailException)


@pytest.mark.parametrize(
    "operation", ["GetBatch", "DeleteRunBatch", "ListRuns", "ListRunsInBatch", "GetRun", "DeleteRun", "DeleteBatch"]
)
def test_throttling_is_waited_out(delete: Any, local: Any, client: Any, operation: str) -> None:
    batch_id = batch_in("PROCESSED", local, client)
    local.faults.fail_delete(["sample-1"])
    local.faults.throttle(operation, times=12)
    delete(batch_id, **GONE)
    assert is_gone(client, batch_id)
    assert client.list_runs().get("items", []) == []


@pytest.mark.parametrize("config", [None, ONE_ATTEMPT])
@pytest.mark.parametrize("status", ["PROCESSED", "CANCELLED", "FAILED", "RUNS_DELETE_FAILED"])
@pytest.mark.parametrize("operation", ["DeleteRunBatch", "DeleteRun", "DeleteBatch"])
def test_a_lost_answer(delete: Any, local: Any, client: Any, operation: str, status: str, config: Any) -> None:
    batch_id = ended_batch_in(status, local, client)
    run_ids = submissions_of(client, batch_id)
    local.faults.drop_connection(operation, after_effect=True)
    delete(batch_id, botocore_config=config, **GONE)
    local.faults.clear()
    delete(batch_id, **GONE)
    assert is_gone(client, batch_id)
    assert client.list_runs().get("items", []) == []
    assert {record["run_setting_id"]: record["run_id"] for record in mapping() or ()} == run_ids


@pytest.mark.parametrize(
    ("status", "owner", "name"),
    [
        ("PROCESSED", mapping_module, "list_submissions"),
        ("PROCESSED", OmicsCacheHook, "delete_run_batch"),
        ("PROCESSED", operator_module, "delete_runs_once"),
        ("PROCESSED", OmicsCacheHook, "delete_batch"),
        ("FAILED", mapping_module, "list_submissions"),
        ("FAILED", OmicsCacheHook, "delete_run"),
        ("FAILED", operator_module, "delete_runs_once"),
        ("FAILED", OmicsCacheHook, "delete_batch"),
    ],
)
def test_a_try_that_dies_after_the_call(
    delete: Any, local: Any, client: Any, status: str, owner: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = ended_batch_in(status, local, client)
    run_ids = submissions_of(client, batch_id)
    die(monkeypatch, owner, name)
    with pytest.raises(KeyboardInterrupt):
        delete(batch_id, **GONE)
    delete(batch_id, **GONE)
    assert is_gone(client, batch_id)
    assert client.list_runs().get("items", []) == []
    saved = mapping() or ()
    assert {record["run_setting_id"]: record["run_id"] for record in saved} == run_ids
    assert {record["status"] for record in saved} == {"SUCCESS"}


def test_a_try_after_a_failed_one(delete: Any, local: Any, client: Any) -> None:
    batch_id = batch_in("PROCESSED", local, client)
    local.faults.error("DeleteBatch", code="AccessDeniedException", message="not you")
    with pytest.raises(OmicsApiError, match="DeleteBatch failed: AccessDeniedException: not you"):
        delete(batch_id, **GONE)
    assert not is_gone(client, batch_id)
    delete(batch_id, **GONE)
    assert is_gone(client, batch_id)


@pytest.mark.parametrize("error", ["ConflictException", "ValidationException"])
def test_a_batch_that_is_busy_is_deleted_later(delete: Any, local: Any, client: Any, error: str) -> None:
    batch_id = batch_in("PROCESSED", local, client)
    local.faults.error("DeleteBatch", code=error, times=3)
    delete(batch_id, **GONE)
    assert is_gone(client, batch_id)
    batch_id = batch_in("PROCESSED", local, client)
    local.faults.error("DeleteBatch", code=error, message="busy", times=None)
    with pytest.raises(OmicsApiError, match=f"^Batch {batch_id} is RUNS_DELETED and was not deleted: .*busy") as caught:
        delete(batch_id, delete_batch=True, save_mapping_s3_uri=f"s3://{BUCKET}/other.jsonl")
    assert not isinstance(caught.value, AirflowFailException)


def test_a_batch_that_somebody_else_deletes(delete: Any, local: Any, client: Any) -> None:
    batch_id = batch_in("PROCESSED", local, client)
    delete_batch = OmicsCacheHook.delete_batch

    def refused(self: OmicsCacheHook, **members: Any) -> Any:
        delete_batch(self, **members)
        raise OmicsApiError("busy", code="ConflictException", http_status=409)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(OmicsCacheHook, "delete_batch", refused)
        assert delete(batch_id, **GONE)["batch_deleted"] is True


@pytest.mark.parametrize(("status", "shown"), [("RUNS_ARCHIVED", "RUNS_ARCHIVED"), (None, "without a status")])
def test_an_unknown_status_is_named_if_the_batch_cannot_be_deleted(
    local: Any, client: Any, caplog: Any, capsys: Any, status: str | None, shown: str
) -> None:
    batch_id = batch_in("RUNS_DELETED", local, client)
    local.faults.error("DeleteBatch", code="ConflictException", message="busy", times=None)
    caplog.set_level(logging.INFO)
    with (
        changed_answers("GetBatch", {"status": status}),
        pytest.raises(OmicsApiError, match=f"^Batch {batch_id} is {shown} and was not deleted: .*busy") as caught,
    ):
        end.delete_batch_once(OmicsCacheHook(), batch_id, max_seconds=20)
    assert "None" not in str(caught.value) + caplog.text + capsys.readouterr().out


@each_mode
@pytest.mark.parametrize(("status", "shown"), [("RUNS_ARCHIVED", "RUNS_ARCHIVED"), (None, "without a status")])
def test_an_unknown_status_is_named_while_the_runs_are_deleted(
    delete: Any, local: Any, client: Any, caplog: Any, capsys: Any, mode: str, status: str | None, shown: str
) -> None:
    local.settings.delete_seconds = 10_000
    batch_id = batch_in("PROCESSED", local, client)
    caplog.set_level(logging.INFO)
    answers = iter(["PROCESSED"])

    def change(parsed: dict[str, Any], **_: Any) -> None:
        parsed["status"] = next(answers, status)
        if parsed["status"] is None:
            del parsed["status"]

    hook = ("after-call.omics.GetBatch", change)
    with (
        patch.object(botocore.handlers, "BUILTIN_HANDLERS", [*botocore.handlers.BUILTIN_HANDLERS, hook]),
        pytest.raises(BatchTimeoutError, match=f"^Timed out. Batch {batch_id} is {shown}$") as caught,
    ):
        delete(batch_id, mode, timeout=100)
    printed = caplog.text + capsys.readouterr().out
    assert f"Batch {batch_id} is {shown}. This version of the package does not know this status." in printed
    assert "None" not in str(caught.value) + printed


@needs_aiobotocore
def test_what_cannot_be_deferred_asks_for_nothing(
    delete: Any, local: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = batch_in("PROCESSED", local, client)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(AirflowOptionalProviderFeatureException, match="deferrable=True needs aiobotocore"):
        delete(batch_id, "deferrable", **GONE)
    assert mapping() is None
    assert local.calls["DeleteRunBatch"] == 0


# One by one


@each_mode
def test_runs_that_are_not_listed_yet_are_deleted_too(delete: Any, local: Any, client: Any, mode: str) -> None:
    batch_id = ended_batch_in("FAILED", local, client)
    with changed_answers("ListRuns", {"items": []}, times=3):
        delete(batch_id, mode, **GONE)
    assert is_gone(client, batch_id)
    assert client.list_runs().get("items", []) == []
    assert local.calls["DeleteRun"] == 2


@each_mode
def test_what_a_partial_deletion_leaves_is_deleted_one_by_one(delete: Any, local: Any, client: Any, mode: str) -> None:
    batch_id = batch_in("PROCESSED", local, client, runs=10)
    local.faults.fail_delete(["sample-3", "sample-7"])
    pushed = delete(batch_id, mode, **GONE)
    assert pushed["status"] == "RUNS_DELETE_FAILED"
    assert is_gone(client, batch_id)
    assert client.list_runs().get("items", []) == []
    assert local.calls["DeleteRun"] == local.calls["GetRun"] == 2


@each_mode
def test_runs_that_are_left_are_named_and_keep_the_batch(delete: Any, local: Any, client: Any, mode: str) -> None:
    batch_id = batch_in("PROCESSED", local, client, runs=30)
    local.faults.fail_delete([f"sample-{n}" for n in range(25)])
    local.faults.error("DeleteRun", code="ConflictException", message="not now", times=None)
    with pytest.raises(
        OmicsError, match=r"Batch \d+: 25 runs were not deleted: run \d+ of sample-0: COMPLETED, "
    ) as caught:
        delete(batch_id, mode, **GONE)
    assert str(caught.value).count("of sample-") == 20
    assert "not now" in str(caught.value)
    assert not isinstance(caught.value, AirflowFailException)
    assert not is_gone(client, batch_id)
    assert local.calls["DeleteBatch"] == 0
    local.faults.clear()
    delete(batch_id, mode, **GONE)
    assert is_gone(client, batch_id)


def test_an_active_run_must_be_cancelled_first(delete: Any, local: Any, client: Any) -> None:
    local.settings.run_running_seconds = 10_000
    batch_id = batch_in("FAILED", local, client)
    with pytest.raises(OmicsError, match=r"2 runs were not deleted: run \d+ of sample-0: RUNNING, cancel it first; "):
        delete(batch_id, **GONE)
    assert local.calls["DeleteRun"] == local.calls["DeleteBatch"] == 0
    assert len(runs_of(client, batch_id)) == 2


def test_a_run_that_is_still_listed_is_left(delete: Any, local: Any, client: Any) -> None:
    batch_id = ended_batch_in("FAILED", local, client)
    (first, *_) = client.list_runs(batchId=batch_id)["items"]
    with (
        changed_answers("ListRuns", {"items": [first]}),
        pytest.raises(OmicsError, match=f": 1 runs were not deleted: run {first['id']}: deleted, but still listed$"),
    ):
        delete(batch_id, **GONE)
    assert not is_gone(client, batch_id)


def test_a_run_id_that_was_given_to_another_run_is_left_alone(
    delete: Any, local: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the listing and GetRun, the runs are deleted, and their ids are given to another batch's runs."""
    local.settings.reuse_run_ids = True
    ours = ended_batch_in("FAILED", local, client)
    run_ids = set(runs_of(client, ours))
    others: list[str] = []
    get_confirmed_runs = end.get_confirmed_runs

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        if not others:
            for run_id in run_ids:
                client.delete_run(id=run_id)
            others.append(batch_in("PROCESSED", local, client))
        return get_confirmed_runs(*args, **kwargs)

    monkeypatch.setattr(end, "get_confirmed_runs", interrupted)
    before = local.calls["DeleteRun"]
    delete(ours, **GONE)
    assert run_ids < set(runs_of(client, others[0])), "the ids were to be reused"
    assert len(runs_of(client, others[0])) == 3
    assert local.calls["DeleteRun"] - before == 2, "only the two calls of the test"


@pytest.mark.parametrize(
    ("operation", "changed"),
    [("GetRun", {"uuid": None}), ("GetRun", {"batchId": None}), ("ListRunsInBatch", {"runs": []})],
)
def test_a_run_that_is_not_confirmed_is_left_alone_and_named(
    delete: Any, local: Any, client: Any, operation: str, changed: dict[str, Any]
) -> None:
    batch_id = ended_batch_in("FAILED", local, client)
    with (
        changed_answers(operation, changed),
        pytest.raises(OmicsError, match=r"2 runs were not deleted: .*: COMPLETED, not confirmed as a run of the batch"),
    ):
        delete(batch_id)
    assert local.calls["DeleteRun"] == 0


# What Airflow sees


def test_all_but_switches_and_numbers_can_be_templated() -> None:
    assert set(DeleteRunBatchOperator.template_fields) == set(
        aws_template_fields("batch_id", "save_mapping_s3_uri", "s3_conn_id", "s3_extra_args")
    )


def test_an_id_may_be_a_number(delete: Any, local: Any, client: Any) -> None:
    batch_id = start_batch(client)
    local.clock.advance(1_000)
    assert delete(int(batch_id))["id"] == batch_id
