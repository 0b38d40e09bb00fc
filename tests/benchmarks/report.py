"""What the benchmarks say: a table, and the same for the documentation."""

from __future__ import annotations

import os
import platform
import textwrap
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tests.benchmarks import chart
from tests.benchmarks.growth import Cost
from tests.benchmarks.measure import Result, machine_memory

_COLUMNS = ("What", "Measured", "Limit", "Kept", "The usual way")
_WIDTHS = (62, 16, 14, 5, 62)
_RULES = {"at most": "≤", "at least": "≥", "exactly": "="}
_PACKAGES = ("apache-airflow", "apache-airflow-providers-amazon", "boto3", "botocore", "aiobotocore", "moto")
_HOLDS = {True: "yes", False: "NO", None: "-"}
_SIZES = ("Triggers", "MB above idle", "KB for each more", "CPU ms a call", "calls a second", "lag max, ms")


def number(value: float) -> str:
    """Write a number with three digits that mean something."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def cells(result: Result) -> tuple[str, ...]:
    """Give the cells of a result's row."""
    bar = f"{_RULES[result.rule]} {number(result.bar)} {result.unit}"
    return result.name, f"{number(result.measured)} {result.unit}", bar, _HOLDS[result.holds], result.peer


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


def sizes(costs: Mapping[str, Sequence[Cost]]) -> list[tuple[str, ...]]:
    """Give rows that show how the cost of a trigger grows with their number."""
    rows = []
    for kind, name in (("ours", "of the package"), ("plain", "AwsBaseWaiterTriggers")):
        for cost in costs[kind]:
            numbers = (cost.memory, cost.further_memory, cost.cpu_per_call, cost.call_rate, cost.lag_max)
            rows.append((f"{cost.number:,} {name}", *(number(value) for value in numbers)))
    return rows


def machine() -> list[str]:
    """Say on what was measured."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return [
        f"{cores} cores, {_cpu()}, {machine_memory('MemTotal') / 1000:.0f} GB of memory",
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


def page(results: Sequence[Result], costs: Mapping[str, Sequence[Cost]]) -> str:
    """Write the part of the documentation that shows what was measured, as reStructuredText."""
    lines = [f"* {line}" for line in machine()]
    lines += ["", *_list_table(_COLUMNS, [cells(result) for result in results], "34 12 12 8 34")]
    notes = [f"* *{result.name}.* {result.note}" for result in results if result.note]
    lines += ["", *notes]
    if costs["ours"]:
        lines += ["", *_list_table(_SIZES, sizes(costs), "30 14 14 14 14 14")]
    return "\n".join([*lines, ""])


def _list_table(header: Sequence[str], rows: Sequence[Sequence[str]], widths: str) -> list[str]:
    lines = [".. list-table::", "   :header-rows: 1", f"   :widths: {widths}", ""]
    for row in (header, *rows):
        for index, cell in enumerate(row):
            lines.append(f"   {'*' if index == 0 else ' '} - {cell}".rstrip())
    return lines


def picture(results: Sequence[Result], costs: Mapping[str, Sequence[Cost]]) -> str:
    """Draw what was measured, for somebody who sees only the picture."""
    shares = [
        chart.Share(
            name=result.name,
            ours=result.share(result.measured),
            holds=result.holds is not False,
            theirs=None if result.beside is None else result.share(result.beside),
        )
        for result in results
    ]

    def panel(title: str, note: Sequence[str], value_of: Callable[[Cost], float]) -> chart.Panel:
        ours, theirs = ([(cost.number, max(value_of(cost), 0.1)) for cost in costs[kind]] for kind in ("ours", "plain"))
        return chart.Panel(title=title, note=note, axis="deferred tasks in one triggerer", ours=ours, theirs=theirs)

    panels = [
        panel(
            "Memory of each further deferred task, in KB",
            ("Lower is better. Tasks of this package share a client.", "Each AwsBaseWaiterTrigger has its own."),
            lambda cost: cost.further_memory,
        ),
        panel(
            "CPU time of each poll, in ms",
            (
                "Flat is good: a poll costs the same with 3,000 tasks as with 10.",
                "AwsBaseWaiterTrigger: up to 100 tasks. With 1,000 see the dots above.",
            ),
            lambda cost: cost.cpu_per_call,
        ),
    ]
    return chart.draw(
        "How much of each limit this package uses, and the usual way",
        (
            "Each dot is a measured number divided by its limit. Left of the black line is within the limit; "
            "further left is better.",
            "The usual way is plain boto3, or AwsBaseWaiterTrigger of the amazon provider. "
            "Dots at the edge are beyond the scale.",
        ),
        shares,
        panels if costs["ours"] else [],
        peer="AwsBaseWaiterTrigger",
    )
