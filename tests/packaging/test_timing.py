"""The package has one clock, in ``timing``: tests could not move the time of a module that has another one."""

from __future__ import annotations

import ast
from pathlib import Path

import airflow_provider_omics_cache as package

PACKAGE = Path(package.__file__).parent
#: They use real time: the clock itself, the local service, and what puts the local service's time into Airflow.
REAL_TIME = ("timing.py", "local/", "testing/")
CLOCKS = {"time", "asyncio.sleep", "datetime.now", "datetime.utcnow", "timezone.utcnow"}


def clocks_of(code: str) -> list[str]:
    """Return which clocks Python code uses, other than that of ``timing``."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found.add(f"{node.value.id}.{node.attr}")
    return sorted(found & CLOCKS)


def test_only_timing_reads_the_time_and_waits() -> None:
    files = {str(path.relative_to(PACKAGE)): path.read_text() for path in PACKAGE.rglob("*.py")}
    assert clocks_of(files["timing.py"]) == ["asyncio.sleep", "time"]
    others = {name: clocks_of(code) for name, code in files.items() if not name.startswith(REAL_TIME)}
    assert {name: clocks for name, clocks in others.items() if clocks} == {}


def test_every_clock_is_found() -> None:
    for code, clock in {
        "def wait():\n    import time": "time",
        "from time import sleep": "time",
        "import asyncio\nasync def wait():\n    await asyncio.sleep(1)": "asyncio.sleep",
        "from asyncio import sleep": "asyncio.sleep",
        "from datetime import UTC, datetime\nnow = datetime.now(UTC)": "datetime.now",
        "now = timezone.utcnow()": "timezone.utcnow",
    }.items():
        assert clocks_of(code) == [clock]
    assert clocks_of("from package import timing\nnow = timing.time()") == []
