"""One record for each sample of a cohort: memory and time of the tasks after a batch has ended."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tests.benchmarks import child
from tests.benchmarks.measure import Result, forget_peak_memory, memory_now, peak_memory
from tests.benchmarks.service import BUCKET, DEFAULT_RUN_SETTING, REGION, client, service
from tests.benchmarks.staging import run_settings
from tests.benchmarks.task import context

_FOLDER = f"s3://{BUCKET}/cohort"
#: One run of so many fails for a reason that can pass. It completes in the second round.
_FAILED = 10
#: Most runs in a page of ListRunsInBatch and ListRuns, and calls of each that AWS allows in a second.
_PAGE, _CALLS_PER_SECOND = 100, 10


def results(*, samples: int) -> Iterator[Result]:
    """Measure.

    :param samples: samples of the cohort.
    """
    with service() as local:
        _write_records(local.url, samples)
        chosen = child.run("cohort_results:choose", local.environment)
        as_csv = child.run("cohort_results:write", local.environment, results_format="csv")
        written = child.run("cohort_results:write", local.environment, results_format="jsonl")
        body = client("s3", local.url).get_object(Bucket=BUCKET, Key="cohort/results.jsonl")["Body"]
        counts = Counter((record["status"], record["round"]) for record in map(json.loads, body.iter_lines()))
    failed = samples // _FAILED
    is_right = counts == {("COMPLETED", 1): samples - failed, ("COMPLETED", 2): failed} and chosen["count"] == failed
    yield Result(
        name=f"Results of {samples:,} samples in two rounds: peak memory above the start of the task",
        measured=max(written["memory"], as_csv["memory"]),
        unit="MB",
        bar=150,
        has_happened=is_right,
        note=(
            f"JSON Lines {written['memory']:,.0f} MB, CSV {as_csv['memory']:,.0f} MB. "
            f"The task that chooses the samples of the second round: {chosen['memory']:,.0f} MB."
        ),
    )
    listing = samples / _PAGE / _CALLS_PER_SECOND
    yield Result(
        name=f"Results of {samples:,} samples in two rounds: time of the two tasks",
        measured=chosen["seconds"] + written["seconds"],
        unit="s",
        bar=max(listing, 1.0) / 2,
        beside=listing,
        peer=f"AWS's limits alone: {listing:,.0f} s to list the runs of the first batch",
        has_happened=is_right,
        note=f"Choosing the second round: {chosen['seconds']:.1f} s. Results: {written['seconds']:.1f} s.",
    )


def _write_records(url: str, samples: int) -> None:
    """Write what the tasks before leave in S3: run settings, and the records of two batches."""
    settings = run_settings(samples)
    for number, of_round in ((1, settings), (2, settings[::_FAILED])):
        records = (json.dumps(_record(number, index, each)) for index, each in enumerate(of_round))
        for name, text in (("settings.json", json.dumps(of_round)), ("runs.jsonl", "\n".join(records) + "\n")):
            client("s3", url).put_object(Bucket=BUCKET, Key=f"cohort/round_{number}_{name}", Body=text.encode())


def _record(number: int, index: int, setting: dict[str, Any]) -> dict[str, Any]:
    run_id, run_uuid = f"{number}{index:06}", f"{number:08}-0000-4000-8000-{index:012}"
    has_failed = number == 1 and index % _FAILED == 0
    return {
        "run_setting_id": setting["runSettingId"],
        "run_id": run_id,
        "run_uuid": run_uuid,
        "status": "FAILED" if has_failed else "COMPLETED",
        "failure_reason": "SERVICE_ERROR" if has_failed else None,
        "status_message": "An internal error occurred. Start the run again." if has_failed else None,
        "submission_status": "SUCCESS",
        "creation_time": f"2026-11-20T0{number}:00:00+00:00",
        "start_time": f"2026-11-20T0{number}:10:00+00:00",
        "stop_time": f"2026-11-20T0{number}:40:00+00:00",
        "run_output_uri": f"{setting['outputUri']}/{run_id}/{run_uuid}",
        "output_source": "derived",
    }


# In a process of its own


def choose() -> dict[str, float]:
    """Choose the samples of the second round, as if its settings were not there yet."""
    from airflow_provider_omics_cache.task_groups.cohort_tasks import ChooseNextRoundOperator

    operator = ChooseNextRoundOperator(
        task_id="choose",
        batch_id=_batch(),
        settings_s3_uri=f"{_FOLDER}/round_1_settings.json",
        runs_s3_uri=f"{_FOLDER}/round_1_runs.jsonl",
        next_settings_s3_uri=f"{_FOLDER}/chosen.json",
        settings_task_id="freeze",
        settings_result=None,
        runs_task_id="wait_1",
        runs_result=None,
        resume_reasons=["SERVICE_ERROR"],
        resubmit_reasons=[],
        region_name=REGION,
    )
    measured = _measure(operator)
    chosen = json.loads(operator._s3.get_object(Bucket=BUCKET, Key="cohort/chosen.json")["Body"].read())
    return {**measured, "count": len(chosen)}


def write(results_format: str) -> dict[str, float]:
    """Write one record for each sample."""
    from airflow_provider_omics_cache.task_groups.cohort_tasks import CohortResultsOperator

    operator = CohortResultsOperator(
        task_id="results",
        settings_s3_uris=[f"{_FOLDER}/round_{number}_settings.json" for number in (1, 2)],
        runs_s3_uris=[f"{_FOLDER}/round_{number}_runs.jsonl" for number in (1, 2)],
        batch_ids=["1", "2"],
        settings_task_ids=["freeze", "choose"],
        settings_results=[None, None],
        start_task_ids=["start_1", "start_2"],
        runs_task_ids=["wait_1", "wait_2"],
        runs_results=[None, None],
        results_s3_uri=f"{_FOLDER}/results.{results_format}",
        staging_s3_prefix=_FOLDER,
        results_format=results_format,
        max_failed=0,
        rerun_key="",
        region_name=REGION,
    )
    return _measure(operator)


def _batch() -> str:
    """Start a batch that GetBatch finds."""
    from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook

    omics = OmicsCacheHook(region_name=REGION).conn
    given = {"inlineSettings": [{"runSettingId": "sample-000000"}]}
    return str(omics.start_run_batch(defaultRunSetting=DEFAULT_RUN_SETTING, batchRunSettings=given)["id"])


def _measure(operator: Any) -> dict[str, float]:
    """Run a task after its first calls. Return its seconds, and by how many MB the peak exceeds the memory before."""
    next(iter(operator.hook.list_batch()), None)
    operator._s3.list_buckets()
    before = memory_now()
    forget_peak_memory()
    began = time.perf_counter()
    operator.execute(context())
    return {"seconds": time.perf_counter() - began, "memory": peak_memory() - before}
