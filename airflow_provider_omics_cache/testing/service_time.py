"""The clock of the local HealthOmics in place of real time, for everything in this package that waits."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from airflow.models.taskinstance import TaskInstance

from airflow_provider_omics_cache._compat import first_reschedule_date
from airflow_provider_omics_cache.hooks import pace
from airflow_provider_omics_cache.hooks.client import OmicsClientHook
from airflow_provider_omics_cache.operators import run_batch as _operators
from airflow_provider_omics_cache.sensors import run_batch as _sensors
from airflow_provider_omics_cache.tasks import wait

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local.clock import Clock

try:
    from airflow.sdk.bases import sensor as airflow_sensors
except ImportError:  # Airflow 2
    from airflow.sensors import base as airflow_sensors  # type: ignore[no-redef]

_PACKAGE = __name__.partition(".")[0]
#: These import every other module of the package that waits.
_IMPORT_ALL = (_operators, _sensors)
#: The modules of these packages use real time.
_REAL_TIME = (f"{_PACKAGE}.local.", f"{_PACKAGE}.testing.")

#: Shortest poke interval in seconds of service time. A sensor with poke_interval=0 would never let time pass.
_SHORTEST_INTERVAL = 1.0

_let_others_run = asyncio.sleep


class ServiceTime:
    """The ``time`` module with the time of the local HealthOmics. A sleep advances its clock.

    :param clock: the clock of the local HealthOmics.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._service_times: dict[float, float] = {}

    def time(self) -> float:
        """Return the service time in epoch seconds."""
        return self._clock.now().timestamp()

    #: Service time never goes back.
    monotonic = time

    def sleep(self, seconds: float) -> None:
        """Let service time pass."""
        self._clock.wait(seconds)

    async def async_sleep(self, seconds: float) -> None:
        """Let service time pass, and let the other coroutines run."""
        if self._clock.speed:
            await _let_others_run(seconds / self._clock.speed)
            return
        self._clock.advance(seconds)
        for _ in range(5):
            await _let_others_run(0)

    def at(self, date: datetime) -> float:
        """Return the service time of a date that Airflow recorded: the service time of the first call with this date.

        :param date: the date, such as the start of a task.
        """
        return self._service_times.setdefault(date.timestamp(), self.time())

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


class _ServiceAsyncio:
    """The ``asyncio`` module whose ``sleep`` takes service time."""

    def __init__(self, service_time: ServiceTime) -> None:
        self.sleep = service_time.async_sleep

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)


@contextmanager
def use_service_time(clock: Clock) -> Iterator[ServiceTime]:
    """Make waits take service time while the context lasts.

    These are the waits of this package, those of Airflow's sensors between two pokes, and the delays before retries. A
    wait advances the clock by its seconds. If the clock runs by itself (``clock.speed``), the wait sleeps until so many
    seconds of service time have passed.

    :param clock: the clock of the local HealthOmics.
    """
    service_time = ServiceTime(clock)
    service_asyncio = _ServiceAsyncio(service_time)
    with ExitStack() as stack:

        def replace(owner: Any, name: str, new: Any) -> None:
            stack.enter_context(patch.object(owner, name, new))

        for module in _modules():
            if vars(module).get("time") is time:
                replace(module, "time", service_time)
            if vars(module).get("asyncio") is asyncio:
                replace(module, "asyncio", service_asyncio)
        replace(OmicsClientHook, "sleep", staticmethod(service_time.sleep))
        replace(OmicsClientHook, "clock", staticmethod(service_time.monotonic))
        replace(wait.BatchWaitOperator, "_sleep", staticmethod(service_time.sleep))
        replace(wait.BatchWaitTask, "_task_started_at", _in_service_time(service_time))
        replace(wait, "first_reschedule_date", _first_reschedule_date(service_time))
        # The shared pace has stored times of the real clock. A new pace starts with service time.
        replace(pace, "get_run_pace", pace.Pace("max_get_run_per_second"))
        replace(airflow_sensors, "time", service_time)
        sensor = airflow_sensors.BaseSensorOperator
        replace(sensor, "_get_next_poke_interval", _poke_interval(sensor._get_next_poke_interval, service_time))
        replace(TaskInstance, "ready_for_retry", _ready_for_retry(service_time))
        yield service_time


def _modules() -> list[Any]:
    return [
        module
        for name, module in list(sys.modules.items())
        if name.startswith(f"{_PACKAGE}.") and not name.startswith(_REAL_TIME)
    ]


def _in_service_time(service_time: ServiceTime) -> Callable[[Any, Any], float]:
    def task_started_at(_: Any, context: Any) -> float:
        started = context["ti"].start_date
        return service_time.at(started) if started else service_time.time()

    return task_started_at


def _first_reschedule_date(service_time: ServiceTime) -> Callable[[Any], datetime | None]:
    def first_date(context: Any) -> datetime | None:
        date = first_reschedule_date(context)
        return date and datetime.fromtimestamp(service_time.at(date), tz=date.tzinfo)

    return first_date


def _poke_interval(original: Callable[..., float], service_time: ServiceTime) -> Callable[..., float]:
    def get_next_poke_interval(sensor: Any, *args: Any, **kwargs: Any) -> float:
        """Advance service time by the poke interval, and let a rescheduled sensor start again at once."""
        seconds = max(_SHORTEST_INTERVAL, original(sensor, *args, **kwargs))
        if not sensor.reschedule:
            return seconds
        service_time.sleep(seconds)
        return 0.0

    return get_next_poke_interval


def _ready_for_retry(service_time: ServiceTime) -> Callable[[Any], bool]:
    waited: set[tuple[str, str, str, int, int]] = set()

    def ready_for_retry(ti: Any) -> bool:
        """Advance service time by the delay of a retry, and let the retry begin at once."""
        if str(ti.state) != "up_for_retry":
            return False
        this_try = (ti.dag_id, ti.run_id, ti.task_id, ti.map_index, ti.try_number)
        if this_try not in waited:
            waited.add(this_try)
            service_time.sleep(max(0.0, (ti.next_retry_datetime() - ti.end_date).total_seconds()))
        return True

    return ready_for_retry
