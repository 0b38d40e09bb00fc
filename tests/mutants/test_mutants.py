"""``make mutants`` plants what it says, and reports a mutant that nothing notices."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.mutants.catalogue import MUTANTS, Mutant
from tests.mutants.runner import ROOT, run


def test_each_mutant_fits_its_module_and_names_tests_that_exist() -> None:
    assert len(MUTANTS) >= 30
    assert len({mutant.fault for mutant in MUTANTS}) == len(MUTANTS)
    for mutant in MUTANTS:
        text = (ROOT / mutant.path).read_text()
        assert mutant.apply(text) != text
        for test in mutant.tests:
            path, *names = test.split("::")
            definitions = (ROOT / "tests" / path).read_text()
            assert all(f"def {name}(" in definitions or f"class {name}:" in definitions for name in names), test


def test_a_patch_that_no_longer_applies_is_an_error() -> None:
    stale = replace(MUTANTS[0], old="text of an older version")
    with pytest.raises(ValueError, match=r"rounds\.py has 0 times, not once, the text of the mutant"):
        list(run([stale], 1))


@pytest.mark.large
def test_a_mutant_that_its_tests_do_not_notice_survives() -> None:
    harmless = Mutant("nothing is wrong", "tokens", "import re\n", "import re as re\n", MUTANTS[-1].tests)
    noticed, survivor = run([MUTANTS[-1], harmless], 1)
    assert noticed.error is None
    assert survivor.error == f"survived {', '.join(harmless.tests)}"
