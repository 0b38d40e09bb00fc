"""``make support-table``: show in README.md and docs/install.rst what the tests have run on last."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from test_results import ENVIRONMENTS, FEWEST_TESTS, ROOT, read_result

RESULTS = ROOT / "requirements" / "tested.json"
README = ROOT / "README.md"
TABLE = ROOT / "docs" / "_static" / "support.csv"
BEGIN, END = "<!-- begin make support-table -->\n", "<!-- end make support-table -->\n"
HEADER = ("Airflow", "Python", "amazon provider", "boto3", "aiobotocore", "Tests that passed", "Real Airflow processes")

_VERSIONS = """
import importlib.metadata, json, sys
found = {"python": "%d.%d.%d" % sys.version_info[:3]}
for name in ("apache-airflow", "apache-airflow-providers-amazon", "boto3", "aiobotocore"):
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        found[name] = None
print(json.dumps(found))
"""


def collect(build: Path, before: dict[str, Any]) -> dict[str, Any]:
    """Return what ran on which versions, by the name of the run.

    :param build: directory of the JUnit files.
    :param before: what ran before. A run that is not among the JUnit files keeps its last result.
    """
    collected = {}
    for name, environment in ENVIRONMENTS.items():
        path = build / f"test-{name}.xml"
        if path.exists():
            collected[name] = _collect_one(name, path, ROOT / environment / "bin" / "python")
        elif name in before:
            collected[name] = before[name]
    if not collected:
        sys.exit(f"{build} has no results: run make test-all")
    return collected


def _collect_one(name: str, path: Path, python: Path) -> dict[str, Any]:
    result = read_result(path)
    if result.failed or result.passed < FEWEST_TESTS:
        sys.exit(f"{path}: {result.passed} tests passed and {result.failed} failed: run make test-{name} again")
    if path.stat().st_mtime < (python.parents[1] / ".installed").stat().st_mtime:
        sys.exit(f"{path} is older than {python.parents[1]}: run make test-{name} again")
    asked = subprocess.run([python, "-c", _VERSIONS], capture_output=True, check=True)  # nosec B603  # make's Python
    return {
        "versions": json.loads(asked.stdout),
        "passed": result.passed,
        "skipped": sum(result.skips.values()),
        "real_airflow": result.real_airflow,
    }


def rows(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the rows of the table, its header first.

    :param results: what ``collect`` has returned.
    """

    def row(run: dict[str, Any]) -> tuple[str, ...]:
        versions = run["versions"]
        return (
            versions["apache-airflow"],
            versions["python"].rpartition(".")[0],
            versions["apache-airflow-providers-amazon"],
            versions["boto3"],
            versions["aiobotocore"] or "none",
            f"{run['passed']:,}",
            "yes" if run["real_airflow"] else "no",
        )

    return [HEADER, *(row(run) for run in results.values())]


def as_csv(results: dict[str, Any]) -> str:
    """Return the table as docs/install.rst includes it."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows(results))
    return text.getvalue()


def as_markdown(results: dict[str, Any]) -> str:
    """Return the table as README.md shows it."""
    header, *body = rows(results)
    lines = (header, tuple("---" for _ in header), *body)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def in_readme(text: str, table: str) -> str:
    """Return README.md with a table in the place of the old one."""
    if BEGIN not in text or END not in text:
        sys.exit(f"{README} has no place for the table: it must have the lines {BEGIN.strip()} and {END.strip()}")
    return re.sub(f"(?<={re.escape(BEGIN)}).*(?={re.escape(END)})", f"\n{table}\n", text, flags=re.DOTALL)


if __name__ == "__main__":
    results = collect(ROOT / "build", json.loads(RESULTS.read_text()) if RESULTS.exists() else {})
    readme = in_readme(README.read_text(), as_markdown(results))
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    TABLE.write_text(as_csv(results))
    README.write_text(readme)
