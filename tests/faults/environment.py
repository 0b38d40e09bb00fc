"""The process in which schedules run: its environment, clients, clocks and logs."""

from __future__ import annotations

import gc
import json
import logging
import os
import random
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.amazon.aws.hooks.base_aws import AwsGenericHook
from botocore.retries.quota import RetryQuota

from airflow_provider_omics_cache.hooks import pace
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.local import mock_healthomics, moto_backend
from airflow_provider_omics_cache.local.inprocess import install
from airflow_provider_omics_cache.local.pytest_plugin import _ENVIRONMENT
from airflow_provider_omics_cache.tasks import run_records
from airflow_provider_omics_cache.tasks.wait import BatchWaitSensor
from tests import quick_clients
from tests.faults.schedule import Schedule
from tests.faults.wire import EndlessCalls, installed
from tests.faults.world import ACCOUNT, SECRET_KEY, TOKEN, World
from tests.sensor_modes import ServiceTime, use_service_time

#: Seconds of service time after which a schedule counts as one that never ends.
LONGEST_SCHEDULE = 90 * 24 * 3600.0

_START = datetime(2026, 11, 20, tzinfo=UTC)
_CONNECTION = {
    "conn_type": "aws",
    "login": "testing",
    "password": SECRET_KEY,
    "extra": {"region_name": "us-east-1", "aws_session_token": TOKEN},
}
_QUOTAS: weakref.WeakSet[RetryQuota] = weakref.WeakSet()
_PACKAGE = "airflow_provider_omics_cache"


class _Log(logging.Logger):
    """Keeps what is logged."""

    def __init__(self, world: World) -> None:
        super().__init__("faults", logging.DEBUG)
        self._world = world

    def handle(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info:
            error = record.exc_info[1]
            while error is not None:
                text = f"{text}\n{error!s}"
                error = error.__cause__ or error.__context__
        self._world.logs.append(text)
        self._world.tell(f"log {text}")


def _keep_logs(patch_: pytest.MonkeyPatch, world: World) -> None:
    from airflow_provider_omics_cache.operators.run import CancelRunOperator, DeleteRunOperator, StartRunOperator
    from airflow_provider_omics_cache.operators.run_batch import StartRunBatchOperator
    from airflow_provider_omics_cache.sensors.run import RunCompletionSensor
    from airflow_provider_omics_cache.sensors.run_batch import BatchSubmissionSensor
    from airflow_provider_omics_cache.triggers.run import RunTrigger
    from airflow_provider_omics_cache.triggers.run_batch import BatchTrigger

    log = _Log(world)
    of_runs = (StartRunOperator, CancelRunOperator, DeleteRunOperator, RunCompletionSensor, RunTrigger)
    for cls in (OmicsCacheHook, StartRunBatchOperator, BatchSubmissionSensor, BatchTrigger, *of_runs):
        for base in cls.__mro__:
            if "log" in vars(base):
                patch_.setattr(base, "log", property(lambda self: log))
    for name, module in list(sys.modules.items()):
        if name.startswith(_PACKAGE) and isinstance(getattr(module, "log", None), logging.Logger):
            patch_.setattr(module, "log", log)


def _end_of_time(patch_: pytest.MonkeyPatch, clock: Any) -> None:
    """End a task that waits for ever."""
    advance = clock.advance

    def advance_or_end(seconds: float) -> None:
        advance(seconds)
        if clock.elapsed() > LONGEST_SCHEDULE:
            raise EndlessCalls

    patch_.setattr(clock, "advance", advance_or_end)


def _module_of_base_sensor() -> str:
    """Return the module of Airflow's own sensor, which ends a wait in its own process at the timeout."""
    return next(cls.__module__ for cls in BatchWaitSensor.__mro__ if cls.__name__ == "BaseSensorOperator")


def _keep_time(patch_: pytest.MonkeyPatch, local: Any) -> None:
    use_service_time(patch_, local)
    base = import_module(_module_of_base_sensor())
    patch_.setattr(base, "time", ServiceTime(local.clock))
    patch_.setattr(base, "timezone", SimpleNamespace(utcnow=local.clock.now, utc=UTC))

    async def make_client(hook: OmicsCacheHook) -> Any:
        """Make the client without a thread, so that nothing happens at the same time."""
        return hook.get_client_type(region_name=hook.region_name, deferrable=True)

    patch_.setattr(OmicsCacheHook, "get_async_conn", make_client)


def _keep_clients(patch_: pytest.MonkeyPatch) -> None:
    """Use each synchronous client again: making one takes longer than most schedules."""
    make = AwsGenericHook.get_client_type
    clients: dict[str, Any] = {}

    def get(hook: Any, region_name: str | None = None, config: Any = None, deferrable: bool = False) -> Any:
        if deferrable:
            return make(hook, region_name=region_name, config=config, deferrable=True)
        given = (config or hook.config)._user_provided_options
        key = repr((hook.client_type, region_name or hook.region_name, hook.aws_conn_id, hook.verify, given))
        if key not in clients:
            clients[key] = make(hook, region_name=region_name, config=config)
        return clients[key]

    patch_.setattr(AwsGenericHook, "get_client_type", get)


def _keep_quotas(patch_: pytest.MonkeyPatch) -> None:
    """Note the retry quota of each client, so that it is full when a schedule begins."""
    make = RetryQuota.__init__

    def init(quota: RetryQuota, *args: Any, **kwargs: Any) -> None:
        make(quota, *args, **kwargs)
        _QUOTAS.add(quota)

    patch_.setattr(RetryQuota, "__init__", init)


@contextmanager
def prepared() -> Iterator[None]:
    """Prepare the process for many schedules: make clients quickly, and set the environment."""
    with pytest.MonkeyPatch.context() as patch_:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch_.delenv(name)
        for name, value in {**_ENVIRONMENT, "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(_CONNECTION)}.items():
            patch_.setenv(name, value)
        quick_clients.install(patch_)
        moto_backend.moto_client("s3", ACCOUNT)
        _keep_clients(patch_)
        _keep_quotas(patch_)
        # The batches of the scenarios are small. Locations of outputs are derived in them too.
        patch_.setattr(run_records, "SAMPLE_SIZE", 2)
        install()
        with installed():
            gc.collect()
            gc.freeze()
            yield


@contextmanager
def new_world(schedule: Schedule, trace: Callable[[str], object] | None = None) -> Iterator[World]:
    """Make the world of a schedule.

    :param schedule: the schedule.
    :param trace: function that is called with a line for each call, try and log record.
    """
    with ExitStack() as stack:
        patch_ = stack.enter_context(pytest.MonkeyPatch.context())
        local = stack.enter_context(mock_healthomics(strict=False))
        local.clock._started_at = _START
        _end_of_time(patch_, local.clock)
        state = random.getstate()
        stack.callback(random.setstate, state)
        random.seed(schedule.seed)
        patch_.setattr(pace, "get_run_pace", pace.Pace("max_get_run_per_second"))
        for quota in _QUOTAS:
            quota.release(RetryQuota.INITIAL_CAPACITY)
        world = World(local, schedule, trace)
        _keep_time(patch_, local)
        _keep_logs(patch_, world)
        stack.enter_context(world.wire.connected())
        yield world
