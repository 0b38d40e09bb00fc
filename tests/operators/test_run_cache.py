"""CreateRunCacheOperator against the local HealthOmics: a cache that exists once."""

from __future__ import annotations

import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields
from botocore.stub import Stubber

try:
    from airflow.sdk import DAG
except ImportError:
    from airflow.models.dag import DAG

from airflow_provider_omics_cache._compat import AirflowFailException
from airflow_provider_omics_cache.exceptions import (
    OmicsApiError,
    OmicsError,
    OmicsParameterError,
    OmicsRequestError,
    RunCacheError,
)
from airflow_provider_omics_cache.healthomics.identity import run_cache_token
from airflow_provider_omics_cache.healthomics.run_caches import check_bucket, ensure_run_cache
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.hooks.s3 import s3_client
from airflow_provider_omics_cache.operators.run_cache import CreateRunCacheOperator, UpdateRunCacheOperator
from tests.altered_answers import Change, alter_run_caches, unseen, without
from tests.conftest import RecordedTaskInstance
from tests.operators.batch_states import die
from tests.sensor_modes import use_service_time_in_tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOCATION = "s3://cohort-data/cache"
ACCOUNT = "123456789012"


@pytest.fixture
def local(local_healthomics: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The local HealthOmics with a bucket; who waits, lets the service's time pass."""
    boto3.client("s3").create_bucket(Bucket="cohort-data")
    use_service_time_in_tasks(monkeypatch, local_healthomics)
    return local_healthomics


@pytest.fixture
def omics(local: Any) -> Any:
    """Somebody else's client."""
    return boto3.client("omics")


@pytest.fixture
def execute(local: Any, new_task_context: Callable[[], dict[str, Any]]) -> Any:
    """Run one try of the operator; give what it returned and what it pushed."""

    def execute(**parameters: Any) -> tuple[str, dict[str, Any]]:
        context = new_task_context()
        returned = operator(**parameters).execute(context)
        assert set(context["ti"].xcoms) == {"run_cache"}
        return returned, context["ti"].xcoms["run_cache"]

    return execute


def operator(**parameters: Any) -> CreateRunCacheOperator:
    return CreateRunCacheOperator(**{"task_id": "cache", "name": "cohort", "cache_s3_location": LOCATION, **parameters})


def active_caches(omics: Any) -> list[dict[str, Any]]:
    pages = omics.get_paginator("list_run_caches").paginate()
    return [item for page in pages for item in page["items"] if item["status"] == "ACTIVE"]


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    """Give the hook's warnings, wherever this version of Airflow writes them."""

    def warnings() -> list[str]:
        records = [record for record in caplog.records if record.levelno == logging.WARNING]
        printed = [line for line in capsys.readouterr().out.splitlines() if "[warning" in line]
        lines = [record.getMessage() for record in records] + printed
        return [line for line in lines if "cannot be called outside" not in line]

    return warnings


# One cache, whatever happens


def test_it_creates_the_cache_and_pushes_it(execute: Any, omics: Any) -> None:
    returned, pushed = execute(
        cache_behavior="CACHE_ALWAYS", description="for the cohort", tags={"team": "a"}, cache_bucket_owner_id=ACCOUNT
    )
    (created,) = active_caches(omics)
    found = omics.get_run_cache(id=created["id"])
    assert returned == created["id"]
    assert pushed == {
        "id": created["id"],
        "arn": found["arn"],
        "name": "cohort",
        "status": "ACTIVE",
        "cache_behavior": "CACHE_ALWAYS",
        "cache_s3_uri": found["cacheS3Uri"],
        "creation_time": found["creationTime"].isoformat(),
        "tags": {"team": "a"},
        "created": True,
    }
    assert found["description"] == "for the cohort"
    assert found["cacheBucketOwnerId"] == ACCOUNT


@pytest.mark.parametrize("status", ["initial", "current"])
@pytest.mark.parametrize("forgets", [True, False])
@pytest.mark.parametrize("location", [LOCATION, LOCATION + "/"])
def test_every_later_try_takes_the_same_cache(
    execute: Any, omics: Any, local: Any, status: str, forgets: bool, location: str
) -> None:
    local.settings.replayed_status = status
    first, _ = execute()
    for _ in range(3):
        if forgets:
            local.forget_tokens()
        returned, pushed = execute(cache_s3_location=location)
        assert returned == first
        assert pushed["created"] is False
    assert len(active_caches(omics)) == 1
    assert local.calls["CreateRunCache"] == 1


def test_twenty_tasks_that_ask_at_the_same_time_get_one_cache(omics: Any, local: Any) -> None:
    """Each of them has looked, and found nothing, before one of them creates the cache."""
    barrier = threading.Barrier(20)

    def wait_for_the_others(**_: Any) -> None:
        barrier.wait(60)

    def ensure(_: int) -> str:
        hook = OmicsCacheHook()
        hook.conn.meta.events.register("before-call.omics.CreateRunCache", wait_for_the_others)
        found = ensure_run_cache(hook, name="cohort", cache_s3_location=LOCATION)
        return str(found.run_cache["id"])

    with ThreadPoolExecutor(20) as pool:
        ids = set(pool.map(ensure, range(20)))
    assert len(ids) == 1
    assert len(active_caches(omics)) == 1
    assert local.calls["CreateRunCache"] == 20


@pytest.mark.parametrize("error", ["ConflictException", "ValidationException", None])
@pytest.mark.parametrize("other", [{}, {"description": "the other DAG's"}, {"cache_bucket_owner_id": ACCOUNT}])
def test_another_task_that_creates_between_look_and_call_is_joined(
    execute: Any,
    omics: Any,
    local: Any,
    task_context: dict[str, Any],
    error: str | None,
    other: dict[str, Any],
) -> None:
    local.settings.changed_request_error = error
    theirs: list[str] = []

    def create_first(**_: Any) -> None:
        if not theirs:
            theirs.append("")
            theirs[0], _ = execute(**other)

    ours = operator(description="ours")
    ours.hook.conn.meta.events.register("before-call.omics.CreateRunCache", create_first)
    assert ours.execute(task_context) == theirs[0]
    assert len(active_caches(omics)) == 1


def test_a_connection_lost_after_the_call_leaves_one_cache(execute: Any, omics: Any, local: Any) -> None:
    local.faults.drop_connection("CreateRunCache", times=1, after_effect=True)
    returned, _ = execute()
    assert [cache["id"] for cache in active_caches(omics)] == [returned]


@pytest.mark.parametrize("forgets", [True, False])
def test_the_try_after_a_worker_that_died_finds_the_cache(
    execute: Any, omics: Any, local: Any, monkeypatch: pytest.MonkeyPatch, forgets: bool
) -> None:
    die(monkeypatch, OmicsCacheHook, "create_run_cache")
    with pytest.raises(KeyboardInterrupt):
        execute()
    if forgets:
        local.forget_tokens()
    returned, _ = execute()
    assert [cache["id"] for cache in active_caches(omics)] == [returned]


@pytest.mark.parametrize("operation", ["ListRunCaches", "CreateRunCache", "GetRunCache"])
@pytest.mark.parametrize("fault", ["ThrottlingException", "InternalServerException", "dropped", "lost answer"])
def test_minutes_of_faults_are_waited_out(execute: Any, omics: Any, local: Any, operation: str, fault: str) -> None:
    if fault in {"dropped", "lost answer"}:
        local.faults.drop_connection(operation, times=20, after_effect=fault == "lost answer")
    else:
        local.faults.error(operation, code=fault, times=20)
    began = local.clock.elapsed()
    returned, pushed = execute(botocore_config={"retries": {"total_max_attempts": 1}})
    assert local.clock.elapsed() - began > 180
    assert local.calls[operation] >= (1 if fault == "dropped" else 21)
    assert [cache["id"] for cache in active_caches(omics)] == [returned]
    assert pushed["created"] is True


@pytest.mark.parametrize("operation", ["ListRunCaches", "CreateRunCache"])
def test_an_hour_of_throttles_fails_the_try(execute: Any, omics: Any, local: Any, operation: str) -> None:
    local.faults.throttle(operation, times=None)
    began = local.clock.elapsed()
    with pytest.raises(OmicsApiError, match=f"{operation} failed: ThrottlingException") as caught:
        execute(botocore_config={"retries": {"total_max_attempts": 1}})
    assert not isinstance(caught.value, AirflowFailException)
    assert 3_500 < local.clock.elapsed() - began <= 3_600
    local.faults.clear()
    assert active_caches(omics) == []


@pytest.mark.parametrize("lag", [1, 20, 200])
def test_a_cache_that_is_shown_late_is_waited_for(execute: Any, omics: Any, local: Any, lag: float) -> None:
    local.settings.run_cache_visible_after = lag
    returned, _ = execute()
    assert [cache["id"] for cache in active_caches(omics)] == [returned]
    assert local.calls["CreateRunCache"] == 1


@pytest.mark.parametrize("lag", [1, 20, 200])
@pytest.mark.parametrize("other", [{}, {"description": "the other DAG's"}])
def test_a_service_that_shows_the_cache_late_makes_no_second_one(
    execute: Any, omics: Any, local: Any, monkeypatch: pytest.MonkeyPatch, lag: float, other: dict[str, Any]
) -> None:
    local.settings.run_cache_visible_after = lag
    die(monkeypatch, OmicsCacheHook, "create_run_cache")
    with pytest.raises(KeyboardInterrupt):
        execute()
    returned, _ = execute(**other)
    assert [cache["id"] for cache in active_caches(omics)] == [returned]
    assert local.calls["CreateRunCache"] == 2


@pytest.mark.parametrize(
    ("status", "shown", "forgets"),
    [
        ("initial", True, False),
        ("initial", True, True),
        ("initial", False, True),
        ("current", True, False),
        ("current", True, True),
        ("current", False, False),
        ("current", False, True),
    ],
)
def test_a_deleted_cache_is_followed_by_a_new_one(
    execute: Any, omics: Any, local: Any, status: str, shown: bool, forgets: bool
) -> None:
    local.settings.replayed_status = status
    local.settings.show_deleted_run_caches = shown
    ids = []
    for _ in range(4):
        returned, pushed = execute()
        assert pushed["created"] is True
        assert execute()[0] == returned
        ids.append(returned)
        omics.delete_run_cache(id=returned)
        if forgets:
            local.forget_tokens()
    assert len(set(ids)) == 4
    assert active_caches(omics) == []


@pytest.mark.parametrize("error", ["ConflictException", "ValidationException", None])
def test_a_deleted_cache_with_another_description_is_followed_by_a_new_one(
    execute: Any, omics: Any, local: Any, error: str | None
) -> None:
    local.settings.changed_request_error = error
    local.settings.show_deleted_run_caches = True
    ids = []
    for description in ("first", "second", "third"):
        returned, _ = execute(description=description)
        assert omics.get_run_cache(id=returned)["description"] == description
        omics.delete_run_cache(id=returned)
        ids.append(returned)
    assert len(set(ids)) == 3


@pytest.mark.parametrize("error", ["ConflictException", "ValidationException", None])
@pytest.mark.parametrize("description", ["old", "new"])
def test_a_deleted_cache_that_the_service_hides_is_an_error_that_names_request_id(
    execute: Any, omics: Any, local: Any, error: str | None, description: str
) -> None:
    local.settings.changed_request_error = error
    first, _ = execute(description="old")
    omics.delete_run_cache(id=first)
    for _ in range(3):
        with pytest.raises(OmicsError, match=r"was deleted.* set request_id to a new value") as caught:
            execute(description=description)
        assert not isinstance(caught.value, AirflowFailException)
    assert active_caches(omics) == []
    second, pushed = execute(description=description, request_id="another")
    assert pushed["created"] is True
    assert execute(description=description)[0] == second


def test_a_deleted_cache_that_the_service_hides_is_followed_by_a_new_one_when_its_token_has_expired(
    execute: Any, omics: Any, local: Any
) -> None:
    first, _ = execute()
    omics.delete_run_cache(id=first)
    local.clock.advance(local.settings.token_seconds)
    assert execute()[1]["created"] is True


def test_an_old_deleted_cache_does_not_stand_for_a_new_one_that_is_listed_late(
    execute: Any, omics: Any, local: Any
) -> None:
    local.settings.show_deleted_run_caches = True
    omics.delete_run_cache(id=execute(description="first")[0])
    local.clock.advance(2_000)
    local.settings.run_cache_visible_after = 2_000
    fails_for_now(execute, "GetRunCache does not find it", description="first")
    fails_for_now(execute, "ListRunCaches does not show it after 300 s", description="second")
    local.clock.advance(2_000)
    assert [cache["id"] for cache in active_caches(omics)] == [execute(description="second")[0]]


# A service that shows the cache late, or without members


@pytest.fixture
def altered(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let each hook that is made from now on see run caches changed."""

    def altered(change: Change, *operations: str) -> None:
        make = OmicsCacheHook.get_client_type

        def get_client_type(*args: Any, **parameters: Any) -> Any:
            client = make(*args, **parameters)
            alter_run_caches(client, change, *operations)
            return client

        monkeypatch.setattr(OmicsCacheHook, "get_client_type", get_client_type)

    return altered


def fails_for_now(execute: Any, text: str, **parameters: Any) -> None:
    """Run a try that must fail with an error that is retried."""
    with pytest.raises(OmicsError, match=text) as caught:
        execute(**parameters)
    assert not isinstance(caught.value, AirflowFailException)


def test_a_new_cache_that_is_not_shown_in_five_minutes_is_not_created_again(
    execute: Any, omics: Any, local: Any
) -> None:
    local.settings.run_cache_visible_after = 1_000
    fails_for_now(execute, r"^CreateRunCache returned run cache \d+, but GetRunCache does not find it after 300 s")
    fails_for_now(execute, r"No other run cache was created\. Retry the task\.$")
    local.clock.advance(1_000)
    (created,) = active_caches(omics)
    assert execute()[0] == created["id"]
    assert len(active_caches(omics)) == 1


@pytest.mark.parametrize("error", ["ConflictException", "ValidationException"])
def test_a_refused_token_whose_cache_is_not_listed_in_five_minutes_makes_no_second_cache(
    execute: Any, omics: Any, local: Any, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    local.settings.changed_request_error = error
    local.settings.run_cache_visible_after = 1_000
    die(monkeypatch, OmicsCacheHook, "create_run_cache")
    with pytest.raises(KeyboardInterrupt):
        execute(description="theirs")
    fails_for_now(execute, f"ListRunCaches does not show it after 300 s. .*{error}", description="ours")
    local.clock.advance(1_000)
    (created,) = active_caches(omics)
    assert execute(description="ours")[0] == created["id"]


@pytest.mark.parametrize("error", ["ConflictException", "ValidationException"])
def test_the_cache_of_the_users_request_id_is_waited_for(
    execute: Any, omics: Any, local: Any, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    local.settings.changed_request_error = error
    local.settings.run_cache_visible_after = 200
    die(monkeypatch, OmicsCacheHook, "create_run_cache")
    with pytest.raises(KeyboardInterrupt):
        execute(description="theirs", request_id="mine")
    returned, _ = execute(description="ours", request_id="mine")
    assert [cache["id"] for cache in active_caches(omics)] == [returned]


@pytest.mark.parametrize("member", ["name", "status", "cacheS3Uri"])
def test_a_member_that_is_always_absent_makes_no_second_cache(
    execute: Any, omics: Any, altered: Callable[..., None], member: str
) -> None:
    altered(without(member))
    for _ in range(3):
        fails_for_now(execute, f"run cache \\d+ without {member}")
    assert len(omics.list_run_caches()["items"]) == 1


@pytest.mark.parametrize("member", ["name", "status", "cacheS3Uri"])
def test_a_member_that_is_absent_for_a_while_is_waited_for(
    execute: Any, omics: Any, local: Any, altered: Callable[..., None], member: str
) -> None:
    altered(without(member, times=3))
    returned, pushed = execute()
    assert pushed["created"] is True
    local.forget_tokens()
    altered(without(member, times=6))
    assert execute()[0] == returned
    assert len(active_caches(omics)) == 1


@pytest.mark.parametrize("operation", ["GetRunCache", "ListRunCaches"])
@pytest.mark.parametrize("members", [["name"], ["status"], ["cacheS3Uri"], ["name", "status", "cacheS3Uri", "arn"]])
def test_what_one_of_two_answers_knows_is_enough(
    execute: Any, omics: Any, local: Any, altered: Callable[..., None], operation: str, members: list[str]
) -> None:
    returned, _ = execute()
    local.forget_tokens()
    altered(without(*members), operation)
    began = local.clock.elapsed()
    found, pushed = execute()
    assert (found, pushed["created"], pushed["cache_s3_uri"] is None) == (returned, False, False)
    assert local.clock.elapsed() == began


def test_a_listed_cache_that_is_not_found_makes_no_second_cache(
    execute: Any, omics: Any, local: Any, altered: Callable[..., None]
) -> None:
    returned, _ = execute()
    local.forget_tokens()
    altered(unseen(20), "GetRunCache")
    fails_for_now(execute, f"ListRunCaches shows run cache {returned}, but GetRunCache does not find it")
    assert execute()[0] == returned
    assert len(active_caches(omics)) == 1


def test_a_deleted_cache_that_is_listed_for_a_while_is_followed_by_a_new_one(
    execute: Any, omics: Any, local: Any, altered: Callable[..., None]
) -> None:
    first, _ = execute()
    stale = omics.list_run_caches()["items"]
    omics.delete_run_cache(id=first)
    local.forget_tokens()
    left = [3]

    def list_stale(parsed: dict[str, Any], **_: Any) -> None:
        left[0] -= 1
        if left[0] >= 0:
            parsed["items"] = [dict(item) for item in stale]

    task = operator()
    task.hook.conn.meta.events.register("after-call.omics.ListRunCaches", list_stale)
    assert task.execute({"ti": RecordedTaskInstance()}) != first
    assert left[0] < 0


@pytest.mark.parametrize("answers", [4, None])
def test_a_state_of_the_future_of_a_listed_cache_is_waited_for(
    execute: Any, omics: Any, local: Any, altered: Callable[..., None], answers: int | None
) -> None:
    returned, _ = execute()
    local.forget_tokens()
    left = [answers]

    def creating(answer: dict[str, Any]) -> None:
        if left[0] is not None:
            left[0] -= 1
        if left[0] is None or left[0] >= 0:
            answer["status"] = "CREATING"

    altered(creating)
    if answers is None:
        fails_for_now(
            execute, f"^HealthOmics does not show whether run cache 'cohort' exists at .* {returned} is still CREATING"
        )
    else:
        assert execute()[0] == returned
    assert len(active_caches(omics)) == 1


def test_a_neighbour_without_a_name_costs_seconds(execute: Any, omics: Any, local: Any) -> None:
    omics.create_run_cache(cacheS3Location=LOCATION)
    began = local.clock.elapsed()
    returned, pushed = execute()
    assert pushed["created"] is True
    assert 0 < local.clock.elapsed() - began < 10
    began, reads = local.clock.elapsed(), local.calls["GetRunCache"]
    assert execute()[0] == returned
    assert local.clock.elapsed() == began
    assert local.calls["GetRunCache"] == reads + 1


@pytest.mark.parametrize("listed", [True, False])
def test_a_cache_that_fails_at_once_is_created_once_a_try(
    execute: Any, omics: Any, altered: Callable[..., None], listed: bool
) -> None:
    altered(lambda answer: answer.update(status="FAILED"), "GetRunCache")
    if not listed:
        altered(lambda _: False, "ListRunCaches")
    for _ in range(2):
        fails_for_now(execute, r"^Run cache \d+ is FAILED directly after its creation at s3://cohort-data/cache")
    assert len(active_caches(omics)) == (2 if listed else 1)


def test_a_new_cache_in_a_folder_of_another_form_is_not_created_again(
    execute: Any, omics: Any, altered: Callable[..., None]
) -> None:
    altered(lambda answer: answer.update(cacheS3Uri=f"{LOCATION}/cache-1/"), "GetRunCache")
    with pytest.raises(RunCacheError, match=rf"GetRunCache shows it at {LOCATION}/cache-1/ with"):
        execute()
    assert len(active_caches(omics)) == 1


def test_a_new_cache_without_its_bucket_owner_is_not_created_again(
    execute: Any, omics: Any, local: Any, altered: Callable[..., None]
) -> None:
    local.settings.check_cache_bucket = False
    altered(without("cacheBucketOwnerId"))
    for _ in range(2):
        fails_for_now(execute, "without cacheBucketOwnerId", cache_bucket_owner_id="999999999999")
    assert len(active_caches(omics)) == 1


def test_an_absent_arn_makes_no_second_cache(
    execute: Any, omics: Any, local: Any, altered: Callable[..., None]
) -> None:
    execute(cache_bucket_owner_id=ACCOUNT)
    local.forget_tokens()
    altered(without("arn"))
    fails_for_now(execute, "without arn")
    assert len(active_caches(omics)) == 1


def test_a_listed_cache_without_an_id_makes_no_second_cache(
    execute: Any, omics: Any, local: Any, altered: Callable[..., None]
) -> None:
    execute()
    omics.create_run_cache(name="other", cacheS3Location=LOCATION)
    local.forget_tokens()
    altered(without("id", times=6), "ListRunCaches")
    execute()
    assert len(active_caches(omics)) == 2
    altered(without("id"), "ListRunCaches")
    fails_for_now(execute, "ListRunCaches shows a run cache without its id")


def test_a_list_that_repeats_a_cache_shows_one(execute: Any, omics: Any, warnings: Callable[[], list[str]]) -> None:
    returned, _ = execute()
    task = operator()
    task.hook.conn.meta.events.register(
        "after-call.omics.ListRunCaches", lambda parsed, **_: parsed.update(items=parsed["items"] * 2)
    )
    assert task.execute({"ti": RecordedTaskInstance()}) == returned
    assert warnings() == []


@pytest.mark.parametrize("member", ["tags", "cacheBehavior", "description"])
def test_fail_reads_again_before_it_fails(execute: Any, omics: Any, altered: Callable[..., None], member: str) -> None:
    asked = {"cache_behavior": "CACHE_ALWAYS", "description": "d", "tags": {"a": "1"}, "if_exists": "fail"}
    returned, _ = execute(**asked)
    altered(without(member, times=2), "GetRunCache")
    assert execute(**asked)[0] == returned


@pytest.mark.parametrize("lag", [0, 200])
def test_a_token_that_is_refused_as_invalid_makes_no_second_cache(
    execute: Any, omics: Any, local: Any, lag: float
) -> None:
    local.settings.changed_request_error = "ValidationException"
    local.settings.run_cache_visible_after = lag
    omics.create_run_cache(
        name="cohort",
        cacheS3Location=LOCATION,
        description="theirs",
        requestId=run_cache_token(name="cohort", location=LOCATION, owner=None, region="us-east-1", generation=0),
    )
    execute(description="ours")
    assert len(active_caches(omics)) == 1


def test_a_refused_request_is_sent_once(execute: Any, omics: Any, local: Any) -> None:
    with pytest.raises(OmicsRequestError):
        execute(description="d" * 257)
    assert local.calls["CreateRunCache"] == 1


def test_a_state_of_the_future_makes_no_second_cache(local: Any) -> None:
    hook = OmicsCacheHook()
    with Stubber(hook.conn) as stubber:
        stubber.add_response("list_run_caches", {"items": []})
        stubber.add_response("create_run_cache", {"id": "7", "status": "CREATING"})
        for _ in range(11):
            stubber.add_response("get_run_cache", {"id": "7", "status": "CREATING"}, {"id": "7"})
        with pytest.raises(OmicsError, match=r"^Run cache 7 is still CREATING") as caught:
            ensure_run_cache(hook, name="cohort", cache_s3_location=LOCATION)
        stubber.assert_no_pending_responses()
    assert not isinstance(caught.value, AirflowFailException)


def test_ten_spent_tokens_are_an_error(execute: Any, omics: Any, local: Any) -> None:
    local.settings.show_deleted_run_caches = True
    for _ in range(10):
        omics.delete_run_cache(id=execute()[0])
    with pytest.raises(RunCacheError, match=r"the last 10 request tokens were used by .* Set another request_id"):
        execute()
    assert execute(request_id="another")[1]["created"] is True


def test_the_users_request_id_is_the_token(execute: Any, omics: Any, local: Any) -> None:
    made = omics.create_run_cache(name="cohort", cacheS3Location=LOCATION, requestId="mine")["id"]
    assert execute(request_id="mine")[0] == made
    local.settings.show_deleted_run_caches = True
    omics.delete_run_cache(id=made)
    with pytest.raises(RunCacheError, match="the request token 'mine' was used by caches that were deleted or differ"):
        execute(request_id="mine")
    assert active_caches(omics) == []


@pytest.mark.parametrize("error", ["ConflictException", "ValidationException"])
def test_no_other_cache_explains_the_refusal_of_the_users_request_id(
    execute: Any, omics: Any, local: Any, error: str
) -> None:
    """Only a derived token belongs to the caches of one name. The user's may belong to any request."""
    local.settings.changed_request_error = error
    local.settings.show_deleted_run_caches = True
    omics.create_run_cache(name="another", cacheS3Location=LOCATION, requestId="mine")
    omics.delete_run_cache(id=execute()[0])
    before = local.calls["CreateRunCache"]
    with pytest.raises(
        OmicsApiError,
        match=r"^CreateRunCache failed: .* requestId was used before, for another request \(request id [0-9a-f-]+\)$",
    ):
        execute(request_id="mine")
    assert local.calls["CreateRunCache"] == before + 1


def test_a_renamed_cache_is_another_one(execute: Any, omics: Any) -> None:
    first, _ = execute()
    omics.update_run_cache(id=first, name="renamed")
    second, _ = execute()
    assert second != first
    assert execute()[0] == second


# Which cache is the one


def test_the_cache_is_found_behind_many_others(execute: Any, omics: Any, local: Any) -> None:
    for number in range(230):
        omics.create_run_cache(name=f"other-{number}", cacheS3Location=LOCATION)
    wanted = omics.create_run_cache(name="cohort", cacheS3Location=LOCATION)["id"]
    before = local.calls.copy()
    assert execute()[0] == wanted
    assert local.calls["ListRunCaches"] - before["ListRunCaches"] == 3


def test_the_oldest_of_several_is_taken_with_a_warning(
    execute: Any, omics: Any, local: Any, warnings: Callable[[], list[str]]
) -> None:
    made = []
    for seconds in (0, 0, 5):
        local.clock.advance(seconds)
        made.append(omics.create_run_cache(name="cohort", cacheS3Location=LOCATION)["id"])
    for _ in range(2):
        assert execute()[0] == min(made[:2], key=int)
    (warning, _) = warnings()
    assert all(run_cache_id in warning for run_cache_id in made)


def test_deleted_and_nameless_caches_are_passed_over(execute: Any, omics: Any, local: Any) -> None:
    local.settings.show_deleted_run_caches = True
    omics.create_run_cache(cacheS3Location=LOCATION)
    omics.delete_run_cache(id=omics.create_run_cache(name="cohort", cacheS3Location=LOCATION)["id"])
    assert execute()[1]["created"] is True


@pytest.mark.parametrize(("made_with", "asked"), [(None, ACCOUNT), (ACCOUNT, None), (ACCOUNT, int(ACCOUNT))])
def test_the_own_account_and_no_owner_are_the_same(execute: Any, made_with: Any, asked: Any) -> None:
    assert execute(cache_bucket_owner_id=made_with)[0] == execute(cache_bucket_owner_id=asked)[0]


def test_without_sts_a_given_owner_is_taken_as_it_is(execute: Any, omics: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:9")
    once = {"botocore_config": {"retries": {"total_max_attempts": 1}}}
    returned, _ = execute(cache_bucket_owner_id=ACCOUNT, **once)
    assert execute(**once)[0] == returned
    with pytest.raises(OmicsApiError, match="GetCallerIdentity failed: EndpointConnectionError"):
        execute(check_bucket=True, **once)


def test_another_owner_is_another_cache(execute: Any, omics: Any, local: Any) -> None:
    local.settings.check_cache_bucket = False
    first, _ = execute()
    second, _ = execute(cache_bucket_owner_id="999999999999")
    assert second != first
    assert execute(cache_bucket_owner_id="999999999999")[0] == second
    assert execute()[0] == first
    with pytest.raises(OmicsParameterError, match=r"cache_bucket_owner_id .* '888888888888'"):
        execute(cache_bucket_owner_id="888888888888", if_exists="fail")
    assert len(active_caches(omics)) == 2


@pytest.mark.parametrize("if_exists", ["reuse", "update"])
def test_a_cache_of_the_name_elsewhere_is_left_alone(
    execute: Any, omics: Any, warnings: Callable[[], list[str]], if_exists: str
) -> None:
    first, pushed = execute()
    second, _ = execute(cache_s3_location="s3://cohort-data/other", if_exists=if_exists)
    assert second != first
    (warning,) = warnings()
    assert pushed["cache_s3_uri"] in warning
    assert "s3://cohort-data/other" in warning
    assert len(active_caches(omics)) == 2


def test_with_fail_the_name_stands_for_one_location(execute: Any, omics: Any) -> None:
    _, pushed = execute()
    with pytest.raises(OmicsParameterError) as caught:
        execute(cache_s3_location="s3://cohort-data/other", if_exists="fail")
    assert str(caught.value).startswith("cache_s3_location ")
    assert "'s3://cohort-data/other'" in str(caught.value)
    assert pushed["cache_s3_uri"] in str(caught.value)
    assert len(active_caches(omics)) == 1


# What differs


@pytest.mark.parametrize("if_exists", ["reuse", "update", "fail"])
@pytest.mark.parametrize("asked", [{}, {"cache_behavior": "CACHE_ALWAYS", "description": "d", "tags": {"a": "1"}}])
def test_a_cache_without_differences_is_taken_silently(
    execute: Any, local: Any, warnings: Callable[[], list[str]], if_exists: str, asked: dict[str, Any]
) -> None:
    first, _ = execute(cache_behavior="CACHE_ALWAYS", description="d", tags={"a": "1", "b": "2"}, if_exists=if_exists)
    assert execute(if_exists=if_exists, **asked)[0] == first
    assert warnings() == []
    assert local.calls["UpdateRunCache"] == local.calls["TagResource"] == 0


DIFFERENT: dict[str, Any] = {
    "cache_behavior": "CACHE_ALWAYS",
    "description": "new",
    "tags": {"team": "b", "cost": "1"},
}


def test_reuse_warns_of_each_difference(
    execute: Any, omics: Any, local: Any, warnings: Callable[[], list[str]]
) -> None:
    first, _ = execute(description="old", tags={"team": "a"})
    returned, pushed = execute(**DIFFERENT)
    assert returned == first
    assert pushed["cache_behavior"] == "CACHE_ON_FAILURE"
    (warning,) = warnings()
    for value in ("cache_behavior", "CACHE_ON_FAILURE", "CACHE_ALWAYS", "description", "'old'", "'new'", "team"):
        assert value in warning
    assert local.calls["UpdateRunCache"] == local.calls["TagResource"] == 0


def test_update_changes_what_is_given_and_nothing_else(execute: Any, omics: Any, local: Any) -> None:
    first, _ = execute(description="old", tags={"team": "a", "site": "x"})
    returned, pushed = execute(**DIFFERENT, if_exists="update")
    assert returned == first
    assert pushed["cache_behavior"] == "CACHE_ALWAYS"
    assert pushed["created"] is False
    found = omics.get_run_cache(id=first)
    assert (found["cacheBehavior"], found["description"]) == ("CACHE_ALWAYS", "new")
    assert found["tags"] == pushed["tags"] == {"team": "b", "cost": "1", "site": "x"}
    updates = local.calls["UpdateRunCache"], local.calls["TagResource"]
    execute(**DIFFERENT, if_exists="update")
    assert (local.calls["UpdateRunCache"], local.calls["TagResource"]) == updates == (1, 1)


@pytest.mark.parametrize(("asked", "calls"), [({"description": "new"}, (1, 0)), ({"tags": {"team": "b"}}, (0, 1))])
def test_update_calls_only_what_is_needed(
    execute: Any, local: Any, asked: dict[str, Any], calls: tuple[int, int]
) -> None:
    execute(description="old", tags={"team": "a"})
    execute(**asked, if_exists="update")
    assert (local.calls["UpdateRunCache"], local.calls["TagResource"]) == calls


def test_fail_refuses_differences(execute: Any, local: Any) -> None:
    first, _ = execute(description="old")
    with pytest.raises(RunCacheError, match=f"^Run cache {first} differs: description is 'old'") as caught:
        execute(description="new", if_exists="fail")
    assert caught.value.run_cache_id == first
    assert isinstance(caught.value, AirflowFailException)


@pytest.mark.parametrize("error", ["ConflictException", None])
def test_a_cache_that_another_task_has_just_made_is_settled_too(
    execute: Any, omics: Any, local: Any, task_context: dict[str, Any], error: str | None
) -> None:
    local.settings.changed_request_error = error
    ours = operator(description="ours", if_exists="update")
    ours.hook.conn.meta.events.register_first(
        "before-call.omics.CreateRunCache", lambda **_: execute(description="theirs") and None
    )
    returned = ours.execute(task_context)
    assert omics.get_run_cache(id=returned)["description"] == "ours"
    assert len(active_caches(omics)) == 1


# Bad input


@pytest.mark.parametrize(
    ("parameters", "shown"),
    [
        ({"cache_s3_location": "http://cohort-data/cache"}, ["cacheS3Location", "http://cohort-data/cache"]),
        ({"cache_s3_location": "s3://Cohort-Data/cache"}, ["cacheS3Location", "s3://Cohort-Data/cache"]),
        ({"cache_s3_location": "s3://missing/cache"}, ["cacheS3Location", "s3://missing/cache"]),
        ({"name": "n" * 129}, ["name", "n" * 60, "128"]),
        ({"cache_bucket_owner_id": "12345678901"}, ["cacheBucketOwnerId", "12345678901", "12"]),
        ({"cache_bucket_owner_id": "999999999999"}, ["cacheS3Location", "999999999999"]),
        ({"tags": {"k" * 129: "v"}}, ["tags", "k" * 60, "128"]),
        ({"tags": {"k": "v" * 257}}, ["tags", "256"]),
        ({"description": "d" * 257}, ["description", "256"]),
        ({"cache_behavior": "{{ 'CACHE_NEVER' }}"}, ["cacheBehavior", "CACHE_NEVER"]),
    ],
)
@pytest.mark.parametrize("if_exists", ["reuse", "update", "fail"])
def test_bad_input_is_one_error_that_leaves_nothing(
    execute: Any, omics: Any, parameters: dict[str, Any], shown: list[str], if_exists: str
) -> None:
    with pytest.raises(OmicsRequestError) as caught:
        execute(**parameters, if_exists=if_exists)
    for part in shown:
        assert part in str(caught.value)
    assert isinstance(caught.value, AirflowFailException)
    assert active_caches(omics) == []


@pytest.mark.parametrize("operator_class", [CreateRunCacheOperator, UpdateRunCacheOperator])
def test_a_behaviour_that_does_not_exist_is_refused_when_the_dag_is_parsed(operator_class: Any) -> None:
    ids = {"name": "a", "cache_s3_location": "s3://a"} if operator_class is CreateRunCacheOperator else {}
    ids = ids or {"run_cache_id": "1"}
    text = r"^cache_behavior must be one of CACHE_ON_FAILURE, CACHE_ALWAYS; got 'ALWAYS'$"
    with pytest.raises(OmicsParameterError, match=text):
        operator_class(task_id="cache", cache_behavior="ALWAYS", **ids)
    for behavior in ("CACHE_ALWAYS", None, "{{ params.behavior }}"):
        operator_class(task_id="cache", cache_behavior=behavior, **ids)


@pytest.mark.parametrize(
    ("parameters", "shown"),
    [
        ({"tags": {"k" * 129: "v"}}, "tags: a key must be a string of 1 to 128 characters"),
        ({"tags": {"team": "v" * 257}}, "tags: the value of 'team' must be a string of 0 to 256 characters"),
        ({"tags": {"team": 7}}, "tags: the value of 'team' must be a string of 0 to 256 characters; got 7"),
        ({"description": "d" * 257}, "description must be a string of 1 to 256 characters"),
        ({"description": "", "tags": {"a": "b"}}, "description must be a string of 1 to 256 characters"),
        (
            {"tags": {f"key-{number}": "v" for number in range(50)}},
            "tags must have at most 50 entries, together with the tags that the resource has; got '51 entries'",
        ),
        ({"tags": {"AWS:team": "a"}}, r"tags must not have keys that begin with aws:; got \['AWS:team'\]"),
    ],
)
def test_an_update_is_not_half_done(execute: Any, omics: Any, parameters: dict[str, Any], shown: str) -> None:
    first, _ = execute(description="old", tags={"site": "x"})
    with pytest.raises(OmicsParameterError, match=shown):
        execute(**{"description": "new", **parameters}, cache_behavior="CACHE_ALWAYS", if_exists="update")
    found = omics.get_run_cache(id=first)
    assert (found["description"], found["tags"], found["cacheBehavior"]) == (
        "old",
        {"site": "x"},
        "CACHE_ON_FAILURE",
    )


def test_fifty_tags_fit(execute: Any) -> None:
    execute(tags={"site": "x"})
    tags = {f"key-{number}": "v" for number in range(49)}
    assert len(execute(tags={**tags, "site": "y"}, if_exists="update")[1]["tags"]) == 50


@pytest.mark.parametrize("value", ["None", "x" * 129])
def test_a_bad_request_id_is_named(execute: Any, local: Any, value: str) -> None:
    with pytest.raises(OmicsParameterError, match=r"^request_id must be a token of 1 to 128 characters; got"):
        execute(request_id=value)
    assert local.calls.total() == 0


def test_a_request_id_may_be_a_number_or_empty(execute: Any, omics: Any) -> None:
    made = omics.create_run_cache(name="cohort", cacheS3Location=LOCATION, requestId="7")["id"]
    omics.update_run_cache(id=made, name="renamed")
    with pytest.raises(RunCacheError, match="the request token '7' was used by"):
        execute(request_id=7)
    assert execute(request_id="")[1]["created"] is True


@pytest.mark.parametrize("parameter", ["name", "cache_s3_location"])
@pytest.mark.parametrize("value", [None, "", 7])
def test_a_missing_parameter_is_named(execute: Any, local: Any, parameter: str, value: Any) -> None:
    with pytest.raises(OmicsParameterError, match=f"^{parameter} must be a string that is not empty; got"):
        execute(**{parameter: value})
    assert local.calls.total() == 0


def test_tags_that_were_rendered_to_text_are_refused(execute: Any, local: Any) -> None:
    with pytest.raises(OmicsParameterError, match="tags must be a dict; got"):
        execute(tags="{'team': 'a'}")
    assert local.calls.total() == 0


def test_an_unknown_if_exists_is_refused_when_the_dag_is_read() -> None:
    with pytest.raises(OmicsParameterError, match="if_exists must be one of reuse, update, fail; got 'replace'"):
        operator(if_exists="replace")


# The bucket


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Callable[..., None], Stubber]]:
    """The check of a bucket, and the stub of its S3 client."""
    connection = {"conn_type": "aws", "login": "a", "password": "b", "extra": {"region_name": "us-east-1"}}
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
    hook = OmicsCacheHook()
    client = s3_client()
    with Stubber(client) as stubber:
        yield partial(check_bucket, hook, client), stubber
        stubber.assert_no_pending_responses()


def in_region(region: str) -> dict[str, Any]:
    return {"HTTPHeaders": {"x-amz-bucket-region": region}}


def found_in(region: str) -> dict[str, Any]:
    return {"ResponseMetadata": {"HTTPStatusCode": 200, **in_region(region)}}


OWN_BUCKET: dict[str, Any] = {"cache_s3_location": LOCATION, "cache_bucket_owner_id": ACCOUNT}
SENT = {"Bucket": "cohort-data", "ExpectedBucketOwner": ACCOUNT}


def test_the_right_bucket_passes(s3: Any, warnings: Callable[[], list[str]]) -> None:
    check, stubber = s3
    stubber.add_response("head_bucket", found_in("us-east-1"), SENT)
    check(**OWN_BUCKET)
    assert warnings() == []


def test_a_missing_bucket_is_an_error(s3: Any) -> None:
    check, stubber = s3
    stubber.add_client_error("head_bucket", "404", "Not Found", 404, expected_params=SENT)
    with pytest.raises(OmicsParameterError, match=f"cache_s3_location .* bucket that exists; got '{LOCATION}'"):
        check(**OWN_BUCKET)


@pytest.mark.parametrize("status", [200, 301, 403])
def test_a_bucket_in_another_region_is_an_error(s3: Any, status: int) -> None:
    check, stubber = s3
    if status == 200:
        stubber.add_response("head_bucket", found_in("eu-west-1"), SENT)
    else:
        stubber.add_client_error(
            "head_bucket",
            str(status),
            http_status_code=status,
            expected_params=SENT,
            response_meta=in_region("eu-west-1"),
        )
    with pytest.raises(OmicsParameterError, match="must be in a bucket in us-east-1, but the bucket is in eu-west-1"):
        check(**OWN_BUCKET)


def test_a_bucket_of_another_account_is_an_error(s3: Any) -> None:
    check, stubber = s3
    stubber.add_client_error("head_bucket", "403", "Forbidden", 403, expected_params=SENT)
    stubber.add_response("head_bucket", found_in("us-east-1"), {"Bucket": "cohort-data"})
    with pytest.raises(OmicsParameterError, match=f"bucket of account {ACCOUNT}; got '{LOCATION}'"):
        check(**OWN_BUCKET)


def test_denied_access_proves_nothing(s3: Any, warnings: Callable[[], list[str]]) -> None:
    check, stubber = s3
    stubber.add_client_error("head_bucket", "403", "Forbidden", 403, expected_params=SENT)
    stubber.add_client_error("head_bucket", "403", "Forbidden", 403, expected_params={"Bucket": "cohort-data"})
    check(**OWN_BUCKET)
    (warning,) = warnings()
    assert "Bucket cohort-data: access denied, its owner was not checked" in warning


def test_another_failure_of_s3_is_an_api_error(s3: Any) -> None:
    check, stubber = s3
    stubber.add_client_error("head_bucket", "InternalError", "sorry", 500)
    with pytest.raises(OmicsApiError, match="HeadBucket failed: InternalError: sorry"):
        check(**OWN_BUCKET)


@pytest.mark.parametrize("location", ["http://cohort-data/cache", "cohort-data", "s3:///cache", None])
def test_the_location_has_to_be_in_s3(s3: Any, location: Any) -> None:
    check, _ = s3
    with pytest.raises(OmicsParameterError, match="cache_s3_location must be an s3:// URI; got"):
        check(cache_s3_location=location)


def test_the_bucket_is_looked_at_before_anything_else(execute: Any, local: Any) -> None:
    with pytest.raises(OmicsParameterError, match="bucket that exists; got 's3://missing/cache'"):
        execute(cache_s3_location="s3://missing/cache", check_bucket=True)
    assert local.calls.total() == 0
    execute(check_bucket=True)
    assert local.calls["CreateRunCache"] == 1


def test_the_bucket_is_checked_with_the_operators_settings(execute: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clients: list[Any] = []

    def remember(**parameters: Any) -> Any:
        clients.append(s3_client(**parameters))
        return clients[-1]

    monkeypatch.setattr("airflow_provider_omics_cache.operators.run_cache.s3_client", remember)
    execute(check_bucket=True, region_name="us-east-1", verify=False, botocore_config={"read_timeout": 77})
    (client,) = clients
    assert client.meta.region_name == "us-east-1"
    assert client.meta.config.read_timeout == 77
    assert client._endpoint.http_session._verify is False


# Airflow


def test_everything_but_switches_is_templated() -> None:
    fields = set(CreateRunCacheOperator.template_fields)
    assert fields == set(aws_template_fields()) | {
        "name",
        "cache_s3_location",
        "cache_behavior",
        "cache_bucket_owner_id",
        "description",
        "tags",
        "request_id",
    }
    assert not CreateRunCacheOperator.template_ext
    assert all(hasattr(operator(), field) for field in fields)


def test_templates_are_not_looked_at_before_they_are_rendered() -> None:
    task = operator(name="{{ 1 / 0 }}", cache_s3_location="{{ params.location }}", tags="{{ params.tags }}")
    assert task.name == "{{ 1 / 0 }}"


def test_it_can_be_mapped() -> None:
    with DAG("caches", schedule=None, default_args={"cache_s3_location": LOCATION, "region_name": "us-east-1"}):
        single = CreateRunCacheOperator(task_id="one", name="cohort")
        mapped = CreateRunCacheOperator.partial(task_id="many", if_exists="update").expand(name=["a", "b"])
    assert (single.cache_s3_location, single.region_name) == (LOCATION, "us-east-1")
    assert mapped.operator_class is CreateRunCacheOperator
