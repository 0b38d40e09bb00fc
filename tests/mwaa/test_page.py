"""The install page describes each MWAA image that it calls supported, and the cases are read from it."""

from __future__ import annotations

import re
from pathlib import Path

from packaging.requirements import Requirement

from airflow_provider_omics_cache import __version__
from tests.mwaa.page import PAGE, TOGETHER, cases

TEXT = PAGE.read_text()
IMAGES = {path.stem for path in Path(__file__).parent.glob("*.txt")}


def test_each_supported_image_has_its_cases_and_its_packages() -> None:
    supported = re.search(r"\* - Amazon MWAA\n     - (.+)\n", TEXT)
    assert supported is not None
    assert set(supported[1].split(", ")) == IMAGES == {case.image for case in cases(TEXT)}


def test_the_cases_of_the_page() -> None:
    found = cases(TEXT)
    assert len(set(found)) == len(found) >= 18
    assert {case.image for case in found if case.replaced is None} == {"2.11.0", "2.11.2", "3.0.6"}
    for case in found:
        package, *others = [Requirement(line) for line in case.requirements if not line.startswith("#")]
        assert str(package.specifier) == f"=={__version__}"
        assert [requirement.name for requirement in others] == ([] if case.keeps_constraints else list(TOGETHER))
        assert case.keeps_constraints == (not case.replaced)


def test_a_case_that_the_page_changes_is_another_case() -> None:
    changed = TEXT.replace("     - 3.8.0\n", "     - 3.7.0\n").replace(
        "     - s3transfer\n", "     - s3transfer, yarl\n"
    )
    lost = set(cases(TEXT)) - set(cases(changed))
    assert {(case.image, case.requirements[-1]) for case in lost} == {
        ("2.11.0", "aiobotocore==3.8.0"),
        ("2.11.2", "aiobotocore==3.8.0"),
        ("3.0.6", "aiobotocore==3.4.0"),
        ("3.0.6", "aiobotocore==3.8.0"),
        ("3.2.1", "aiobotocore==3.8.0"),
    }
