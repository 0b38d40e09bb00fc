"""The operators of single runs, against the local HealthOmics."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_omics_cache.exceptions import (
    OmicsApiError,
    OmicsError,
    OmicsParameterError,
    OmicsRequestError,
    RunCancelledError,
    RunConflictError,
    RunDeletedError,
    RunError,
    RunFailedError,
    RunNotFoundError,
    RunTimeoutError,
)
from airflow_provider_omics_cache.healthomics import start_run as start_run_module
from airflow_provider_omics_cache.healthomics.once import DIGEST_TAG, GENERATION_TAG
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.operators.run import CancelRunOperator, DeleteRunOperator, StartRunOperator
from airflow_provider_omics_cache.triggers.run import StartRunTrigger
from airflow_provider_omics_cache.xcoms import RunXCom
from tests.conftest import HAS_SESSION_POLICIES, needs_aiobotocore, needs_batches
from tests.operators.batch_states import changed_answers, die, each_mode, run_operator

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics
    from tests.operators.waiting_task import Context, Later

pytestmark = needs_batches

NewContext = Callable[[], dict[str, Any]]
GIVEN = {
    "workflow_id": "1234567",
    "role_arn": "arn:aws:iam::123456789012:role/omics",
    "output_uri": "s3://results/runs",
    "parameters": {"sample": "HG001"},
}
#: Service time after which a run has ended.
ENDED = 200
ONE_ATTEMPT = {"retries": {"total_max_attempts": 1}}


def operator(**given: Any) -> StartRunOperator:
    return StartRunOperator(task_id="start_run", **{**GIVEN, **given})


def start(context: Context, **given: Any) -> str:
    run_id = operator(**given).execute(context)
    assert run_id == context["ti"].xcoms["run"]["id"]
    return run_id


def runs(client: Any) -> list[dict[str, Any]]:
    """All runs, the oldest first."""
    return [client.get_run(id=run["id"]) for run in client.list_runs()["items"]]


def status_of(client: Any, run_id: str) -> str:
    return str(client.get_run(id=run_id)["status"])


def run_in(status: str, local: LocalHealthOmics, client: Any, context: Context, **given: Any) -> str:
    """Start the task's run, and bring it into a status."""
    run_id = start(context, **given)
    if status == "FAILED":
        local.faults.fail_run(context["ti"].xcoms["run"]["name"])
    if status in {"CANCELLED", "FAILED", "COMPLETED"}:
        if status == "CANCELLED":
            client.cancel_run(id=run_id)
        local.clock.advance(ENDED)
    else:
        for _ in range(ENDED):
            if status_of(client, run_id) == status:
                break
            local.clock.advance(1)
    assert status_of(client, run_id) == status
    return run_id


class TestStartedOnce:
    def test_a_run_has_what_the_task_was_given(
        self, local: LocalHealthOmics, client: Any, new_task_context: NewContext, caplog: Any, capsys: Any
    ) -> None:
        context = new_task_context()
        group_id = client.create_run_group(name="g", maxRuns=5, requestId="g")["id"]
        given = {
            "run_group_id": int(group_id),
            "priority": 7,
            "storage_type": "STATIC",
            "storage_capacity": 1200,
            "log_level": "ALL",
            "retention_mode": "REMOVE",
            **({"session_policy": '{"Statement": "s3cret"}'} if HAS_SESSION_POLICIES else {}),
            "tags": {"team": "a"},
            "name": "sample HG001",
        }
        run_id = start(context, **given)
        (run,) = runs(client)
        assert run["id"] == run_id
        assert (run["workflowId"], run["outputUri"], run["parameters"]) == (
            "1234567",
            "s3://results/runs",
            {"sample": "HG001"},
        )
        assert (run["runGroupId"], run["priority"], run["storageType"], run["storageCapacity"]) == (
            group_id,
            7,
            "STATIC",
            1200,
        )
        assert (run["logLevel"], run["retentionMode"]) == ("ALL", "REMOVE")
        assert run["name"].startswith("sample HG001-")
        assert run["tags"]["team"] == "a"
        assert run["tags"]["airflow-dag-id"] == context["ti"].dag_id
        assert run["tags"][GENERATION_TAG] == "0"
        xcom = context["ti"].xcoms["run"]
        assert xcom.keys() == RunXCom.__annotations__.keys()
        assert (xcom["uuid"], xcom["name"], xcom["run_output_uri"]) == (run["uuid"], run["name"], run["runOutputUri"])
        assert (xcom["reattached"], len(xcom["request_id"])) == (False, 68)
        assert "s3cret" not in caplog.text + capsys.readouterr().out + json.dumps(context["ti"].xcoms)
        assert run_id in json.dumps(context["ti"].links)

    @pytest.mark.parametrize(
        ("status", "same", "other"),
        [
            ("PENDING", None, RunConflictError),
            ("STARTING", None, RunConflictError),
            ("RUNNING", None, RunConflictError),
            ("STOPPING", None, RunConflictError),
            ("COMPLETED", None, "a new run"),
            ("FAILED", RunFailedError, RunFailedError),
            ("CANCELLED", RunCancelledError, RunCancelledError),
        ],
    )
    @pytest.mark.parametrize("is_forgotten", [False, True])
    def test_a_later_try_finds_the_run(
        self,
        status: str,
        same: type[Exception] | None,
        other: type[Exception] | str,
        is_forgotten: bool,
        local: LocalHealthOmics,
        client: Any,
        task_context: Context,
    ) -> None:
        if is_forgotten:
            local.settings.token_seconds = 0
        run_id = run_in(status, local, client, task_context)
        if same is None:
            assert start(task_context) == run_id
            assert task_context["ti"].xcoms["run"]["reattached"] is True
        else:
            with pytest.raises(same, match="rerun_key") as caught:
                start(task_context)
            assert (caught.value.run_id, caught.value.status) == (run_id, status)  # type: ignore[attr-defined]
        if isinstance(other, str):
            assert start(task_context, parameters={"sample": "HG002"}) != run_id
        else:
            with pytest.raises(other, match="rerun_key"):
                start(task_context, parameters={"sample": "HG002"})
        assert len(runs(client)) == 1 + isinstance(other, str)

    def test_a_new_rerun_key_starts_a_new_run(
        self, local: LocalHealthOmics, client: Any, task_context: Context
    ) -> None:
        first = run_in("CANCELLED", local, client, task_context)
        second = start(task_context, rerun_key="again")
        assert first != second
        assert start(task_context, rerun_key="again") == second

    def test_other_tags_are_the_same_run(self, local: LocalHealthOmics, client: Any, task_context: Context) -> None:
        run_id = start(task_context, tags={"try": "1"})
        assert start(task_context, tags={"try": "2"}, log_level=None) == run_id

    def test_a_run_that_failed_before_it_was_running_is_replaced(
        self, local: LocalHealthOmics, client: Any, task_context: Context
    ) -> None:
        first = run_in("FAILED", local, client, task_context)
        local.clock.advance(300)
        with changed_answers("GetRun", {"startTime": None}, times=2):
            second = start(task_context)
        assert first != second
        assert local.calls["StartRun"] == 2, "the token of a FAILED run starts nothing"
        assert [run["tags"][GENERATION_TAG] for run in runs(client)] == ["0", "1"]

    def test_a_late_start_time_is_waited_for(self, local: LocalHealthOmics, client: Any, task_context: Context) -> None:
        run_in("FAILED", local, client, task_context)
        with changed_answers("GetRun", {"startTime": None, "stopTime": None}, times=3), pytest.raises(RunFailedError):
            start(task_context)
        assert len(runs(client)) == 1

    def test_the_answer_of_the_start_is_lost(
        self, local: LocalHealthOmics, client: Any, new_task_context: NewContext
    ) -> None:
        local.faults.drop_connection("StartRun", after_effect=True, times=1)
        context = new_task_context()
        run_id = start(context, botocore_config=ONE_ATTEMPT)
        assert [run["id"] for run in runs(client)] == [run_id]

    @pytest.mark.parametrize("is_forgotten", [False, True])
    def test_a_process_that_ends_after_the_start(
        self,
        is_forgotten: bool,
        local: LocalHealthOmics,
        client: Any,
        monkeypatch: pytest.MonkeyPatch,
        new_task_context: NewContext,
    ) -> None:
        die(monkeypatch, OmicsCacheHook, "start_run")
        with pytest.raises(KeyboardInterrupt):
            start(new_task_context())
        if is_forgotten:
            local.settings.token_seconds = 0
        context = new_task_context()
        run_id = start(context)
        assert [run["id"] for run in runs(client)] == [run_id]
        assert context["ti"].xcoms["run"]["reattached"] is True

    def test_two_tries_at_the_same_moment_get_one_run(
        self, local: LocalHealthOmics, client: Any, monkeypatch: pytest.MonkeyPatch, new_task_context: NewContext
    ) -> None:
        original = OmicsCacheHook.start_run
        others: list[str] = []

        def start_another(hook: OmicsCacheHook, **members: Any) -> Any:
            monkeypatch.setattr(OmicsCacheHook, "start_run", original)
            others.append(start(new_task_context()))
            return original(hook, **members)

        monkeypatch.setattr(OmicsCacheHook, "start_run", start_another)
        assert [start(new_task_context())] == others
        assert len(runs(client)) == 1

    @pytest.mark.parametrize("error", ["ConflictException", "ValidationException"])
    def test_a_spent_token_leads_to_the_run(
        self, error: str, local: LocalHealthOmics, client: Any, monkeypatch: pytest.MonkeyPatch, task_context: Context
    ) -> None:
        local.settings.changed_request_error = error
        run_id = start(task_context)
        look, looks = start_run_module.StartRunOnce.list_named, iter([True])

        def look_late(once: Any) -> Any:
            return [] if next(looks, False) else look(once)

        monkeypatch.setattr(start_run_module.StartRunOnce, "list_named", look_late)
        assert start(task_context, tags={"another": "tag"}) == run_id

    @pytest.mark.parametrize("error", ["ConflictException", None])
    def test_other_parameters_while_the_list_lags_start_no_second_run(
        self,
        error: str | None,
        local: LocalHealthOmics,
        client: Any,
        monkeypatch: pytest.MonkeyPatch,
        task_context: Context,
    ) -> None:
        local.settings.changed_request_error = error
        run_id = start(task_context)
        look, looks = start_run_module.StartRunOnce.list_named, iter([True])

        def look_late(once: Any) -> Any:
            return [] if next(looks, False) else look(once)

        monkeypatch.setattr(start_run_module.StartRunOnce, "list_named", look_late)
        with pytest.raises(RunConflictError, match="rerun_key") as caught:
            start(task_context, parameters={"sample": "HG002"})
        assert caught.value.run_id == run_id
        assert [run["id"] for run in runs(client)] == [run_id]

    def test_a_list_that_lags_longer_fails_only_the_try(
        self, local: LocalHealthOmics, client: Any, monkeypatch: pytest.MonkeyPatch, task_context: Context
    ) -> None:
        run_id = start(task_context)
        with monkeypatch.context() as patch:
            patch.setattr(start_run_module.StartRunOnce, "list_named", lambda once: [])
            with pytest.raises(OmicsApiError, match="a run that is not listed yet") as caught:
                start(task_context, tags={"another": "tag"})
        assert not isinstance(caught.value, OmicsRequestError), "a retry can succeed"
        assert start(task_context, tags={"another": "tag"}) == run_id
        assert len(runs(client)) == 1

    def test_a_deleted_run_whose_id_is_used_again_is_not_taken(
        self, local: LocalHealthOmics, client: Any, task_context: Context
    ) -> None:
        local.settings.reuse_run_ids = True
        run_id = run_in("COMPLETED", local, client, task_context)
        client.delete_run(id=run_id)
        theirs = client.start_run(
            workflowId="1", roleArn=GIVEN["role_arn"], outputUri="s3://theirs/x", name="theirs", requestId="theirs"
        )
        assert theirs["id"] == run_id
        with pytest.raises(OmicsError, match=r"did not find it for 300 s.* set rerun_key") as caught:
            start(task_context)
        assert not isinstance(caught.value, RunError)
        assert len(runs(client)) == 1

    @pytest.mark.parametrize("status", ["COMPLETED", "CANCELLED"])
    def test_a_deleted_run_is_started_again_when_its_token_is_forgotten(
        self, status: str, local: LocalHealthOmics, client: Any, new_task_context: NewContext
    ) -> None:
        """The documentation lists this as a limit, for batches too."""
        first = run_in(status, local, client, new_task_context())
        with changed_answers("GetRun", {"status": "DELETED"}), pytest.raises(RunDeletedError, match="rerun_key"):
            start(new_task_context())
        client.delete_run(id=first)
        with pytest.raises(OmicsError, match="did not find it for 300 s"):
            start(new_task_context())
        local.forget_tokens()
        second = start(new_task_context())
        assert [run["id"] for run in runs(client)] == [second] != [first]

    def test_a_missing_digest_is_never_a_second_run(
        self, local: LocalHealthOmics, client: Any, task_context: Context
    ) -> None:
        run_id = start(task_context)
        client.untag_resource(resourceArn=client.get_run(id=run_id)["arn"], tagKeys=[DIGEST_TAG])
        with pytest.raises(RunConflictError, match="GetRun does not show its tag"):
            start(task_context)
        assert len(runs(client)) == 1

    def test_a_request_id_of_the_user(self, local: LocalHealthOmics, client: Any, task_context: Context) -> None:
        run_id = start(task_context, request_id="mine")
        assert task_context["ti"].xcoms["run"]["request_id"] == "mine"
        assert GENERATION_TAG not in client.get_run(id=run_id)["tags"]

    @pytest.mark.parametrize("refusal", ["ConflictException", None])
    def test_a_request_id_of_another_task_and_another_name(
        self, refusal: str | None, local: LocalHealthOmics, client: Any, task_context: Context
    ) -> None:
        """The other run is never used, and no XCom lets a teardown cancel it."""
        local.settings.changed_request_error = refusal
        theirs = client.start_run(
            workflowId="1234567",
            roleArn=GIVEN["role_arn"],
            outputUri="s3://their-runs/",
            name="theirs",
            requestId="shared",
        )
        text = "or set another request_id" if refusal else rf"^request_id 'shared' belongs to run {theirs['id']}, which"
        before = local.clock.now()
        with pytest.raises(OmicsApiError if refusal else RunConflictError, match=text):
            start(task_context, request_id="shared")
        assert ("run" in task_context["ti"].xcoms, len(runs(client))) == (False, 1)
        assert refusal or (local.clock.now() - before).total_seconds() < 60
        if refusal is None:
            run_id = start(task_context, name="first")
            with pytest.raises(RunConflictError, match=rf"belongs to run {run_id} \(first-.*Set the name of the first"):
                start(task_context, name="second")
            assert len(runs(client)) == 2

    def test_throttling_is_waited_out(self, local: LocalHealthOmics, client: Any, task_context: Context) -> None:
        local.faults.throttle("StartRun", times=12)
        start(task_context)
        assert len(runs(client)) == 1


class TestBadInput:
    @pytest.mark.parametrize(
        ("given", "parameter", "rule"),
        [
            ({"workflow_id": None}, "workflow_id", "must be given unless run_id is given"),
            ({"workflow_id": "None"}, "workflow_id", "must be an id of 1 to 18 digits; got 'None'"),
            ({"cache_id": ""}, "cache_id", "must be an id of 1 to 18 digits; got ''"),
            ({"cache_behavior": "CACHE_ALWAYS"}, "cache_behavior", "has no effect without cache_id.*'CACHE_ALWAYS'"),
            ({"storage_type": "STATIC"}, "storage_capacity", "must be given for storage_type STATIC"),
            ({"workflow_type": "READY2RUN", "storage_capacity": 9}, "storage_capacity", "must not be given.*got 9"),
            ({"priority": -1}, "priority", r"must be an integer \(0 to 100,000\); got -1"),
            ({"output_uri": ""}, "output_uri", "must be given; got ''"),
            ({"parameters": "x"}, "parameters", "must be"),
            ({"parameters": {"x": float("nan")}}, "parameters", "must contain only JSON values"),
            ({"parameters": {"x": "y" * 256_000}}, "parameters", "must have at most 256,000 bytes"),
            ({"tags": {"aws:x": "y"}}, "tags", "must not have keys that begin with aws:"),
            ({"tags": {DIGEST_TAG: "y"}}, "tags", "must not have keys that the operator sets"),
            ({"request_id": "x" * 129}, "request_id", "must be a token of 1 to 128 characters"),
        ],
    )
    def test_is_refused_before_any_call(
        self, given: dict[str, Any], parameter: str, rule: str, local: LocalHealthOmics, task_context: Context
    ) -> None:
        with pytest.raises(OmicsParameterError, match=f"^{parameter}.* {rule}"):
            start(task_context, **given)
        assert local.calls.total() == 0

    @pytest.mark.parametrize(
        ("given", "text"),
        [
            ({"workflow_id": "99"}, "workflow_id must name an active workflow; got '99'"),
            ({"workflow_id": "95"}, "workflow_id must name an active workflow; got '95'"),
            ({"run_group_id": "98"}, "run_group_id must name an existing run group; got '98'"),
            ({"cache_id": "97"}, "cache_id must name an active run cache; got '97'"),
            ({"workflow_id": None, "run_id": "96"}, "run_id must name an existing run; got '96'"),
        ],
    )
    def test_a_resource_that_does_not_exist_or_is_not_active(
        self, given: dict[str, Any], text: str, local: LocalHealthOmics, client: Any, task_context: Context
    ) -> None:
        local.settings.strict_workflows = local.settings.strict_run_groups = True
        local.register_workflow("1234567")
        local.register_workflow("95", status="INACTIVE")
        with pytest.raises(OmicsApiError) as caught:
            start(task_context, **given)
        assert str(caught.value).startswith(f"{text}: StartRun failed: ResourceNotFoundException: ")
        assert runs(client) == []

    def test_a_member_that_the_service_does_not_support(
        self, local: LocalHealthOmics, client: Any, task_context: Context
    ) -> None:
        local.faults.error("StartRun", code="ValidationException", message="cacheId is not supported in this Region")
        with pytest.raises(OmicsRequestError, match=r"^cache_id was refused; got '97': .*not supported in this Region"):
            start(task_context, cache_id="97")
        assert local.calls["StartRun"] == 1

    def test_an_inactive_workflow(self, local: LocalHealthOmics, client: Any, task_context: Context) -> None:
        text = "Workflow 1234567 is INACTIVE"
        local.faults.error("StartRun", code="ValidationException", message=text)
        with pytest.raises(
            OmicsRequestError, match=rf"^workflow_id must name an active workflow; got '1234567': .*{text}"
        ):
            start(task_context)
        assert local.calls["StartRun"] == 1

    def test_parameters_that_the_workflow_does_not_take(
        self, local: LocalHealthOmics, client: Any, task_context: Context
    ) -> None:
        local.settings.strict_workflows = True
        local.register_workflow("1234567", parameter_template={"reference": {}})
        text = "^parameters must fit the parameter template of the workflow; got \\['sample'\\]: .*template: sample"
        with pytest.raises(OmicsRequestError, match=text) as caught:
            start(task_context)
        assert "HG001" not in str(caught.value)
        assert (local.calls["StartRun"], local.calls["ListRuns"]) == (1, 1)

    def test_a_parameter_of_the_wait_without_a_wait(self) -> None:
        with pytest.raises(OmicsParameterError, match="cancel_on_kill has no effect without wait_for_completion=True"):
            operator(cancel_on_kill=True)


def waiting(context: Context, local: LocalHealthOmics, mode: str, **given: Any) -> Any:
    given = {"wait_for_completion": True, "waiter_delay": 20, **given}
    return run_operator(partial(operator, **given), mode, context, local.clock)


class TestWait:
    @each_mode
    def test_a_run_that_completes(self, mode: str, local: LocalHealthOmics, client: Any, task_context: Context) -> None:
        run_id = waiting(task_context, local, mode)
        run = client.get_run(id=run_id)
        assert run["status"] == "COMPLETED"
        xcom = task_context["ti"].xcoms["run"]
        assert (xcom["status"], xcom["run_output_uri"], xcom["reattached"]) == (
            "COMPLETED",
            run["runOutputUri"],
            False,
        )
        assert local.calls["StartRun"] == 1

    @each_mode
    def test_a_run_that_fails(
        self, mode: str, local: LocalHealthOmics, client: Any, later: Later, task_context: Context
    ) -> None:
        later(1, lambda: local.faults.fail_run(runs(client)[0]["name"]))
        with pytest.raises(RunFailedError, match="failed: RUN_TASK_FAILED: The run failed on demand") as caught:
            waiting(task_context, local, mode)
        assert caught.value.reason == "RUN_TASK_FAILED"
        assert task_context["ti"].xcoms["run"]["failure_reason"] == "RUN_TASK_FAILED"

    @each_mode
    def test_a_run_that_somebody_cancels(
        self, mode: str, local: LocalHealthOmics, client: Any, later: Later, task_context: Context
    ) -> None:
        later(1, lambda: client.cancel_run(id=runs(client)[0]["id"]))
        with pytest.raises(RunCancelledError, match="was cancelled"):
            waiting(task_context, local, mode)

    @each_mode
    def test_a_run_whose_id_is_used_again(
        self, mode: str, local: LocalHealthOmics, client: Any, later: Later, task_context: Context
    ) -> None:
        local.settings.reuse_run_ids = True
        local.settings.run_running_seconds = 10_000

        def reuse() -> None:
            run_id = runs(client)[0]["id"]
            client.cancel_run(id=run_id)
            local.clock.advance(60)
            client.delete_run(id=run_id)
            client.start_run(workflowId="1", roleArn=GIVEN["role_arn"], outputUri="s3://results/y", requestId="theirs")

        later(30, reuse)
        with pytest.raises(RunDeletedError, match="was deleted"):
            waiting(task_context, local, mode)
        assert [run["status"] for run in runs(client)] != ["CANCELLED"]

    @each_mode
    @pytest.mark.parametrize("cancels", [False, True])
    def test_the_timeout(
        self, mode: str, cancels: bool, local: LocalHealthOmics, client: Any, task_context: Context
    ) -> None:
        local.settings.run_running_seconds = 10_000
        error = RunCancelledError if cancels else RunTimeoutError
        with pytest.raises(error, match=r"Timed out\. "):
            waiting(task_context, local, mode, timeout=100, cancel_on_timeout=cancels)
        local.clock.advance(60)
        assert [run["status"] for run in runs(client)] == ["CANCELLED" if cancels else "RUNNING"]

    @pytest.mark.parametrize("is_deferred", [False, pytest.param(True, marks=needs_aiobotocore)])
    @pytest.mark.parametrize("cancels", [False, True])
    def test_a_kill(
        self, is_deferred: bool, cancels: bool, local: LocalHealthOmics, client: Any, task_context: Context
    ) -> None:
        task = operator(wait_for_completion=True, cancel_on_kill=cancels)
        run_id = task._start(task_context)
        if is_deferred:
            uuid = task_context["ti"].xcoms["run"]["uuid"]
            trigger = StartRunTrigger(run_id=run_id, run_uuid=uuid, cancel_on_kill=cancels)
            asyncio.run(trigger.on_kill())
            assert StartRunTrigger(**trigger.serialize()[1]).serialize() == trigger.serialize()
            assert trigger.serialize()[0] == "airflow_provider_omics_cache.triggers.run.StartRunTrigger"
        else:
            task.on_kill()
        local.clock.advance(ENDED)
        assert status_of(client, run_id) == ("CANCELLED" if cancels else "COMPLETED")

    def test_a_retry_waits_for_the_same_run(
        self, local: LocalHealthOmics, client: Any, new_task_context: NewContext
    ) -> None:
        local.settings.run_running_seconds = 150
        with pytest.raises(RunTimeoutError):
            waiting(new_task_context(), local, "sync", timeout=60)
        context = new_task_context()
        waiting(context, local, "sync")
        assert len(runs(client)) == 1
        assert context["ti"].xcoms["run"]["reattached"] is True


class TestCancel:
    @each_mode
    @pytest.mark.parametrize("status", ["PENDING", "STARTING", "RUNNING", "CANCELLED"])
    def test_it_cancels_once(
        self, mode: str, status: str, local: LocalHealthOmics, client: Any, task_context: Context
    ) -> None:
        run_id = run_in(status, local, client, task_context)
        before = local.calls["CancelRun"]
        make = partial(CancelRunOperator, task_id="cancel", run_id=run_id, waiter_delay=20)
        assert run_operator(make, mode, task_context, local.clock) == run_id
        assert status_of(client, run_id) == "CANCELLED"
        assert task_context["ti"].xcoms["run"]["status"] == "CANCELLED"
        assert local.calls["CancelRun"] - before == (status != "CANCELLED")

    def test_a_stopping_run_is_waited_for(self, local: LocalHealthOmics, client: Any, task_context: Context) -> None:
        run_id = run_in("STOPPING", local, client, task_context)
        assert CancelRunOperator(task_id="cancel", run_id=run_id).execute(task_context) == run_id
        assert local.calls["CancelRun"] == 0
        assert status_of(client, run_id) == "COMPLETED"

    @pytest.mark.parametrize("status", ["COMPLETED", "FAILED"])
    def test_a_finished_run(self, status: str, local: LocalHealthOmics, client: Any, task_context: Context) -> None:
        run_id = run_in(status, local, client, task_context)
        with pytest.raises(RunConflictError, match=rf"has already finished \({status}\)"):
            CancelRunOperator(task_id="cancel", run_id=run_id).execute(task_context)
        teardown = CancelRunOperator(task_id="cancel", run_id=run_id)
        teardown.is_teardown = True
        assert teardown.execute(task_context) == run_id
        assert local.calls["CancelRun"] == 0

    def test_a_teardown_without_a_run(self, local: LocalHealthOmics, task_context: Context) -> None:
        for run_id, result in ((None, None), ("None", None), ("4711", "4711")):
            teardown = CancelRunOperator(task_id="cancel", run_id=run_id)  # type: ignore[arg-type]
            teardown.is_teardown = True
            assert teardown.execute(task_context) == result
        with pytest.raises(RunNotFoundError, match="Run 4711 was not found in account"):
            CancelRunOperator(task_id="cancel", run_id="4711").execute(task_context)
        with pytest.raises(OmicsParameterError, match="run_id must be an id"):
            CancelRunOperator(task_id="cancel", run_id="None").execute(task_context)

    @pytest.mark.parametrize("lost", [False, True])
    def test_no_other_run_is_cancelled(
        self, lost: bool, local: LocalHealthOmics, client: Any, monkeypatch: pytest.MonkeyPatch, task_context: Context
    ) -> None:
        """The id is used again before the first attempt, or between a lost answer and the next attempt."""
        local.settings.reuse_run_ids = True
        local.settings.run_running_seconds = 10_000
        run_id = start(task_context)
        uuid = task_context["ti"].xcoms["run"]["uuid"]
        original = OmicsCacheHook.cancel_run

        def reuse(hook: Any, **members: Any) -> None:
            monkeypatch.setattr(OmicsCacheHook, "cancel_run", original)
            client.cancel_run(id=run_id)
            local.clock.advance(60)
            client.delete_run(id=run_id)
            client.start_run(workflowId="1", roleArn=GIVEN["role_arn"], outputUri="s3://results/y", requestId="theirs")
            raise OmicsApiError("lost", code="ConnectionClosedError", operation="CancelRun")

        if lost:
            monkeypatch.setattr(OmicsCacheHook, "cancel_run", reuse)
        else:
            with pytest.raises(OmicsApiError):
                reuse(None)
        task = CancelRunOperator(task_id="cancel", run_id=run_id, run_uuid=None if lost else uuid)
        if lost:
            task.execute(task_context)
        else:
            with pytest.raises(RunConflictError, match="DELETED"):
                task.execute(task_context)
        local.clock.advance(100)
        assert [run["status"] for run in runs(client)] == ["RUNNING"]

    def test_the_timeout(self, local: LocalHealthOmics, client: Any, task_context: Context) -> None:
        run_id = run_in("RUNNING", local, client, task_context)
        local.settings.run_stopping_seconds = 10_000
        run = local._state.region("123456789012", "us-east-1").single_runs[int(run_id)]
        run.course().settings.run_stopping_seconds = 10_000
        with pytest.raises(RunTimeoutError, match=r"Timed out\. Run"):
            CancelRunOperator(task_id="cancel", run_id=run_id, timeout=120).execute(task_context)


class TestDelete:
    @pytest.mark.parametrize("status", ["COMPLETED", "FAILED", "CANCELLED"])
    def test_a_run_that_has_ended(
        self, status: str, local: LocalHealthOmics, client: Any, task_context: Context
    ) -> None:
        run_id = run_in(status, local, client, task_context)
        for _ in range(2):
            assert DeleteRunOperator(task_id="delete", run_id=run_id).execute(task_context) == run_id
            assert task_context["ti"].xcoms["run"]["status"] == "DELETED"
        assert local.calls["DeleteRun"] == 1
        assert runs(client) == []

    def test_an_active_run(self, local: LocalHealthOmics, client: Any, task_context: Context) -> None:
        run_id = run_in("RUNNING", local, client, task_context)
        with pytest.raises(RunConflictError, match=r"is RUNNING and cannot be deleted\. Cancel it first"):
            DeleteRunOperator(task_id="delete", run_id=run_id).execute(task_context)
        assert local.calls["DeleteRun"] == 0

    def test_another_uuid_is_another_run(self, local: LocalHealthOmics, client: Any, task_context: Context) -> None:
        run_id = run_in("COMPLETED", local, client, task_context)
        DeleteRunOperator(task_id="delete", run_id=run_id, run_uuid="another").execute(task_context)
        assert len(runs(client)) == 1
