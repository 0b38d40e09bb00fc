"""bandit searches what users run, and each exception has its rule and its reason."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
SEARCHED = ("airflow_provider_omics_cache", ".ci", "example_dags", "docs/conf.py")


def test_make_lint_runs_bandit_on_everything_but_the_tests() -> None:
    (command,) = re.findall(r"^\t\.venv/bin/bandit (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert command == f"-q -c pyproject.toml -r {' '.join(SEARCHED)}"


def test_bandit_is_in_the_group_and_in_the_lock() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    assert any(requirement.startswith("bandit") for requirement in groups["lint"])
    assert re.search(r"^bandit==", (ROOT / "requirements" / "airflow-3.3.txt").read_text(), re.MULTILINE)


def test_each_exception_names_one_rule_and_a_reason() -> None:
    paths = [path for name in SEARCHED for path in (ROOT / name, *(ROOT / name).rglob("*.py")) if path.is_file()]
    lines = [line for path in paths for line in path.read_text().splitlines() if "nosec" in line]
    assert lines
    assert [line for line in lines if not re.search(r"  # nosec B\d{3}  # \w.+$", line)] == []
