"""The simulator notices faulty changes of the package."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import HAS_AIOBOTOCORE, HAS_BATCHES

if not (HAS_BATCHES and HAS_AIOBOTOCORE):
    pytest.skip("the schedules need batches and aiobotocore", allow_module_level=True)

from tests.faults import simulator
from tests.faults.environment import prepared
from tests.faults.mutants import MUTANTS, Mutant

#: Schedules within which a mutant must be noticed, if its own seed shows it no longer.
SEARCHED = 300


@pytest.fixture
def _prepared() -> Iterator[None]:
    with prepared():
        yield


def _is_noticed(mutant: Mutant, seed: int) -> bool:
    schedule = simulator.draw(seed, mutant.profile, mutant.scenario)
    with pytest.MonkeyPatch.context() as patch:
        mutant.change(patch)
        return mutant.invariant in simulator.run(schedule).invariants


@pytest.mark.large
@pytest.mark.usefixtures("_prepared")
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_noticed(name: str) -> None:
    mutant = MUTANTS[name]
    seed = next((seed for seed in (mutant.seed, *range(SEARCHED)) if _is_noticed(mutant, seed)), None)
    assert seed is not None, f"{name} is not noticed in {SEARCHED} schedules"
    plain = simulator.run(simulator.draw(seed, mutant.profile, mutant.scenario))
    assert mutant.invariant not in plain.invariants, f"seed {seed} shows {mutant.invariant} without {name} too"
