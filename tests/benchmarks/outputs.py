"""The record of each run of a batch, with the location of its outputs: GetRun calls and memory."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tests.benchmarks import child
from tests.benchmarks.measure import Result, forget_peak_memory, memory_now, peak_memory
from tests.benchmarks.service import BUCKET, DEFAULT_RUN_SETTING, REGION, client, sample_ids, service
from tests.benchmarks.task import context

#: Nothing limits the rate of GetRun calls, because the benchmark counts the calls and does not measure their time.
_WITHOUT_PACE = {"AIRFLOW__OMICS_CACHE__MAX_GET_RUN_PER_SECOND": "1000000"}
_RECORDS = "runs.jsonl"
#: Numbers of the runs whose settings have their own ``outputUri``. None of them is in the sample.
_OWN = (1, 2, 3)


def results(*, runs: int, runs_with_own: int) -> Iterator[Result]:
    """Measure.

    :param runs: runs of the batch whose settings share one ``outputUri``.
    :param runs_with_own: runs of the batch in which three settings have their own ``outputUri``.
    """
    shared = _write(runs)
    sensor, operator = shared["sensor"], shared["operator"]
    yield Result(
        name=f"GetRun calls for the outputs of {runs:,} completed runs",
        measured=sensor["calls"],
        unit="calls",
        bar=25,
        peer=f"GetRun for each run: {runs:,} calls, {runs / 5 / 3600:,.1f} hours at 5 a second",
        has_happened=sensor["right"] == runs,
        note=_note("BatchCompletionSensor", sensor),
    )
    yield Result(
        name=f"Records of {runs:,} runs with their outputs: peak memory above the start of the task",
        measured=sensor["result"],
        unit="MB",
        bar=150,
        has_happened=sensor["right"] == runs,
        note="The memory of the whole process. It has made its first call to AWS before the measurement.",
    )
    yield Result(
        name=f"GetRun calls for the outputs of {runs:,} completed runs, in the task that started them",
        measured=operator["calls"],
        unit="calls",
        bar=25,
        has_happened=operator["right"] == runs,
        note=_note("StartRunBatchOperator", operator),
    )
    own = _write(runs_with_own, own=_OWN)
    yield Result(
        name=f"GetRun calls for the outputs of {runs_with_own:,} runs, {len(_OWN)} of which have their own outputUri",
        measured=own["sensor"]["calls"],
        unit="calls",
        bar=runs_with_own,
        rule="exactly",
        has_happened=own["sensor"]["right"] == runs_with_own,
        note="The sensor does not have the settings, so it cannot derive locations.",
    )
    yield Result(
        name=f"GetRun calls for the outputs of these {runs_with_own:,} runs, in the task that started them",
        measured=own["operator"]["calls"],
        unit="calls",
        bar=25,
        has_happened=own["operator"]["right"] == runs_with_own,
        note=_note("StartRunBatchOperator", own["operator"]),
    )


def _note(task: str, found: dict[str, Any]) -> str:
    return (
        f"{task} writes a record of each run with include_outputs=True; {found['derived']:,} locations were derived. "
        f"{found['right']:,} locations are equal to the service's."
    )


def _settings(runs: int, own: Sequence[int]) -> list[dict[str, Any]]:
    settings = sample_ids(runs)
    for number in own:
        settings[number]["outputUri"] = f"s3://{BUCKET}/own/{number}"
    return settings


def _write(runs: int, own: Sequence[int] = ()) -> dict[str, dict[str, Any]]:
    """Start a batch with StartRunBatchOperator. Write its records with the sensor, and with a second try of the task.

    :return: for both, the counted calls and the locations that are right.
    """
    with service() as local:
        local.control.settings.submission_rate = float("inf")
        environment = {**local.environment, **_WITHOUT_PACE}
        batch_id = child.run("outputs:start", environment, runs=runs, own=own)
        local.control.clock.advance(3_600)
        local.omics.get_batch(batchId=batch_id)
        uris = {
            setting["runSettingId"]: setting.get("outputUri", DEFAULT_RUN_SETTING["outputUri"])
            for setting in _settings(runs, own)
        }
        found = {}
        for task, function, arguments in (
            ("sensor", "memory_of_records", {"batch_id": batch_id}),
            ("operator", "start", {"runs": runs, "own": own, "wait": True}),
        ):
            before = local.control.calls
            result = child.run(f"outputs:{function}", environment, **arguments)
            calls = (local.control.calls - before)["GetRun"]
            body = client("s3", local.url).get_object(Bucket=BUCKET, Key=_RECORDS)["Body"]
            counts = _count(map(json.loads, body.iter_lines()), uris)
            client("s3", local.url).delete_object(Bucket=BUCKET, Key=_RECORDS)
            found[task] = {"calls": calls, "result": result, "derived": counts["derived"], "right": counts["right"]}
    return found


def _count(records: Iterable[dict[str, Any]], uris: dict[str, str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for record in records:
        counts[record["output_source"]] += 1
        location = f"{uris[record['run_setting_id']]}/{record['run_id']}/{record['run_uuid']}"
        counts["right"] += record["run_output_uri"] == location
    return counts


# In a process of its own


def start(runs: int, own: Sequence[int], wait: bool = False) -> str:
    """Start the batch, or find it and write its records. Return its id."""
    from airflow_provider_omics_cache.operators.run_batch import StartRunBatchOperator

    waiting = {"wait_for_completion": True, "runs_s3_uri": f"s3://{BUCKET}/{_RECORDS}", "include_outputs": True}
    operator = StartRunBatchOperator(
        task_id="start",
        default_run_setting=DEFAULT_RUN_SETTING,
        run_settings=_settings(runs, own),
        settings_s3_prefix=f"s3://{BUCKET}/settings",
        region_name=REGION,
        **(waiting if wait else {}),  # type: ignore[arg-type]
    )
    return operator.execute(context())


def memory_of_records(batch_id: str) -> float:
    """Write the records with the sensor. Return by how many MB the peak memory exceeds the memory before."""
    from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
    from airflow_provider_omics_cache.sensors.run_batch import BatchCompletionSensor

    OmicsCacheHook(region_name=REGION).get_batch(batch_id=batch_id)
    sensor = BatchCompletionSensor(
        task_id="wait",
        batch_id=batch_id,
        region_name=REGION,
        runs_s3_uri=f"s3://{BUCKET}/{_RECORDS}",
        include_outputs=True,
    )
    before = memory_now()
    forget_peak_memory()
    sensor.poke(context())
    return peak_memory() - before
