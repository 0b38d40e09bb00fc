"""Clients that cannot be made, that are refused, that grow old, and triggers that are cancelled."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest

from airflow_provider_omics_cache import timing
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.triggers import clients as clients_module
from airflow_provider_omics_cache.triggers.clients import CLIENT_LIFETIME
from airflow_provider_omics_cache.triggers.poller import JITTER
from tests.conftest import needs_aiobotocore, needs_batches
from tests.sensor_modes import start_batch
from tests.triggers.loops import (
    CountedClients,
    all_of,
    called_at,
    changed_calls,
    ends_well,
    event_of,
    nothing_left_behind,
    start_batches,
    trigger,
    until,
)

pytestmark = [
    needs_batches,
    needs_aiobotocore,
    pytest.mark.filterwarnings(
        "error::ResourceWarning", "error::RuntimeWarning", "error::pytest.PytestUnraisableExceptionWarning"
    ),
]

REFUSED = {"code": "AccessDeniedException", "status": 403, "message": "not for you"}


def connection(**extra: Any) -> str:
    return json.dumps(
        {
            "conn_type": "aws",
            "login": "testing",
            "password": "testing",
            "extra": {"region_name": "us-east-1", **extra},
        }
    )


def refuse_key(key: str) -> Any:
    """Refuse calls that are signed with a key."""

    def handler(request: Any, **_: Any) -> Any:
        from botocore.awsrequest import AWSResponse

        from airflow_provider_omics_cache.local.inprocess import _Answer
        from airflow_provider_omics_cache.local.protocol import Response

        if f"Credential={key}/" not in str(request.headers.get("Authorization")):
            return None
        headers = {"Content-Type": "application/json", "x-amzn-ErrorType": "AccessDeniedException"}
        answer: AWSResponse = _Answer(request.url, Response(403, b'{"message": "not for this key"}', headers))
        return answer

    return handler


# Access


BROKEN = connection(role_arn="arn:aws:iam::123456789012:role/omics", assume_role_method="guess")


async def test_a_connection_that_is_broken_fails_its_own_triggers(
    service: Any, clients: CountedClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_BROKEN", BROKEN)
    batch_ids = start_batches(service, 10, after=100)
    start = service.clock.elapsed()
    async with nothing_left_behind(clients):
        good = [asyncio.create_task(event_of(trigger(batch_id))) for batch_id in batch_ids]
        bad = await all_of(*(event_of(trigger(str(n), aws_conn_id="BROKEN")) for n in range(1000)))
        assert 10 <= service.clock.elapsed() - start <= 15
        assert clients.attempts == 2
        assert ends_well(await all_of(*good))
    assert {event["status"] for event in bad} == {"error"}
    assert {True} == {"guess" in event["message"] for event in bad}, bad[0]
    assert clients.made == 1


async def test_triggers_that_come_to_a_broken_connection_do_not_try_it_each(
    service: Any, clients: CountedClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_BROKEN", BROKEN)
    async with nothing_left_behind(clients):
        waits = []
        for n in range(300):
            waits.append(asyncio.create_task(event_of(trigger(str(n), aws_conn_id="BROKEN"))))
            await timing.async_sleep(0.1)
        assert all("guess" in event["message"] for event in await all_of(*waits))
    assert clients.attempts <= 3


async def test_a_role_that_cannot_be_assumed_for_a_moment_is_waited_for(
    service: Any, clients: CountedClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = 3

    def refuse(**_: Any) -> None:
        from botocore.exceptions import EndpointConnectionError

        nonlocal refusals
        refusals -= 1
        if refusals >= 0:
            raise EndpointConnectionError(endpoint_url="https://sts.us-east-1.amazonaws.com")

    monkeypatch.setenv("AIRFLOW_CONN_ROLE", connection(role_arn="arn:aws:iam::123456789012:role/omics"))
    import botocore.handlers

    monkeypatch.setattr(
        botocore.handlers,
        "BUILTIN_HANDLERS",
        [("before-call.sts.AssumeRole", refuse), *botocore.handlers.BUILTIN_HANDLERS],
    )
    batch_ids = start_batches(service, 10, after=100)
    async with nothing_left_behind(clients):
        events = await all_of(*(event_of(trigger(batch_id, aws_conn_id="ROLE")) for batch_id in batch_ids))
    assert ends_well(events)
    assert clients.made == 1
    assert clients.attempts == 4


async def test_a_refused_call_fails_the_triggers_of_its_connection_only(
    service: Any, clients: CountedClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_REFUSED", json.dumps({"conn_type": "aws", "login": "REFUSED", "password": "x"}))
    batch_ids = start_batches(service, 20, after=100)
    import botocore.handlers

    monkeypatch.setattr(
        botocore.handlers,
        "BUILTIN_HANDLERS",
        [("before-send.omics.GetBatch", refuse_key("REFUSED")), *botocore.handlers.BUILTIN_HANDLERS],
    )
    start = service.clock.elapsed()
    async with nothing_left_behind(clients):
        good = [asyncio.create_task(event_of(trigger(batch_id, poke_interval=20))) for batch_id in batch_ids]
        bad = await all_of(
            *(event_of(trigger(batch_id, poke_interval=20, aws_conn_id="REFUSED")) for batch_id in batch_ids)
        )
        assert service.clock.elapsed() - start < 40
        assert ends_well(await all_of(*good))
    assert {event["code"] for event in bad} == {"AccessDeniedException"}
    assert all("not for this key" in event["message"] for event in bad)


@pytest.mark.parametrize("code", ["AccessDeniedException", "ExpiredTokenException"])
async def test_a_connection_that_was_changed_is_read_anew_when_a_call_is_refused(
    code: str, service: Any, clients: CountedClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_ids = start_batches(service, 50, after=100)
    import botocore.handlers

    monkeypatch.setattr(
        botocore.handlers,
        "BUILTIN_HANDLERS",
        [
            ("before-send.omics.GetBatch", lambda request, **_: expired[0](request) if expired else None),
            *botocore.handlers.BUILTIN_HANDLERS,
        ],
    )
    expired: list[Any] = []
    async with nothing_left_behind(clients):
        waits = [asyncio.create_task(event_of(trigger(batch_id, poke_interval=10))) for batch_id in batch_ids]
        await until(lambda: len(called_at(service)) > 150)
        monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", connection().replace("testing", "renewed"))
        expired.append(refuse_key("testing"))
        assert ends_well(await all_of(*waits))
    assert clients.made == 2
    assert clients.most_open <= 2


async def test_calls_that_are_refused_together_all_get_the_new_client(
    service: Any, clients: CountedClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_ids = start_batches(service, 4, after=900)
    gates: list[asyncio.Event] = []

    async def hold(**_: Any) -> None:
        if service.clock.elapsed() > 60 and len(gates) < len(batch_ids):
            gates.append(asyncio.Event())
            await gates[-1].wait()

    with changed_calls(monkeypatch, hold):
        async with nothing_left_behind(clients):
            waits = [asyncio.create_task(event_of(trigger(batch_id, poke_interval=400))) for batch_id in batch_ids]
            await until(lambda: len(gates) == len(batch_ids))
            half = len(batch_ids) // 2
            for refused in (gates[:half], gates[half:]):
                service.faults.error("GetBatch", times=half, **REFUSED)
                before = service.calls["GetBatch"]
                for gate in refused:
                    gate.set()
                await until(lambda before=before: service.calls["GetBatch"] == before + 2 * half)  # type: ignore[misc]
                assert clients.made == 2
            assert ends_well(await all_of(*waits))
    assert clients.made == 2


async def test_a_changed_connection_takes_effect_after_a_while(
    service: Any, clients: CountedClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_ids = start_batches(service, 3, after=4 * CLIENT_LIFETIME)
    keys = []

    def record(request_signer: Any, **_: Any) -> None:
        keys.append(request_signer._credentials.access_key)

    with changed_calls(monkeypatch, record):
        async with nothing_left_behind(clients):
            waits = [asyncio.create_task(event_of(trigger(batch_id))) for batch_id in batch_ids]
            await until(lambda: len(keys) > 3)
            monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", connection().replace("testing", "renewed"))
            changed_at = len(keys)
            assert ends_well(await all_of(*waits))
    assert "renewed" in keys[changed_at : changed_at + 3 * 20]
    assert "testing" not in keys[keys.index("renewed") :]
    assert 3 <= clients.made <= 5
    assert clients.most_open <= 2


async def test_while_no_new_client_can_be_made_the_old_one_is_used(
    service: Any, clients: CountedClients, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", connection().replace("testing", "connections"))
    batch_ids = start_batches(service, 3, after=4 * CLIENT_LIFETIME)
    keys = set()

    def record(request_signer: Any, **_: Any) -> None:
        keys.add(request_signer._credentials.access_key)

    with changed_calls(monkeypatch, record):
        async with nothing_left_behind(clients):
            waits = [asyncio.create_task(event_of(trigger(batch_id))) for batch_id in batch_ids]
            await until(lambda: called_at(service))
            monkeypatch.delenv("AIRFLOW_CONN_AWS_DEFAULT")
            assert ends_well(await all_of(*waits))
    assert keys == {"connections"}
    assert clients.attempts > 3
    assert clients.most_open <= 2
    lines = [record.getMessage() for record in caplog.records if "Continuing with the old HealthOmics" in record.msg]
    assert len(lines) == 1
    assert "no new one can be made" in lines[0]
    assert "aws_default" in lines[0]


async def test_a_connection_that_cannot_be_read_for_a_while_fails_no_wait(
    service: Any, clients: CountedClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow reports a connection as missing while a secrets backend does not answer."""
    batch_ids = start_batches(service, 3, after=600)
    async with nothing_left_behind(clients):
        waits = [asyncio.create_task(event_of(trigger(batch_id, aws_conn_id="VAULT"))) for batch_id in batch_ids]
        await until(lambda: service.clock.elapsed() > 200)
        assert clients.made == 0
        monkeypatch.setenv("AIRFLOW_CONN_VAULT", connection())
        assert ends_well(await all_of(*waits))
        assert clients.made == 1
        event = await event_of(trigger(batch_ids[0], aws_conn_id="GONE", max_silence=300))
    assert event["code"] == "MaxSilence"
    assert "aws_conn_id must be the id of an existing Airflow connection; got 'GONE'" in event["message"]


async def test_a_batch_that_is_refused_does_not_take_the_client_from_the_others(
    service: Any, clients: CountedClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused, *others = start_batches(service, 3, after=300)
    async with nothing_left_behind(clients):
        waits = [asyncio.create_task(event_of(trigger(batch_id, poke_interval=20))) for batch_id in others]
        await until(lambda: service.clock.elapsed() > 100)
        monkeypatch.delenv("AIRFLOW_CONN_AWS_DEFAULT")
        service.faults.error("GetBatch", times=1, **REFUSED)
        waits.append(asyncio.create_task(event_of(trigger(refused, poke_interval=20))))
        events = await all_of(*waits)
    codes = sorted(event["code"] for event in events)
    assert codes == ["", "", "AccessDeniedException"]


async def test_a_renewal_is_tried_after_a_throttle_too(
    service: Any, clients: CountedClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_ids = start_batches(service, 1, after=300)
    async with nothing_left_behind(clients):
        wait = asyncio.create_task(event_of(trigger(batch_ids[0], poke_interval=20)))
        await until(lambda: service.clock.elapsed() > 100)
        service.faults.throttle("GetBatch", times=1)
        service.faults.error("GetBatch", times=1, **REFUSED)
        assert ends_well([await wait])
    assert clients.made == 2


async def test_a_connection_that_was_never_there_is_botocores_own_search(
    service: Any, clients: CountedClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_AWS_DEFAULT")
    batch_ids = start_batches(service, 1, after=2 * CLIENT_LIFETIME)
    async with nothing_left_behind(clients):
        assert ends_well([await event_of(trigger(batch_ids[0]))])
    assert clients.made >= 2


async def test_a_call_that_is_refused_uses_the_client_that_is_in_the_making(
    service: Any, clients: CountedClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_ids = start_batches(service, 1, after=1.5 * CLIENT_LIFETIME)
    gate = asyncio.Event()
    longest_interval = 60 * (1 + JITTER)

    async def hold(**_: Any) -> None:
        if service.clock.elapsed() > CLIENT_LIFETIME - longest_interval - 1:
            await gate.wait()

    with changed_calls(monkeypatch, hold):
        async with nothing_left_behind(clients):
            wait = asyncio.create_task(event_of(trigger(batch_ids[0])))
            await until(lambda: clients.made == 1)
            clients.hold = asyncio.Event()
            await until(lambda: clients.attempts == 2)
            service.faults.error("GetBatch", times=1, **REFUSED)
            gate.set()
            await until(lambda: 403 in {status for _, _, status in service.call_log})
            clients.hold.set()
            assert ends_well([await wait])
    assert clients.made == clients.attempts == 2


async def test_a_connection_that_moves_to_another_region_has_that_regions_budget(
    service: Any, clients: CountedClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    lifetime = 60.0
    monkeypatch.setattr(clients_module, "CLIENT_LIFETIME", lifetime)
    monkeypatch.setenv("AIRFLOW_CONN_MOVES", connection())
    monkeypatch.setenv("AIRFLOW_CONN_STAYS", connection(region_name="eu-west-1"))
    europe = boto3.client("omics", region_name="eu-west-1")
    service.settings.submission_rate = 1
    moving = [start_batch(europe, runs=1) for _ in range(10)]
    staying = start_batches(service, 10, after=3 * lifetime, client=europe)
    called_in_europe: list[float] = []

    def record(params: dict[str, Any], **_: Any) -> None:
        if params["context"]["client_region"] == "eu-west-1":
            called_in_europe.append(service.clock.elapsed())

    with changed_calls(monkeypatch, record):
        async with nothing_left_behind(clients):
            waits = [
                asyncio.create_task(event_of(trigger(batch_id, poke_interval=1, aws_conn_id=name)))
                for name, batch_ids in (("MOVES", moving), ("STAYS", staying))
                for batch_id in batch_ids
            ]
            monkeypatch.setenv("AIRFLOW_CONN_MOVES", connection(region_name="eu-west-1"))
            await asyncio.gather(*waits)
    assert len(called_in_europe) > 5 * lifetime
    assert max(Counter(int(at) for at in called_in_europe).values()) <= 5


@pytest.mark.large
async def test_a_client_that_is_never_made_counts_as_silence(
    service: Any, clients: CountedClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients_module, "LONGEST_WAIT", 0.05)
    clients.hold = asyncio.Event()
    async with nothing_left_behind(clients):
        wait = asyncio.create_task(event_of(trigger("42", max_silence=300)))
        await until(lambda: service.clock.advance(5) or wait.done())
        clients.hold.set()
        event = await wait
    assert event["code"] == "MaxSilence"
    assert "'aws_default'" in event["message"]


async def test_a_connection_that_is_slow_does_not_hold_up_others(
    service: Any, clients: CountedClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_SLOW", connection())
    is_released = threading.Event()
    get_connection = OmicsCacheHook.get_connection

    def get_connection_slowly(conn_id: str, *args: Any) -> Any:
        if conn_id == "SLOW":
            is_released.wait(20)
        return get_connection(conn_id, *args)

    monkeypatch.setattr(OmicsCacheHook, "get_connection", staticmethod(get_connection_slowly))
    batch_ids = start_batches(service, 2, after=1)
    async with nothing_left_behind(clients):
        slow = asyncio.create_task(event_of(trigger(batch_ids[0], aws_conn_id="SLOW")))
        await until(lambda: clients.in_the_making)
        quick = asyncio.create_task(event_of(trigger(batch_ids[1])))
        await until(lambda: clients.made == 1)
        is_released.set()
        assert ends_well(await all_of(slow, quick))


@pytest.mark.parametrize(
    "retries", [{"mode": "standard"}, {"max_attempts": 5}, {"mode": "legacy", "total_max_attempts": 9}]
)
async def test_no_client_calls_again_on_its_own(
    retries: dict[str, Any], service: Any, clients: CountedClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_ids = start_batches(service, 1, after=100)
    service.faults.throttle("GetBatch", times=8)
    async with nothing_left_behind(clients):
        assert ends_well([await event_of(trigger(batch_ids[0], botocore_config={"retries": retries}))])
    log = called_at(service)
    assert len(log) > 8
    assert all(after - before >= 0.2 for before, after in itertools.pairwise(log))


async def test_a_role_is_assumed_anew_beside_the_event_loop(
    service: Any, clients: CountedClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_AWS_DEFAULT",
        connection(role_arn="arn:aws:iam::123456789012:role/omics", assume_role_kwargs={"DurationSeconds": 900}),
    )
    threads = []

    def assume(**_: Any) -> Any:
        threads.append(threading.current_thread())
        until = datetime.now(UTC) + timedelta(seconds=900)
        answer = sts_answer(until)
        return answer

    import botocore.handlers

    monkeypatch.setattr(
        botocore.handlers,
        "BUILTIN_HANDLERS",
        [("before-send.sts.AssumeRole", assume), *botocore.handlers.BUILTIN_HANDLERS],
    )
    batch_ids = start_batches(service, 1, after=3_600)
    async with nothing_left_behind(clients):
        assert ends_well([await event_of(trigger(batch_ids[0]))])
    assert len(threads) > 3
    assert threading.current_thread() not in threads


def sts_answer(expiration: datetime) -> Any:
    """Answer AssumeRole."""
    from airflow_provider_omics_cache.local.inprocess import _Answer
    from airflow_provider_omics_cache.local.protocol import Response

    text = f"""<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>
    <AssumedRoleUser><AssumedRoleId>A:b</AssumedRoleId><Arn>arn:aws:sts::123456789012:assumed-role/omics/b</Arn>
    </AssumedRoleUser><Credentials><AccessKeyId>AKIA</AccessKeyId><SecretAccessKey>secret</SecretAccessKey>
    <SessionToken>token</SessionToken><Expiration>{expiration.isoformat()}</Expiration></Credentials>
    </AssumeRoleResult><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></AssumeRoleResponse>"""
    return _Answer("https://sts", Response(200, text.encode(), {"Content-Type": "text/xml"}))


# Cancellation


async def test_cancelled_triggers_leave_nothing_behind(service: Any, clients: CountedClients) -> None:
    batch_ids = start_batches(service, 20, after=10_000)
    async with nothing_left_behind(clients):
        waits = [asyncio.create_task(event_of(trigger(batch_id))) for batch_id in batch_ids]
        await until(lambda: called_at(service))
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
    assert clients.made == 1
    async with nothing_left_behind(clients):
        service.settings.submission_rate = 1
        again = start_batches(service, 1, after=1)
        assert ends_well([await event_of(trigger(again[0]))])
    assert clients.made == 2


async def test_closed_generators_leave_nothing_behind(service: Any, clients: CountedClients) -> None:
    [batch_id] = start_batches(service, 1, after=10_000)
    async with nothing_left_behind(clients):
        for _ in range(3):
            generator = trigger(batch_id).run()
            step = asyncio.ensure_future(anext(generator))
            await until(lambda: clients.open)
            step.cancel()
            await asyncio.gather(step, return_exceptions=True)
            await generator.aclose()
            await until(lambda: not clients.open)


async def test_cancelled_before_anything_has_begun(service: Any, clients: CountedClients) -> None:
    async with nothing_left_behind(clients):
        wait = asyncio.create_task(event_of(trigger("42")))
        await asyncio.wait({wait}, timeout=0)
        wait.cancel()
        await asyncio.gather(wait, return_exceptions=True)


async def test_cancelled_while_the_client_is_made(service: Any, clients: CountedClients) -> None:
    clients.hold = asyncio.Event()
    async with nothing_left_behind(clients):
        waits = [asyncio.create_task(event_of(trigger(str(n)))) for n in range(3)]
        await until(lambda: clients.attempts)
        for wait in waits:
            wait.cancel()
        await asyncio.wait(waits, timeout=0.01)
        clients.hold.set()
        await asyncio.gather(*waits, return_exceptions=True)
    assert clients.made == 1


async def test_cancelled_while_a_call_is_under_way(
    service: Any, clients: CountedClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_ids = start_batches(service, 3, after=10_000)
    under_way = 0

    async def hang(**_: Any) -> None:
        nonlocal under_way
        under_way += 1
        try:
            await asyncio.Event().wait()
        finally:
            under_way -= 1

    with changed_calls(monkeypatch, hang):
        async with nothing_left_behind(clients):
            waits = [asyncio.create_task(event_of(trigger(batch_id))) for batch_id in batch_ids]
            await until(lambda: under_way == 3)
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
    assert under_way == 0


async def test_cancelled_again_while_the_client_closes(service: Any, clients: CountedClients) -> None:
    [batch_id] = start_batches(service, 1, after=10_000)
    clients.hold_closing = asyncio.Event()
    async with nothing_left_behind(clients):
        wait = asyncio.create_task(event_of(trigger(batch_id)))
        await until(lambda: called_at(service))
        for _ in range(3):
            wait.cancel()
            await asyncio.wait({wait}, timeout=0.01)
        assert wait.done()
        assert clients.open
        next_wait = asyncio.create_task(event_of(trigger(batch_id)))
        await until(lambda: len(clients.open) == 2)
        clients.hold_closing.set()
        await until(lambda: len(clients.open) == 1)
        next_wait.cancel()
        await asyncio.gather(next_wait, return_exceptions=True)


async def test_a_client_that_closes_slowly_does_not_hold_up_the_event(
    service: Any, clients: CountedClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_omics_cache.triggers.poller._CLOSING", 0.05)
    [batch_id] = start_batches(service, 1, after=1)
    clients.hold_closing = asyncio.Event()
    async with nothing_left_behind(clients):
        assert ends_well([await event_of(trigger(batch_id))])
        clients.hold_closing.set()


async def test_no_client_is_closed_while_a_call_is_under_way(
    service: Any, clients: CountedClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_ids = start_batches(service, 5, after=3 * CLIENT_LIFETIME)
    slow = asyncio.Event()
    held: list[Any] = []

    async def hold(**_: Any) -> None:
        if not held:
            held.extend(clients.open)
            await slow.wait()
            assert set(held) <= clients.open

    with changed_calls(monkeypatch, hold):
        async with nothing_left_behind(clients):
            waits = [asyncio.create_task(event_of(trigger(batch_id))) for batch_id in batch_ids]
            await until(lambda: clients.made == 2)
            await until(lambda: service.clock.elapsed() > 1.5 * CLIENT_LIFETIME)
            assert set(held) < clients.open
            slow.set()
            await until(lambda: len(clients.open) == 1)
            assert not set(held) & clients.open
            assert ends_well(await all_of(*waits))


async def test_a_client_that_fails_to_close_is_logged_and_harms_nobody(
    service: Any, clients: CountedClients, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(asyncio.Event):
        async def wait(self) -> bool:  # type: ignore[override]
            raise OSError("the socket is gone")

    [batch_id] = start_batches(service, 1, after=1)
    clients.hold_closing = Broken()
    with caplog.at_level(logging.WARNING):
        assert ends_well([await event_of(trigger(batch_id))])
    assert "could not be closed" in caplog.text
    for client in clients.open:
        await client.close()
