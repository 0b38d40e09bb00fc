"""The record of each run of a batch, with the location of its outputs: GetRun calls and memory."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tests.benchmarks import child
from tests.benchmarks.measure import Result, forget_peak_memory, memory_now, peak_memory
from tests.benchmarks.service import BUCKET, DEFAULT_RUN_SETTING, REGION, client, sample_ids, service
from tests.benchmarks.task import context

#: Nothing limits the rate of GetRun calls, because the benchmark counts the calls and does not measure their time.
_WITHOUT_PACE = {"AIRFLOW__OMICS_CACHE__MAX_GET_RUN_PER_SECOND": "1000000"}
_RECORDS = "runs.jsonl"


def results(*, runs: int, runs_with_own: int) -> Iterator[Result]:
    """Measure.

    :param runs: runs of the batch whose settings share one ``outputUri``.
    :param runs_with_own: runs of the batch in which each setting has its own ``outputUri``.
    """
    derived = _write(sample_ids(runs))
    yield Result(
        name=f"GetRun calls for the outputs of {runs:,} completed runs",
        measured=derived["calls"],
        unit="calls",
        bar=25,
        peer=f"GetRun for each run: {runs:,} calls, {runs / 5 / 3600:,.1f} hours at 5 a second",
        has_happened=derived["right"] == runs,
        note=f"A record of each run with include_outputs=True; {derived['derived']:,} locations were derived. "
        f"{derived['right']:,} locations are equal to the service's.",
    )
    yield Result(
        name=f"Records of {runs:,} runs with their outputs: peak memory above the start of the task",
        measured=derived["memory"],
        unit="MB",
        bar=150,
        has_happened=derived["right"] == runs,
        note="The memory of the whole process. It has made its first call to AWS before the measurement.",
    )
    own = _write([{**setting, "outputUri": _own(setting["runSettingId"])} for setting in sample_ids(runs_with_own)])
    yield Result(
        name=f"GetRun calls for the outputs of {runs_with_own:,} runs that do not share an outputUri",
        measured=own["calls"],
        unit="calls",
        bar=runs_with_own,
        rule="exactly",
        has_happened=own["right"] == runs_with_own,
        note="The sensor does not have the settings, so it cannot derive locations.",
    )


def _own(run_setting_id: str) -> str:
    return f"s3://{BUCKET}/{run_setting_id}"


def _write(run_settings: list[dict[str, Any]]) -> dict[str, Any]:
    """Write the records of a batch; count the calls and the locations that are right."""
    with service() as local:
        local.control.settings.submission_rate = float("inf")
        batch_id = local.start_batch(run_settings)
        local.control.clock.advance(3_600)
        local.omics.get_batch(batchId=batch_id)
        before = local.control.calls
        environment = {**local.environment, **_WITHOUT_PACE}
        memory = child.run("outputs:memory_of_records", environment, url=local.url, batch_id=batch_id)
        calls = (local.control.calls - before)["GetRun"]
        body = client("s3", local.url).get_object(Bucket=BUCKET, Key=_RECORDS)["Body"]
        uris = {
            setting["runSettingId"]: setting.get("outputUri", DEFAULT_RUN_SETTING["outputUri"])
            for setting in run_settings
        }
        found: Counter[str] = Counter()
        for line in body.iter_lines():
            record = json.loads(line)
            uri = uris.pop(record["run_setting_id"])
            found[record["output_source"]] += 1
            found["right"] += record["run_output_uri"] == f"{uri}/{record['run_id']}/{record['run_uuid']}"
    return {"calls": calls, "memory": memory, **found}


# In a process of its own


def memory_of_records(url: str, batch_id: str) -> float:
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
