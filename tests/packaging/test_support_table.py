"""The tables of what was tested show what ran last, and that ran on the versions that are locked."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import support_table
import test_results

from tests.packaging.test_environment import ENVIRONMENTS

pytestmark = pytest.mark.table

TESTED: dict[str, Any] = json.loads(support_table.RESULTS.read_text()) if support_table.RESULTS.exists() else {}
LINES = sorted({run for run in ENVIRONMENTS if run.startswith("airflow-")})


def test_every_run_has_its_row() -> None:
    assert list(TESTED) == list(test_results.ENVIRONMENTS)


def test_the_tables_show_what_ran() -> None:
    assert support_table.TABLE.read_text() == support_table.as_csv(TESTED)
    readme = support_table.README.read_text()
    table = support_table.as_markdown(TESTED)
    assert f"{support_table.BEGIN}\n{table}\n{support_table.END}" in readme
    assert support_table.in_readme(readme, table) == readme


def test_what_is_claimed_has_run() -> None:
    claimed = re.search(r"\* - Airflow\n     - (.*)", (support_table.ROOT / "docs" / "install.rst").read_text())
    assert claimed
    assert sorted(f"airflow-{line}" for line in claimed[1].split(", ")) == LINES


@pytest.mark.parametrize("run", TESTED)
def test_what_ran_is_what_is_locked(run: str) -> None:
    versions = dict(TESTED[run]["versions"])
    python = versions.pop("python")
    expected = ENVIRONMENTS["airflow-3.3" if run.startswith("python-") else run]
    assert {name: expected[name] for name in versions} == versions
    if run.startswith("python-"):
        assert python.startswith(run.removeprefix("python-") + ".")
    if run in ("airflow-2.11", "airflow-3.0", "airflow-3.1", "airflow-3.3"):
        assert TESTED[run]["real_airflow"]
