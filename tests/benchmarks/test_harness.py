"""What the benchmarks compute themselves."""

from __future__ import annotations

import json
import math
import signal
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.benchmarks import chart, growth, listing, measure, report
from tests.benchmarks.__main__ import main
from tests.benchmarks.child import Child
from tests.benchmarks.growth import Cost
from tests.benchmarks.measure import Result, medians_in_turns, most_in_a_window, percentile
from tests.benchmarks.publish import publish
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
    assert one.holds is one.as_dict()["holds"] is holds
    assert Result.from_dict(one.as_dict()) == one
    assert one.share(one.measured) == pytest.approx(share)


def test_a_bar_of_nothing() -> None:
    assert result(bar=0, measured=0, rule="exactly").share(0) == 0
    assert result(bar=0, measured=1, rule="exactly").share(1) == math.inf


def test_a_bar_does_not_hold_when_nothing_has_happened() -> None:
    assert result(measured=1.0).holds is True
    assert result(measured=1.0, has_happened=False).holds is False


def test_small_sizes_are_not_judged() -> None:
    one = result(measured=3.0, is_judged=False)
    assert one.holds is None
    assert report.cells(one)[3] == "-"


def test_nothing_is_measured_without_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(measure, "_CLEAR", tmp_path / "none")
    with pytest.raises(SystemExit, match="/proc"):
        main([])


def test_memory_is_read() -> None:
    assert 0 < measure.memory_now() <= measure.peak_memory() < measure.machine_memory("MemTotal")


def cost(number: int, further_memory: float, cpu_per_call: float) -> Cost:
    return Cost(
        number=number, memory=1, further_memory=further_memory, cpu_per_call=cpu_per_call, call_rate=80, lag_max=1
    )


@pytest.mark.parametrize(
    ("further_memory", "cpu_per_call", "holds"), [(8.0, 2.0, [True, True]), (13.0, 2.5, [False, False])]
)
def test_growth_breaks_the_bars(further_memory: float, cpu_per_call: float, holds: list[bool]) -> None:
    ours = [cost(10, 2300, 9), cost(100, 12, 2), cost(1000, 10, 2), cost(3000, further_memory, cpu_per_call)]
    plain = [cost(10, 3600, 3), cost(100, 1400, 3)]
    assert [one.holds for one in growth.results(ours, plain)] == holds


def test_costs_are_told_for_each_further_trigger_and_each_call_in_the_window() -> None:
    phases = [{"number": 10}, {"number": 100}, {"number": 100}, {"number": 100}]
    turns = [(2.0, 0.2), (11.0, 0.2), (20.0, 0.4), (20.0, 0.3)]
    measured = [{"window": (0, 2), "memory": memory, "cpu": cpu, "lag_max": cpu} for memory, cpu in turns]
    ten, hundred = growth._costs(phases, measured, [-1.0, 0.0, 0.5, 1.0, 1.999, 2.0])
    assert (ten.number, ten.further_memory, ten.cpu_per_call) == pytest.approx((10, 200, 50))
    assert (hundred.number, hundred.memory, hundred.further_memory) == pytest.approx((100, 11, 100))
    assert (hundred.cpu_per_call, hundred.call_rate, hundred.lag_max) == pytest.approx((75, 2, 400))


@pytest.mark.parametrize(
    ("errors", "pages", "throttled", "holds"),
    [([], 4, 14, True), ([], 4, 13, False), ([], 5, 14, False), (["gone"], 3, 14, False)],
)
def test_listing_through_throttles_can_fail(
    monkeypatch: pytest.MonkeyPatch, errors: list[str], pages: int, throttled: int, holds: bool
) -> None:
    listed = listing._Listed(seconds=1, errors=errors, pages=pages, throttled=throttled)
    monkeypatch.setattr(listing, "_through_throttles", lambda *_: listed)
    assert listing._under_limits(400).holds is holds


def test_only_a_whole_measurement_whose_bars_hold_is_published(tmp_path: Path) -> None:
    build, target = tmp_path / "build", tmp_path / "docs"
    build.mkdir()
    target.mkdir()
    with pytest.raises(SystemExit, match="missing"):
        publish(build, target)
    (build / "bench.txt").write_text("the page")
    costs = {"ours": [asdict(cost(number, 12, 2)) for number in (10, 100)], "plain": [asdict(cost(10, 1400, 3))]}

    def store(measured: Result) -> None:
        (build / "bench.json").write_text(json.dumps({"results": [measured.as_dict()], "costs": costs}))

    store(result())
    with pytest.raises(SystemExit, match="speed"):
        publish(build, target)
    assert not list(target.iterdir())
    store(result(measured=1.0, beside=4.0))
    publish(build, target)
    assert {path.name for path in target.iterdir()} == {"bench.svg", "bench.txt"}
    texts = [text.text for text in ElementTree.parse(target / "bench.svg").iter(f"{SVG}text")]
    assert {"speed", "limit", "this package", "the usual way", "deferred tasks in one triggerer"} <= set(texts)
    assert any(text and "is within the limit" in text for text in texts)


def test_a_process_does_not_outlive_its_context() -> None:
    with Child("staging:memory_of_operator", url="", number=1) as child:
        assert child._process.poll() is None
    assert child._process.returncode == -signal.SIGKILL


def test_scenarios_spread_the_ends() -> None:
    assert SCENARIO.end_times() == [10, 20, 30, 40]


def test_the_latest_answer_is_told_in_rounds_of_its_time() -> None:
    changes = {"a": 10.0, "b": 20.0, "c": 30.0, "d": 40.0}
    # When a changes 4 are awaited: a round takes 2 s. When d changes it is alone: the poke interval, 1 s.
    assert most_rounds(changes, {"a": 13.0, "b": 20.5, "c": 30.5, "d": 40.5}, SCENARIO, 100) == pytest.approx(1.5)
    assert most_rounds(changes, {"a": 11.0, "b": 20.5, "c": 30.5, "d": 44.0}, SCENARIO, 100) == pytest.approx(4)


def test_a_round_takes_as_long_as_the_service_lets_it() -> None:
    slower = replace(SCENARIO, rate_limit=1)
    changes, answers = {"a": 10.0, "b": 20.0}, {"a": 13.0, "b": 20.5}
    assert most_rounds(changes, answers, slower, 100) == pytest.approx(1.5)


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
        chart.Share(name="broken", ours=math.inf, holds=False),
        chart.Share(name="nothing", ours=0),
    ]
    panel = chart.Panel(title="cost", ours=[(10, 2300), (3000, 12)], theirs=[(10, 3600)])
    drawn = ElementTree.fromstring(chart.draw("title", ["what it means"], shares, [panel], peer="plain"))

    texts = [text.text for text in drawn.iter(f"{SVG}text")]
    assert {"title", "what it means", "a < b & c", "broken", "nothing", "cost", "plain"} <= set(texts)
    dots = list(drawn.iter(f"{SVG}circle"))
    legends, numbers = 3 + 2, 4 + 3
    assert len(dots) == legends + numbers
    assert sum(dot.get("fill") == chart.BROKEN for dot in dots) == 1 + 1
    for dot in dots:
        assert 0 < float(dot.get("cx", "")) < chart.WIDTH
        assert 0 < float(dot.get("cy", "")) < float(drawn.get("height", ""))


def test_axes_are_logarithmic() -> None:
    panel = chart.Panel(title="", ours=[(10, 1), (100, 10), (1000, 100)], theirs=[(10, 100)])
    drawn = ElementTree.fromstring(chart.draw("", [], [], [panel], peer=""))
    line = [
        list(map(float, point.split(","))) for point in list(drawn.iter(f"{SVG}polyline"))[1].get("points", "").split()
    ]
    (x1, y1), (x2, y2), (x3, y3) = line
    assert x1 < x2
    assert y1 > y2
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2)
    assert y1 - y2 == pytest.approx(y2 - y3, abs=0.2)
