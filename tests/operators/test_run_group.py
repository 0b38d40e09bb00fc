"""CreateRunGroupOperator and DeleteRunGroupOperator against the local HealthOmics: a group that exists once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import pytest
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields
from botocore.stub import Stubber

try:
    from airflow.sdk import DAG
except ImportError:
    from airflow.models.dag import DAG

from airflow_provider_omics_cache._compat import AirflowFailException
from airflow_provider_omics_cache.exceptions import OmicsApiError, OmicsError, OmicsParameterError, RunGroupError
from airflow_provider_omics_cache.healthomics.identity import run_group_token
from airflow_provider_omics_cache.healthomics.run_groups import ensure_run_group
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.operators.run_group import CreateRunGroupOperator, DeleteRunGroupOperator
from tests.altered_answers import Change, alter_run_groups, unseen, without
from tests.operators.batch_states import ONE_ATTEMPT, die
from tests.sensor_modes import use_service_time_in_tasks

LIMITS = {"max_cpus": 256, "max_gpus": 8, "max_runs": 20, "max_duration": 600}


@pytest.fixture
def local(local_healthomics: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The local HealthOmics. Each wait of the package advances the service's clock."""
    use_service_time_in_tasks(monkeypatch, local_healthomics)
    return local_healthomics


@pytest.fixture
def omics(local: Any) -> Any:
    """A client of another user."""
    return boto3.client("omics")


@pytest.fixture
def execute(local: Any, new_task_context: Callable[[], dict[str, Any]]) -> Any:
    """Run one try of the operator; return its result and the XCom ``run_group``."""

    def execute(change: Change | None = None, *operations: str, **parameters: Any) -> tuple[str, dict[str, Any]]:
        context = new_task_context()
        task = create(**parameters)
        if change:
            alter_run_groups(task.hook.conn, change, *operations)
        returned = task.execute(context)
        assert set(context["ti"].xcoms) == {"run_group"}
        return returned, context["ti"].xcoms["run_group"]

    return execute


@pytest.fixture
def run_group_id(omics: Any) -> str:
    return str(omics.create_run_group(name="cohort", maxCpus=64)["id"])


def create(**parameters: Any) -> CreateRunGroupOperator:
    return CreateRunGroupOperator(**{"task_id": "run_group", "name": "cohort", **parameters})


def delete(run_group_id: Any, **parameters: Any) -> Any:
    return DeleteRunGroupOperator(task_id="delete", run_group_id=run_group_id, **parameters).execute({})


def groups(omics: Any) -> list[dict[str, Any]]:
    return [item for page in omics.get_paginator("list_run_groups").paginate() for item in page["items"]]


def ids(omics: Any) -> list[str]:
    return [group["id"] for group in groups(omics)]


# One group, whatever happens


def test_it_creates_the_group_and_pushes_it(execute: Any, omics: Any, local: Any) -> None:
    returned, pushed = execute(**LIMITS, tags={"team": "a"})
    found = omics.get_run_group(id=returned)
    assert (found["maxCpus"], found["maxGpus"], found["maxRuns"], found["maxDuration"]) == (256, 8, 20, 600)
    assert pushed == {
        "id": returned,
        "arn": found["arn"],
        "name": "cohort",
        **LIMITS,
        "creation_time": found["creationTime"].isoformat(),
        "tags": {"team": "a"},
        "created": True,
    }
    for forgets in (False, True, False):
        if forgets:
            local.forget_tokens()
        again, pushed = execute(**LIMITS)
        assert (again, pushed["created"]) == (returned, False)
    assert local.calls["CreateRunGroup"] == 1
    other, pushed = execute(name="other", max_runs="20")
    assert other != returned
    limits = {"max_cpus": None, "max_gpus": None, "max_runs": 20, "max_duration": None}
    assert {name: pushed[name] for name in LIMITS} == limits
    assert len(groups(omics)) == 2


@pytest.mark.parametrize("error", ["ConflictException", None])
def test_four_tasks_that_ask_at_the_same_time_get_one_group(omics: Any, local: Any, error: str | None) -> None:
    """Each task finds no group before one of them creates the group. Their limits differ."""
    local.settings.changed_request_error = error
    barrier = threading.Barrier(4)

    def wait_for_the_others(**_: Any) -> None:
        barrier.wait(60)

    def ensure(number: int) -> str:
        hook = OmicsCacheHook()
        hook.conn.meta.events.register("before-call.omics.CreateRunGroup", wait_for_the_others)
        return str(ensure_run_group(hook, name="cohort", max_runs=1 + number % 2).run_group["id"])

    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(ensure, range(4)))
    assert sorted(found) == ids(omics)
    assert len(found) == 1
    assert local.calls["CreateRunGroup"] == 4


@pytest.mark.parametrize("lag", [0, 200])
@pytest.mark.parametrize("other", [{}, {"max_runs": 7}])
def test_the_try_after_a_worker_that_died_finds_the_group(
    execute: Any, omics: Any, local: Any, monkeypatch: pytest.MonkeyPatch, lag: float, other: dict[str, Any]
) -> None:
    die(monkeypatch, OmicsCacheHook, "create_run_group")
    with pytest.raises(KeyboardInterrupt):
        execute(max_runs=5)

    def late(answer: dict[str, Any]) -> bool:
        return bool((local.clock.now() - answer["creationTime"]).total_seconds() >= lag)

    returned, pushed = execute(late, **{"max_runs": 5, **other})
    assert ids(omics) == [returned]
    assert pushed["max_runs"] == 5


@pytest.mark.parametrize("operation", ["ListRunGroups", "CreateRunGroup", "GetRunGroup"])
@pytest.mark.parametrize("fault", ["ThrottlingException", "InternalServerException", "dropped", "lost answer"])
def test_minutes_of_faults_are_waited_out(execute: Any, omics: Any, local: Any, operation: str, fault: str) -> None:
    if fault in {"dropped", "lost answer"}:
        local.faults.drop_connection(operation, times=20, after_effect=fault == "lost answer")
    else:
        local.faults.error(operation, code=fault, times=20)
    returned, pushed = execute(botocore_config=ONE_ATTEMPT)
    assert ids(omics) == [returned]
    assert pushed["created"] is True


def test_an_hour_of_throttles_fails_the_try(execute: Any, omics: Any, local: Any) -> None:
    local.faults.throttle("CreateRunGroup", times=None)
    with pytest.raises(OmicsApiError, match="CreateRunGroup failed: ThrottlingException") as caught:
        execute(botocore_config=ONE_ATTEMPT)
    assert not isinstance(caught.value, AirflowFailException)
    local.faults.clear()
    assert ids(omics) == []


@pytest.mark.parametrize("operations", [("GetRunGroup",), ("ListRunGroups",), ()])
@pytest.mark.parametrize("times", [1, 5])
def test_a_group_that_is_shown_late_is_waited_for(
    execute: Any, omics: Any, local: Any, operations: tuple[str, ...], times: int
) -> None:
    returned, _ = execute(unseen(times), *operations)
    assert ids(omics) == [returned]
    assert local.calls["CreateRunGroup"] == 1


def test_a_listed_group_that_is_not_found_makes_no_second_one(
    execute: Any, omics: Any, local: Any, run_group_id: str
) -> None:
    text = f"ListRunGroups shows run group {run_group_id}, but GetRunGroup does not find it.* No run group was created"
    with pytest.raises(OmicsError, match=text) as caught:
        execute(lambda _: False, "GetRunGroup")
    assert not isinstance(caught.value, AirflowFailException)
    assert (ids(omics), local.calls["CreateRunGroup"]) == ([run_group_id], 1)
    assert execute(unseen(3), "GetRunGroup")[0] == run_group_id


@pytest.mark.parametrize("error", ["ConflictException", "ValidationException", None])
def test_a_deleted_group_is_followed_by_a_new_one(execute: Any, omics: Any, local: Any, error: str | None) -> None:
    local.settings.changed_request_error = error
    found = []
    for max_runs in (5, 5, 6):
        returned, pushed = execute(max_runs=max_runs)
        assert (pushed["created"], pushed["max_runs"]) == (True, max_runs)
        assert execute(max_runs=max_runs)[0] == returned
        found.append(returned)
        omics.delete_run_group(id=returned)
    assert len(set(found)) == 3


def test_a_renamed_group_is_another_one(execute: Any, omics: Any) -> None:
    first, _ = execute()
    omics.update_run_group(id=first, name="renamed")
    second, _ = execute()
    assert second != first
    assert execute()[0] == second


def test_ten_spent_tokens_are_an_error(execute: Any, omics: Any, local: Any) -> None:
    for generation in range(10):
        token = run_group_token(name="cohort", region="us-east-1", generation=generation)
        omics.create_run_group(name=f"renamed-{generation}", requestId=token)
    with pytest.raises(RunGroupError, match=r"the last 10 request tokens were used by .* Set another request_id"):
        execute()
    returned, pushed = execute(request_id="another")
    assert pushed["created"] is True
    omics.delete_run_group(id=returned)
    with pytest.raises(RunGroupError, match="the request token 'another' was used by run groups"):
        execute(request_id="another")
    local.settings.changed_request_error = "ConflictException"
    with pytest.raises(OmicsApiError, match="CreateRunGroup failed: ConflictException"):
        execute(request_id="another", max_runs=3)


# Which group is the one


def test_the_oldest_group_of_exactly_the_name_is_taken_with_a_warning(
    execute: Any, omics: Any, local: Any, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    made = []
    for name in ("cohort-2", "cohort", "cohort", "Cohort"):
        made.append(omics.create_run_group(name=name)["id"])
        local.clock.advance(1)
    omics.create_run_group(maxRuns=1)
    # The service's filter may also return names that are only similar.
    task = create()
    task.hook.conn.meta.events.register(
        "after-call.omics.ListRunGroups", lambda parsed, **_: parsed.update(items=groups(omics))
    )
    with caplog.at_level(logging.WARNING):
        assert execute(lambda _: True)[0] == made[1]
        assert ensure_run_group(task.hook, name="cohort").run_group["id"] == made[1]
    text = f"Run groups {made[1]}, {made[2]} have the same name; using the oldest, {made[1]}"
    assert text in caplog.text + capsys.readouterr().out
    assert local.calls["CreateRunGroup"] == 5


def test_the_group_is_found_behind_many_others(execute: Any, omics: Any, local: Any) -> None:
    for _ in range(120):
        omics.create_run_group(name="cohort-2")
    returned, _ = execute()
    assert execute()[0] == returned
    assert local.calls["CreateRunGroup"] == 121


# Groups that differ


def test_what_differs_is_reported_changed_or_refused(
    execute: Any, omics: Any, local: Any, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    returned, _ = execute(max_cpus=64, max_runs=5, tags={"team": "a", "cost": "1"})
    asked = {"max_cpus": 128, "max_gpus": "8", "tags": {"team": "b"}}
    text = "max_cpus is 64, wanted: 128; max_gpus is None, wanted: 8; tags is {'team': 'a'}, wanted: {'team': 'b'}"
    with caplog.at_level(logging.WARNING):
        assert execute(**asked)[0] == returned
    assert f"Run group {returned} is used although it differs: {text}" in caplog.text + capsys.readouterr().out
    with pytest.raises(RunGroupError, match=f"^Run group {returned} differs: max_cpus is 64, wanted: 128") as caught:
        execute(**asked, if_exists="fail")
    assert caught.value.run_group_id == returned
    assert local.calls["UpdateRunGroup"] == local.calls["TagResource"] == 0
    pushed = execute(**asked, if_exists="update")[1]
    assert (pushed["max_cpus"], pushed["max_gpus"], pushed["max_runs"]) == (128, 8, 5)
    assert pushed["tags"] == {"team": "b", "cost": "1"}
    assert local.calls["UpdateRunGroup"] == local.calls["TagResource"] == 1
    for if_exists in ("update", "fail", "reuse"):
        assert execute(**asked, if_exists=if_exists)[0] == returned
    assert local.calls["UpdateRunGroup"] == 1
    # A member that is late or absent for a moment does not count as a difference.
    assert execute(without("maxCpus", times=2), "GetRunGroup", **asked, if_exists="fail")[0] == returned


def test_an_update_whose_answer_was_lost_is_finished(
    execute: Any, local: Any, run_group_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.faults.drop_connection("UpdateRunGroup", after_effect=True)
    assert execute(max_cpus=65, if_exists="update", botocore_config=ONE_ATTEMPT)[1]["max_cpus"] == 65
    die(monkeypatch, OmicsCacheHook, "update_run_group")
    with pytest.raises(KeyboardInterrupt):
        execute(max_cpus=66, tags={"team": "a"}, if_exists="update")
    pushed = execute(max_cpus=66, tags={"team": "a"}, if_exists="update")[1]
    assert (pushed["max_cpus"], pushed["tags"]) == (66, {"team": "a"})


# Bad input


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        *(
            ({name: value}, rf"^{name} must be an integer \(1 to 100,000\); got {shown}$")
            for name in LIMITS
            for value, shown in [(0, "0"), ("0", "0"), (-1, "-1"), (100_001, "100001")]
        ),
        ({"max_cpus": True}, "^max_cpus must be an integer .*; got True"),
        ({"max_cpus": 1.5}, "^max_cpus must be an integer .*; got 1.5"),
        ({"max_cpus": ""}, "^max_cpus must be an integer .*; got ''"),
        ({"max_runs": "None"}, "^max_runs must be an integer .*; got 'None'"),
        ({"max_runs": "ten"}, "^max_runs must be an integer .*; got 'ten'"),
        ({"name": ""}, "^name must be a string of 1 to 128 characters; got ''"),
        ({"name": None}, "^name must be a string of 1 to 128 characters; got None"),
        ({"name": "n" * 129}, "^name must be a string of 1 to 128 characters"),
        ({"tags": "{}"}, "^tags must be a dict"),
        ({"tags": {"aws:team": "a"}}, "^tags must not have keys that begin with aws:"),
        ({"tags": {f"key-{number}": "v" for number in range(51)}}, "^tags must have"),
        ({"request_id": "r" * 129}, "^request_id must be a token of 1 to 128 characters"),
    ],
)
def test_bad_input_is_one_error_that_names_parameter_rule_and_value(
    execute: Any, local: Any, parameters: dict[str, Any], text: str
) -> None:
    for if_exists in ("reuse", "update"):
        with pytest.raises(OmicsParameterError, match=text):
            execute(**parameters, if_exists=if_exists)
    assert sum(local.calls.values()) == 0


def test_an_unknown_if_exists_is_refused_when_the_dag_is_read() -> None:
    with pytest.raises(OmicsParameterError, match="if_exists must be one of reuse, update, fail; got 'replace'"):
        create(if_exists="replace")


# Deletion


@pytest.mark.parametrize("config", [None, ONE_ATTEMPT])
def test_it_deletes_the_group_however_often_it_is_tried(
    omics: Any, local: Any, run_group_id: str, config: dict[str, Any] | None
) -> None:
    local.faults.throttle("DeleteRunGroup", times=4)
    local.faults.drop_connection("DeleteRunGroup", after_effect=True)
    assert delete(run_group_id, botocore_config=config) == run_group_id
    assert ids(omics) == []
    deletions = local.calls["DeleteRunGroup"]
    assert delete(int(run_group_id)) == run_group_id
    assert local.calls["DeleteRunGroup"] == deletions


def test_a_refused_deletion_is_an_error_to_retry(omics: Any, local: Any, run_group_id: str) -> None:
    local.faults.error("DeleteRunGroup", code="ConflictException", message="the group has active runs")
    with pytest.raises(
        OmicsApiError, match=f"^Run group {run_group_id} exists and was not deleted: .*the group has active runs"
    ) as caught:
        delete(run_group_id)
    assert not isinstance(caught.value, AirflowFailException)
    assert caught.value.run_group_id == run_group_id
    assert ids(omics) == [run_group_id]


def test_a_group_that_is_shown_after_its_deletion_is_waited_for(local: Any) -> None:
    task = DeleteRunGroupOperator(task_id="delete", run_group_id="7")
    found = {"id": "7", "name": "cohort"}
    for times, ends in ((3, True), (11, False)):
        with Stubber(task.hook.conn) as stubber:
            stubber.add_response("get_run_group", found)
            stubber.add_response("delete_run_group", {}, {"id": "7"})
            for _ in range(times):
                stubber.add_response("get_run_group", found)
            if ends:
                stubber.add_client_error("get_run_group", "ResourceNotFoundException", http_status_code=404)
                assert task.execute({}) == "7"
            else:
                with pytest.raises(OmicsError, match=r"^Run group 7 still exists, 300 s after its deletion"):
                    task.execute({})
            stubber.assert_no_pending_responses()


def test_a_new_group_that_is_found_late_is_deleted(omics: Any, run_group_id: str) -> None:
    task = DeleteRunGroupOperator(task_id="delete", run_group_id=run_group_id)
    alter_run_groups(task.hook.conn, unseen(3))
    task.execute({})
    assert ids(omics) == []


@pytest.mark.parametrize("value", [None, "", "None", "group-7", "1" * 19])
def test_an_id_that_is_none_is_named(local: Any, value: Any) -> None:
    with pytest.raises(OmicsParameterError, match=r"^run_group_id must be an id of 1 to 18 digits; got"):
        delete(value)
    if value in (None, "", "None"):
        assert DeleteRunGroupOperator(task_id="delete", run_group_id=value).as_teardown().execute({}) is None
    assert sum(local.calls.values()) == 0


# In a DAG


def test_everything_but_switches_is_templated_and_can_be_mapped() -> None:
    assert set(create().template_fields) == set(aws_template_fields("name", *LIMITS, "tags", "request_id"))
    assert set(DeleteRunGroupOperator.template_fields) == set(aws_template_fields("run_group_id"))
    create(name="{{ run_id }}", **dict.fromkeys(LIMITS, "{{ params.limit }}"))
    with DAG("groups", schedule=None):
        made = CreateRunGroupOperator.partial(task_id="create", max_runs=5).expand(name=["a", "b"])
        DeleteRunGroupOperator.partial(task_id="delete").expand(run_group_id=made.output)
