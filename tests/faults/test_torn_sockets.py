"""Answers that are damaged on their way between real clients and the served local HealthOmics: none counts as empty."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore import xform_name
from botocore.config import Config

from airflow_provider_omics_cache import timing
from airflow_provider_omics_cache.exceptions import BatchFailedError, OmicsApiError
from airflow_provider_omics_cache.healthomics import batch_runs
from airflow_provider_omics_cache.hooks.errors import api_error
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.hooks.s3 import head_object, open_object, put_object, s3_client
from airflow_provider_omics_cache.operators.run_batch import CancelRunBatchOperator, DeleteRunBatchOperator
from airflow_provider_omics_cache.operators.run_cache import CreateRunCacheOperator
from airflow_provider_omics_cache.sensors.run_batch import BatchCompletionSensor
from airflow_provider_omics_cache.triggers import poller as poller_module
from airflow_provider_omics_cache.triggers.clients import Connection
from airflow_provider_omics_cache.triggers.poller import GET_BATCH, GET_RUN, Operation, Poller
from tests.clocks import NoWaiting
from tests.conftest import needs_aiobotocore, needs_batches
from tests.faults import proxy as tears
from tests.faults.proxy import Tear, TornSockets
from tests.operators.batch_states import ONE_ATTEMPT, batch_in, runs_of, status_of
from tests.operators.waiting_task import waiting_task
from tests.sensor_modes import start_batch, use_service_time

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmicsServer

pytestmark = [needs_batches, pytest.mark.large]

ROLE = "arn:aws:iam::123456789012:role/omics"
#: A client that gives up soon when no answer comes.
IMPATIENT = {**ONE_ATTEMPT, "read_timeout": 0.2}
TEARS: tuple[Tear, ...] = (
    tears.cut_before,
    tears.cut_after,
    tears.cut_in_the_headers,
    tears.truncated,
    tears.truncated_early,
    tears.cut_in_a_chunk,
    tears.cut_between_chunks,
    tears.ended_early,
    tears.emptied,
    tears.web_page,
    tears.refused_with_a_web_page,
)

Ids = dict[str, str]
NewIds = Callable[[], Ids]
#: Members of each operation that reads, and the member that has its result, None for the whole answer.
READS: dict[str, tuple[Callable[[Ids], dict[str, Any]], str | None]] = {
    "GetRunCache": (lambda ids: {"id": ids["cache"]}, None),
    "ListRunCaches": (lambda ids: {}, "items"),
    "GetBatch": (lambda ids: {"batchId": ids["batch"]}, None),
    "ListBatch": (lambda ids: {}, "items"),
    "ListRunsInBatch": (lambda ids: {"batchId": ids["batch"]}, "runs"),
    "GetRun": (lambda ids: {"id": ids["run"]}, None),
    "ListRuns": (lambda ids: {}, "items"),
    "ListTagsForResource": (lambda ids: {"resourceArn": ids["arn"]}, None),
}
#: Members of each operation with an effect, and whether the effect is there.
WRITES: dict[str, tuple[Callable[[Ids], dict[str, Any]], Callable[[Any, Ids], bool]]] = {
    "CreateRunCache": (
        lambda ids: {"cacheS3Location": "s3://cohort-data/new", "name": "new", "requestId": "new"},
        lambda client, ids: [cache.get("name") for cache in client.list_run_caches()["items"]].count("new") == 1,
    ),
    "UpdateRunCache": (
        lambda ids: {"id": ids["cache"], "name": "changed"},
        lambda client, ids: client.get_run_cache(id=ids["cache"])["name"] == "changed",
    ),
    "DeleteRunCache": (
        lambda ids: {"id": ids["cache"]},
        lambda client, ids: all(cache["status"] != "ACTIVE" for cache in client.list_run_caches()["items"]),
    ),
    "StartRunBatch": (
        lambda ids: {
            "defaultRunSetting": {"workflowId": "1234567", "roleArn": ROLE, "outputUri": "s3://cohort-data/out"},
            "batchRunSettings": {"inlineSettings": [{"runSettingId": "a"}]},
            "batchName": "new",
            "requestId": "new",
        },
        lambda client, ids: [batch.get("name") for batch in client.list_batch()["items"]].count("new") == 1,
    ),
    "CancelRunBatch": (
        lambda ids: {"batchId": ids["living_batch"]},
        lambda client, ids: client.get_batch(batchId=ids["living_batch"])["status"] in {"STOPPING", "CANCELLED"},
    ),
    "DeleteRunBatch": (
        lambda ids: {"batchId": ids["batch"]},
        lambda client, ids: client.get_batch(batchId=ids["batch"])["status"] in {"RUNS_DELETING", "RUNS_DELETED"},
    ),
    "DeleteBatch": (
        lambda ids: {"batchId": ids["batch"]},
        lambda client, ids: ids["batch"] not in [batch["id"] for batch in client.list_batch()["items"]],
    ),
    "CancelRun": (
        lambda ids: {"id": ids["living_run"]},
        lambda client, ids: client.get_run(id=ids["living_run"])["status"] in {"STOPPING", "CANCELLED"},
    ),
    "DeleteRun": (
        lambda ids: {"id": ids["run"]},
        lambda client, ids: ids["run"] not in [run["id"] for run in client.list_runs()["items"]],
    ),
    "TagResource": (
        lambda ids: {"resourceArn": ids["arn"], "tags": {"owner": "lab"}},
        lambda client, ids: client.list_tags_for_resource(resourceArn=ids["arn"])["tags"].get("owner") == "lab",
    ),
    "UntagResource": (
        lambda ids: {"resourceArn": ids["arn"], "tagKeys": ["team"]},
        lambda client, ids: "team" not in client.list_tags_for_resource(resourceArn=ids["arn"])["tags"],
    ),
}
#: What the service says to a call whose effect is there already.
REPEATED = {"ConflictException", "ResourceNotFoundException", "ValidationException"}


@pytest.fixture
def server(local_healthomics_server: LocalHealthOmicsServer) -> LocalHealthOmicsServer:
    return local_healthomics_server


@pytest.fixture
def proxy(server: LocalHealthOmicsServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[TornSockets]:
    """The proxy; the default connection leads through it."""
    with TornSockets(server.url).run() as running:
        connection = json.loads(server.airflow_connection)
        connection["extra"]["endpoint_url"] = running.url
        monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
        yield running


@pytest.fixture
def client(server: LocalHealthOmicsServer) -> Any:
    """A client that does not use the proxy."""
    return boto3.client("omics", **server.client_kwargs)


@pytest.fixture
def new_ids(server: LocalHealthOmicsServer, client: Any) -> NewIds:
    """Reset the service; give ids of a cache, of a PROCESSED and of a living batch, and of a run of each."""

    def make() -> Ids:
        server.reset()
        server.settings.run_running_seconds = 600
        cache = client.create_run_cache(cacheS3Location="s3://cohort-data", tags={"team": "a"}, requestId="old")
        batch = start_batch(client, 3)
        server.clock.advance(3_600)
        living_batch = start_batch(client, 3)
        server.clock.advance(60)
        runs = {name: client.list_runs_in_batch(batchId=name)["runs"][0]["runId"] for name in (batch, living_batch)}
        return {
            "cache": cache["id"],
            "arn": cache["arn"],
            "batch": batch,
            "living_batch": living_batch,
            "run": runs[batch],
            "living_run": runs[living_batch],
        }

    server.create_bucket("cohort-data")
    return make


@pytest.fixture
def hook(proxy: TornSockets, monkeypatch: pytest.MonkeyPatch) -> OmicsCacheHook:
    monkeypatch.setattr(timing, "_source", NoWaiting())
    return OmicsCacheHook(config=ONE_ATTEMPT)


def arguments(members: dict[str, Any], operation: str) -> dict[str, Any]:
    """The hook's names of members."""
    id_name = next(
        name for end, name in (("RunCache", "run_cache_id"), ("Run", "run_id"), ("", "id")) if operation.endswith(end)
    )
    return {id_name if name == "id" else xform_name(name): value for name, value in members.items()}


def made(change: Callable[[], Any], hook: OmicsCacheHook) -> Any:
    """Make a change patiently; return its answer, None if the service says that an earlier attempt has made it."""
    try:
        return hook.patiently(change)
    except OmicsApiError as error:
        if error.code not in REPEATED:
            raise
        return None


def truth(client: Any, operation: str, ids: Ids) -> Any:
    """The service's answer over a whole connection."""
    members, result = READS[operation]
    answer = getattr(client, xform_name(operation))(**members(ids))
    answer.pop("ResponseMetadata")
    return answer if result is None else answer[result]


# The hook


@pytest.mark.parametrize("operation", READS)
def test_a_torn_answer_to_a_read_is_a_passing_failure_and_is_asked_for_again(
    operation: str, hook: OmicsCacheHook, proxy: TornSockets, client: Any, new_ids: NewIds
) -> None:
    ids = new_ids()
    members, result = READS[operation]
    expected = truth(client, operation, ids)
    read = partial(getattr(hook, xform_name(operation)), **arguments(members(ids), operation))
    for tear in TEARS:
        proxy.tear(operation, tear)
        with pytest.raises(OmicsApiError) as caught:
            list(read())
        assert caught.value.is_passing, tear
        assert caught.value.operation == operation
        assert f"endpoint {proxy.url}" in str(caught.value)
        proxy.tear(operation, tear)
        answer = read(max_silence=3_600)
        assert (answer if result is None else list(answer)) == expected, tear
        assert proxy.planned == 0


@pytest.mark.parametrize("operation", WRITES)
def test_a_torn_answer_to_a_change_is_asked_for_again(
    operation: str, hook: OmicsCacheHook, proxy: TornSockets, client: Any, new_ids: NewIds
) -> None:
    members, is_done = WRITES[operation]
    for tear in TEARS:
        ids = new_ids()
        proxy.tear(operation, tear, tear)
        change = partial(getattr(hook, xform_name(operation)), **arguments(members(ids), operation))
        answer = made(change, hook)
        assert is_done(client, ids), tear
        if operation in {"CreateRunCache", "StartRunBatch"}:
            assert answer["id"]
            assert proxy.planned == 0
        proxy.forget()


@pytest.mark.parametrize("operation", ["GetBatch", "CancelRunBatch", "DeleteBatch", "StartRunBatch"])
def test_a_torn_refusal_is_asked_for_again(
    operation: str, hook: OmicsCacheHook, proxy: TornSockets, new_ids: NewIds
) -> None:
    members = {**READS, **WRITES}[operation][0](new_ids())
    if "batchId" in members:
        members["batchId"] = "999"
    else:
        members["defaultRunSetting"]["workflowId"] = "not an id"
    for tear in TEARS:
        if operation in WRITES and tear is tears.emptied:  # an answer without a body is what a success looks like
            continue
        proxy.tear(operation, tear, tear)
        with pytest.raises(OmicsApiError) as caught:
            hook.patiently(partial(getattr(hook, xform_name(operation)), **arguments(members, operation)))
        assert caught.value.code in {"ResourceNotFoundException", "ValidationException"}, tear
        proxy.forget()


@pytest.mark.parametrize("operation", [*READS, *WRITES])
def test_a_request_that_arrives_twice_has_its_effect_once(
    operation: str, hook: OmicsCacheHook, proxy: TornSockets, client: Any, new_ids: NewIds
) -> None:
    ids = new_ids()
    members = {**READS, **WRITES}[operation][0](ids)
    proxy.tear(operation, tears.repeated)
    call = partial(getattr(hook, xform_name(operation)), **arguments(members, operation))
    if operation in READS:
        answer = call()
        assert (answer if READS[operation][1] is None else list(answer)) == truth(client, operation, ids)
    else:
        made(call, hook)
        assert WRITES[operation][1](client, ids)
    assert proxy.planned == 0


@pytest.mark.parametrize(
    "operation", ["GetBatch", "ListRunsInBatch", "CreateRunCache", "StartRunBatch", "CancelRunBatch"]
)
def test_an_answer_that_comes_too_late_is_asked_for_again(
    operation: str, proxy: TornSockets, client: Any, new_ids: NewIds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "_source", NoWaiting())
    hook, ids = OmicsCacheHook(config=IMPATIENT), new_ids()
    call = partial(getattr(hook, xform_name(operation)), **arguments({**READS, **WRITES}[operation][0](ids), operation))
    proxy.tear(operation, tears.delayed)
    if operation in READS:
        answer = call(max_silence=3_600)
        assert (answer if READS[operation][1] is None else list(answer)) == truth(client, operation, ids)
    else:
        made(call, hook)
        assert WRITES[operation][1](client, ids)
    assert proxy.planned == 0


# The asynchronous client


@needs_aiobotocore
@pytest.mark.parametrize("operation", ["GetBatch", "GetRun", "CancelRun"])
async def test_a_torn_answer_fails_in_the_asynchronous_client_too(
    operation: str, hook: OmicsCacheHook, proxy: TornSockets, client: Any, new_ids: NewIds
) -> None:
    ids = new_ids()
    async with await hook.get_async_conn() as asynchronous:
        call = getattr(asynchronous, xform_name(operation))
        for tear in TEARS:
            if operation in WRITES:
                ids = new_ids()
            members = {**READS, **WRITES}[operation][0](ids)
            proxy.tear(operation, tear, tear)
            answer, failures = await call_again(partial(call, **members), operation)
            if operation in READS:
                # aiohttp itself asks once more when a connection is closed before the first byte of an answer.
                assert failures, tear
                assert proxy.planned == 0
                assert as_text(answer) == as_text(truth(client, operation, ids))
            else:
                assert WRITES[operation][1](client, ids), tear
            proxy.forget()


async def call_again(call: Callable[[], Any], operation: str) -> tuple[Any, int]:
    """Call up to three times; return the result, and how many calls have failed."""
    for failures in range(3):
        try:
            answer = await call()
        except Exception as failure:
            error = api_error(failure, operation)
            if not error.is_passing:
                assert error.code in REPEATED
                return None, failures
        else:
            del answer["ResponseMetadata"]
            result = READS[operation][1] if operation in READS else None
            return answer if result is None else answer[result], failures
    raise AssertionError("three answers were lost")


def as_text(answer: Any) -> str:
    """An answer of either client; they have different classes of time zones."""
    return json.dumps(answer, default=lambda moment: moment.timestamp())


@needs_aiobotocore
@pytest.mark.parametrize(("operation", "subject"), [(GET_BATCH, "batch"), (GET_RUN, "run")], ids=["batch", "run"])
async def test_the_triggers_poller_does_not_take_a_torn_answer(
    operation: Operation,
    subject: str,
    proxy: TornSockets,
    client: Any,
    new_ids: NewIds,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(poller_module, "_SECOND_ATTEMPT", 0.0)
    monkeypatch.setattr(poller_module, "_LONGEST_SLEEP", 0.01)
    monkeypatch.setenv(f"AIRFLOW__OMICS_CACHE__{operation.option.upper()}", "1000")
    ids = new_ids()
    status = truth(client, operation.name, ids)["status"]
    connection = Connection.of(
        {"aws_conn_id": "aws_default", "region_name": None, "verify": None, "botocore_config": None}
    )
    poller = Poller()
    async with poller.hold(connection):
        for tear in TEARS:
            proxy.tear(operation.name, *[tear] * 4)
            outcomes: list[Any] = []
            while not outcomes or isinstance(outcomes[-1], OmicsApiError):
                async with poller.watch(
                    ids[subject], operation=operation, interval=1, deadline=None, connection=connection, at_once=True
                ) as watcher:
                    outcomes.append(await watcher.next_outcome())
            *failures, answer = outcomes
            assert failures, tear
            assert all(failure.is_passing for failure in failures), tear
            assert (answer["id"], answer["status"]) == (ids[subject], status)
            assert proxy.planned == 0


# S3


@pytest.fixture
def s3(server: LocalHealthOmicsServer, proxy: TornSockets, hook: OmicsCacheHook) -> Any:
    server.create_bucket("cohort-data")
    return s3_client(aws_conn_id="aws_default", config=Config(**ONE_ATTEMPT))


def read_object(uri: str, s3: Any) -> bytes:
    with open_object(uri, parameter="p", s3=s3) as (body, _):
        return body.read()


def test_a_torn_object_is_a_passing_failure(s3: Any, proxy: TornSockets) -> None:
    content = b"sample,reads\n" * 10
    put_object(io.BytesIO(content), "s3://cohort-data/a.csv", parameter="sheet", s3=s3, extra_args={})
    read = partial(read_object, "s3://cohort-data/a.csv", s3)
    # S3 announces the length of every object, so that no body is in chunks.
    for tear in set(TEARS) - {tears.ended_early, tears.cut_between_chunks}:
        proxy.tear("GetObject", tear)
        with pytest.raises(OmicsApiError) as caught:
            read()
        assert caught.value.is_passing, tear
        assert read() == content


def test_a_torn_answer_to_an_upload_is_asked_for_again(s3: Any, hook: OmicsCacheHook, proxy: TornSockets) -> None:
    for number, tear in enumerate(TEARS):
        uri = f"s3://cohort-data/{number}.json"
        write = partial(put_object, io.BytesIO(b"{}"), uri, parameter="p", s3=s3, extra_args={})
        proxy.tear("PutObject", tear)
        hook.patiently(write)
        assert read_object(uri, s3) == b"{}"


def test_headers_without_an_etag_are_a_passing_failure(s3: Any, proxy: TornSockets) -> None:
    put_object(io.BytesIO(b"{}"), "s3://cohort-data/a.json", parameter="p", s3=s3, extra_args={})
    for tear in (tears.cut_in_the_headers, tears.emptied, tears.web_page):
        proxy.tear("HeadObject", tear)
        with pytest.raises(OmicsApiError) as caught:
            head_object("s3://cohort-data/a.json", s3=s3, extra_args={})
        assert caught.value.is_passing, tear
        assert head_object("s3://cohort-data/a.json", s3=s3, extra_args={})["ContentLength"] == 2


# What a torn answer must not cause


@pytest.fixture(params=[tears.truncated, tears.ended_early], ids=lambda tear: tear.__name__)
def tear(request: pytest.FixtureRequest) -> Any:
    """A way to damage an answer that botocore's clients do not notice themselves."""
    return request.param


@pytest.fixture
def service(server: LocalHealthOmicsServer, proxy: TornSockets, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The local HealthOmics behind the proxy; waiting advances its clock."""
    use_service_time(monkeypatch, server)
    server.create_bucket("cohort-data")
    return server


def start(context: dict[str, Any], runs: int = 4) -> str:
    """Run a try of the task that starts a batch."""
    settings = [{"runSettingId": f"sample-{number}"} for number in range(runs)]
    started: str = waiting_task(run_settings=settings, wait_for_completion=False).execute(context)
    return started


def batches(client: Any) -> list[str]:
    return [batch["id"] for batch in client.list_batch()["items"]]


def records(service: LocalHealthOmicsServer, key: str) -> list[dict[str, Any]]:
    """What a task has written to S3."""
    found = boto3.client("s3", **service.client_kwargs).get_object(Bucket="cohort-data", Key=key)["Body"].read()
    return [json.loads(line) for line in found.splitlines()] if key.endswith(".jsonl") else json.loads(found)


def test_no_third_batch_is_started_beside_a_living_second(
    tear: Tear, service: Any, proxy: TornSockets, client: Any, new_task_context: Any
) -> None:
    first = start(new_task_context(), 2)
    service.clock.advance(3_600)
    second = start(new_task_context(), 3)
    service.clock.advance(10)
    proxy.tear("ListBatch", tear, tear)
    assert start(new_task_context(), 3) == second
    assert sorted(batches(client)) == sorted([first, second])
    assert proxy.planned == 0


def test_a_torn_answer_to_startrunbatch_starts_one_batch(
    tear: Tear, service: Any, proxy: TornSockets, client: Any, task_context: Any
) -> None:
    proxy.tear("StartRunBatch", tear, tear)
    assert [start(task_context)] == batches(client)


def test_a_torn_answer_to_createruncache_makes_one_cache(
    tear: Tear, service: Any, proxy: TornSockets, client: Any, task_context: Any
) -> None:
    proxy.tear("CreateRunCache", tear, tear)
    task = CreateRunCacheOperator(task_id="cache", name="cohort", cache_s3_location="s3://cohort-data/cache")
    assert [task.execute(task_context)] == [cache["id"] for cache in client.list_run_caches()["items"]]


def test_no_second_cache_is_made(tear: Tear, service: Any, proxy: TornSockets, client: Any, task_context: Any) -> None:
    location = "s3://cohort-data/cache"
    made = client.create_run_cache(name="cohort", cacheS3Location=location, requestId="somebody")["id"]
    service.clock.advance(60)
    proxy.tear("ListRunCaches", tear, tear)
    proxy.tear("GetRunCache", tear, tear)
    task = CreateRunCacheOperator(task_id="cache", name="cohort", cache_s3_location=location)
    assert task.execute(task_context) == made
    assert len(client.list_run_caches()["items"]) == 1
    assert proxy.planned == 0


def test_a_failed_batch_with_started_runs_is_not_started_again(
    tear: Tear, service: Any, proxy: TornSockets, client: Any, new_task_context: Any
) -> None:
    service.faults.fail_batch("broken", after="SUBMITTING", started_runs=3)
    batch_id = start(new_task_context())
    service.clock.advance(100)
    service.faults.stale_counts(seconds=100_000)
    proxy.tear("ListRunsInBatch", tear, tear)
    with pytest.raises(BatchFailedError, match="runs were started"):
        start(new_task_context())
    assert batches(client) == [batch_id]


def test_the_mapping_of_a_cancelled_batch_has_every_run(
    tear: Tear, service: Any, proxy: TornSockets, client: Any, task_context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_runs, "LARGEST_PAGE", 3)
    batch_id = batch_in("CANCELLED", service, client, runs=12)
    service.faults.stale_counts(seconds=100_000)
    service.clock.advance(3_600)
    proxy.tear("ListRunsInBatch", *[tears.whole, tear] * 2)
    proxy.tear("ListRuns", *[tears.whole, tear] * 2)
    DeleteRunBatchOperator(
        task_id="delete",
        batch_id=batch_id,
        save_mapping_s3_uri="s3://cohort-data/mapping.jsonl",
        wait_for_completion=False,
    ).execute(task_context)
    saved = records(service, "mapping.jsonl")
    assert {record["run_setting_id"] for record in saved} == {f"sample-{number}" for number in range(12)}


def test_a_torn_answer_does_not_fail_a_deletion_for_good(
    tear: Tear, service: Any, proxy: TornSockets, client: Any, task_context: Any
) -> None:
    batch_id = batch_in("PROCESSED", service, client)
    proxy.tear("GetBatch", tear, tear)
    DeleteRunBatchOperator(task_id="delete", batch_id=batch_id).execute(task_context)
    assert status_of(client, batch_id) == "RUNS_DELETED"


def test_completed_runs_are_not_written_as_deleted(
    tear: Tear, service: Any, proxy: TornSockets, client: Any, task_context: Any
) -> None:
    batch_id = batch_in("PROCESSED", service, client)
    service.clock.advance(3_600)
    proxy.tear("ListRuns", *[tear] * 3)
    proxy.tear("GetRun", *[tear] * 3)
    BatchCompletionSensor(
        task_id="wait", batch_id=batch_id, runs_s3_uri="s3://cohort-data/runs.jsonl", include_outputs=True
    ).execute(task_context)
    assert [record["status"] for record in records(service, "runs.jsonl")] == ["COMPLETED"] * 3
    assert proxy.planned == 0


def test_a_cancellation_does_not_overlook_living_runs(
    tear: Tear, service: Any, proxy: TornSockets, client: Any, task_context: Any
) -> None:
    service.settings.run_running_seconds = 48 * 3_600
    batch_id = batch_in("FAILED", service, client, runs=4)
    assert len(runs_of(client, batch_id)) == 3
    service.faults.stale_counts(seconds=100_000)
    proxy.tear("ListRuns", *[tear] * 12)
    proxy.tear("ListRunsInBatch", *[tear] * 4)
    CancelRunBatchOperator(task_id="cancel", batch_id=batch_id).execute(task_context)
    assert set(runs_of(client, batch_id).values()) == {"CANCELLED"}
