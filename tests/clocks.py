"""Clocks that tests put in place of the package's, with ``monkeypatch.setattr(timing, "_source", ...)``."""

from __future__ import annotations

from airflow_provider_omics_cache import timing


class NoWaiting(timing.RealTime):
    """Real time that is ahead by the seconds for which calls should have waited."""

    def __init__(self) -> None:
        self.waited = 0.0

    def time(self) -> float:
        return super().time() + self.waited

    def monotonic(self) -> float:
        return super().monotonic() + self.waited

    def sleep(self, seconds: float) -> None:
        self.waited += seconds
