"""What importing the operators and sensors costs a DAG file."""

from __future__ import annotations

import importlib
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
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


def results(times: int = TIMES) -> Iterator[Result]:
    """Measure.

    :param times: how often.
    """
    child.run("imports:import_all")  # so that all is compiled
    measured = [child.run("imports:import_all", after_airflow=after) for _ in range(times) for after in (False, True)]
    alone, after_airflow = measured[::2], measured[1::2]
    bases, ours = _median(alone, "bases"), _median(alone, "ours")
    fewer_bases, more_ours = _median(after_airflow, "bases"), _median(after_airflow, "ours")
    yield Result(
        name="Importing operators and sensors, relative to their bases with Airflow and boto3",
        measured=100 * ours / bases,
        unit="%",
        bar=10,
        peer=f"{100 * more_ours / fewer_bases:.0f} % of the bases' {fewer_bases:.2f} s once Airflow is imported",
        note=f"All of ours, and the amazon provider's bases, in fresh processes. The bases took {bases:.2f} s, most of "
        f"it for Airflow and boto3; ours on top of them {1000 * ours:.0f} ms. Where a DAG file had imported DAG and "
        f"BaseOperator before, the bases took {fewer_bases:.2f} s, and ours on top of them {1000 * more_ours:.0f} ms.",
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


def _median(measured: Sequence[dict[str, Any]], what: str) -> float:
    return statistics.median(float(one[what]) for one in measured)


# In a process of its own


def import_all(after_airflow: bool = False) -> dict[str, Any]:
    """Import the bases, then every operator and sensor; give the seconds, and what should not be there.

    :param after_airflow: import first what every DAG file imports from Airflow.
    """
    if after_airflow:
        from airflow.sdk import DAG, BaseOperator  # noqa: F401
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
