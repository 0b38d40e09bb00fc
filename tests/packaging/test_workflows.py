"""The workflows of GitHub call make targets that exist."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = ROOT / ".github" / "workflows"


def test_the_workflows_call_targets_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    for variable, prefix in (("OLDER_LINES", "test-airflow-"), ("NEWER_PYTHONS", "test-python-")):
        values = re.search(rf"^{variable} := (.+)$", makefile, re.MULTILINE)
        assert values
        named |= {prefix + value for value in values[1].split()}
    called = set()
    for path in WORKFLOWS.glob("*.yml"):
        job = yaml.safe_load(path.read_text())["jobs"]["make"]
        commands = [step["run"] for step in job["steps"] if step.get("run", "").startswith("make ")]
        assert len(commands) == 1
        targets = job.get("strategy", {}).get("matrix", {}).get("target", [])
        words = " ".join([commands[0].removeprefix("make ").replace("${{ matrix.target }}", ""), *targets]).split()
        called |= {word for word in words if "=" not in word}
    assert called <= named
    assert called >= {"coverage", "lint", "mutants", "test-minimum", "test-newest", "test-wheel", "test-mwaa"}
    assert called >= {name for name in named if name.startswith(("test-airflow-", "test-python-"))} - {
        "test-airflow-3.3"
    }
