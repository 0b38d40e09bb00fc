"""UpdateRunCacheOperator and DeleteRunCacheOperator against the local HealthOmics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import boto3
import pytest
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from airflow_provider_omics_cache._compat import AirflowFailException
from airflow_provider_omics_cache.exceptions import (
    OmicsApiError,
    OmicsError,
    OmicsParameterError,
    OmicsRequestError,
    RunCacheError,
)
from airflow_provider_omics_cache.operators.run_cache import (
    CreateRunCacheOperator,
    DeleteRunCacheOperator,
    UpdateRunCacheOperator,
)
from tests.altered_answers import alter_run_caches, unseen, without
from tests.conftest import needs_batches

if TYPE_CHECKING:
    from collections.abc import Callable

LOCATION = "s3://cohort-data/cache"
OLD: dict[str, Any] = {"name": "cohort", "description": "old", "tags": {"team": "a", "site": "x"}}
ONE_ATTEMPT = {"retries": {"total_max_attempts": 1}}


@pytest.fixture(autouse=True)
def _bucket(local: Any) -> None:
    boto3.client("s3").create_bucket(Bucket="cohort-data")


@pytest.fixture
def run_cache_id(client: Any) -> str:
    return str(client.create_run_cache(cacheS3Location=LOCATION, **OLD)["id"])


@pytest.fixture
def update(local: Any, new_task_context: Callable[[], dict[str, Any]]) -> Any:
    """Run one try of the operator; give what it pushed."""

    def update(run_cache_id: Any, **parameters: Any) -> dict[str, Any]:
        context = new_task_context()
        given = {"task_id": "update", "run_cache_id": run_cache_id, **parameters}
        returned = UpdateRunCacheOperator(**given).execute(context)
        assert set(context["ti"].xcoms) == {"run_cache"}
        pushed: dict[str, Any] = context["ti"].xcoms["run_cache"]
        assert returned == pushed["id"] == str(run_cache_id)
        return pushed

    return update


@pytest.fixture
def delete(local: Any, new_task_context: Callable[[], dict[str, Any]]) -> Any:
    """Run one try of the operator."""

    def delete(run_cache_id: Any, **parameters: Any) -> None:
        context = new_task_context()
        given = {"task_id": "delete", "run_cache_id": run_cache_id, **parameters}
        assert DeleteRunCacheOperator(**given).execute(context) == str(run_cache_id)
        assert context["ti"].xcoms == {}

    return delete


def is_gone(client: Any, run_cache_id: str) -> bool:
    try:
        return bool(client.get_run_cache(id=run_cache_id)["status"] == "DELETED")
    except client.exceptions.ResourceNotFoundException:
        return True


NEW: dict[str, Any] = {
    "name": "cohort-2",
    "cache_behavior": "CACHE_ALWAYS",
    "description": "new",
    "tags": {"team": "b", "cost": "1"},
}


def assert_is_new(client: Any, run_cache_id: str) -> None:
    found = client.get_run_cache(id=run_cache_id)
    assert (found["name"], found["cacheBehavior"], found["description"]) == ("cohort-2", "CACHE_ALWAYS", "new")
    assert found["tags"] == {"team": "b", "cost": "1", "site": "x"}


# Update


def test_it_changes_what_is_given_and_pushes_it(update: Any, client: Any, run_cache_id: str) -> None:
    pushed = update(run_cache_id, **NEW)
    assert_is_new(client, run_cache_id)
    found = client.get_run_cache(id=run_cache_id)
    assert pushed == {
        "id": run_cache_id,
        "arn": found["arn"],
        "name": "cohort-2",
        "status": "ACTIVE",
        "cache_behavior": "CACHE_ALWAYS",
        "cache_s3_uri": found["cacheS3Uri"],
        "creation_time": found["creationTime"].isoformat(),
        "tags": {"team": "b", "cost": "1", "site": "x"},
        "updated": ["name", "cache_behavior", "description", "tags"],
    }


def test_its_xcom_is_that_of_the_creation(
    update: Any, local: Any, run_cache_id: str, task_context: dict[str, Any]
) -> None:
    CreateRunCacheOperator(task_id="cache", name="cohort", cache_s3_location=LOCATION).execute(task_context)
    created = task_context["ti"].xcoms["run_cache"]
    assert created.pop("created") is False
    pushed = update(run_cache_id, name="cohort")
    assert pushed.pop("updated") == []
    assert pushed == created


@pytest.mark.parametrize("given", [{name: value} for name, value in NEW.items()], ids=list(NEW))
def test_only_what_differs_is_sent(
    client: Any, run_cache_id: str, task_context: dict[str, Any], given: dict[str, Any]
) -> None:
    before = client.get_run_cache(id=run_cache_id)
    unchanged = {"name": "cohort", "cache_behavior": "CACHE_ON_FAILURE", "description": "old", "tags": {"site": "x"}}
    sent: list[dict[str, Any]] = []
    operator = UpdateRunCacheOperator(task_id="update", run_cache_id=run_cache_id, **{**unchanged, **given})
    for operation in ("UpdateRunCache", "TagResource"):
        operator.hook.conn.meta.events.register(
            f"provide-client-params.omics.{operation}", lambda params, **_: sent.append(dict(params))
        )
    operator.execute(task_context)
    (parameter,) = given
    if parameter == "tags":
        assert sent == [{"resourceArn": before["arn"], "tags": {"team": "b", "cost": "1"}}]
    else:
        member = "cacheBehavior" if parameter == "cache_behavior" else parameter
        assert sent == [{"id": run_cache_id, member: given[parameter]}]
    assert task_context["ti"].xcoms["run_cache"]["updated"] == [parameter]


def test_what_is_as_asked_for_is_left_alone(update: Any, client: Any, local: Any, run_cache_id: str) -> None:
    before = client.get_run_cache(id=run_cache_id)
    assert update(run_cache_id, **OLD, cache_behavior="CACHE_ON_FAILURE")["updated"] == []
    assert local.calls["UpdateRunCache"] == local.calls["TagResource"] == 0
    after = client.get_run_cache(id=run_cache_id)
    assert {**before, "ResponseMetadata": None} == {**after, "ResponseMetadata": None}


def test_an_id_may_be_a_number(update: Any, client: Any, run_cache_id: str) -> None:
    update(int(run_cache_id), **NEW)
    assert_is_new(client, run_cache_id)


def test_it_waits_until_the_update_shows(client: Any, run_cache_id: str, task_context: dict[str, Any]) -> None:
    operator = UpdateRunCacheOperator(task_id="update", run_cache_id=run_cache_id, description="new")
    stale = client.get_run_cache(id=run_cache_id)
    stale.pop("ResponseMetadata")
    fresh = {**stale, "description": "new"}
    with Stubber(operator.hook.conn) as stubber:
        stubber.add_response("get_run_cache", stale)
        stubber.add_response("update_run_cache", {}, {"id": run_cache_id, "description": "new"})
        for answer in (stale, stale, fresh):
            stubber.add_response("get_run_cache", answer)
        assert operator.execute(task_context) == run_cache_id
        stubber.assert_no_pending_responses()
    assert task_context["ti"].xcoms["run_cache"]["updated"] == ["description"]


def test_an_update_that_never_shows_fails(client: Any, run_cache_id: str, task_context: dict[str, Any]) -> None:
    operator = UpdateRunCacheOperator(task_id="update", run_cache_id=run_cache_id, description="new")
    stale = client.get_run_cache(id=run_cache_id)
    stale.pop("ResponseMetadata")
    with Stubber(operator.hook.conn) as stubber:
        stubber.add_response("get_run_cache", stale)
        stubber.add_response("update_run_cache", {})
        for _ in range(11):
            stubber.add_response("get_run_cache", stale)
        with pytest.raises(OmicsError, match=f"^Run cache {run_cache_id} does not show its update yet") as caught:
            operator.execute(task_context)
    assert not isinstance(caught.value, AirflowFailException)


@pytest.mark.parametrize("operation", ["UpdateRunCache", "TagResource"])
def test_a_lost_answer_changes_nothing(update: Any, client: Any, local: Any, run_cache_id: str, operation: str) -> None:
    local.faults.drop_connection(operation, times=None, after_effect=True)
    with pytest.raises(OmicsApiError):
        update(run_cache_id, **NEW)
    local.faults.clear()
    update(run_cache_id, **NEW)
    assert_is_new(client, run_cache_id)
    calls = dict(local.calls)
    assert update(run_cache_id, **NEW)["updated"] == []
    assert local.calls["UpdateRunCache"] == calls["UpdateRunCache"]
    assert local.calls["TagResource"] == calls["TagResource"]


def test_a_try_that_dies_between_the_calls_is_finished_by_the_next(
    update: Any, client: Any, local: Any, run_cache_id: str, task_context: dict[str, Any]
) -> None:
    operator = UpdateRunCacheOperator(task_id="update", run_cache_id=run_cache_id, **NEW)

    def die(**_: Any) -> None:
        raise KeyboardInterrupt

    operator.hook.conn.meta.events.register("before-call.omics.TagResource", die)
    with pytest.raises(KeyboardInterrupt):
        operator.execute(task_context)
    assert update(run_cache_id, **NEW)["updated"] == ["tags"]
    assert_is_new(client, run_cache_id)
    assert local.calls["UpdateRunCache"] == 1


@pytest.mark.parametrize("shows_deleted", [True, False])
def test_a_deleted_cache_is_not_updated(
    update: Any, client: Any, local: Any, run_cache_id: str, shows_deleted: bool
) -> None:
    local.settings.show_deleted_run_caches = shows_deleted
    client.delete_run_cache(id=run_cache_id)
    status = "DELETED" if shows_deleted else "not found"
    with pytest.raises(RunCacheError, match=rf"^Cannot update run cache {run_cache_id}: it is {status}\.") as caught:
        update(run_cache_id, **NEW)
    assert caught.value.run_cache_id == run_cache_id
    assert isinstance(caught.value, AirflowFailException)
    assert local.calls["UpdateRunCache"] == local.calls["TagResource"] == 0


def test_a_failed_cache_is_not_updated(local: Any, task_context: dict[str, Any]) -> None:
    operator = UpdateRunCacheOperator(task_id="update", run_cache_id="7", description="new")
    with Stubber(operator.hook.conn) as stubber:
        stubber.add_response("get_run_cache", {"id": "7", "status": "FAILED"}, {"id": "7"})
        with pytest.raises(RunCacheError, match=r"^Cannot update run cache 7: it is FAILED\."):
            operator.execute(task_context)


def test_a_new_cache_that_is_found_late_is_updated(
    client: Any, run_cache_id: str, task_context: dict[str, Any]
) -> None:
    operator = UpdateRunCacheOperator(task_id="update", run_cache_id=run_cache_id, **NEW)
    alter_run_caches(operator.hook.conn, unseen(3))
    operator.execute(task_context)
    assert_is_new(client, run_cache_id)


def test_tags_need_an_arn(local: Any, client: Any, run_cache_id: str, task_context: dict[str, Any]) -> None:
    operator = UpdateRunCacheOperator(task_id="update", run_cache_id=run_cache_id, **NEW)
    alter_run_caches(operator.hook.conn, without("arn"))
    with pytest.raises(OmicsError, match=f"^GetRunCache shows run cache {run_cache_id} without its arn") as caught:
        operator.execute(task_context)
    assert not isinstance(caught.value, AirflowFailException)
    assert local.calls["UpdateRunCache"] == 0


def test_what_only_the_last_answer_lacks_is_pushed(
    client: Any, run_cache_id: str, task_context: dict[str, Any]
) -> None:
    operator = UpdateRunCacheOperator(task_id="update", run_cache_id=run_cache_id, description="new")
    answers: list[Any] = []

    def second_lacks(answer: dict[str, Any]) -> None:
        answers.append(answer)
        if len(answers) == 2:
            for member in ("arn", "status", "cacheS3Uri"):
                del answer[member]

    alter_run_caches(operator.hook.conn, second_lacks)
    operator.execute(task_context)
    pushed = task_context["ti"].xcoms["run_cache"]
    assert len(answers) == 2
    assert None not in [pushed["arn"], pushed["status"], pushed["cache_s3_uri"]]


@pytest.mark.parametrize(("given", "shown"), [({}, "None"), ({"tags": {}}, "{'tags': {}}")])
def test_something_has_to_be_asked_for(
    update: Any, local: Any, run_cache_id: str, given: dict[str, Any], shown: str
) -> None:
    before = sum(local.calls.values())
    rule = "must not all be empty, because the task would change nothing: set at least one of them"
    with pytest.raises(OmicsParameterError, match=f"^name, cache_behavior, description, tags {rule}; got {shown}$"):
        update(run_cache_id, **given)
    assert sum(local.calls.values()) == before


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"name": ""}, "name must be a string of 1 to 128 characters; got ''"),
        ({"name": "n" * 129}, "name must be a string of 1 to 128 characters"),
        ({"description": "d" * 257}, "description must be a string of 1 to 256 characters"),
        ({"tags": {"k" * 129: "v"}}, "tags: a key must be a string of 1 to 128 characters"),
        ({"tags": {"aws:team": "v"}}, "tags must not have keys that begin with aws:"),
        ({"tags": ["team"]}, r"tags must be a dict; got \['team'\]"),
        (
            {"tags": {f"key-{n}": "v" for n in range(49)}},
            "tags must have at most 50 entries, together with the tags that the resource has",
        ),
    ],
)
def test_bad_input_changes_nothing(
    update: Any, client: Any, local: Any, run_cache_id: str, given: dict[str, Any], shown: str
) -> None:
    with pytest.raises(OmicsParameterError, match=shown):
        update(run_cache_id, **{"description": "new", **given})
    assert local.calls["UpdateRunCache"] == local.calls["TagResource"] == 0


def test_a_behaviour_that_the_service_refuses_is_named(update: Any, client: Any, run_cache_id: str) -> None:
    with pytest.raises(OmicsRequestError, match="CACHE_NEVER"):
        update(run_cache_id, cache_behavior="{{ 'CACHE_NEVER' }}", tags={"team": "b"})
    assert client.get_run_cache(id=run_cache_id)["tags"] == OLD["tags"]


@pytest.mark.parametrize("operation", ["GetRunCache", "UpdateRunCache", "TagResource"])
@pytest.mark.parametrize("code", ["ThrottlingException", "InternalServerException"])
def test_a_busy_service_is_waited_for(
    update: Any, client: Any, local: Any, run_cache_id: str, operation: str, code: str
) -> None:
    local.faults.error(operation, code=code, times=12)
    update(run_cache_id, **NEW)
    assert_is_new(client, run_cache_id)


def test_a_service_that_stays_busy_fails_the_try(update: Any, local: Any, run_cache_id: str) -> None:
    local.faults.throttle("UpdateRunCache", times=None)
    start = local.clock.elapsed()
    with pytest.raises(OmicsApiError, match="UpdateRunCache failed: ThrottlingException"):
        update(run_cache_id, **NEW)
    assert 3_500 < local.clock.elapsed() - start < 3_700


# Delete


@pytest.mark.parametrize("operation", ["GetRunCache", "DeleteRunCache"])
def test_a_busy_service_is_waited_for_to_delete(
    delete: Any, client: Any, local: Any, run_cache_id: str, operation: str
) -> None:
    local.faults.throttle(operation, times=12)
    delete(run_cache_id)
    assert is_gone(client, run_cache_id)


@pytest.mark.parametrize("shows_deleted", [True, False])
def test_it_deletes_the_cache_however_often_it_is_tried(
    delete: Any, client: Any, local: Any, run_cache_id: str, shows_deleted: bool
) -> None:
    local.settings.show_deleted_run_caches = shows_deleted
    for _ in range(3):
        delete(run_cache_id)
        assert is_gone(client, run_cache_id)
    assert local.calls["DeleteRunCache"] == 1


@pytest.mark.parametrize("shows_deleted", [True, False])
@pytest.mark.parametrize("config", [None, ONE_ATTEMPT])
def test_a_lost_answer_to_the_deletion(
    delete: Any, client: Any, local: Any, run_cache_id: str, config: Any, shows_deleted: bool
) -> None:
    local.settings.show_deleted_run_caches = shows_deleted
    local.faults.drop_connection("DeleteRunCache", after_effect=True)
    delete(run_cache_id, botocore_config=config)
    assert is_gone(client, run_cache_id)
    delete(run_cache_id)


def test_a_try_that_dies_after_the_deletion(delete: Any, client: Any, run_cache_id: str) -> None:
    operator = DeleteRunCacheOperator(task_id="delete", run_cache_id=run_cache_id)

    def die(**_: Any) -> None:
        raise KeyboardInterrupt

    operator.hook.conn.meta.events.register("after-call.omics.DeleteRunCache", die)
    with pytest.raises(KeyboardInterrupt):
        operator.execute({})
    delete(run_cache_id)
    assert is_gone(client, run_cache_id)


def test_an_unreachable_service_is_an_error(delete: Any, client: Any, local: Any, run_cache_id: str) -> None:
    local.faults.drop_connection("DeleteRunCache", times=None, after_effect=False)
    with pytest.raises(OmicsApiError, match=f"^Run cache {run_cache_id} is ACTIVE and was not deleted: .*Connection"):
        delete(run_cache_id, botocore_config=ONE_ATTEMPT)
    local.faults.clear()
    delete(run_cache_id)
    assert is_gone(client, run_cache_id)


@needs_batches
def test_a_cache_in_use_stays(delete: Any, client: Any, local: Any, run_cache_id: str) -> None:
    batch_id = client.start_run_batch(
        defaultRunSetting={
            "workflowId": "1234567",
            "roleArn": "arn:aws:iam::123456789012:role/omics",
            "outputUri": "s3://cohort-data/out",
            "cacheId": run_cache_id,
        },
        batchRunSettings={"inlineSettings": [{"runSettingId": "sample-0"}]},
    )["id"]
    local.clock.advance(5)
    with pytest.raises(
        OmicsApiError, match=f"^Run cache {run_cache_id} is ACTIVE and was not deleted: .*ConflictException"
    ) as caught:
        delete(run_cache_id)
    assert (caught.value.run_cache_id, caught.value.status, caught.value.http_status) == (run_cache_id, "ACTIVE", 409)
    assert isinstance(caught.value.__cause__, ClientError)
    assert not isinstance(caught.value, AirflowFailException)
    assert not is_gone(client, run_cache_id)
    local.clock.advance(10_000)
    assert client.get_batch(batchId=batch_id)["status"] == "PROCESSED"
    delete(run_cache_id)
    assert is_gone(client, run_cache_id)


def test_it_waits_until_the_cache_is_not_shown_as_active(local: Any) -> None:
    operator = DeleteRunCacheOperator(task_id="delete", run_cache_id="7")
    with Stubber(operator.hook.conn) as stubber:
        stubber.add_response("get_run_cache", {"id": "7", "status": "ACTIVE"})
        stubber.add_response("delete_run_cache", {}, {"id": "7"})
        for status in ("ACTIVE", "ACTIVE", "DELETED"):
            stubber.add_response("get_run_cache", {"id": "7", "status": status})
        assert operator.execute({}) == "7"
        stubber.assert_no_pending_responses()


def test_a_cache_that_stays_active_is_an_error_to_retry(local: Any) -> None:
    operator = DeleteRunCacheOperator(task_id="delete", run_cache_id="7")
    with Stubber(operator.hook.conn) as stubber:
        stubber.add_response("get_run_cache", {"id": "7", "status": "ACTIVE"})
        stubber.add_response("delete_run_cache", {})
        for _ in range(11):
            stubber.add_response("get_run_cache", {"id": "7", "status": "ACTIVE"})
        with pytest.raises(OmicsError, match=r"^Run cache 7 is still ACTIVE, 300 s after its deletion") as caught:
            operator.execute({})
    assert not isinstance(caught.value, AirflowFailException)


def test_a_new_cache_that_is_found_late_is_deleted(client: Any, run_cache_id: str) -> None:
    operator = DeleteRunCacheOperator(task_id="delete", run_cache_id=run_cache_id)
    alter_run_caches(operator.hook.conn, unseen(3))
    operator.execute({})
    assert is_gone(client, run_cache_id)


def test_a_refused_deletion_of_a_cache_that_is_not_found_for_a_moment_is_an_error(
    client: Any, local: Any, run_cache_id: str
) -> None:
    operator = DeleteRunCacheOperator(task_id="delete", run_cache_id=run_cache_id)
    local.faults.error("DeleteRunCache", code="ConflictException")
    answers: list[Any] = []

    def second_is_not_found(answer: dict[str, Any]) -> bool:
        answers.append(answer)
        return len(answers) != 2

    alter_run_caches(operator.hook.conn, second_is_not_found)
    with pytest.raises(OmicsApiError, match=f"^Run cache {run_cache_id} is ACTIVE and was not deleted"):
        operator.execute({})


def test_a_deletion_is_not_seen_in_an_answer_without_a_status(local: Any) -> None:
    operator = DeleteRunCacheOperator(task_id="delete", run_cache_id="7")
    with Stubber(operator.hook.conn) as stubber:
        stubber.add_response("get_run_cache", {"id": "7", "status": "ACTIVE"})
        stubber.add_response("delete_run_cache", {})
        for _ in range(11):
            stubber.add_response("get_run_cache", {"id": "7"})
        with pytest.raises(OmicsError, match=r"^Run cache 7 is still without a status, 300 s after its deletion"):
            operator.execute({})
        stubber.assert_no_pending_responses()


# Both


@pytest.mark.parametrize("operator", [UpdateRunCacheOperator, DeleteRunCacheOperator])
@pytest.mark.parametrize("value", [None, "", "None", "cache-7", "1" * 19])
def test_an_id_that_is_none_is_named(local: Any, operator: Any, value: Any) -> None:
    given = {"name": "cohort"} if operator is UpdateRunCacheOperator else {}
    with pytest.raises(OmicsParameterError, match=r"^run_cache_id must be an id of 1 to 18 digits; got"):
        operator(task_id="cache", run_cache_id=value, **given).execute({})
    assert sum(local.calls.values()) == 0


@pytest.mark.parametrize("operator", [UpdateRunCacheOperator, DeleteRunCacheOperator])
def test_all_but_switches_can_be_templated(operator: Any) -> None:
    own = {"name", "cache_behavior", "description", "tags"} if operator is UpdateRunCacheOperator else set()
    assert set(operator.template_fields) == set(aws_template_fields("run_cache_id", *own))
    made = operator(task_id="cache", run_cache_id="{{ ti.task_id }}")
    assert all(hasattr(made, field) for field in operator.template_fields)
