"""Schedules of the fault simulator. ``python -m tests.faults --help`` says how to run more of them."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import HAS_AIOBOTOCORE, HAS_BATCHES

if not (HAS_BATCHES and HAS_AIOBOTOCORE):
    pytest.skip("the schedules need batches and aiobotocore", allow_module_level=True)

from tests.faults import simulator
from tests.faults.environment import prepared
from tests.faults.scenarios import SCENARIOS
from tests.faults.schedule import KINDS, PROFILES, THEMES

#: Schedules of each scenario in each profile: those that make test runs, and those that make coverage runs.
FEW, MANY = 5, 15
#: Schedules of each scenario of a whole cohort, with 20 tasks, that make test runs.
FEW_OF_COHORTS = 2


@pytest.fixture
def _prepared() -> Iterator[None]:
    with prepared():
        yield


@pytest.mark.usefixtures("_prepared")
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize(
    "seeds", [range(FEW), pytest.param(range(FEW, MANY), marks=pytest.mark.large)], ids=["few", "many"]
)
def test_no_schedule_violates_an_invariant(seeds: range, scenario: str, profile: str) -> None:
    violations = []
    if scenario.endswith("_cohort") and seeds.start == 0:
        seeds = seeds[:FEW_OF_COHORTS]
    for seed in seeds:
        result = simulator.run(simulator.draw(seed, profile, scenario))
        if result.violations and not result.is_known:
            replay = f"python -m tests.faults --replay {seed} --profile {profile} --scenario {scenario}"
            violations += [f"{violation.invariant}: {violation.text}: {replay}" for violation in result.violations]
    assert not violations, "\n".join(violations)


@pytest.mark.usefixtures("_prepared")
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_schedule_runs_in_the_same_way_again(scenario: str) -> None:
    lines: list[list[str]] = [[], []]
    for trace in lines:
        simulator.run(simulator.draw(7, "anything", scenario), trace.append)
    assert [line[:60] for line in lines[0]] == [line[:60] for line in lines[1]]


def test_faults_are_written_and_read() -> None:
    schedule = simulator.draw(3, "anything", "start_batch")
    assert simulator.with_faults(schedule, simulator.as_json(schedule.faults)) == schedule


def test_each_kind_of_fault_is_drawn_in_each_of_its_profiles() -> None:
    for profile in PROFILES:
        drawn = {
            fault.kind
            for scenario in SCENARIOS
            for seed in range(150)
            for fault in simulator.draw(seed, profile, scenario).faults
        }
        assert drawn == {name for name, kind in KINDS.items() if profile in kind.profiles}


def test_the_page_on_reliability_names_scenarios() -> None:
    page = (Path(__file__).parents[2] / "docs/reliability.rst").read_text()
    lists = re.findall(r"scenarios?\s+((?:``[\w*]+``(?:,\s+)?)+)", page)
    named = [name for names in lists for name in re.findall(r"``([\w*]+)``", names)]
    assert [name for name in named if not fnmatch.filter(SCENARIOS, name)] == []
    operators = {"start_single_run", "create_run_group", "delete_run_group"}
    assert operators <= {found for name in named for found in fnmatch.filter(SCENARIOS, name)}


def test_themes_name_kinds() -> None:
    assert {name for kinds in THEMES.values() for name in kinds} <= KINDS.keys()
