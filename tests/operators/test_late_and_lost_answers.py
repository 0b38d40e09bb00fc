"""Answers that come late, get lost, or contradict each other, while a batch is started, waited for and ended."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import boto3
import botocore.handlers
import pytest
from botocore.config import Config

from airflow_provider_omics_cache.exceptions import BatchFailedError, OmicsApiError
from airflow_provider_omics_cache.healthomics.end import cancel_batch_of_killed_task
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.operators.run_batch import CancelRunBatchOperator, DeleteRunBatchOperator
from airflow_provider_omics_cache.operators.run_cache import CreateRunCacheOperator, DeleteRunCacheOperator
from airflow_provider_omics_cache.sensors.run_batch import BatchCompletionSensor
from tests.conftest import needs_batches
from tests.operators.batch_states import ONE_ATTEMPT, answer, batch_in, each_mode, run_operator, runs_of, status_of
from tests.operators.waiting_task import Context, Later, waiting_task
from tests.sensor_modes import each_mode as each_sensor_mode
from tests.sensor_modes import run_sensor, start_batch

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics

    On = Callable[[str, Callable[..., Any]], None]
    Moments = Callable[[str], list[float]]

pytestmark = needs_batches

HOUR = 3_600
THROTTLED = (
    b'<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>'
    b"<Code>Throttling</Code><Message>Rate exceeded</Message></Error></ErrorResponse>"
)


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> On:
    """Let a function handle an event of botocore in clients that are made from now on."""

    def on(event: str, handle: Callable[..., Any]) -> None:
        handlers = [(event, handle), *botocore.handlers.BUILTIN_HANDLERS]
        monkeypatch.setattr(botocore.handlers, "BUILTIN_HANDLERS", handlers)

    return on


@pytest.fixture
def moments_of(local: LocalHealthOmics, on: On) -> Moments:
    """Give the list of the moments, in seconds from now, at which clients that are made from now on call."""

    def moments_of(operation: str) -> list[float]:
        start = local.clock.elapsed()
        moments: list[float] = []

        def called(**_: Any) -> None:
            moments.append(local.clock.elapsed() - start)

        on(f"before-call.omics.{operation}", called)
        return moments

    return moments_of


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Give what was logged, wherever this version of Airflow writes it."""
    return lambda: caplog.text + capsys.readouterr().out


def hide_run(run_id: str, on: On, is_hidden: Callable[[], bool], *operations: str) -> None:
    """Let lists leave out a run for some time."""

    def leave_out(parsed: dict[str, Any], **_: Any) -> None:
        for key in ("items", "runs"):
            if key in parsed and is_hidden():
                parsed[key] = [run for run in parsed[key] if run_id not in {run.get("id"), run.get("runId")}]

    for operation in operations:
        on(f"after-call.omics.{operation}", leave_out)


def newest_run(client: Any, batch_id: str) -> str:
    return max(runs_of(client, batch_id), key=int)


# A throttled STS


@pytest.fixture
def sts_throttles_twice(local: LocalHealthOmics, on: On, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let the connection assume a role, and STS refuse that twice; give the answers of STS."""
    extra = {"region_name": "us-east-1", "role_arn": "arn:aws:iam::123456789012:role/omics"}
    connection = {"conn_type": "aws", "login": "testing", "password": "testing", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
    answers: list[str] = []

    def throttle(request: Any, **_: Any) -> Any:
        is_throttled = len(answers) < 2
        answers.append("Throttling" if is_throttled else "credentials")
        return answer(request, 400, THROTTLED, **{"Content-Type": "text/xml"}) if is_throttled else None

    on("before-send.sts.AssumeRole", throttle)
    return answers


WAITED_OUT = ["Throttling", "Throttling", "credentials"]


def test_cancelling_waits_for_a_throttled_sts(
    local: LocalHealthOmics, client: Any, sts_throttles_twice: list[str], task_context: Context
) -> None:
    batch_id = batch_in("INPROGRESS", local, client)
    task = CancelRunBatchOperator(task_id="cancel", batch_id=batch_id, botocore_config=ONE_ATTEMPT)
    assert task.execute(task_context) == batch_id
    assert sts_throttles_twice == WAITED_OUT
    assert status_of(client, batch_id) == "CANCELLED"


def test_deleting_runs_waits_for_a_throttled_sts(
    local: LocalHealthOmics, client: Any, sts_throttles_twice: list[str], task_context: Context
) -> None:
    batch_id = batch_in("PROCESSED", local, client)
    task = DeleteRunBatchOperator(task_id="delete", batch_id=batch_id, botocore_config=ONE_ATTEMPT)
    assert task.execute(task_context) == batch_id
    assert sts_throttles_twice == WAITED_OUT
    assert status_of(client, batch_id) == "RUNS_DELETED"


def test_starting_waits_for_a_throttled_sts(
    client: Any, sts_throttles_twice: list[str], task_context: Context, the_batch: Callable[[], str]
) -> None:
    task = waiting_task(wait_for_completion=False, botocore_config=ONE_ATTEMPT)
    assert task.execute(task_context) == the_batch()
    assert sts_throttles_twice == WAITED_OUT


def test_making_a_cache_waits_for_a_throttled_sts(
    client: Any, sts_throttles_twice: list[str], task_context: Context
) -> None:
    boto3.client("s3").create_bucket(Bucket="cohort-data")
    task = CreateRunCacheOperator(
        task_id="cache", name="cohort", cache_s3_location="s3://cohort-data/cache", botocore_config=ONE_ATTEMPT
    )
    run_cache_id = task.execute(task_context)
    assert sts_throttles_twice == WAITED_OUT
    assert [cache["id"] for cache in client.list_run_caches()["items"]] == [run_cache_id]


def test_deleting_a_cache_waits_for_a_throttled_sts(
    local: LocalHealthOmics, client: Any, sts_throttles_twice: list[str], task_context: Context
) -> None:
    boto3.client("s3").create_bucket(Bucket="cohort-data")
    run_cache_id = client.create_run_cache(name="cohort", cacheS3Location="s3://cohort-data/cache")["id"]
    local.clock.advance(60)
    DeleteRunCacheOperator(task_id="delete", run_cache_id=run_cache_id, botocore_config=ONE_ATTEMPT).execute(
        task_context
    )
    assert sts_throttles_twice == WAITED_OUT
    assert local.calls["DeleteRunCache"] == 1
    assert all(cache["status"] != "ACTIVE" for cache in client.list_run_caches()["items"])


def test_a_kill_waits_for_a_throttled_sts(
    local: LocalHealthOmics, client: Any, sts_throttles_twice: list[str], logged: Callable[[], str]
) -> None:
    local.settings.run_running_seconds = 48 * HOUR
    batch_id = batch_in("INPROGRESS", local, client)
    cancel_batch_of_killed_task(OmicsCacheHook(config=Config(retries={"total_max_attempts": 1})), batch_id)
    assert sts_throttles_twice == WAITED_OUT
    assert status_of(client, batch_id) in {"STOPPING", "CANCELLED"}
    assert "was not cancelled" not in logged()


# Cancellations of runs


@each_mode
def test_a_cancellation_without_effect_is_repeated_in_one_of_the_next_rounds(
    local: LocalHealthOmics, client: Any, on: On, mode: str, task_context: Context
) -> None:
    """CancelRun is accepted four times, twice for each of the two runs, and changes nothing."""
    local.settings.run_running_seconds = 48 * HOUR
    batch_id = batch_in("FAILED", local, client)
    lost: list[str] = []

    def accept(request: Any, **_: Any) -> Any:
        if len(lost) == 4:
            return None
        lost.append(request.url)
        return answer(request, 202)

    on("before-send.omics.CancelRun", accept)
    start = local.clock.elapsed()

    def make(**arguments: Any) -> CancelRunBatchOperator:
        return CancelRunBatchOperator(task_id="cancel", batch_id=batch_id, waiter_delay=60, **arguments)

    assert run_operator(make, mode, task_context, local.clock) == batch_id
    assert len(lost) == 4
    assert local.calls["CancelRun"] == 2
    assert set(runs_of(client, batch_id).values()) == {"CANCELLED"}
    assert local.clock.elapsed() - start < 8 * 60


@each_mode
def test_a_run_that_the_lists_show_late_is_cancelled_before_the_others_have_stopped(
    local: LocalHealthOmics, client: Any, on: On, moments_of: Moments, mode: str, task_context: Context
) -> None:
    """The other runs are STOPPING for an hour; the lists are read again after five minutes."""
    local.settings.run_running_seconds = 48 * HOUR
    local.settings.run_stopping_seconds = HOUR
    batch_id = batch_in("FAILED", local, client, runs=4)
    shown_at = local.clock.elapsed() + 30
    late = newest_run(client, batch_id)
    hide_run(late, on, lambda: local.clock.elapsed() < shown_at, "ListRuns", "ListRunsInBatch")
    cancellations = moments_of("CancelRun")

    def make(**arguments: Any) -> CancelRunBatchOperator:
        return CancelRunBatchOperator(task_id="cancel", batch_id=batch_id, waiter_delay=20, **arguments)

    run_operator(make, mode, task_context, local.clock)
    assert len(cancellations) == 3
    assert max(cancellations[:2]) < 30 < cancellations[2] <= 360
    assert set(runs_of(client, batch_id).values()) == {"CANCELLED"}


# The kill of a task whose batch FAILED


def kill(batch_id: str, **parameters: Any) -> None:
    """Kill the task while it waits for the batch in its own process."""
    task = waiting_task(cancel_on_kill=True, **parameters)
    task.batch_id = batch_id
    task.on_kill()


def test_a_kill_finds_runs_that_change_their_status_meanwhile(local: LocalHealthOmics, client: Any) -> None:
    """While the kill lists the runs of one status after the other, PENDING runs become STARTING and RUNNING."""
    local.settings.run_running_seconds = 48 * HOUR
    local.settings.run_starting_seconds = local.settings.run_pending_seconds = 6
    local.settings.submission_rate = 1.0
    local.faults.fail_batch("broken", after="SUBMITTING", started_runs=14)
    batch_id = start_batch(client, 15)
    while status_of(client, batch_id) != "FAILED":
        local.clock.advance(0.5)
    assert set(runs_of(client, batch_id).values()) == {"PENDING", "STARTING", "RUNNING"}
    local.faults.latency("ListRuns", seconds=1)
    kill(batch_id)
    local.faults.clear()
    local.clock.advance(60)
    assert list(runs_of(client, batch_id).values()) == ["CANCELLED"] * 14


def test_a_kill_finds_a_run_that_listruns_does_not_show_yet(local: LocalHealthOmics, client: Any, on: On) -> None:
    local.settings.run_running_seconds = 48 * HOUR
    batch_id = batch_in("FAILED", local, client, runs=4)
    late = newest_run(client, batch_id)
    hidden = [True]
    hide_run(late, on, lambda: bool(hidden), "ListRuns")
    kill(batch_id)
    hidden.clear()
    local.clock.advance(60)
    assert runs_of(client, batch_id)[late] == "CANCELLED"
    assert set(runs_of(client, batch_id).values()) == {"CANCELLED"}


def test_a_kill_that_cannot_get_a_run_that_listruns_does_not_show_logs_an_error(
    local: LocalHealthOmics, client: Any, on: On, logged: Callable[[], str]
) -> None:
    local.settings.run_running_seconds = 48 * HOUR
    batch_id = batch_in("FAILED", local, client, runs=4)
    start = local.clock.elapsed()
    late = newest_run(client, batch_id)
    hide_run(late, on, lambda: True, "ListRuns")

    def throttle(request: Any, **_: Any) -> Any:
        if not request.url.endswith(f"/run/{late}"):
            return None
        return answer(request, 429, b'{"message": "Rate exceeded"}', **{"x-amzn-ErrorType": "ThrottlingException"})

    on("before-send.omics.GetRun", throttle)
    kill(batch_id, botocore_config=ONE_ATTEMPT)
    assert f"Batch {batch_id} was not cancelled" in logged()
    assert local.clock.elapsed() - start <= 20
    local.clock.advance(60)
    others = [status for run_id, status in runs_of(client, batch_id).items() if run_id != late]
    assert others == ["CANCELLED", "CANCELLED"]


def test_a_kill_cancels_a_run_whose_status_is_not_known(local: LocalHealthOmics, client: Any, on: On) -> None:
    """ListRuns with a filter for another status does not show the run; GetRun shows the unknown status too."""
    local.settings.run_running_seconds = 48 * HOUR
    batch_id = batch_in("FAILED", local, client, runs=4)
    odd = newest_run(client, batch_id)

    def remember(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        context["wanted"] = params.get("status")

    def change_list(parsed: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        for run in list(parsed.get("items", ())):
            if run["id"] == odd and context["wanted"]:
                parsed["items"].remove(run)
            elif run["id"] == odd:
                run["status"] = "RESTING"

    def change_run(parsed: dict[str, Any], **_: Any) -> None:
        if parsed.get("id") == odd:
            parsed["status"] = "RESTING"

    on("provide-client-params.omics.ListRuns", remember)
    on("after-call.omics.ListRuns", change_list)
    on("after-call.omics.GetRun", change_run)
    kill(batch_id)
    local.clock.advance(60)
    assert runs_of(client, batch_id)[odd] == "CANCELLED"
    assert set(runs_of(client, batch_id).values()) == {"CANCELLED"}


# Waiting


@each_sensor_mode
def test_a_silent_list_of_runs_does_not_hide_why_the_batch_failed(
    local: LocalHealthOmics, client: Any, mode: str, task_context: Context
) -> None:
    batch_id = batch_in("FAILED", local, client)
    local.faults.throttle("ListRuns", times=None)

    def make(**arguments: Any) -> BatchCompletionSensor:
        return BatchCompletionSensor(
            task_id="wait",
            batch_id=batch_id,
            poke_interval=60,
            timeout=10 * HOUR,
            max_silence=600,
            botocore_config=ONE_ATTEMPT,
            **arguments,
        )

    with pytest.raises(BatchFailedError, match=rf"Batch {batch_id} failed: broken; .*Rate exceeded") as failure:
        run_sensor(make, mode, task_context, local.clock)
    assert (failure.value.batch_id, failure.value.reason) == (batch_id, "broken")


def test_the_wait_for_active_runs_keeps_the_pace_of_getrun(
    local: LocalHealthOmics, client: Any, moments_of: Moments, monkeypatch: pytest.MonkeyPatch, task_context: Context
) -> None:
    """All 60 runs end at about the same time, and are then asked for one after the other."""
    monkeypatch.setenv("AIRFLOW__OMICS_CACHE__MAX_GET_RUN_PER_SECOND", "4")
    local.settings.run_running_seconds = 600
    batch_id = batch_in("FAILED", local, client, runs=61)
    calls = moments_of("GetRun")

    def make(**arguments: Any) -> BatchCompletionSensor:
        return BatchCompletionSensor(
            task_id="wait", batch_id=batch_id, poke_interval=60, timeout=10 * HOUR, **arguments
        )

    with pytest.raises(BatchFailedError):
        run_sensor(make, "poke", task_context, local.clock)
    assert len(calls) >= 60
    spans = [later - earlier for earlier, later in zip(calls, calls[4:], strict=False)]
    assert min(spans) > 0.999
    assert min(spans) < 1.1, "the runs were to be asked for at the full pace"


# Starting


def test_an_older_batch_that_is_only_listed_does_not_block_a_new_one(
    local: LocalHealthOmics, client: Any, on: On, new_task_context: Callable[[], Context]
) -> None:
    """ListBatch still shows the first batch of the task, which was deleted."""
    local.settings.creating_seconds = local.settings.pending_seconds = 0
    local.faults.fail_batch("broken", after="PENDING")
    second = waiting_task(wait_for_completion=False).execute(new_task_context())
    local.clock.advance(HOUR)
    (first,) = (item for item in client.list_batch()["items"] if item["id"] != second)
    client.delete_batch(batchId=first["id"])
    local.clock.advance(HOUR)
    assert {item["id"] for item in client.list_batch()["items"]} == {second}

    def show_again(parsed: dict[str, Any], **_: Any) -> None:
        parsed["items"].append(dict(first))

    on("after-call.omics.ListBatch", show_again)
    start = local.clock.elapsed()
    new_settings = [{"runSettingId": "sample-9"}]
    third = waiting_task(wait_for_completion=False, run_settings=new_settings).execute(new_task_context())
    assert third not in {first["id"], second}
    assert local.clock.elapsed() - start < 60
    assert client.get_batch(batchId=third)["totalRuns"] in {0, 1}


# A run id that belongs to another batch by the time of the next attempt


def let_ids_be_reused(local: LocalHealthOmics, client: Any, later: Later, *, delete: str | None = None) -> list[str]:
    """Let another batch start a run as soon as somebody waits; it gets the id of the deleted run."""
    local.settings.reuse_run_ids = True
    local.settings.creating_seconds = local.settings.pending_seconds = 0
    others: list[str] = []

    def start_another() -> None:
        if delete:
            local.clock.advance(60)
            client.delete_run(id=delete)
        others.append(start_batch(client, 1))
        local.clock.advance(1)

    later(0.1, start_another)
    return others


def test_a_lost_answer_of_deleterun_deletes_no_run_of_another_batch(
    local: LocalHealthOmics, client: Any, later: Later, task_context: Context
) -> None:
    batch_id = batch_in("FAILED", local, client, runs=2)
    local.clock.advance(100)
    local.settings.run_pending_seconds = local.settings.run_starting_seconds = 0
    local.settings.run_running_seconds = 0
    local.settings.run_stopping_seconds = 0
    (run_id,) = runs_of(client, batch_id)
    others = let_ids_be_reused(local, client, later)
    local.faults.drop_connection("DeleteRun", after_effect=True)
    assert DeleteRunBatchOperator(task_id="delete", batch_id=batch_id).execute(task_context) == batch_id
    assert runs_of(client, others[0]) == {run_id: "COMPLETED"}
    assert local.calls["DeleteRun"] == 1
    assert runs_of(client, batch_id) == {}


def test_a_lost_answer_of_cancelrun_cancels_no_run_of_another_batch(
    local: LocalHealthOmics, client: Any, later: Later, task_context: Context
) -> None:
    local.settings.run_running_seconds = HOUR
    batch_id = batch_in("FAILED", local, client, runs=2)
    (run_id,) = runs_of(client, batch_id)
    others = let_ids_be_reused(local, client, later, delete=run_id)
    local.faults.drop_connection("CancelRun", after_effect=True)
    assert CancelRunBatchOperator(task_id="cancel", batch_id=batch_id).execute(task_context) == batch_id
    assert local.calls["CancelRun"] == 1
    assert runs_of(client, others[0])[run_id] in {"PENDING", "STARTING", "RUNNING"}


@pytest.mark.parametrize("operation", ["CancelRun", "DeleteRun"])
def test_the_sdk_does_not_repeat_calls_that_change_a_run(local: LocalHealthOmics, operation: str) -> None:
    local.faults.error(operation, status=503, times=5)
    hook = OmicsCacheHook()
    with pytest.raises(OmicsApiError):
        getattr(hook, {"CancelRun": "cancel_run", "DeleteRun": "delete_run"}[operation])(run_id="1234567")
    assert local.calls[operation] == 1
