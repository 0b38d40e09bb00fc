"""What the benchmarks compute themselves."""

from __future__ import annotations

import math
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.benchmarks import chart, report
from tests.benchmarks.measure import Result, medians_in_turns, most_in_a_window, percentile
from tests.benchmarks.triggers import Scenario, most_rounds

SVG = "{http://www.w3.org/2000/svg}"
SCENARIO = Scenario(number=4, calls_per_second=2, rate_limit=10, poke_interval=1, ends=(10, 40), seconds=100)


def result(**about: Any) -> Result:
    return Result(**{"name": "speed", "measured": 3.0, "unit": "x", "bar": 2.0, **about})


@given(st.lists(st.integers(0, 50)), st.integers(1, 20))
def test_the_fullest_window_is_found(times: list[int], seconds: int) -> None:
    counted = [sum(start <= at < start + seconds for at in times) for start in times]
    assert most_in_a_window(times, seconds) == max(counted, default=0)


def test_a_window_leaves_its_end_out() -> None:
    assert most_in_a_window([5.0, 4.0, 4.5]) == 2
    assert most_in_a_window([4.001, 5.0, 4.5]) == 3
    assert most_in_a_window([]) == 0


@given(st.lists(st.integers(), min_size=1), st.integers(1, 100))
def test_a_percentile_is_the_smallest_value_that_enough_others_do_not_exceed(values: list[int], percent: int) -> None:
    found = percentile(values, percent)
    needed = len(values) * percent / 100
    assert sum(value <= found for value in values) >= needed
    assert all(sum(value <= other for value in values) < needed for other in values if other < found)


def test_percentiles() -> None:
    values = range(1, 201)
    assert (percentile(values, 50), percentile(values, 99), percentile(values, 100)) == (100, 198, 200)
    with pytest.raises(ValueError, match="no values"):
        percentile([], 99)


def test_functions_are_timed_in_turns() -> None:
    called: list[str] = []
    medians = medians_in_turns([lambda: called.append("a"), lambda: called.append("b")], times=3)
    assert called == ["a", "b"] * 3
    assert len(medians) == 2
    assert all(0 < median < 1 for median in medians)


@pytest.mark.parametrize(
    ("rule", "measured", "holds", "share"),
    [
        ("at most", 1.0, True, 0.5),
        ("at most", 2.0, True, 1.0),
        ("at most", 2.1, False, 1.05),
        ("at least", 4.0, True, 0.5),
        ("at least", 1.0, False, 2.0),
        ("at least", 0.0, False, math.inf),
        ("exactly", 2.0, True, 1.0),
        ("exactly", 1.0, False, 0.5),
        ("exactly", 4.0, False, 2.0),
    ],
)
def test_bars(rule: Any, measured: float, holds: bool, share: float) -> None:
    one = result(rule=rule, measured=measured)
    assert one.as_dict() == {"name": "speed", "measured": measured, "bar": 2.0, "unit": "x", "holds": holds}
    assert one.share(one.measured) == pytest.approx(share)


def test_a_bar_of_nothing() -> None:
    assert result(bar=0, measured=0, rule="exactly").share(0) == 0
    assert result(bar=0, measured=1, rule="exactly").share(1) == math.inf


def test_scenarios_spread_the_ends() -> None:
    assert SCENARIO.end_times() == [10, 20, 30, 40]


def test_the_latest_answer_is_told_in_rounds_of_its_time() -> None:
    changes = {"a": 10.0, "b": 20.0, "c": 30.0, "d": 40.0}
    # When a changes 4 are awaited: a round takes 2 s. When d changes it is alone: the poke interval, 1 s.
    assert most_rounds(changes, {"a": 13.0, "b": 20.5, "c": 30.5, "d": 40.5}, SCENARIO, 100) == pytest.approx(1.5)
    assert most_rounds(changes, {"a": 11.0, "b": 20.5, "c": 30.5, "d": 44.0}, SCENARIO, 100) == pytest.approx(4)


def test_a_missing_answer_is_as_late_as_the_end() -> None:
    assert most_rounds({"a": 10.0}, {}, SCENARIO, 30) == pytest.approx(20)


def test_the_table_has_every_result_and_note() -> None:
    text = report.table([result(peer="bare loop", note="in MB"), result(name="memory", measured=1.0)])
    lines = text.splitlines()
    assert "3 x" in lines[2]
    assert "≤ 2 x" in lines[2]
    assert "NO" in lines[2]
    assert "bare loop" in lines[2]
    assert "yes" in lines[3]
    assert lines[-1] == "speed: in MB"


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (12, "12"), (1234.5, "1,234"), (12.345, "12.3"), (0.123, "0.12"), (-3.21, "-3.21")]
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert report.number(value) == text


def test_the_chart_is_svg_with_a_dot_for_each_number() -> None:
    shares = [
        chart.Share(name="a < b & c", ours=0.5, theirs=20),
        chart.Share(name="broken", ours=math.inf),
        chart.Share(name="nothing", ours=0),
    ]
    panel = chart.Panel(title="cost", ours=[(10, 2300), (3000, 12)], theirs=[(10, 3600)])
    drawn = ElementTree.fromstring(chart.draw("title", shares, [panel], peer="plain"))

    texts = [text.text for text in drawn.iter(f"{SVG}text")]
    assert {"title", "a < b & c", "broken", "nothing", "cost", "plain"} <= set(texts)
    dots = list(drawn.iter(f"{SVG}circle"))
    legends, numbers = 3 + 2, 4 + 3
    assert len(dots) == legends + numbers
    assert sum(dot.get("fill") == chart.BROKEN for dot in dots) == 1 + 1
    for dot in dots:
        assert 0 < float(dot.get("cx", "")) < chart.WIDTH
        assert 0 < float(dot.get("cy", "")) < float(drawn.get("height", ""))


def test_axes_are_logarithmic() -> None:
    panel = chart.Panel(title="", ours=[(10, 1), (100, 10), (1000, 100)], theirs=[(10, 100)])
    drawn = ElementTree.fromstring(chart.draw("", [], [panel], peer=""))
    line = [
        list(map(float, point.split(","))) for point in list(drawn.iter(f"{SVG}polyline"))[1].get("points", "").split()
    ]
    (x1, y1), (x2, y2), (x3, y3) = line
    assert x1 < x2
    assert y1 > y2
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2)
    assert y1 - y2 == pytest.approx(y2 - y3, abs=0.2)
