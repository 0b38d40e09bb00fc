"""The clock of the local HealthOmics in place of real time, for everything in this package that waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from airflow.models.taskinstance import TaskInstance

from airflow_provider_omics_cache import timing
from airflow_provider_omics_cache.hooks import pace

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local.clock import Clock

try:
    from airflow.sdk.bases import sensor as airflow_sensors
except ImportError:  # Airflow 2
    from airflow.sensors import base as airflow_sensors  # type: ignore[no-redef]

#: Shortest poke interval in seconds of service time. A sensor with poke_interval=0 would never let time pass.
_SHORTEST_INTERVAL = 1.0

_let_others_run = asyncio.sleep


class ServiceTime:
    """The time of the local HealthOmics. A sleep advances its clock.

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


@contextmanager
def use_service_time(clock: Clock) -> Iterator[ServiceTime]:
    """Make waits take service time while the context lasts.

    These are the waits of this package, those of Airflow's sensors between two pokes, and the delays before retries. A
    wait advances the clock by its seconds. If the clock runs by itself (``clock.speed``), the wait sleeps until so many
    seconds of service time have passed.

    :param clock: the clock of the local HealthOmics.
    """
    service_time = ServiceTime(clock)
    with ExitStack() as stack:

        def replace(owner: Any, name: str, new: Any) -> None:
            stack.enter_context(patch.object(owner, name, new))

        stack.enter_context(timing.use(service_time))
        # The shared pace has stored times of the real clock. A new pace starts with service time.
        replace(pace, "get_run_pace", pace.Pace("max_get_run_per_second"))
        replace(airflow_sensors, "time", service_time)
        sensor = airflow_sensors.BaseSensorOperator
        replace(sensor, "_get_next_poke_interval", _poke_interval(sensor._get_next_poke_interval, service_time))
        replace(TaskInstance, "ready_for_retry", _ready_for_retry(service_time))
        yield service_time


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
