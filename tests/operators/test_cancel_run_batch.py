"""CancelRunBatchOperator against the local HealthOmics."""

from __future__ import annotations

import importlib.util
import logging
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import boto3
import botocore.handlers
import pytest
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields
from botocore.exceptions import ClientError, EndpointConnectionError

from airflow_provider_omics_cache._compat import AirflowFailException, AirflowOptionalProviderFeatureException
from airflow_provider_omics_cache.exceptions import (
    BatchConflictError,
    BatchNotFoundError,
    BatchTimeoutError,
    OmicsApiError,
    OmicsError,
    OmicsParameterError,
)
from airflow_provider_omics_cache.healthomics import end
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.operators import run_batch as operator_module
from airflow_provider_omics_cache.operators.run_batch import CancelRunBatchOperator
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

CANCELLABLE = ("CREATING", "PENDING", "SUBMITTING", "INPROGRESS", "STOPPING", "CANCELLED", "FAILED")
FINISHED = tuple(status for status in STATUSES if status not in CANCELLABLE)


@pytest.fixture
def cancel(local: Any, new_task_context: Callable[[], dict[str, Any]]) -> Any:
    """Run one try of the operator, and return what it pushed, without arn, uuid and what it does not know."""

    def cancel(
        batch_id: Any,
        mode: str = "sync",
        teardown: bool = False,
        context: dict[str, Any] | None = None,
        **parameters: Any,
    ) -> dict[str, Any]:
        def make(**arguments: Any) -> CancelRunBatchOperator:
            made = operator(batch_id, **parameters, **arguments)
            return made.as_teardown() if teardown else made

        context = context or new_task_context()
        returned = run_operator(make, mode, context, local.clock)
        xcoms = {key: value for key, value in context["ti"].xcoms.items() if not key.startswith("_")}
        assert xcoms.pop("return_value") == returned
        pushed: dict[str, Any] = xcoms.pop("batch", {})
        assert pushed.get("id") == returned
        assert not xcoms
        if not pushed:
            return {}
        assert set(pushed) == set(BatchXCom.__annotations__)
        known = {name: pushed.pop(name) for name in ("id", "status", "cancelled", "not_cancelled")}
        if known["status"]:
            found = boto3.client("omics").get_batch(batchId=returned)
            assert (pushed.pop("arn"), pushed.pop("uuid")) == (found["arn"], found["uuid"])
        assert set(pushed.values()) == {None}
        return known

    return cancel


def operator(batch_id: Any, **parameters: Any) -> CancelRunBatchOperator:
    delay = {"waiter_delay": 5} if parameters.get("wait_for_completion", True) else {}
    return CancelRunBatchOperator(**{"task_id": "cancel", "batch_id": batch_id, **delay, **parameters})


def stopped_but_one(status: str, local: Any, client: Any) -> str:
    """Start 250 runs, and bring their batch into a status in which one run is STOPPING for 3,000 seconds more."""
    local.settings.run_running_seconds = 100_000
    local.settings.run_stopping_seconds = 3_000
    if status == "FAILED":
        local.faults.fail_batch("broken", after="SUBMITTING", started_runs=250)
    else:
        local.faults.fail_cancel(["sample-7"])
    batch_id = start_batch(client, 251 if status == "FAILED" else 250)
    local.clock.advance(60)
    if status == "CANCELLED":
        client.cancel_run_batch(batchId=batch_id)
    rows = client.get_paginator("list_runs_in_batch").paginate(batchId=batch_id)
    run_ids = {row["runSettingId"]: row["runId"] for page in rows for row in page["runs"] if "runId" in row}
    last = run_ids.pop("sample-7")
    for run_id in run_ids.values() if status == "FAILED" else ():
        client.cancel_run(id=run_id)
    local.clock.advance(3_000)
    client.cancel_run(id=last)
    assert Counter(runs_of(client, batch_id).values()) == {"CANCELLED": 249, "STOPPING": 1}
    assert status_of(client, batch_id) == status
    return batch_id


def assert_no_run_is_active(client: Any, batch_id: str) -> None:
    assert set(runs_of(client, batch_id).values()) <= {"CANCELLED", "COMPLETED", "FAILED"}


# What it does in each status


@each_mode
@pytest.mark.parametrize("status", CANCELLABLE)
def test_no_run_is_active_afterwards(cancel: Any, local: Any, client: Any, mode: str, status: str) -> None:
    batch_id = batch_in(status, local, client)
    before = local.calls["CancelRunBatch"]
    pushed = cancel(batch_id, mode)
    started = runs_of(client, batch_id)
    assert set(started.values()) <= {"CANCELLED"}
    end = "FAILED" if status == "FAILED" else "CANCELLED"
    assert status_of(client, batch_id) == end
    assert pushed == {"id": batch_id, "status": end, "cancelled": len(started), "not_cancelled": 0}
    asks = status in {"CREATING", "PENDING", "SUBMITTING", "INPROGRESS"}
    assert local.calls["CancelRunBatch"] - before == (1 if asks else 0)
    assert len(started) == {"PENDING": 0, "SUBMITTING": 1, "FAILED": 2}.get(status, 3)


@pytest.mark.parametrize("status", CANCELLABLE)
def test_a_second_try_changes_nothing(cancel: Any, local: Any, client: Any, status: str) -> None:
    batch_id = batch_in(status, local, client)
    first = cancel(batch_id)
    before = status_of(client, batch_id), runs_of(client, batch_id)
    calls = local.calls["CancelRunBatch"], local.calls["CancelRun"]
    assert cancel(batch_id) == first
    assert (status_of(client, batch_id), runs_of(client, batch_id)) == before
    assert (local.calls["CancelRunBatch"], local.calls["CancelRun"]) == calls


@each_mode
@pytest.mark.parametrize("status", FINISHED)
def test_a_batch_that_has_finished_is_an_error(cancel: Any, local: Any, client: Any, mode: str, status: str) -> None:
    batch_id = batch_in(status, local, client)
    with pytest.raises(
        BatchConflictError, match=rf"^Batch {batch_id} has already finished \({status}\); there is nothing to cancel\.$"
    ) as caught:
        cancel(batch_id, mode)
    assert (caught.value.batch_id, caught.value.status) == (batch_id, status)
    assert isinstance(caught.value, AirflowFailException)
    assert local.calls["CancelRunBatch"] == local.calls["CancelRun"] == 0


@each_mode
@pytest.mark.parametrize("status", FINISHED)
def test_as_a_teardown_it_finds_nothing_to_cancel(cancel: Any, local: Any, client: Any, mode: str, status: str) -> None:
    batch_id = batch_in(status, local, client)
    pushed = cancel(batch_id, mode, teardown=True)
    assert pushed == {"id": batch_id, "status": status, "cancelled": None, "not_cancelled": None}
    assert local.calls["CancelRunBatch"] == local.calls["CancelRun"] == 0


@each_mode
@pytest.mark.parametrize("status", ["RUNS_DELETING", "RUNS_DELETED"])
def test_a_batch_that_was_cancelled_and_then_cleaned_up_is_fine(
    cancel: Any, local: Any, client: Any, mode: str, status: str
) -> None:
    batch_id = batch_in("CANCELLED", local, client)
    client.delete_run_batch(batchId=batch_id)
    local.clock.advance(0 if status == "RUNS_DELETING" else 10)
    pushed = cancel(batch_id, mode)
    assert pushed == {"id": batch_id, "status": status, "cancelled": 0, "not_cancelled": 0}


@each_mode
def test_a_batch_that_was_cancelled_and_is_processed_is_fine(cancel: Any, local: Any, client: Any, mode: str) -> None:
    counts = {"successfulCancelSubmissionCount": 2, "failedCancelSubmissionCount": 1}
    batch_id = batch_in("CANCELLED", local, client)
    with changed_answers("GetBatch", {"status": "PROCESSED", "submissionSummary": counts}):
        pushed = cancel(batch_id, mode)
    assert pushed == {"id": batch_id, "status": "PROCESSED", "cancelled": 3, "not_cancelled": 0}


@pytest.mark.parametrize("teardown", [True, False])
@pytest.mark.parametrize("value", [None, "", "None"])
def test_no_batch_at_all(cancel: Any, local: Any, value: Any, teardown: bool) -> None:
    if teardown:
        assert cancel(value, teardown=True) == {}
    else:
        with pytest.raises(OmicsParameterError, match="batch_id must be an id of 1 to 18 digits; got"):
            cancel(value)
    assert sum(local.calls.values()) == 0


@pytest.mark.parametrize("value", ["batch-7", "1" * 19, "-1", ["7"]])
@pytest.mark.parametrize("teardown", [True, False])
def test_what_is_no_id_is_an_error_everywhere(cancel: Any, local: Any, value: Any, teardown: bool) -> None:
    with pytest.raises(OmicsParameterError, match="batch_id must be an id of 1 to 18 digits; got"):
        cancel(value, teardown=teardown)
    assert sum(local.calls.values()) == 0


def test_a_batch_that_is_not_found(cancel: Any, local: Any) -> None:
    with pytest.raises(
        BatchNotFoundError, match=r"^Batch 7 was not found in account 123456789012, Region us-east-1, connection 'aws_d"
    ) as caught:
        cancel("7")
    assert isinstance(caught.value, AirflowFailException)
    assert isinstance(caught.value.__cause__, ClientError)
    assert local.calls["GetBatch"] == 3


def test_a_teardown_that_finds_no_batch_warns(
    cancel: Any, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = dict.fromkeys(("status", "cancelled", "not_cancelled"))
    assert cancel("7", teardown=True) == {"id": "7", **nothing}
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    warned += [line for line in capsys.readouterr().out.splitlines() if "[warning" in line]
    assert any("Nothing to do: Batch 7 was not found" in line for line in warned)


@pytest.mark.parametrize(("seconds", "teardown"), [(7, False), (30, True)])
def test_a_young_batch_is_found(cancel: Any, local: Any, client: Any, seconds: float, teardown: bool) -> None:
    local.settings.batch_visible_after = seconds
    batch_id = start_batch(client)
    assert cancel(batch_id, teardown=teardown)["status"] == "CANCELLED"


def test_an_id_may_be_a_number(cancel: Any, local: Any, client: Any) -> None:
    batch_id = batch_in("INPROGRESS", local, client)
    assert cancel(int(batch_id), "sync")["id"] == batch_id


def test_creation_is_waited_out_for_some_time_only(cancel: Any, local: Any, client: Any) -> None:
    local.settings.creating_seconds = 10_000
    batch_id = start_batch(client)
    with pytest.raises(
        OmicsError, match=f"^Batch {batch_id} is still CREATING after 10 s and cannot be cancelled yet$"
    ):
        cancel(batch_id, timeout=10)
    assert local.calls["GetBatch"] == 3
    local.calls.clear()
    with pytest.raises(
        OmicsError, match=f"^Batch {batch_id} is still CREATING after 600 s and cannot be cancelled yet$"
    ) as caught:
        cancel(batch_id)
    assert not isinstance(caught.value, AirflowFailException)
    assert 100 < local.calls["GetBatch"] < 130


# Waiting


def test_without_waiting_it_asks_and_ends(cancel: Any, local: Any, client: Any) -> None:
    batch_id = batch_in("INPROGRESS", local, client)
    pushed = cancel(batch_id, wait_for_completion=False)
    assert pushed == {"id": batch_id, "status": "INPROGRESS", "cancelled": None, "not_cancelled": None}
    assert status_of(client, batch_id) == "STOPPING"
    assert cancel(batch_id, wait_for_completion=False)["status"] == "STOPPING"
    assert local.calls["CancelRunBatch"] == 1


@each_mode
def test_a_timeout_is_an_error_to_retry(cancel: Any, local: Any, client: Any, mode: str) -> None:
    local.settings.cancel_seconds = 1_000
    batch_id = batch_in("INPROGRESS", local, client)
    with pytest.raises(BatchTimeoutError) as caught:
        cancel(batch_id, mode, timeout=timedelta(seconds=100))
    assert not isinstance(caught.value, AirflowFailException)
    assert cancel(batch_id, mode)["status"] == "CANCELLED"
    assert local.calls["CancelRunBatch"] == 1


@each_mode
def test_answers_that_lag_behind_are_waited_out(cancel: Any, local: Any, client: Any, mode: str) -> None:
    batch_id = batch_in("INPROGRESS", local, client)
    with changed_answers("GetBatch", {"status": "INPROGRESS"}, times=3):
        assert cancel(batch_id, mode)["status"] == "CANCELLED"
    assert local.calls["CancelRunBatch"] == 1


@each_mode
def test_an_unknown_status_is_cancelled_and_waited_for(cancel: Any, local: Any, client: Any, mode: str) -> None:
    batch_id = batch_in("INPROGRESS", local, client)
    with changed_answers("GetBatch", {"status": "PAUSED"}, times=2):
        assert cancel(batch_id, mode)["status"] == "CANCELLED"


@each_mode
@pytest.mark.parametrize(("status", "shown"), [("RUNS_ARCHIVED", "RUNS_ARCHIVED"), (None, "without a status")])
def test_an_unknown_status_is_named_in_the_log_and_in_the_error(
    cancel: Any, local: Any, client: Any, caplog: Any, capsys: Any, mode: str, status: str | None, shown: str
) -> None:
    local.settings.run_running_seconds = 10_000
    batch_id = batch_in("INPROGRESS", local, client)
    caplog.set_level(logging.INFO)
    with (
        changed_answers("GetBatch", {"status": status}),
        pytest.raises(BatchTimeoutError, match=f"^Timed out. Batch {batch_id} is {shown}$") as caught,
    ):
        cancel(batch_id, mode, timeout=100)
    printed = caplog.text + capsys.readouterr().out
    assert f"Cancelled batch {batch_id}, which was {shown}" in printed
    assert f"Batch {batch_id} is {shown}. This version of the package does not know this status." in printed
    assert "None" not in str(caught.value) + printed


@pytest.mark.parametrize("error", ["ConflictException", "ValidationException"])
def test_an_unknown_status_that_cannot_be_cancelled(cancel: Any, local: Any, client: Any, error: str) -> None:
    local.settings.wrong_state_error = error
    batch_id = batch_in("PROCESSED", local, client)
    with (
        changed_answers("GetBatch", {"status": "RUNS_ARCHIVED"}),
        pytest.raises(
            OmicsApiError, match=f"^Batch {batch_id} is RUNS_ARCHIVED and was not cancelled: .*{error}"
        ) as caught,
    ):
        cancel(batch_id)
    assert isinstance(caught.value.__cause__, ClientError)
    assert local.calls["CancelRunBatch"] == 1


# Refusals, faults and crashes


@pytest.mark.parametrize("error", ["ConflictException", "ValidationException"])
@pytest.mark.parametrize("status", ["CANCELLED", "PROCESSED"])
def test_a_batch_that_changes_between_look_and_call(
    cancel: Any, local: Any, client: Any, error: str, status: str
) -> None:
    local.settings.wrong_state_error = error
    batch_id = batch_in(status, local, client)
    with changed_answers("GetBatch", {"status": "INPROGRESS"}, times=1):
        if status == "CANCELLED":
            assert cancel(batch_id)["status"] == "CANCELLED"
        else:
            with pytest.raises(BatchConflictError, match=r"has already finished \(PROCESSED\)"):
                cancel(batch_id)


def test_a_refusal_that_stays_is_an_error(cancel: Any, local: Any, client: Any) -> None:
    local.settings.run_running_seconds = 10_000
    local.faults.error("CancelRunBatch", code="ConflictException", message="busy", times=None)
    batch_id = batch_in("INPROGRESS", local, client)
    with pytest.raises(OmicsApiError, match=f"^Batch {batch_id} is INPROGRESS and was not cancelled: .*busy") as caught:
        cancel(batch_id)
    assert caught.value.http_status == 409
    assert not isinstance(caught.value, AirflowFailException)


@pytest.mark.parametrize(
    "operation", ["GetBatch", "CancelRunBatch", "ListRuns", "ListRunsInBatch", "GetRun", "CancelRun"]
)
def test_throttling_is_waited_out(cancel: Any, local: Any, client: Any, operation: str) -> None:
    local.settings.run_running_seconds = 10_000
    batch_id = batch_in("INPROGRESS", local, client)
    local.faults.fail_cancel(["sample-1"])
    local.faults.throttle(operation, times=12)
    assert cancel(batch_id)["cancelled"] == 3
    assert_no_run_is_active(client, batch_id)


def test_access_that_is_denied_is_an_error(cancel: Any, local: Any, client: Any) -> None:
    batch_id = batch_in("INPROGRESS", local, client)
    local.faults.error("CancelRunBatch", code="AccessDeniedException", message="not you")
    with pytest.raises(OmicsApiError, match="CancelRunBatch failed: AccessDeniedException: not you"):
        cancel(batch_id)


@pytest.mark.parametrize("config", [None, ONE_ATTEMPT])
@pytest.mark.parametrize("status", ["PENDING", "SUBMITTING", "INPROGRESS"])
def test_a_lost_answer(cancel: Any, local: Any, client: Any, status: str, config: Any) -> None:
    batch_id = batch_in(status, local, client)
    local.faults.drop_connection("CancelRunBatch", after_effect=True)
    assert cancel(batch_id, botocore_config=config)["status"] == "CANCELLED"
    local.faults.clear()
    assert cancel(batch_id)["status"] == "CANCELLED"
    assert_no_run_is_active(client, batch_id)


@pytest.mark.parametrize("config", [None, ONE_ATTEMPT])
def test_a_lost_answer_about_one_run(cancel: Any, local: Any, client: Any, config: Any) -> None:
    batch_id = batch_in("FAILED", local, client)
    local.faults.drop_connection("CancelRun", after_effect=True)
    assert cancel(batch_id, botocore_config=config)["cancelled"] == 2
    assert_no_run_is_active(client, batch_id)


@pytest.mark.parametrize(
    ("status", "owner", "name"),
    [
        ("INPROGRESS", OmicsCacheHook, "cancel_run_batch"),
        ("FAILED", OmicsCacheHook, "cancel_run"),
        ("INPROGRESS", operator_module, "cancel_batch_once"),
    ],
)
def test_a_try_that_dies_after_the_call(
    cancel: Any, local: Any, client: Any, status: str, owner: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = batch_in(status, local, client)
    die(monkeypatch, owner, name)
    with pytest.raises(KeyboardInterrupt):
        cancel(batch_id)
    assert cancel(batch_id)["not_cancelled"] == 0
    assert_no_run_is_active(client, batch_id)
    assert local.calls["CancelRunBatch"] == (1 if status == "INPROGRESS" else 0)
    assert local.calls["CancelRun"] == (2 if status == "FAILED" else 0)


def test_a_try_after_a_failed_one(cancel: Any, local: Any, client: Any) -> None:
    local.settings.run_running_seconds = 10_000
    batch_id = batch_in("INPROGRESS", local, client)
    local.faults.drop_connection("CancelRunBatch", times=None, after_effect=False)
    with pytest.raises(OmicsApiError):
        cancel(batch_id, max_silence=60)
    local.faults.clear()
    assert cancel(batch_id)["status"] == "CANCELLED"


def test_a_lost_connection_is_waited_out(cancel: Any, local: Any, client: Any) -> None:
    batch_id = batch_in("INPROGRESS", local, client)
    local.faults.drop_connection("GetBatch", times=12)
    assert cancel(batch_id)["status"] == "CANCELLED"


def test_an_endpoint_that_was_never_reached_may_be_misspelt(
    cancel: Any, local: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.settings.creating_seconds = 60
    batch_id = start_batch(client)
    calls = 0
    unreachable = range(0)

    def fail(**_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls in unreachable:
            raise EndpointConnectionError(endpoint_url="https://omics.misspelt.example")

    handlers = [*botocore.handlers.BUILTIN_HANDLERS, ("before-call.omics.GetBatch", fail)]
    monkeypatch.setattr(botocore.handlers, "BUILTIN_HANDLERS", handlers)
    unreachable = range(1, 100)
    began = local.clock.elapsed()
    with pytest.raises(OmicsApiError, match=r"GetBatch failed: EndpointConnectionError: .*misspelt"):
        cancel(batch_id)
    assert local.clock.elapsed() - began <= 60
    calls, unreachable = 0, range(1, 4)
    assert cancel(batch_id)["status"] == "CANCELLED"
    local.settings.creating_seconds = 60
    batch_id = start_batch(client)
    calls, unreachable = 0, range(2, 6)
    assert cancel(batch_id)["status"] == "CANCELLED"
    local.settings.creating_seconds = 1
    batch_id = batch_in("INPROGRESS", local, client)
    calls, unreachable = 0, range(2, 6)
    assert cancel(batch_id)["status"] == "CANCELLED"


@pytest.mark.parametrize(("status", "shown"), [("INPROGRESS", "INPROGRESS"), (None, "without a status")])
def test_a_refusal_names_the_status_that_getbatch_reported(
    cancel: Any, local: Any, client: Any, status: str | None, shown: str
) -> None:
    batch_id = batch_in("PROCESSED", local, client)
    with (
        changed_answers("GetBatch", {"status": status}),
        pytest.raises(OmicsApiError, match=f"^Batch {batch_id} is {shown} and was not cancelled: ") as caught,
    ):
        cancel(batch_id)
    assert "None" not in str(caught.value)


@needs_aiobotocore
@pytest.mark.parametrize("wait", [True, False])
def test_what_cannot_be_deferred_asks_for_nothing(
    cancel: Any, local: Any, client: Any, monkeypatch: pytest.MonkeyPatch, wait: bool
) -> None:
    batch_id = batch_in("INPROGRESS", local, client)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    if wait:
        with pytest.raises(AirflowOptionalProviderFeatureException, match="deferrable=True needs aiobotocore"):
            cancel(batch_id, "deferrable")
    else:
        cancel(batch_id, "deferrable", wait_for_completion=False)
    assert local.calls["CancelRunBatch"] == (0 if wait else 1)


# Answers that lag behind


@each_mode
def test_runs_that_are_not_listed_yet_are_cancelled_too(cancel: Any, local: Any, client: Any, mode: str) -> None:
    local.settings.run_running_seconds = 3_600
    batch_id = batch_in("INPROGRESS", local, client)
    local.faults.fail_cancel(["sample-0"])
    with changed_answers("ListRuns", {"items": []}, times=1):
        assert cancel(batch_id, mode)["cancelled"] == 3
    assert_no_run_is_active(client, batch_id)


@each_mode
def test_counts_of_active_runs_are_waited_for(cancel: Any, local: Any, client: Any, mode: str) -> None:
    batch_id = batch_in("CANCELLED", local, client)
    start = local.clock.elapsed()
    with changed_answers("GetBatch", {"runSummary": {"runningRunCount": 2}}, times=3):
        assert cancel(batch_id, mode)["cancelled"] == 3
    assert 10 <= local.clock.elapsed() - start < 100


@each_mode
def test_counts_that_stay_stale_are_waited_for_five_minutes(
    cancel: Any, local: Any, client: Any, mode: str, task_context: dict[str, Any]
) -> None:
    """Airflow 3.0 and 3.1 set the task's start date anew at each resume; the five minutes begin with the wait."""
    batch_id = batch_in("CANCELLED", local, client)
    began, beginning = local.clock.elapsed(), local.clock.now()
    with changed_answers("GetBatch", {"runSummary": {"runningRunCount": 1}}):
        pushed = cancel(batch_id, mode, context=task_context)
    assert (pushed["cancelled"], pushed["not_cancelled"]) == (3, 0)
    assert 300 <= local.clock.elapsed() - began < 330
    assert (task_context["ti"].start_date > beginning) == (mode == "deferrable")


# Runs that take long to stop


@each_mode
@pytest.mark.parametrize("status", ["CANCELLED", "FAILED"])
def test_a_run_that_takes_long_to_stop_costs_one_getrun_a_round(
    cancel: Any, local: Any, client: Any, mode: str, status: str, task_context: dict[str, Any]
) -> None:
    """The other runs of the batch are on three pages, which are not listed in every round, but once after 5 minutes."""
    batch_id = stopped_but_one(status, local, client)
    local.calls.clear()
    began = local.clock.elapsed()
    pushed = cancel(batch_id, mode, context=task_context, waiter_delay=60)
    assert (pushed["cancelled"], pushed["not_cancelled"]) == (250, 0)
    rounds = (local.clock.elapsed() - began) / 60
    assert 49 < rounds < 53
    assert 45 <= local.calls["GetRun"] <= 60
    assert local.calls["GetBatch"] <= 5
    listings = 4 if status == "FAILED" else 3
    assert local.calls["ListRuns"] == local.calls["ListRunsInBatch"] == 3 * listings
    assert local.calls["CancelRun"] == local.calls["CancelRunBatch"] == 0
    assert len(task_context.get("deferrals", [])) == (2 if mode == "deferrable" else 0)


@needs_aiobotocore
def test_a_partial_cancellation_wakes_the_worker_three_times_however_long_it_takes(
    cancel: Any, local: Any, client: Any, task_context: dict[str, Any]
) -> None:
    """To cancel the runs that are left, to look for late runs after 5 minutes, and when all runs have ended."""
    local.settings.run_running_seconds = 10_000
    local.settings.run_stopping_seconds = 3_000
    batch_id = batch_in("INPROGRESS", local, client)
    local.faults.fail_cancel([f"sample-{n}" for n in range(3)])
    local.calls.clear()
    began = local.clock.elapsed()
    assert cancel(batch_id, "deferrable", context=task_context)["cancelled"] == 3
    assert local.clock.elapsed() - began > 3_000
    assert local.calls["CancelRun"] == 3
    assert len(task_context["deferrals"]) == 3
    assert local.calls["ListRuns"] == local.calls["ListRunsInBatch"] == 3


# One by one


@each_mode
def test_what_a_partial_cancellation_leaves_is_cancelled_one_by_one(
    cancel: Any, local: Any, client: Any, mode: str
) -> None:
    local.settings.run_running_seconds = 10_000
    batch_id = batch_in("INPROGRESS", local, client, runs=10)
    local.faults.fail_cancel(["sample-3", "sample-7"])
    pushed = cancel(batch_id, mode)
    assert pushed == {"id": batch_id, "status": "CANCELLED", "cancelled": 10, "not_cancelled": 0}
    assert local.calls["CancelRun"] == 2
    assert local.calls["GetRun"] == 4, "two to confirm the runs, two to see their end"


@each_mode
def test_runs_that_had_ended_stay_as_they_are(cancel: Any, local: Any, client: Any, mode: str) -> None:
    local.faults.fail_run("sample-0")
    local.settings.submission_rate = 0.1
    batch_id = start_batch(client, 6)
    local.clock.advance(3 + 60)
    before = sorted(runs_of(client, batch_id).values())
    assert before == ["COMPLETED", "COMPLETED", "FAILED", "PENDING", "RUNNING", "RUNNING"]
    pushed = cancel(batch_id, mode)
    after = sorted(runs_of(client, batch_id).values())
    assert after == ["CANCELLED", "CANCELLED", "CANCELLED", "COMPLETED", "COMPLETED", "FAILED"]
    assert (pushed["cancelled"], pushed["not_cancelled"]) == (3, 3)


def test_what_cannot_be_cancelled_is_named(cancel: Any, local: Any, client: Any) -> None:
    local.settings.run_running_seconds = 10_000
    batch_id = batch_in("INPROGRESS", local, client, runs=30)
    local.faults.fail_cancel([f"sample-{n}" for n in range(25)])
    local.faults.error("CancelRun", code="ConflictException", message="not now", times=None)
    with pytest.raises(
        OmicsError, match=r"Batch \d+: 25 runs could not be cancelled: run \d+ of sample-0: RUNNING, "
    ) as caught:
        cancel(batch_id)
    assert str(caught.value).count("of sample-") == 20
    assert "not now" in str(caught.value)
    assert not isinstance(caught.value, AirflowFailException)
    local.faults.clear()
    assert cancel(batch_id)["cancelled"] == 30
    assert local.calls["CancelRun"] == 50


def test_a_throttled_look_at_a_run_that_could_not_be_cancelled(cancel: Any, local: Any, client: Any) -> None:
    batch_id = batch_in("FAILED", local, client)
    local.faults.error("CancelRun", code="ConflictException")
    local.faults.latency("CancelRun", seconds=100)
    cancel_run = OmicsCacheHook.cancel_run

    def cancel_and_throttle(self: OmicsCacheHook, **members: Any) -> Any:
        local.faults.throttle("GetRun", times=12)
        return cancel_run(self, **members)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(OmicsCacheHook, "cancel_run", cancel_and_throttle)
        assert cancel(batch_id)["not_cancelled"] == 2


@pytest.mark.parametrize(("operation", "calls"), [("GetRun", 0), ("CancelRun", 1)])
def test_a_run_that_ends_by_itself_is_fine(cancel: Any, local: Any, client: Any, operation: str, calls: int) -> None:
    batch_id = batch_in("FAILED", local, client)
    local.faults.latency(operation, seconds=100)
    pushed = cancel(batch_id)
    assert (pushed["cancelled"], pushed["not_cancelled"]) == (0, 2)
    assert local.calls["CancelRun"] == calls


def test_a_run_id_that_was_given_to_another_run_is_left_alone(
    cancel: Any, local: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the listing and GetRun, the runs end, are deleted, and their ids are given to another batch's runs."""
    local.settings.reuse_run_ids = True
    ours = batch_in("FAILED", local, client)
    run_ids = set(runs_of(client, ours))
    others: list[str] = []
    get_confirmed_runs = end.get_confirmed_runs

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        if not others:
            local.clock.advance(100)
            for run_id in run_ids:
                client.delete_run(id=run_id)
            local.faults.clear()
            local.settings.run_running_seconds = 10_000
            others.append(batch_in("INPROGRESS", local, client))
        return get_confirmed_runs(*args, **kwargs)

    monkeypatch.setattr(end, "get_confirmed_runs", interrupted)
    cancel(ours)
    assert run_ids < set(runs_of(client, others[0])), "the ids were to be reused"
    assert set(runs_of(client, others[0]).values()) == {"RUNNING"}
    assert local.calls["CancelRun"] == 0


@pytest.mark.parametrize(
    ("operation", "changed"),
    [("GetRun", {"uuid": None}), ("GetRun", {"batchId": None}), ("ListRunsInBatch", {"runs": []})],
)
def test_a_run_that_is_not_confirmed_is_left_alone_and_named(
    cancel: Any, local: Any, client: Any, operation: str, changed: dict[str, Any]
) -> None:
    batch_id = batch_in("FAILED", local, client)
    with (
        changed_answers(operation, changed),
        pytest.raises(
            OmicsError, match=r"2 runs could not be cancelled: .*: RUNNING, not confirmed as a run of the batch"
        ),
    ):
        cancel(batch_id)
    assert local.calls["CancelRun"] == 0


# What Airflow sees


def test_its_id_can_be_templated() -> None:
    assert set(CancelRunBatchOperator.template_fields) == set(aws_template_fields("batch_id"))
