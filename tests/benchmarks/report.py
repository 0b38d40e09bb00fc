"""What the benchmarks say: a table, and the same for the documentation."""

from __future__ import annotations

import os
import platform
import textwrap
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tests.benchmarks.measure import Result
from tests.benchmarks.triggers import Waited

_COLUMNS = ("What", "Measured", "Bar", "Holds", "Beside it")
_WIDTHS = (62, 16, 14, 5, 62)
_RULES = {"at most": "≤", "at least": "≥", "exactly": "="}
_PACKAGES = ("apache-airflow", "apache-airflow-providers-amazon", "boto3", "botocore", "aiobotocore", "moto")
_SIZES = ("Batches", "KB each", "CPU ms a call", "lag p99, ms", "lag max, ms", "calls in a second", "latest, rounds")


def number(value: float) -> str:
    """Write a number with three digits that mean something."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def cells(result: Result) -> tuple[str, ...]:
    """Give the cells of a result's row."""
    bar = f"{_RULES[result.rule]} {number(result.bar)} {result.unit}"
    holds = "yes" if result.holds else "NO"
    return result.name, f"{number(result.measured)} {result.unit}", bar, holds, result.peer


def table(results: Sequence[Result]) -> str:
    """Write the results as a table of text, their notes below it."""
    lines = []
    rows = [_COLUMNS, tuple("-" * width for width in _WIDTHS), *(cells(result) for result in results)]
    for row in rows:
        wrapped = [textwrap.wrap(cell, width) or [""] for cell, width in zip(row, _WIDTHS, strict=True)]
        for index in range(max(map(len, wrapped))):
            parts = [
                (lines_of_cell[index] if index < len(lines_of_cell) else "").ljust(width)
                for lines_of_cell, width in zip(wrapped, _WIDTHS, strict=True)
            ]
            lines.append("  ".join(parts).rstrip())
    lines.append("")
    for result in results:
        if result.note:
            lines += textwrap.wrap(f"{result.name}: {result.note}", 160, subsequent_indent="    ")
    return "\n".join(lines)


def sizes(waited: Mapping[str, Sequence[Waited]]) -> list[tuple[str, ...]]:
    """Give rows that show how the cost of a trigger grows with their number."""
    rows = []
    for kind, name in (("ours", "the package's"), ("plain", "AwsBaseWaiterTrigger")):
        for one in waited[kind]:
            numbers = (
                one.memory_per_trigger, one.cpu_per_call, one.lag_p99, one.lag_max, one.most_calls, one.rounds
            )  # fmt: skip
            rows.append((f"{one.number:,} {name}", *(number(value) for value in numbers)))
    return rows


def machine() -> list[str]:
    """Say on what was measured."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return [
        f"{cores} cores, {_cpu()}",
        f"{platform.system()}, Python {platform.python_version()}",
        ", ".join(f"{name} {version(name)}" for name in _PACKAGES),
        f"measured on {datetime.now(UTC):%Y-%m-%d}",
    ]


def _cpu() -> str:
    about = Path("/proc/cpuinfo")
    if about.exists():
        for line in about.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def page(results: Sequence[Result], waited: Mapping[str, Sequence[Waited]]) -> str:
    """Write the part of the documentation that shows what was measured, as reStructuredText."""
    lines = [f"* {line}" for line in machine()]
    lines += ["", *_list_table(_COLUMNS, [cells(result) for result in results], "34 12 12 8 34")]
    notes = [f"* *{result.name}.* {result.note}" for result in results if result.note]
    lines += ["", *notes]
    lines += ["", *_list_table(_SIZES, sizes(waited), "28 12 12 12 12 12 12"), ""]
    return "\n".join(lines)


def _list_table(header: Sequence[str], rows: Sequence[Sequence[str]], widths: str) -> list[str]:
    lines = [".. list-table::", "   :header-rows: 1", f"   :widths: {widths}", ""]
    for row in (header, *rows):
        for index, cell in enumerate(row):
            lines.append(f"   {'*' if index == 0 else ' '} - {cell}".rstrip())
    return lines
