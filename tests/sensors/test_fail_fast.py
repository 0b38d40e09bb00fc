"""``fail_fast``: a wait that ends as soon as GetBatch counts more failures than are allowed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_omics_cache._compat import AirflowFailException
from airflow_provider_omics_cache.exceptions import TooManyFailedRunsError, TooManyFailedSubmissionsError
from airflow_provider_omics_cache.healthomics.rounds import Batch, Event, EventStatus
from airflow_provider_omics_cache.sensors.run_batch import BatchCompletionSensor, BatchSubmissionSensor
from tests.conftest import needs_aiobotocore, needs_batches
from tests.sensor_modes import TaskDeferred, each_mode, run_sensor, start_batch

pytestmark = needs_batches

RUNS = 100


@pytest.fixture
def wait(service: Any, task_context: dict[str, Any]) -> Callable[..., Any]:
    """Run a sensor in a mode until it ends."""

    def run(sensor: Any, mode: str, batch_id: str, **arguments: Any) -> Any:
        def make(**mode_arguments: Any) -> Any:
            everything = {"task_id": "wait", "poke_interval": 25, "timeout": 3_600, **arguments, **mode_arguments}
            return sensor(batch_id=batch_id, **everything)

        return run_sensor(make, mode, task_context, service.clock)

    return run


@pytest.fixture
def slow_batch(service: Any, client: Any) -> str:
    """A batch that submits one run a second, of which the first 17 fail."""
    service.settings.submission_rate = 1
    for number in range(17):
        service.faults.fail_submission(f"sample-{number}", message="no such role")
    return start_batch(client, RUNS)


@each_mode
def test_too_many_failed_submissions_end_the_wait(
    mode: str, service: Any, client: Any, slow_batch: str, wait: Callable[..., Any], task_context: dict[str, Any]
) -> None:
    began = service.clock.elapsed()
    with pytest.raises(TooManyFailedSubmissionsError) as caught:
        wait(BatchSubmissionSensor, mode, slow_batch, max_failed_submissions="5%", fail_fast=True)
    assert service.clock.elapsed() - began <= 50, "one interval, and the calls"
    batch = client.get_batch(batchId=slow_batch)
    assert batch["status"] == "SUBMITTING"
    assert batch["submissionSummary"]["pendingStartSubmissionCount"] > 50
    assert isinstance(caught.value, AirflowFailException)
    text = str(caught.value)
    assert text.startswith("17 submissions failed: ValidationException: no such role (sample-0, ")
    assert text.endswith(f". Batch {slow_batch} has 100 runs; max_failed_submissions is 5%; the batch continues")
    xcoms = task_context["ti"].xcoms
    assert xcoms["failed_submission_count"] == xcoms["batch"]["failed"] == len(xcoms["failed_submissions"]) == 17
    assert xcoms["batch"]["total_runs"] == RUNS
    assert set(xcoms["return_value"]) == {f"sample-{number}" for number in range(17, 17 + xcoms["batch"]["submitted"])}


@each_mode
def test_too_many_failed_runs_end_the_wait(
    mode: str, service: Any, client: Any, wait: Callable[..., Any], task_context: dict[str, Any]
) -> None:
    service.settings.submission_rate = 1
    service.faults.fail_submission("sample-0")
    for number in range(1, 9):
        service.faults.fail_run(f"sample-{number}", reason="SERVICE_ERROR")
    batch_id = start_batch(client, RUNS)
    with pytest.raises(TooManyFailedRunsError) as caught:
        wait(
            BatchCompletionSensor,
            mode,
            batch_id,
            max_failed_runs=8,
            fail_fast=True,
            runs_s3_uri="s3://results/runs.jsonl",
            include_outputs=True,
        )
    assert client.get_batch(batchId=batch_id)["status"] in {"SUBMITTING", "INPROGRESS"}
    text = str(caught.value)
    assert text.startswith("9 runs did not complete: SERVICE_ERROR")
    assert f". Batch {batch_id} has 100 runs; max_failed_runs is 8" in text
    assert text.endswith("; the batch continues")
    xcoms = task_context["ti"].xcoms
    assert xcoms["return_value"] == xcoms["run_counts"]
    assert (xcoms["run_counts"]["failed"], xcoms["run_counts"]["not_submitted"]) == (8, 1)
    assert xcoms["failed_run_count"] == 9
    assert {run["run_setting_id"] for run in xcoms["failed_runs"]} == {f"sample-{number}" for number in range(9)}
    assert sum(run["failure_reason"] == "SERVICE_ERROR" for run in xcoms["failed_runs"]) == 8


@pytest.mark.parametrize("arguments", [{"fail_fast": False}, {"fail_fast": True, "max_failed_submissions": "17%"}])
def test_a_wait_goes_on_within_the_limit_and_without_the_parameter(
    arguments: dict[str, Any], client: Any, slow_batch: str, wait: Callable[..., Any]
) -> None:
    if arguments["fail_fast"]:
        assert len(wait(BatchSubmissionSensor, "poke", slow_batch, **arguments)) == RUNS - 17
    else:
        with pytest.raises(TooManyFailedSubmissionsError, match=r"^17 submissions failed: ValidationException"):
            wait(BatchSubmissionSensor, "poke", slow_batch, **arguments)
    summary = client.get_batch(batchId=slow_batch)["submissionSummary"]
    assert summary.get("pendingStartSubmissionCount", 0) == 0


def test_runs_that_cannot_be_listed(
    service: Any, slow_batch: str, wait: Callable[..., Any], task_context: dict[str, Any]
) -> None:
    service.faults.error("ListRunsInBatch", code="AccessDeniedException", status=403, message="not for you")
    with pytest.raises(
        TooManyFailedSubmissionsError, match=r"^17 submissions failed\..*not be listed.*not for you.*continues"
    ):
        wait(BatchSubmissionSensor, "poke", slow_batch, fail_fast=True, max_failed_submissions=16)
    xcoms = task_context["ti"].xcoms
    assert xcoms["failed_submission_count"] == 17
    assert "return_value" not in xcoms


def test_a_failure_that_is_listed_twice_counts_once(
    slow_batch: str, wait: Callable[..., Any], task_context: dict[str, Any], answer_with: Callable[..., None]
) -> None:
    answer_with("ListRunsInBatch", lambda answer: {**answer, "runs": [*answer["runs"], *answer["runs"][:3]]})
    xcoms = task_context["ti"].xcoms
    with pytest.raises(TooManyFailedRunsError, match=r"^17 runs did not complete"):
        wait(BatchCompletionSensor, "poke", slow_batch, fail_fast=True)
    assert xcoms["failed_run_count"] == len(xcoms["failed_runs"]) == 17
    with pytest.raises(TooManyFailedSubmissionsError, match=r"^17 submissions failed"):
        wait(BatchSubmissionSensor, "poke", slow_batch, fail_fast=True)
    assert xcoms["failed_submission_count"] == len(xcoms["failed_submissions"]) == 17


def test_the_error_its_groups_and_the_xcom_have_the_same_number(
    slow_batch: str, wait: Callable[..., Any], task_context: dict[str, Any], answer_with: Callable[..., None]
) -> None:
    answer_with("ListRunsInBatch", lambda answer: {**answer, "runs": answer["runs"][3:]})
    xcoms = task_context["ti"].xcoms
    with pytest.raises(
        TooManyFailedRunsError, match=r"^17 runs did not.* and 9 more\); 3 more without details\. "
    ) as runs:
        wait(BatchCompletionSensor, "poke", slow_batch, fail_fast=True)
    assert "did not complete: not submitted, ValidationException: no such role" in str(runs.value)
    assert (xcoms["failed_run_count"], len(xcoms["failed_runs"])) == (17, 14)
    with pytest.raises(
        TooManyFailedSubmissionsError, match=r"^17 submissions .* and 9 more\); 3 more without details\. "
    ):
        wait(BatchSubmissionSensor, "poke", slow_batch, fail_fast=True)
    assert (xcoms["failed_submission_count"], len(xcoms["failed_submissions"])) == (17, 14)

    # GetBatch's counts are late.
    late = {"status": "SUBMITTING", "totalRuns": RUNS, "submissionSummary": {"failedStartSubmissionCount": 2}}
    answer_with("GetBatch", late)
    with pytest.raises(TooManyFailedRunsError, match=r"^14 runs did not.* and 9 more\)\. "):
        wait(BatchCompletionSensor, "poke", slow_batch, fail_fast=True)
    assert xcoms["failed_run_count"] == len(xcoms["failed_runs"]) == 14


def test_each_failed_run_that_is_listed_without_its_id_counts(
    slow_batch: str, wait: Callable[..., Any], task_context: dict[str, Any], answer_with: Callable[..., None]
) -> None:
    def without_ids(answer: dict[str, Any]) -> dict[str, Any]:
        for row in answer["runs"][:5]:
            row.pop("runSettingId")
        return answer

    answer_with("ListRunsInBatch", without_ids)
    with pytest.raises(TooManyFailedRunsError, match=r"^17 runs did not complete.*sample-9 and 12 more\)\. ") as caught:
        wait(BatchCompletionSensor, "poke", slow_batch, fail_fast=True)
    assert "None" not in str(caught.value)
    assert len(task_context["ti"].xcoms["failed_runs"]) == 17


def test_a_mapping_that_cannot_be_written_is_pushed_itself(
    slow_batch: str, wait: Callable[..., Any], task_context: dict[str, Any]
) -> None:
    with pytest.raises(
        TooManyFailedSubmissionsError, match=r"^17 submissions failed: Valid.*the batch continues$"
    ) as caught:
        wait(BatchSubmissionSensor, "poke", slow_batch, fail_fast=True, mapping_s3_uri="s3://missing/map.jsonl")
    assert "; the mapping was not written: Cannot write mapping_s3_uri 's3://missing/map.jsonl'" in str(caught.value)
    xcoms = task_context["ti"].xcoms
    assert len(xcoms["return_value"]) == xcoms["batch"]["submitted"] > 0


@needs_aiobotocore
@pytest.mark.parametrize("sensor", [BatchSubmissionSensor, BatchCompletionSensor])
@pytest.mark.parametrize("arguments", [{"fail_fast": False}, {"fail_fast": True}])
def test_a_task_that_allows_more_than_its_trigger_waits_again(
    sensor: Any, arguments: dict[str, Any], service: Any, task_context: dict[str, Any]
) -> None:
    """The file of the DAG was changed while the task was deferred."""
    batch = Batch(id="42", status="SUBMITTING", total_runs=RUNS, submitted=3, failed=17, pending=80)
    deadline = service.clock.now().timestamp() + 3_600
    event = Event(status=EventStatus.FAILED, deadline=deadline, batch=batch).to_json()
    limit = "max_failed_submissions" if sensor is BatchSubmissionSensor else "max_failed_runs"
    task = sensor(task_id="wait", batch_id="42", deferrable=True, **{limit: 17}, **arguments)
    with pytest.raises(TaskDeferred) as caught:
        task.execute_complete(task_context, event)
    assert caught.value.trigger.serialize()[1].get("max_failed") == (17 if arguments["fail_fast"] else None)
