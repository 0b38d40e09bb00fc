"""Staging run settings: time and memory."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

from tests.benchmarks import child
from tests.benchmarks.measure import (
    Result,
    forget_peak_memory,
    medians_in_turns,
    memory_now,
    peak_memory,
)
from tests.benchmarks.service import BUCKET, DEFAULT_RUN_SETTING, client, service
from tests.benchmarks.task import context

_MIB = 1024**2 / 1e6


def results(*, settings: int) -> Iterator[Result]:
    """Measure.

    :param settings: number of run settings.
    """
    with service() as local:
        asked = {"url": local.url, "number": settings}
        ours, bare, size = child.run("staging:time_in_turns", local.environment, **asked)
        memory = {
            function: child.run(f"staging:memory_of_{function}", local.environment, **asked)
            for function in ("operator", "bare_upload")
        }
    yield Result(
        name=f"Staging {settings:,} run settings: memory above the list",
        measured=memory["operator"],
        unit="MB",
        bar=64 * _MIB,
        beside=memory["bare_upload"],
        peer=f"json.dumps + put_object {memory['bare_upload']:,.0f} MB",
        note=f"Peak resident memory of a process of its own, clients included; 64 MiB are {64 * _MIB:.1f} MB.",
    )
    yield Result(
        name=f"Staging {settings:,} run settings: time, compared with json.dumps + put_object",
        measured=ours / bare,
        unit="x",
        bar=2.0,
        beside=1.0,
        peer=f"json.dumps + put_object {bare:.2f} s; the operator {ours:.2f} s",
        note=f"The whole operator, checks and the start of the batch included; {size / 1e6:.0f} MB of JSON.",
    )


# In a process of its own


def time_in_turns(url: str, number: int) -> tuple[float, float, int]:
    """Time the operator and the bare upload; give the medians, and the bytes of the bare one's JSON."""
    settings = run_settings(number)
    start = _operator(settings)
    s3 = client("s3", url)
    start()
    _bare_upload(s3, settings)
    ours, bare = medians_in_turns([start, lambda: _bare_upload(s3, settings)])
    return ours, bare, len(json.dumps(settings))


def memory_of_operator(url: str, number: int) -> float:
    """Give the operator's peak memory above the list, in MB."""
    settings = run_settings(number)
    start = _operator(settings)
    return _memory(start)


def memory_of_bare_upload(url: str, number: int) -> float:
    """Give the bare upload's peak memory above the list, in MB."""
    settings = run_settings(number)
    return _memory(lambda: _bare_upload(client("s3", url), settings))


def run_settings(number: int) -> list[dict[str, Any]]:
    """Make run settings as a cohort has them."""
    reads = "s3://sequencing-center-data/project-42/reads"
    return [
        {
            "runSettingId": f"sample-{index:06}",
            "name": f"germline-sample-{index:06}",
            "outputUri": f"s3://{BUCKET}/out/sample-{index:06}",
            "parameters": {
                "sample_name": f"sample-{index:06}",
                "fastq_1": f"{reads}/sample-{index:06}_R1.fastq.gz",
                "fastq_2": f"{reads}/sample-{index:06}_R2.fastq.gz",
                "lanes": [1, 2],
            },
        }
        for index in range(number)
    ]


def _operator(settings: list[dict[str, Any]]) -> Any:
    from airflow_provider_omics_cache.operators.run_batch import StartRunBatchOperator

    operator = StartRunBatchOperator(task_id="start", default_run_setting=DEFAULT_RUN_SETTING, run_settings=settings)
    numbers = itertools.count()

    def start() -> None:
        # What is there already would not be uploaded again, and a batch that is there would not be started.
        number = next(numbers)
        operator.settings_s3_prefix = f"s3://{BUCKET}/settings/{number}"
        operator.execute(context(run_id=str(number)))

    return start


def _bare_upload(s3: Any, settings: list[dict[str, Any]]) -> None:
    s3.put_object(Bucket=BUCKET, Key="bare.json", Body=json.dumps(settings).encode())


def _memory(function: Any) -> float:
    before = memory_now()
    forget_peak_memory()
    function()
    return peak_memory() - before
