"""StartRunBatchOperator that waits for the end of its runs, in this process and in the triggerer."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from airflow_provider_omics_cache._compat import (
    AirflowException,
    AirflowFailException,
    AirflowOptionalProviderFeatureException,
)
from airflow_provider_omics_cache.exceptions import (
    BatchCancelledError,
    BatchDeletedError,
    BatchError,
    BatchFailedError,
    BatchNotFoundError,
    BatchSilenceError,
    BatchTimeoutError,
    OmicsApiError,
    OmicsError,
    OmicsParameterError,
    TooManyFailedRunsError,
    TriggerEventError,
)
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.operators.run_batch import CancelRunBatchOperator
from airflow_provider_omics_cache.tasks import run_records
from airflow_provider_omics_cache.triggers.run_batch import StartRunBatchTrigger
from tests.conftest import needs_aiobotocore, needs_batches
from tests.operators.batch_states import (
    ONE_ATTEMPT,
    changed_answers,
    each_mode,
    runs_of,
    status_of,
)
from tests.operators.batch_states import die as die_after
from tests.operators.waiting_task import Context, Later, Run, waiting_task
from tests.sensor_modes import TaskDeferred, fire

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics

pytestmark = needs_batches


def die() -> None:
    raise KeyboardInterrupt


def deferred(context: Context) -> Any:
    """Run the task until it is deferred; give its trigger."""
    with pytest.raises(TaskDeferred) as caught:
        waiting_task(deferrable=True).execute(context)
    return caught.value.trigger


# The ways to wait


@pytest.mark.parametrize(
    ("mode", "wait_for_completion"),
    [pytest.param("deferrable", True, marks=needs_aiobotocore), ("sync", True), ("sync", False)],
)
def test_what_is_waited_for_and_what_is_deferred(
    mode: str, wait_for_completion: bool, run: Run, client: Any, task_context: Context
) -> None:
    batch_id = run(mode, task_context, wait_for_completion=wait_for_completion)
    xcoms = task_context["ti"].xcoms
    assert batch_id == xcoms["return_value"] == xcoms["batch"]["id"]
    assert (status_of(client, batch_id) == "PROCESSED") == wait_for_completion
    counts = {"run_counts", "failed_runs", "failed_run_count"}
    assert set(xcoms) == {"return_value", "batch"} | (counts if wait_for_completion else set())
    deferrals = task_context.get("deferrals", [])
    assert len(deferrals) == (mode == "deferrable" and wait_for_completion)
    for deferral in deferrals:
        assert isinstance(deferral.trigger, StartRunBatchTrigger)
        assert deferral.method_name == "execute_complete"


@each_mode
def test_a_task_that_pushes_no_result(mode: str, run: Run, task_context: Context) -> None:
    batch_id = run(mode, task_context, do_xcom_push=False)
    assert batch_id == task_context["ti"].xcoms["batch"]["id"]
    assert "return_value" not in task_context["ti"].xcoms


@needs_aiobotocore
def test_everything_reaches_the_trigger(
    local: LocalHealthOmics, run: Run, task_context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_GENOMICS", "aws://id:secret@/?region_name=eu-west-1")
    began = local.clock.now().timestamp()
    batch_id = run(
        "deferrable",
        task_context,
        waiter_delay=timedelta(seconds=30),
        timeout=1_000,
        max_silence=120,
        cancel_on_kill=True,
        aws_conn_id="genomics",
        region_name="us-east-1",
        verify=False,
        botocore_config={"read_timeout": 5},
    )
    (deferral,) = task_context["deferrals"]
    assert deferral.trigger.serialize()[1] == {
        "batch_id": batch_id,
        "poke_interval": 30,
        "deadline": began + 1_000,
        "max_silence": 120,
        "runs_wait": None,
        "cancel_on_kill": True,
        "aws_conn_id": "genomics",
        "region_name": "us-east-1",
        "verify": False,
        "botocore_config": {"read_timeout": 5},
    }
    assert deferral.timeout == timedelta(seconds=1_000 + 300)


@each_mode
def test_a_wait_that_is_over_is_not_deferred(mode: str, run: Run, task_context: Context) -> None:
    first = run()
    assert run(mode, task_context) == first
    assert "deferrals" not in task_context


def test_without_aiobotocore_nothing_is_started(
    local: LocalHealthOmics, run: Run, task_context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(AirflowOptionalProviderFeatureException, match=r"airflow-provider-omics-cache\[batch\]"):
        run("deferrable")
    assert local.calls.total() == 0
    task = waiting_task(wait_for_completion=False)
    task.deferrable = True  # as [operators] default_deferrable may set it
    assert task.execute(task_context)


@each_mode
def test_a_round_costs_one_call(mode: str, local: LocalHealthOmics, run: Run) -> None:
    local.settings.run_running_seconds = 10_000
    run(mode, waiter_delay=100)
    assert 90 <= local.calls.pop("GetBatch") <= 115
    assert local.calls == {"StartRunBatch": 1, "ListBatch": 1}


@each_mode
def test_the_batch_is_known_before_the_first_look_at_it(
    mode: str, run: Run, task_context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: list[bool] = []
    get_batch = OmicsCacheHook.get_batch

    def note(self: OmicsCacheHook, **members: Any) -> Any:
        known.append("batch" in task_context["ti"].xcoms)
        return get_batch(self, **members)

    monkeypatch.setattr(OmicsCacheHook, "get_batch", note)
    run(mode, task_context)
    assert len(known) > 1
    assert all(known)


# How it ends


@each_mode
def test_all_runs_complete(mode: str, run: Run, task_context: Context) -> None:
    batch_id = run(mode, task_context)
    xcoms = task_context["ti"].xcoms
    batch = xcoms["batch"]
    assert (batch["id"], batch["status"], batch["expected_runs"], batch["reattached"]) == (
        batch_id,
        "PROCESSED",
        4,
        False,
    )
    assert (batch["total_runs"], batch["submitted"], batch["failed"]) == (4, 4, 0)
    assert batch["name"].startswith("cohort.")
    assert xcoms["run_counts"] == {
        "total": 4,
        "completed": 4,
        "failed": 0,
        "cancelled": 0,
        "deleted": 0,
        "not_submitted": 0,
    }
    assert (xcoms["failed_runs"], xcoms["failed_run_count"]) == ([], 0)


@each_mode
def test_a_run_that_fails(
    mode: str, local: LocalHealthOmics, run: Run, the_batch: Callable[[], str], task_context: Context
) -> None:
    local.faults.fail_run("sample-1", reason="RUN_TASK_FAILED")
    with pytest.raises(
        TooManyFailedRunsError, match=r"^1 run did not complete: RUN_TASK_FAILED: .+ \(sample-1\)\."
    ) as caught:
        run(mode, task_context)
    assert isinstance(caught.value, AirflowFailException)
    assert caught.value.batch_id == the_batch()
    xcoms = task_context["ti"].xcoms
    assert xcoms["return_value"] == the_batch()
    assert (xcoms["run_counts"]["completed"], xcoms["run_counts"]["failed"]) == (3, 1)
    (failed,) = xcoms["failed_runs"]
    assert (failed["run_setting_id"], failed["status"]) == ("sample-1", "FAILED")


@each_mode
def test_a_run_that_is_never_submitted(mode: str, local: LocalHealthOmics, run: Run, task_context: Context) -> None:
    local.faults.fail_submission("sample-1", reason="ValidationException", message="no such input")
    with pytest.raises(TooManyFailedRunsError, match=r"not submitted, ValidationException: no such input \(sample-1\)"):
        run(mode, task_context)
    (failed,) = task_context["ti"].xcoms["failed_runs"]
    assert (failed["run_setting_id"], failed["status"]) == ("sample-1", "NOT_SUBMITTED")
    assert failed["status_message"] == "no such input"


@each_mode
@pytest.mark.parametrize("allowed", [2, "50%", " 50.0 % "])
def test_failures_that_are_allowed(
    mode: str, allowed: int | str, local: LocalHealthOmics, run: Run, task_context: Context, caplog: Any, capsys: Any
) -> None:
    local.faults.fail_run("sample-1", reason="RUN_TASK_FAILED")
    local.faults.fail_submission("sample-2", message="no such input")
    run(mode, task_context, max_failed_runs=allowed)
    written = caplog.text or capsys.readouterr().out  # Airflow 3 logs past the logging module
    (line,) = [line for line in written.splitlines() if "2 runs did not complete: RUN_TASK_FAILED: " in line]
    assert "warning" in line.lower()
    assert "not submitted, ValidationException: no such input (sample-2)" in line
    assert task_context["ti"].xcoms["failed_run_count"] == 2
    assert len(task_context["ti"].xcoms["failed_runs"]) == 2


@each_mode
@pytest.mark.parametrize("allowed", [1, "49%"])
def test_failures_beyond_what_is_allowed(mode: str, allowed: int | str, local: LocalHealthOmics, run: Run) -> None:
    local.faults.fail_run("sample-1")
    local.faults.fail_submission("sample-2")
    with pytest.raises(TooManyFailedRunsError, match=f"^2 runs did not complete: .*; max_failed_runs is {allowed}$"):
        run(mode, max_failed_runs=allowed)


@each_mode
def test_a_batch_that_fails_before_it_starts_a_run(
    mode: str, local: LocalHealthOmics, run: Run, task_context: Context
) -> None:
    local.faults.fail_batch("It broke", after="PENDING")
    with pytest.raises(BatchFailedError, match="failed: It broke; 0 of") as caught:
        run(mode, task_context)
    assert (caught.value.status, caught.value.reason) == ("FAILED", "It broke")
    assert task_context["ti"].xcoms["return_value"] == caught.value.batch_id
    assert run(mode) != caught.value.batch_id, "a cleared task starts another one"


@each_mode
def test_a_batch_that_fails_after_it_started_runs(
    mode: str, local: LocalHealthOmics, run: Run, client: Any, the_batch: Callable[[], str], task_context: Context
) -> None:
    local.settings.run_running_seconds = 500
    local.faults.fail_batch("It broke", after="SUBMITTING", started_runs=2)
    with pytest.raises(BatchFailedError, match=r"failed: It broke; 2 of 4 runs completed: not submitted \(2 runs\)"):
        run(mode, task_context)
    assert set(runs_of(client, the_batch()).values()) == {"COMPLETED"}, "it waits for the runs that go on"
    assert task_context["ti"].xcoms["run_counts"]["completed"] == 2
    with pytest.raises(BatchFailedError, match="set rerun_key to start a new batch"):
        run(mode)
    assert local.calls["StartRunBatch"] == 1


@each_mode
def test_a_human_cancels_the_batch(
    mode: str, local: LocalHealthOmics, run: Run, later: Later, client: Any, the_batch: Callable[[], str]
) -> None:
    later(12, lambda: client.cancel_run_batch(batchId=the_batch()))
    with pytest.raises(
        BatchCancelledError, match=r"was cancelled \(set a new rerun_key to start a new batch\); 0 of 4"
    ) as caught:
        run(mode)
    assert isinstance(caught.value, AirflowFailException)
    for _ in range(2):
        with pytest.raises(BatchCancelledError, match=r"it was cancelled\. Set rerun_key to start a new batch"):
            run(mode)
    assert caught.value.batch_id == the_batch()
    assert local.calls["StartRunBatch"] == 1
    assert run(mode, rerun_key="2") != caught.value.batch_id


@each_mode
def test_a_human_deletes_the_runs(
    mode: str, local: LocalHealthOmics, run: Run, later: Later, client: Any, the_batch: Callable[[], str]
) -> None:
    later(100, lambda: client.delete_run_batch(batchId=the_batch()))
    with pytest.raises(BatchDeletedError, match=r"is RUNS_DELET(ING|ED): its runs were deleted; 0 of 4"):
        run(mode, waiter_delay=150)
    with pytest.raises(BatchDeletedError, match=r"its runs were deleted\. Set rerun_key to start a new batch"):
        run(mode)
    assert local.calls["StartRunBatch"] == 1


@each_mode
def test_a_human_deletes_the_batch(
    mode: str, local: LocalHealthOmics, run: Run, later: Later, client: Any, the_batch: Callable[[], str]
) -> None:
    def delete() -> None:
        batch_id = the_batch()
        client.delete_run_batch(batchId=batch_id)
        local.clock.advance(10)
        client.delete_batch(batchId=batch_id)

    later(100, delete)
    with pytest.raises(BatchNotFoundError, match="was not found in account 123456789012, Region us-east-1") as caught:
        run(mode, waiter_delay=150)
    assert isinstance(caught.value, AirflowFailException)


@each_mode
@pytest.mark.parametrize("code", ["ThrottlingException", "InternalServerException"])
def test_rounds_without_an_answer_are_waited_out(
    mode: str, code: str, local: LocalHealthOmics, run: Run, later: Later
) -> None:
    later(10, lambda: local.faults.error("GetBatch", code=code, times=12))
    assert run(mode)
    assert local.calls["GetBatch"] > 14


@each_mode
def test_silence_fails_the_try_and_a_retry_goes_on(mode: str, local: LocalHealthOmics, run: Run, later: Later) -> None:
    later(10, lambda: local.faults.drop_connection("GetBatch", times=None, after_effect=False))
    with pytest.raises(BatchSilenceError, match=r"^Batch \d+: no answer") as caught:
        run(mode, max_silence=300)
    assert not isinstance(caught.value, AirflowFailException)
    local.faults.clear()
    assert run(mode) == caught.value.batch_id
    assert local.calls["StartRunBatch"] == 1


@each_mode
def test_access_that_is_denied_fails_the_try(mode: str, local: LocalHealthOmics, run: Run, later: Later) -> None:
    later(10, lambda: local.faults.error("GetBatch", code="AccessDeniedException", message="not you"))
    with pytest.raises(OmicsApiError, match="AccessDeniedException: not you") as caught:
        run(mode)
    assert not isinstance(caught.value, AirflowFailException)
    assert run(mode)


@each_mode
def test_counts_that_lag_behind_are_waited_for(
    mode: str, local: LocalHealthOmics, run: Run, later: Later, task_context: Context
) -> None:
    def lag() -> None:
        local.faults.stale_counts(seconds=60)

    later(25, lag)
    run(mode, task_context)
    assert task_context["ti"].xcoms["run_counts"]["completed"] == 4


@each_mode
def test_the_runs_and_their_outputs_in_s3(
    mode: str,
    local: LocalHealthOmics,
    run: Run,
    client: Any,
    task_context: Context,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The task has the settings, so it derives locations although some settings have their own ``outputUri``."""
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="results")
    local.faults.fail_run("sample-1")
    settings = [
        {"runSettingId": f"sample-{n}", **({"outputUri": f"s3://results/own/{n}"} if n % 3 == 0 else {})}
        for n in range(60)
    ]
    uri = "s3://results/maps/runs.jsonl"
    wait = partial(
        run, mode, task_context, run_settings=settings, runs_s3_uri=uri, include_outputs=True, max_failed_runs=1
    )
    # The worker is lost after the last call, before the records are written. The retry writes them.
    die_after(monkeypatch, run_records.RunRecords, "_locations")
    with pytest.raises(KeyboardInterrupt):
        wait()
    batch_id = wait()
    assert task_context["ti"].xcoms["return_value"] == batch_id
    # Each try calls GetRun for the failed run, and for a sample of the completed runs.
    assert (local.calls["StartRunBatch"], local.calls["GetRun"]) == (1, 2 * (1 + 20))
    body = s3.get_object(Bucket="results", Key="maps/runs.jsonl")["Body"].read().decode()
    records = {record["run_setting_id"]: record for record in map(json.loads, body.splitlines())}
    assert {name: record["status"] for name, record in records.items()} == {
        f"sample-{n}": "FAILED" if n == 1 else "COMPLETED" for n in range(60)
    }
    assert Counter(record["output_source"] for record in records.values()) == {"exact": 21, "derived": 39}
    for record in records.values():
        assert record["run_output_uri"] == client.get_run(id=record["run_id"])["runOutputUri"]


S3_EXTRA_ARGS = {"ServerSideEncryption": "aws:kms", "BucketKeyEnabled": True}
BOTH = {
    "run_settings": [{"runSettingId": f"sample-{number}"} for number in range(101)],
    "settings_s3_prefix": "s3://results/settings",
    "runs_s3_uri": "s3://results/runs.jsonl",
}


@each_mode
def test_the_settings_and_the_runs_are_written_with_the_same_arguments(
    mode: str, local: LocalHealthOmics, run: Run, task_context: Context
) -> None:
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="results")
    assert run(mode, task_context, **BOTH, s3_extra_args=S3_EXTRA_ARGS)
    keys = [entry["Key"] for entry in s3.list_objects_v2(Bucket="results")["Contents"]]
    assert [key.split("/")[0] for key in keys] == ["runs.jsonl", "settings"]
    for key in keys:
        found = s3.head_object(Bucket="results", Key=key)
        assert {name: found[name] for name in S3_EXTRA_ARGS} == S3_EXTRA_ARGS
    assert task_context["ti"].xcoms["run_counts"]["completed"] == 101


def test_an_unknown_argument_of_uploads_is_refused_by_one_rule(local: LocalHealthOmics, run: Run) -> None:
    errors = set()
    for left_out in ({"settings_s3_prefix", "run_settings"}, {"runs_s3_uri"}, set()):
        given = {name: value for name, value in BOTH.items() if name not in left_out}
        with pytest.raises(OmicsParameterError) as caught:
            run(**given, s3_extra_args={**S3_EXTRA_ARGS, "BucketKey": True})
        errors.add(str(caught.value))
    (error,) = errors
    assert error.startswith("s3_extra_args must have only keys of S3 uploads")
    assert error.endswith("got ['BucketKey']")
    assert local.calls.total() == 0


# Tries


@each_mode
def test_a_retry_finds_its_batch_and_goes_on_waiting(
    mode: str, local: LocalHealthOmics, run: Run, later: Later, the_batch: Callable[[], str], task_context: Context
) -> None:
    later(12, die)
    with pytest.raises(KeyboardInterrupt):
        run(mode)
    assert run(mode, task_context) == the_batch()
    assert task_context["ti"].xcoms["batch"]["reattached"] is True
    assert task_context["ti"].xcoms["run_counts"]["completed"] == 4
    assert local.calls["StartRunBatch"] == 1


@each_mode
@pytest.mark.parametrize("ends_well", [True, False])
def test_a_try_after_the_end_ends_the_same(
    mode: str, ends_well: bool, local: LocalHealthOmics, run: Run, new_task_context: Callable[[], Context]
) -> None:
    if not ends_well:
        local.faults.fail_run("sample-1")
    ends = []
    for _ in range(2):
        context = new_task_context()
        try:
            run(mode, context)
        except TooManyFailedRunsError as error:
            context["ti"].xcoms["error"] = str(error)
        del context["ti"].xcoms["batch"]
        ends.append(context["ti"].xcoms)
    assert ends[0] == ends[1]
    assert ("error" in ends[0]) != ends_well
    assert local.calls["StartRunBatch"] == 1


@each_mode
def test_a_lost_answer_starts_no_second_batch(
    mode: str, local: LocalHealthOmics, run: Run, the_batch: Callable[[], str], task_context: Context
) -> None:
    """The same token is sent again, for which the service returns the batch that it has started."""
    local.faults.drop_connection("StartRunBatch", after_effect=True)
    assert run(mode, task_context, botocore_config=ONE_ATTEMPT) == the_batch()
    assert task_context["ti"].xcoms["batch"]["reattached"] is False
    assert local.calls["StartRunBatch"] == 2


@each_mode
def test_a_worker_that_dies_before_the_answer_starts_no_second_batch(
    mode: str, local: LocalHealthOmics, run: Run, the_batch: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    die_after(monkeypatch, OmicsCacheHook, "start_run_batch")
    with pytest.raises(KeyboardInterrupt):
        run(mode)
    assert run(mode) == the_batch()
    assert local.calls["StartRunBatch"] == 1


# Deadlines


@each_mode
def test_a_timeout_lets_the_batch_go_on(mode: str, local: LocalHealthOmics, run: Run, task_context: Context) -> None:
    local.settings.run_running_seconds = 10_000
    before = local.clock.elapsed()
    with pytest.raises(BatchTimeoutError, match=r"^Timed out\. Batch \d+ is INPROGRESS") as caught:
        run(mode, task_context, timeout=timedelta(seconds=130))
    assert task_context["ti"].xcoms["batch"]["status"] == "INPROGRESS"
    assert 130 <= local.clock.elapsed() - before < 135
    assert not isinstance(caught.value, AirflowFailException)
    assert run(mode) == caught.value.batch_id
    assert local.calls["CancelRunBatch"] == 0
    assert local.calls["StartRunBatch"] == 1


@each_mode
def test_a_timeout_cancels_the_batch_if_that_is_wanted(
    mode: str, local: LocalHealthOmics, run: Run, client: Any, the_batch: Callable[[], str]
) -> None:
    local.settings.run_running_seconds = 10_000
    with pytest.raises(
        BatchCancelledError,
        match=r"^Timed out\. .*; cancel_on_timeout cancelled it\. Set a new rerun_key to start a new batch",
    ) as caught:
        run(mode, timeout=130, cancel_on_timeout=True)
    assert isinstance(caught.value, AirflowFailException)
    assert status_of(client, the_batch()) == "STOPPING"
    with pytest.raises(BatchCancelledError, match=r"was cancelled\. Set rerun_key"):
        run(mode, timeout=130, cancel_on_timeout=True)
    assert (local.calls["StartRunBatch"], local.calls["CancelRunBatch"]) == (1, 1)


@each_mode
def test_a_timeout_that_cannot_cancel_says_so(
    mode: str, local: LocalHealthOmics, run: Run, client: Any, the_batch: Callable[[], str]
) -> None:
    local.settings.run_running_seconds = 10_000
    local.faults.error("CancelRunBatch", code="AccessDeniedException", message="not you", times=None)
    with pytest.raises(
        BatchError, match=r"^Timed out\. .*; the batch could not be cancelled: .*AccessDeniedException: not you"
    ) as caught:
        run(mode, timeout=130, cancel_on_timeout=True)
    assert type(caught.value) is BatchError
    assert caught.value.batch_id == the_batch()
    assert status_of(client, the_batch()) == "INPROGRESS"


@each_mode
def test_a_timeout_of_a_batch_that_cannot_be_cancelled_yet_says_so(
    mode: str, local: LocalHealthOmics, run: Run, the_batch: Callable[[], str]
) -> None:
    local.settings.creating_seconds = 10_000
    with pytest.raises(BatchError, match="it is still CREATING and could not be cancelled") as caught:
        run(mode, timeout=130, cancel_on_timeout=True)
    assert caught.value.batch_id == the_batch()
    assert local.calls["CancelRunBatch"] == 0


@each_mode
def test_a_timeout_cancels_the_runs_of_a_failed_batch(
    mode: str, local: LocalHealthOmics, run: Run, client: Any, the_batch: Callable[[], str]
) -> None:
    local.settings.run_running_seconds = 10_000
    local.faults.fail_batch("It broke", after="SUBMITTING", started_runs=2)
    with pytest.raises(
        BatchTimeoutError, match="the batch is FAILED, and cancel_on_timeout cancelled those of its runs"
    ):
        run(mode, timeout=130, cancel_on_timeout=True)
    local.clock.advance(100)
    assert set(runs_of(client, the_batch()).values()) == {"CANCELLED"}
    with pytest.raises(BatchFailedError, match="at least 2 of its runs were started"):
        run(mode, timeout=130, cancel_on_timeout=True)
    assert local.calls["StartRunBatch"] == 1


@each_mode
def test_a_timeout_of_a_batch_that_is_being_cancelled(
    mode: str, local: LocalHealthOmics, run: Run, later: Later, client: Any, the_batch: Callable[[], str]
) -> None:
    local.settings.cancel_seconds = 10_000
    later(12, lambda: client.cancel_run_batch(batchId=the_batch()))
    with pytest.raises(BatchCancelledError, match=r"is STOPPING.*; it was cancelled before\. Set a new rerun_key"):
        run(mode, timeout=130, cancel_on_timeout=True)
    assert local.calls["CancelRunBatch"] == 1


def test_a_batch_that_ends_just_before_it_is_cancelled_is_for_a_retry(local: LocalHealthOmics, run: Run) -> None:
    ended = r"; the batch was not cancelled, because it has ended with the status PROCESSED$"
    with (
        changed_answers("GetBatch", {"status": "INPROGRESS"}, times=4),
        pytest.raises(BatchTimeoutError, match=ended) as caught,
    ):
        run(timeout=40, cancel_on_timeout=True)
    assert not isinstance(caught.value, AirflowFailException)
    assert run(timeout=40, cancel_on_timeout=True) == caught.value.batch_id
    assert local.calls["CancelRunBatch"] == 0


@needs_aiobotocore
@pytest.mark.parametrize(
    ("parameters", "cancels"),
    [
        ({}, None),
        ({"cancel_on_timeout": True}, "cancel_on_timeout"),
        ({"cancel_on_kill": True}, None),
    ],
)
def test_the_execution_timeout_of_a_deferred_task(
    parameters: dict[str, Any], cancels: str | None, local: LocalHealthOmics, run: Run
) -> None:
    local.settings.run_running_seconds = 10_000
    before = local.clock.elapsed()
    error = BatchCancelledError if cancels else BatchTimeoutError
    with pytest.raises(error, match=f"{cancels} cancelled it" if cancels else "^Timed out"):
        run("deferrable", execution_timeout=timedelta(seconds=200), **parameters)
    assert 179 < local.clock.elapsed() - before < 200
    assert local.calls["CancelRunBatch"] == bool(cancels)


@each_mode
def test_the_timeout_counts_from_the_start_of_the_wait(
    mode: str, local: LocalHealthOmics, run: Run, client: Any, the_batch: Callable[[], str]
) -> None:
    """About 50 minutes in which StartRunBatch is throttled are not part of ``timeout``."""
    local.settings.run_running_seconds = 10_000
    local.faults.throttle("StartRunBatch", times=130)
    began = local.clock.elapsed()
    with pytest.raises(BatchTimeoutError, match="is INPROGRESS"):
        run(mode, timeout=600, botocore_config=ONE_ATTEMPT)
    assert local.clock.elapsed() - began > 600 + 2_500
    waited = local.clock.now() - client.get_batch(batchId=the_batch())["creationTime"]
    assert 600 <= waited.total_seconds() < 610


@needs_aiobotocore
def test_the_execution_timeout_of_a_deferred_task_counts_from_the_start_of_the_task(
    local: LocalHealthOmics, run: Run
) -> None:
    """Airflow ends a deferred task at its execution timeout, even if the start was throttled."""
    local.settings.run_running_seconds = 10_000
    local.faults.throttle("StartRunBatch", times=8)
    began = local.clock.elapsed()
    with pytest.raises(BatchTimeoutError):
        run("deferrable", execution_timeout=timedelta(seconds=400), botocore_config=ONE_ATTEMPT)
    assert 359 < local.clock.elapsed() - began < 400


@needs_aiobotocore
def test_each_resume_keeps_the_first_deadline(local: LocalHealthOmics, run: Run, task_context: Context) -> None:
    """Airflow 3.0 and 3.1 reset the start date at each resume, of which there are several while counts lag behind."""
    local.faults.stale_counts(seconds=100_000)
    local.clock.advance(1)
    began = local.clock.elapsed()
    with pytest.raises(BatchTimeoutError):
        run("deferrable", task_context, timeout=200, consistency_timeout=10_000)
    deferrals = task_context["deferrals"]
    assert len(deferrals) > 2
    assert len({deferral.trigger.deadline for deferral in deferrals}) == 1
    assert 200 <= local.clock.elapsed() - began < 210
    assert local.clock.now() - task_context["ti"].start_date < timedelta(seconds=60), "it was reset"


@needs_aiobotocore
def test_a_kill_is_not_a_timeout(local: LocalHealthOmics, run: Run) -> None:
    local.settings.run_running_seconds = 10_000
    with pytest.raises(BatchTimeoutError):
        run("deferrable", timeout=100, execution_timeout=timedelta(seconds=200), cancel_on_kill=True)
    assert local.calls["CancelRunBatch"] == 0


@needs_aiobotocore
@pytest.mark.parametrize("cancel_on_timeout", [True, False])
@pytest.mark.parametrize("error", ["Trigger timeout", "Trigger/execution timeout"])
def test_a_deferral_that_airflow_ends(
    error: str, cancel_on_timeout: bool, local: LocalHealthOmics, client: Any, task_context: Context
) -> None:
    local.settings.run_running_seconds = 10_000
    deferred(task_context)
    batch_id = task_context["ti"].xcoms["batch"]["id"]
    local.clock.advance(100)
    task = waiting_task(deferrable=True, cancel_on_timeout=cancel_on_timeout)
    with pytest.raises(BatchCancelledError if cancel_on_timeout else BatchTimeoutError) as caught:
        task.resume_execution("__fail__", {"error": error}, task_context)
    assert caught.value.batch_id == batch_id
    assert status_of(client, batch_id) == ("STOPPING" if cancel_on_timeout else "INPROGRESS")


@needs_aiobotocore
def test_a_batch_that_has_ended_by_the_deadline_is_not_cancelled(
    local: LocalHealthOmics, task_context: Context, client: Any
) -> None:
    deferred(task_context)
    batch_id = task_context["ti"].xcoms["batch"]["id"]
    local.clock.advance(10_000)
    task = waiting_task(deferrable=True, cancel_on_timeout=True)
    assert task.resume_execution("__fail__", {"error": "Trigger timeout"}, task_context) == batch_id
    assert local.calls["CancelRunBatch"] == 0


@needs_aiobotocore
def test_a_trigger_that_is_lost_fails_the_try(local: LocalHealthOmics, task_context: Context) -> None:
    deferred(task_context)
    with pytest.raises(AirflowException, match="Trigger failure") as caught:
        waiting_task(deferrable=True, cancel_on_timeout=True).resume_execution(
            "__fail__", {"error": "Trigger failure"}, task_context
        )
    assert not isinstance(caught.value, AirflowFailException)
    assert local.calls["CancelRunBatch"] == 0


# Resuming


def resume(context: Context, event: object, **parameters: Any) -> Any:
    """Resume the deferred task in a new process."""
    task = waiting_task(deferrable=True, **parameters)
    return task.resume_execution("execute_complete", {"event": event}, context)


@needs_aiobotocore
@pytest.mark.parametrize(
    "event",
    [
        None,
        {},
        [],
        "done",
        {"status": "success"},
        {"status": "done"},
        {"status": "done", "batch": "42"},
        {"status": "done", "batch": {"id": 42}},
        {"status": "done", "batch": {"id": "{id}", "total_runs": "3"}},
        {"status": "done", "batch": {"status": "PROCESSED"}},
        {"status": "done", "batch": {"id": "9", "status": "PROCESSED"}},
        {"status": "timeout", "batch": {"id": "9"}},
        {"status": "error", "batch": {"id": "../9"}},
    ],
)
def test_an_event_that_is_not_the_batchs(event: Any, local: LocalHealthOmics, task_context: Context) -> None:
    deferred(task_context)
    local.calls.clear()
    event = json.loads(json.dumps(event).replace("{id}", task_context["ti"].xcoms["batch"]["id"]))
    with pytest.raises(TriggerEventError, match="event") as caught:
        resume(task_context, event, cancel_on_timeout=True)
    assert not isinstance(caught.value, AirflowFailException)
    assert local.calls.total() == 0


@needs_aiobotocore
def test_an_event_of_another_version(local: LocalHealthOmics, task_context: Context) -> None:
    deferred(task_context)
    local.clock.advance(100)
    batch = {"id": task_context["ti"].xcoms["batch"]["id"], "status": "PROCESSED", "total_runs": 4}
    event = {
        "status": "done",
        "colour": "red",
        "batch": {**batch, "shape": [1], "run_counts": {"completed": 4, "x": 1}},
    }
    assert resume(task_context, event) == batch["id"]
    older = {"status": "done", "batch": batch}
    with pytest.raises(TaskDeferred):
        resume(task_context, older)


@needs_aiobotocore
def test_a_resumed_task_asks_get_batch_no_more(local: LocalHealthOmics, task_context: Context) -> None:
    deferred(task_context)
    batch_id = task_context["ti"].xcoms["batch"]["id"]
    batch = {"id": batch_id, "status": "PROCESSED", "total_runs": 4, "run_counts": {"completed": 4}}
    local.calls.clear()
    assert resume(task_context, {"status": "done", "batch": batch}) == batch_id
    assert local.calls.total() == 0


@needs_aiobotocore
def test_a_triggerer_that_is_restarted(local: LocalHealthOmics, later: Later, task_context: Context) -> None:
    trigger = deferred(task_context)
    later(15, die)
    with pytest.raises(KeyboardInterrupt):
        fire(trigger)
    assert resume(task_context, fire(trigger)) == task_context["ti"].xcoms["batch"]["id"]


@needs_aiobotocore
def test_a_task_whose_xcoms_are_gone(
    local: LocalHealthOmics, run: Run, the_batch: Callable[[], str], task_context: Context
) -> None:
    deferred(task_context)
    task_context["ti"].xcoms.clear()
    event = {"status": "done", "batch": {"id": the_batch(), "status": "PROCESSED"}}
    with pytest.raises(
        OmicsError, match=r"XCom batch of this task does not exist\. The next try finds the batch"
    ) as caught:
        resume(task_context, event)
    assert not isinstance(caught.value, AirflowFailException)
    assert run() == the_batch()


@needs_aiobotocore
def test_the_batch_of_a_mapped_task(local: LocalHealthOmics, task_context: Context) -> None:
    task_context["ti"].map_index = 3
    deferred(task_context)
    with pytest.raises(BatchTimeoutError) as caught:
        waiting_task(deferrable=True).resume_execution("__fail__", {"error": "Trigger timeout"}, task_context)
    assert caught.value.batch_id == task_context["ti"].xcoms["batch"]["id"]


@each_mode
def test_a_teardown_finds_the_batch_whatever_becomes_of_the_wait(
    mode: str, local: LocalHealthOmics, run: Run, task_context: Context, client: Any
) -> None:
    local.settings.run_running_seconds = 10_000
    with pytest.raises(BatchTimeoutError):
        run(mode, task_context, timeout=100)
    batch_id = task_context["ti"].xcoms["return_value"]
    CancelRunBatchOperator(task_id="cancel", batch_id=batch_id).as_teardown().execute(task_context)
    assert client.get_batch(batchId=batch_id)["status"] == "CANCELLED"


# fail_fast


HUNDRED = [{"runSettingId": f"sample-{n}"} for n in range(100)]


@each_mode
def test_too_many_failures_cancel_the_batch(
    mode: str, local: LocalHealthOmics, run: Run, client: Any, the_batch: Callable[[], str], task_context: Context
) -> None:
    local.settings.submission_rate = 1
    for number in range(17):
        local.faults.fail_submission(f"sample-{number}")
    arguments = {"run_settings": HUNDRED, "max_failed_runs": "5%", "fail_fast": True, "cancel_on_failure": True}
    with pytest.raises(TooManyFailedRunsError) as caught:
        run(mode, task_context, **arguments, waiter_delay=25)
    batch_id = the_batch()
    batch = client.get_batch(batchId=batch_id)
    assert batch["status"] in {"STOPPING", "CANCELLED"}
    assert batch["submissionSummary"]["successfulStartSubmissionCount"] < 50
    text = str(caught.value)
    assert text.startswith("17 runs did not complete: ")
    assert f". Batch {batch_id} has 100 runs; max_failed_runs is 5%" in text
    assert "; cancel_on_failure cancelled it. Set a new rerun_key" in text
    xcoms = task_context["ti"].xcoms
    assert xcoms["return_value"] == batch_id
    assert xcoms["failed_run_count"] == xcoms["run_counts"]["not_submitted"] == len(xcoms["failed_runs"]) == 17


def test_too_many_failures_without_a_cancellation(
    local: LocalHealthOmics,
    run: Run,
    client: Any,
    the_batch: Callable[[], str],
    new_task_context: Callable[[], Context],
) -> None:
    local.settings.submission_rate = 1
    local.faults.fail_submission("sample-0")
    arguments = {"run_settings": HUNDRED, "fail_fast": True}
    with pytest.raises(TooManyFailedRunsError, match=r"^1 run did not complete.*; the batch continues"):
        run("sync", new_task_context(), **arguments)
    assert status_of(client, the_batch()) == "SUBMITTING"
    local.faults.error("CancelRunBatch", code="AccessDeniedException", status=403, message="not for you")
    with pytest.raises(
        TooManyFailedRunsError, match=r"^1 run did not .*; the batch could not be cancelled:.*not for you"
    ):
        run("sync", new_task_context(), **arguments, cancel_on_failure=True)
    assert status_of(client, the_batch()) == "SUBMITTING"
