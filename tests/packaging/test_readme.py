"""README.md is the page of a repository and, without the files beside it, of a package index."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from demo import table
from package_readme import for_package_index

from airflow_provider_omics_cache import __version__
from tests.conftest import AIRFLOW_3

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
TARGET = re.compile(r"(!?)\[[^\]]*\]\(([^)]+)\)")
AIRFLOW_2_IMPORT = re.compile(r"^from airflow\.sdk .*# Airflow 2: (.+)$", re.MULTILINE)


def targets(text: str) -> list[tuple[str, str]]:
    """Return each link of a text: ``!`` for a picture, and where it leads."""
    return TARGET.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def test_relative_links_lead_to_files() -> None:
    relative = [path for _, path in targets(README) if not path.startswith("https://")]
    assert relative
    for target in relative:
        path, _, heading = target.partition("#")
        assert (ROOT / path).is_file(), target
        headings = re.findall(r"^(.+)\n[-=]+$", (ROOT / path).read_text(), re.MULTILINE) if heading else []
        assert not heading or heading in {found.lower().replace(" ", "-") for found in headings}, target


def test_a_package_index_gets_no_relative_link() -> None:
    shown = for_package_index(README, None, __version__)
    assert all(target.startswith("https://") for _, target in targets(shown))
    assert "![" not in shown
    assert "CHANGELOG.md lists the changes" in shown


def test_with_a_repository_a_package_index_gets_its_pictures_and_links() -> None:
    repository = "https://github.com/owner/name"
    shown = targets(for_package_index(README, repository, "1.2.3"))
    assert len(shown) == len(targets(README))
    assert ("", f"{repository}/blob/v1.2.3/CHANGELOG.md") in shown
    assert ("!", f"{repository}/raw/v1.2.3/docs/_static/screenshots/resumed_cohort.png") in shown
    assert all(target.startswith("https://") for _, target in shown)


def test_the_job_stands_first_and_before_any_link_to_a_file() -> None:
    title, empty, *opening = README.splitlines()[:5]
    assert title == "# airflow-provider-omics-cache"
    assert not empty
    assert "thousands of samples" in opening[0]
    assert "never pay twice for a retry" in " ".join(opening)
    assert all(target.startswith("https://") for _, target in targets("\n".join(opening)))


def test_the_dag_can_be_pasted_whole() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    if not AIRFLOW_3:
        code = AIRFLOW_2_IMPORT.sub(r"\1", code)
    assert code.endswith("\n\nrnaseq()\n")
    assert max(map(len, code.splitlines())) <= 88, "a package index cuts longer lines"
    found: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), found)
    dag = found["rnaseq"]()
    assert dag.dag_id == "rnaseq"
    rounds = {task_id.split(".")[1] for task_id in dag.task_ids if task_id.count(".") == 2}
    assert rounds == {"round_1", "round_2", "round_3"}
    assert dag.get_task("cohort.results").max_failed == "2%"


def test_the_table_of_the_demo_is_as_the_demo_prints_it() -> None:
    def record(sample: int, status: str, number: int, *, hits: int = 0, reason: str | None = None) -> dict[str, Any]:
        names = ("run_setting_id", "status", "round", "cache_hits", "failure_reason", "history")
        return dict(zip(names, (f"HG{sample:05}", status, number, hits, reason, []), strict=True))

    records = [record(sample, "COMPLETED", 1) for sample in range(1, 7)]
    for sample, hits, reason in ((2, 0, "ThrottlingException"), (3, 2, "SERVICE_ERROR")):
        records[sample - 1] = record(sample, "COMPLETED", 2, hits=hits)
        records[sample - 1]["history"] = [{"round": 1, "failure_reason": reason}]
    records[4] = record(5, "FAILED", 1, reason="OUT_OF_MEMORY_ERROR")
    lines = list(table(records))
    assert "\n".join(f"  {line}" for line in lines) in README
    assert "\n".join(f"   {line}" for line in lines) in (ROOT / "docs" / "quickstart.rst").read_text()


def test_an_unreleased_version_is_not_said_to_be_on_a_package_index() -> None:
    newest = re.findall(r"^## \[(\S+)\] - (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0]
    is_unreleased = newest == (__version__, "Unreleased")
    assert is_unreleased == (f"Version {__version__} is not released yet" in README)
