"""What importing the operators and sensors costs a DAG file."""

from __future__ import annotations

import importlib
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

from tests.benchmarks import child
from tests.benchmarks.measure import TIMES, Result

BASES = (
    "airflow.providers.amazon.aws.hooks.base_aws",
    "airflow.providers.amazon.aws.operators.base_aws",
    "airflow.providers.amazon.aws.sensors.base_aws",
    "airflow.providers.amazon.aws.triggers.base",
)
NOT_IMPORTED = ("moto", "aiobotocore", "airflow_provider_omics_cache.local")


def results() -> Iterator[Result]:
    """Measure."""
    child.run("imports:import_all")  # so that all is compiled
    measured = [child.run("imports:import_all") for _ in range(TIMES)]
    bases = statistics.median(one["bases"] for one in measured)
    ours = statistics.median(one["ours"] for one in measured)
    yield Result(
        name="Importing every operator and sensor, compared with the amazon provider's bases",
        measured=100 * ours / bases,
        unit="%",
        bar=10,
        beside=100.0,
        peer=f"the bases {bases:.2f} s; ours on top of them {1000 * ours:.0f} ms",
        note="Fresh processes; the bases' time includes what they import, Airflow among it.",
    )
    unwanted = sorted({name for one in measured for name in one["unwanted"]})
    yield Result(
        name="Imported with them although only tests or triggers need it",
        measured=len(unwanted),
        unit="modules",
        bar=0,
        rule="exactly",
        note=f"Looked for: {', '.join(NOT_IMPORTED)}." + (f" Found: {', '.join(unwanted)}." if unwanted else ""),
    )


# In a process of its own


def import_all() -> dict[str, Any]:
    """Import the bases, then every operator and sensor; give the seconds, and what should not be there."""
    started_at = time.perf_counter()
    for name in BASES:
        importlib.import_module(name)
    bases_at = time.perf_counter()
    from airflow_provider_omics_cache.get_provider_info import get_provider_info

    info = get_provider_info()
    for name in (name for kind in ("operators", "sensors") for name in info[kind][0]["python-modules"]):
        importlib.import_module(name)
    done_at = time.perf_counter()
    return {
        "bases": bases_at - started_at,
        "ours": done_at - bases_at,
        "unwanted": [name for name in NOT_IMPORTED if name in sys.modules],
    }
