"""Space the calls of one process to an operation whose quota applies to the whole account and Region."""

from __future__ import annotations

import threading

from airflow_provider_omics_cache.configuration import calls_per_second


class Pace:
    """Gives each call of an operation its turn. Each Region has its own sequence of turns.

    :param option: setting of ``[omics_cache]`` with the number of calls per second.
    """

    def __init__(self, option: str) -> None:
        self._option = option
        self._next_turns: dict[str, float] = {}
        # Reentrant, because a signal handler may make a call while its own thread holds the lock.
        self._lock = threading.RLock()

    def seconds_to_wait(self, region: str, now: float) -> float:
        """Reserve the next turn, and return the seconds until it.

        :param region: AWS Region of the call.
        :param now: the time, of a clock that all callers share.
        """
        interval = 1 / calls_per_second(self._option)
        with self._lock:
            turn = max(now, self._next_turns.get(region, now))
            self._next_turns[region] = turn + interval
        return turn - now


#: All hooks of a process share this pace.
get_run_pace = Pace("max_get_run_per_second")
