from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_omics_cache.local.clock import Clock


def test_time_stands_still_until_it_is_advanced() -> None:
    clock = Clock()
    before = clock.now()

    assert clock.now() == before
    clock.advance(90)

    assert clock.now() == before + timedelta(seconds=90)
    assert before.tzinfo is UTC
    assert abs(before - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_running_clock_keeps_what_has_passed_when_its_speed_changes() -> None:
    clock = Clock(speed=1_000_000)
    while clock.elapsed() < 100:
        pass
    clock.speed = 0
    stopped_at = clock.elapsed()

    assert clock.elapsed() == stopped_at >= 100


def test_waiting_advances_a_clock_that_stands_still() -> None:
    clock = Clock()

    clock.wait(30)

    assert clock.elapsed() == 30


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "1", None, True, pytest.param(10**400, id="huge")])
@pytest.mark.parametrize("name", ["speed", "tick", "seconds"])
def test_time_never_goes_back(name: str, value: object) -> None:
    clock = Clock()

    with pytest.raises(ValueError, match=name):
        clock.advance(value) if name == "seconds" else setattr(clock, name, value)  # type: ignore[arg-type,func-returns-value]


@pytest.mark.parametrize("seconds", [1e12, 1e300])
def test_time_ends_with_the_calendar(seconds: float) -> None:
    clock = Clock()
    before = clock.now()

    with pytest.raises(ValueError, match="seconds"):
        clock.advance(seconds)

    assert clock.now() == before


def test_a_running_clock_stops_at_the_end_of_the_calendar() -> None:
    assert Clock(speed=1e300).now().year == 9999
