"""Run a sensor as Airflow runs it in each of its modes, with the local service's clock in place of waiting."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from importlib import import_module
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import boto3
import pytest
from airflow.triggers.base import BaseTrigger

from airflow_provider_omics_cache import _compat, timing
from airflow_provider_omics_cache.tasks import wait as wait_module
from airflow_provider_omics_cache.tasks.wait import BatchWaitSensor
from airflow_provider_omics_cache.testing.service_time import ServiceTime
from tests.conftest import AIRFLOW_3, needs_aiobotocore

try:
    from airflow.sdk.exceptions import AirflowRescheduleException, TaskDeferred
except ImportError:
    from airflow.exceptions import AirflowRescheduleException, TaskDeferred

MODES = ("poke", "reschedule", "deferrable")
MOST_ROUNDS = 200
#: Where a rescheduled task of the installed Airflow can store a value for its next start.
STORE = "audit log"
if AIRFLOW_3:
    STORE = "XCom keys" if version("apache-airflow").startswith(("3.0.", "3.1.", "3.2.")) else "task state store"
#: The same for every Airflow of the installed major version.
STORES = ("XCom keys", "task state store") if AIRFLOW_3 else ("audit log",)

each_mode = pytest.mark.parametrize(
    "mode", [pytest.param(mode, marks=needs_aiobotocore if mode == "deferrable" else ()) for mode in MODES]
)


def run_sensor(
    make: Callable[..., BatchWaitSensor], mode: str, context: dict[str, Any], clock: Any, store: str | None = STORE
) -> Any:
    """Run a sensor to its end; ``make(**arguments)`` makes it anew for each process that Airflow would start.

    A rescheduled task can store values as in the installed Airflow, in another way of ``STORES``, or not at all.
    """
    context["ti"].start_date = clock.now()
    context["kept"] = StoreOfReschedules(store, context)
    with _first_reschedule_date_of(context["ti"]), context["kept"].installed():
        return _run(make, mode, context, clock)


class StoreOfReschedules:
    """What Airflow does with XComs and stored values when it starts a rescheduled task again; counts the calls."""

    def __init__(self, store: str | None, context: dict[str, Any]) -> None:
        self.calls: list[str] = []
        self.values: dict[str, Any] = {}
        self.progress: list[str] = []
        self.reschedules = 0
        self._store = store
        self._context = context
        if AIRFLOW_3:
            context["task_reschedule_count"] = 0
        if store == "task state store":
            context["task_state_store"] = self
        if store == "XCom keys":
            context["ti"]._ti_context_from_server = SimpleNamespace(xcom_keys_to_clear=[])

    def set(self, key: str, value: Any) -> None:
        if key == wait_module.PROGRESS_KEY:
            self.progress.append(value)
            return
        self.calls.append("set")
        self.values[key] = json.loads(json.dumps(value, allow_nan=False))

    def get(self, key: str) -> Any:
        self.calls.append("get")
        return self.values.get(key)

    def start_again(self) -> None:
        """Start the task after a reschedule: every supported Airflow deletes the XComs of the task."""
        ti = self._context["ti"]
        self.reschedules += 1
        if AIRFLOW_3:
            self._context["task_reschedule_count"] = self.reschedules
        if self._store == "XCom keys":
            ti._ti_context_from_server.xcom_keys_to_clear = [*ti.xcoms, *ti.links]
        ti.xcoms.clear()
        ti.links.clear()

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Stand in for the database of Airflow 2."""
        with pytest.MonkeyPatch.context() as monkeypatch:
            if self._store == "audit log":
                monkeypatch.setattr(_compat, "_count_reschedules", lambda _: self.reschedules)
                monkeypatch.setattr(_compat, "_write_audit_log", lambda _, key, text: self.set(key, text))
                monkeypatch.setattr(_compat, "_last_of_audit_log", lambda _, key: self.get(key))
            yield


@contextmanager
def _first_reschedule_date_of(ti: Any) -> Iterator[None]:
    """Let Airflow 2, which reads it from its database, find it where Airflow 3 does."""
    module = import_module("airflow.sensors.base")
    if hasattr(module, "_orig_start_date"):
        with patch.object(module, "_orig_start_date", lambda *_, **__: ti.first_reschedule_date):
            yield
    else:
        yield


def _run(make: Callable[..., BatchWaitSensor], mode: str, context: dict[str, Any], clock: Any) -> Any:
    arguments = {"deferrable": True} if mode == "deferrable" else {"mode": mode}
    sensor = make(**arguments)
    step = partial(sensor.execute, context)
    for _ in range(MOST_ROUNDS):
        began_at = clock.now()
        try:
            result = step()
            if sensor.do_xcom_push:
                context["ti"].xcom_push("return_value", result)
            return result
        except AirflowRescheduleException:
            context["ti"].first_reschedule_date = context["ti"].first_reschedule_date or began_at
            clock.advance(sensor.poke_interval)
            context["kept"].start_again()
            sensor = make(**arguments)
            step = partial(sensor.execute, context)
        except TaskDeferred as deferral:
            deferred_at = clock.now()
            context.setdefault("deferrals", []).append(deferral)
            event = fire(deferral.trigger)
            context.setdefault("events", []).append(event)
            context.setdefault("event_delays", []).append((clock.now() - deferred_at).total_seconds())
            # As Airflow 3.0 and 3.1 do; later versions keep the date of the first start.
            context["ti"].start_date = clock.now()
            sensor = make(**arguments)
            next_kwargs = {**(deferral.kwargs or {}), "event": event}
            step = partial(sensor.resume_execution, deferral.method_name, next_kwargs, context)
    raise AssertionError(f"the sensor still waits after {MOST_ROUNDS} turns")


def fire(trigger: BaseTrigger) -> dict[str, Any]:
    """Send a trigger through the database, run it, and give its event as the task gets it."""
    path, kwargs = trigger.serialize()
    module, name = path.rsplit(".", 1)
    again = getattr(import_module(module), name)(**json.loads(json.dumps(kwargs)))
    assert again.serialize() == (path, kwargs)

    async def first_event() -> Any:
        return await anext(again.run())

    event: dict[str, Any] = json.loads(json.dumps(asyncio.run(first_event()).payload, allow_nan=False))
    return event


def start_batch(client: Any, runs: int = 3, own_output_uris: Collection[int] = ()) -> str:
    """Start a batch of ``sample-0``, ``sample-1``, ... through a HealthOmics client.

    The settings of the numbers ``own_output_uris`` have their own ``outputUri``.
    """
    settings: list[dict[str, str]] = [{"runSettingId": f"sample-{n}"} for n in range(runs)]
    for number in own_output_uris:
        settings[number]["outputUri"] = f"s3://results/own/{number}/"
    batch_run_settings: dict[str, Any] = {"inlineSettings": settings}
    if runs > 100:
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="settings")
        s3.put_object(Bucket="settings", Key="settings.json", Body=json.dumps(settings))
        batch_run_settings = {"s3UriSettings": "s3://settings/settings.json"}
    answer = client.start_run_batch(
        batchName="cohort",
        defaultRunSetting={
            "workflowId": "1234567",
            "roleArn": "arn:aws:iam::123456789012:role/omics",
            "outputUri": "s3://results/out",
        },
        batchRunSettings=batch_run_settings,
    )
    return str(answer["id"])


class TimeOfTasks(ServiceTime):
    """The service's clock, by which the tests also start tasks."""

    def at(self, date: datetime) -> float:
        return date.timestamp()


def use_service_time(monkeypatch: Any, local: Any) -> None:
    """Make the local service's clock the clock of everything that waits: waiting moves it on."""
    clock = use_service_time_in_tasks(monkeypatch, local)
    monkeypatch.setattr("time.sleep", clock.sleep)


def use_service_time_in_tasks(monkeypatch: Any, local: Any) -> ServiceTime:
    """Make the local service's clock the clock of the package, and no other code."""
    clock = TimeOfTasks(local.clock)
    monkeypatch.setattr(timing, "_source", clock)
    return clock
