"""DeleteRunBatchOperator saves a whole mapping or deletes nothing, however late counts and lists are."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_omics_cache._compat import AirflowFailException
from airflow_provider_omics_cache.exceptions import IncompleteListingError
from airflow_provider_omics_cache.operators.run_batch import DeleteRunBatchOperator
from tests.conftest import RecordedTaskInstance, needs_batches
from tests.late_answers import Late, cancel, late_lists, mapping_of, start_slow_batch, submit
from tests.operators.batch_states import batch_in, changed_answers, each_mode, run_operator, runs_of
from tests.sensor_modes import start_batch

pytestmark = needs_batches

BUCKET = "cohort-mappings"


@pytest.fixture(autouse=True)
def _bucket(local: Any) -> None:
    boto3.client("s3").create_bucket(Bucket=BUCKET)


@pytest.fixture
def delete(local: Any) -> Callable[..., None]:
    """Run one try of the operator."""

    def delete(batch_id: str, mode: str = "sync", **parameters: Any) -> None:
        def make(**arguments: Any) -> DeleteRunBatchOperator:
            return DeleteRunBatchOperator(
                task_id="delete",
                batch_id=batch_id,
                waiter_delay=5,
                delete_batch=True,
                save_mapping_s3_uri=f"s3://{BUCKET}/{batch_id}.jsonl",
                **parameters,
                **arguments,
            )

        ti = RecordedTaskInstance()
        run_operator(make, mode, {"ti": ti, "task_instance": ti, "run_id": ti.run_id}, local.clock)

    return delete


def saved_mapping(batch_id: str) -> dict[str, str] | None:
    s3 = boto3.client("s3")
    if f"{batch_id}.jsonl" not in {item["Key"] for item in s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])}:
        return None
    lines = s3.get_object(Bucket=BUCKET, Key=f"{batch_id}.jsonl")["Body"].read().splitlines()
    records = [json.loads(line) for line in lines]
    return {record["run_setting_id"]: record["run_id"] for record in records if record["run_id"]}


def is_gone(client: Any, batch_id: str) -> bool:
    try:
        client.get_batch(batchId=batch_id)
    except client.exceptions.ResourceNotFoundException:
        return True
    return False


@each_mode
@pytest.mark.parametrize("late", ["absent", "unsubmitted", "without run id"])
@pytest.mark.parametrize(("counts", "lists"), [(20, 20), (0, 20), (290, 290)])
def test_the_mapping_of_a_cancelled_batch_is_whole(
    counts: float, lists: float, late: Late, mode: str, delete: Callable[..., None], local: Any, client: Any
) -> None:
    batch_id = start_slow_batch(local, client, 12)
    submit(local, 9)
    cancel(local, client, batch_id)
    run_ids = mapping_of(client, batch_id)
    assert len(run_ids) == 9
    local.faults.stale_counts(seconds=counts)
    with late_lists(local, batch_id, client, lists, late):
        delete(batch_id, mode)
    assert saved_mapping(batch_id) == run_ids
    assert is_gone(client, batch_id)


def test_saving_takes_5_minutes_for_a_cancelled_batch_only(
    delete: Callable[..., None], local: Any, client: Any
) -> None:
    for status, longest in (("PROCESSED", 60), ("CANCELLED", 360)):
        batch_id = batch_in(status, local, client)
        before = local.clock.elapsed()
        delete(batch_id)
        assert longest - 60 <= local.clock.elapsed() - before <= longest


@pytest.mark.parametrize("status", ["PROCESSED", "CANCELLED", "FAILED", "RUNS_DELETED"])
@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda rows: rows[0].pop("runId"), "1 of 3 listed runs have the status SUCCESS but no runId"),
        (lambda rows: rows[0].update(runId=rows[1]["runId"]), "1 of 3 listed runs have the runId of another run"),
        (lambda rows: rows[0].pop("runSettingId"), "1 of 3 listed runs have no runSettingId"),
        (lambda rows: rows[0].update(runSettingId="sample-1"), "1 of 3 listed runs repeat a runSettingId"),
    ],
    ids=["without run id", "shared run id", "without setting", "repeated setting"],
)
def test_rows_that_contradict_themselves_are_not_saved(
    change: Callable[[list[dict[str, Any]]], object],
    text: str,
    status: str,
    delete: Callable[..., None],
    local: Any,
    client: Any,
) -> None:
    batch_id = batch_in(status, local, client)
    local.faults.clear()
    local.clock.advance(600)
    rows = client.list_runs_in_batch(batchId=batch_id)["runs"][:2]
    rows = [{**row, "submissionStatus": "SUCCESS"} for row in rows]
    rows.append({"runSettingId": "sample-2", "submissionStatus": "FAILED"})
    change(rows)
    # ListRuns cannot show that a run is missing.
    with (
        changed_answers("ListRunsInBatch", {"runs": rows}),
        changed_answers("ListRuns", {"items": []}),
        pytest.raises(IncompleteListingError, match=text) as caught,
    ):
        delete(batch_id)
    assert not isinstance(caught.value, AirflowFailException)
    assert "Retry the task" in str(caught.value)
    assert saved_mapping(batch_id) is None
    assert not is_gone(client, batch_id)


def test_a_mapping_with_a_hole_is_found_before_the_batch_is_deleted(
    delete: Callable[..., None], local: Any, client: Any
) -> None:
    """An earlier try has saved 6 of 9 runs and has deleted all runs."""
    batch_id = start_slow_batch(local, client, 12)
    submit(local, 9)
    cancel(local, client, batch_id)
    run_ids = mapping_of(client, batch_id)
    own = {"healthomics-batch-id": batch_id, "healthomics-batch-rows": "6"}
    boto3.client("s3").put_object(Bucket=BUCKET, Key=f"{batch_id}.jsonl", Body=b"", Metadata=own)
    client.delete_run_batch(batchId=batch_id)
    local.clock.advance(60)
    delete(batch_id)
    assert saved_mapping(batch_id) == run_ids
    assert is_gone(client, batch_id)


def test_without_time_for_5_minutes_nothing_is_deleted(delete: Callable[..., None], local: Any, client: Any) -> None:
    batch_id = batch_in("CANCELLED", local, client)
    before = local.clock.elapsed()
    with pytest.raises(IncompleteListingError, match="timeout must leave at least 300 s for it"):
        delete(batch_id, timeout=100)
    assert local.clock.elapsed() - before <= 100
    assert saved_mapping(batch_id) is None
    assert len(runs_of(client, batch_id)) == 3


@given(
    runs=st.integers(1, 8),
    submitted=st.integers(0, 8),
    failed=st.sets(st.integers(0, 7), max_size=3),
    ended=st.sampled_from(["PROCESSED", "CANCELLED", "FAILED"]),
    counts=st.integers(0, 300),
    lists=st.integers(0, 300),
    late=st.sampled_from(["absent", "unsubmitted", "without run id"]),
    wait=st.integers(0, 400),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_batch_is_deleted_only_with_its_whole_mapping(
    delete: Callable[..., None],
    local: Any,
    client: Any,
    runs: int,
    submitted: int,
    failed: set[int],
    ended: str,
    counts: int,
    lists: int,
    late: Late,
    wait: int,
) -> None:
    local.faults.clear()
    local.settings.submission_rate = 0.1
    submitted = min(submitted, runs)
    for number in failed:
        local.faults.fail_submission(f"sample-{number}")
    if ended == "FAILED":
        local.faults.fail_batch("broken", after="SUBMITTING", started_runs=max(0, submitted - len(failed)))
    batch_id = start_batch(client, runs)
    submit(local, submitted)
    if ended == "CANCELLED" and client.get_batch(batchId=batch_id)["status"] in {"SUBMITTING", "INPROGRESS"}:
        cancel(local, client, batch_id)
    else:
        local.clock.advance(runs * 10 + 40)
    local.clock.advance(wait if ended == "CANCELLED" else 40)
    run_ids = mapping_of(client, batch_id)
    local.faults.stale_counts(seconds=counts)
    with late_lists(local, batch_id, client, lists, late):
        try:
            delete(batch_id)
        except IncompleteListingError:
            assert not is_gone(client, batch_id)
            assert saved_mapping(batch_id) in (None, run_ids)
        else:
            assert is_gone(client, batch_id)
            assert saved_mapping(batch_id) == run_ids
