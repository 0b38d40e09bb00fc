from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_omics_cache.local import LocalHealthOmics, mock_healthomics
from tests.conftest import needs_batches
from tests.local.conftest import DEFAULT_RUN_SETTING, new_client, run_settings

SECONDS_BEFORE_SUBMITTING = 3


def start(omics: Any, number: int, **default: str) -> str:
    answer = omics.start_run_batch(
        defaultRunSetting={**DEFAULT_RUN_SETTING, **default}, batchRunSettings={"inlineSettings": run_settings(number)}
    )
    batch_id: str = answer["id"]
    return batch_id


def submitted(omics: Any, batch_id: str) -> int:
    summary = omics.get_batch(batchId=batch_id)["submissionSummary"]
    count: int = summary["successfulStartSubmissionCount"]
    return count


@needs_batches
def test_batches_share_the_rate_of_start_run(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.settings.rate_limits = {"StartRun": 2}
    first, second = start(omics, 10), start(omics, 20)
    local_healthomics.clock.advance(SECONDS_BEFORE_SUBMITTING)
    seen = []
    for seconds in (5, 5, 5):
        local_healthomics.clock.advance(seconds)
        seen.append((submitted(omics, first), submitted(omics, second)))

    assert seen == [(5, 5), (10, 10), (10, 20)]
    times = [omics.get_batch(batchId=batch_id) for batch_id in (first, second)]
    assert [(batch["submittedTime"] - batch["creationTime"]).total_seconds() for batch in times] == [13, 18]


@needs_batches
def test_no_batch_submits_faster_than_it_may_alone(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.settings.rate_limits = {"StartRun": 100}
    local_healthomics.settings.submission_rate = 2
    batch_id = start(omics, 10)
    local_healthomics.clock.advance(SECONDS_BEFORE_SUBMITTING + 2)

    assert submitted(omics, batch_id) == 4


@needs_batches
def test_a_cancelled_batch_leaves_the_rate_to_the_others(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.settings.rate_limits = {"StartRun": 2}
    first, second = start(omics, 50), start(omics, 50)
    local_healthomics.clock.advance(SECONDS_BEFORE_SUBMITTING + 5)
    omics.cancel_run_batch(batchId=first)

    local_healthomics.clock.advance(5)

    assert (submitted(omics, first), submitted(omics, second)) == (5, 15)


@needs_batches
def test_regions_have_a_rate_each(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.settings.rate_limits = {"StartRun": 2}
    other = new_client("omics", "eu-west-1")
    batches = [(client, start(client, 20)) for client in (omics, other)]
    local_healthomics.clock.advance(SECONDS_BEFORE_SUBMITTING + 5)

    assert [submitted(*batch) for batch in batches] == [10, 10]


@needs_batches
def test_without_the_limit_batches_do_not_slow_each_other_down(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    batch_ids = [start(omics, 20) for _ in range(50)]
    local_healthomics.clock.advance(SECONDS_BEFORE_SUBMITTING + 1)

    assert {submitted(omics, batch_id) for batch_id in batch_ids} == {20}


@needs_batches
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rate=st.sampled_from([0.3, 1.0, 5.0, 7.7]),
    plan=st.lists(st.tuples(st.integers(1, 30), st.floats(0, 20), st.floats(0, 3)), min_size=1, max_size=8),
    later=st.floats(0, 60),
    steps=st.lists(st.tuples(st.floats(0.01, 5), st.integers(0, 7)), max_size=10),
)
def test_the_rate_is_kept_whoever_looks(
    rate: float,
    plan: list[tuple[int, float, float]],
    later: float,
    steps: list[tuple[float, int]],
) -> None:
    outcomes = []
    for watched in (False, True):
        with mock_healthomics() as local:
            omics = new_client("omics")
            local.settings.rate_limits = {"StartRun": rate}
            local.settings.submission_rate = float("inf")
            began_at = local.clock.elapsed()
            batch_ids: list[str] = []
            for number, pause, pending_seconds in plan:
                local.settings.pending_seconds = pending_seconds
                batch_ids.append(start(omics, number))
                local.clock.advance(pause)
                if watched:
                    omics.get_batch(batchId=batch_ids[0])
            for seconds, which in steps:
                local.clock.advance(seconds)
                if watched:
                    omics.get_batch(batchId=batch_ids[which % len(batch_ids)])
            local.clock.advance(later)
            counts = [submitted(omics, batch_id) for batch_id in reversed(batch_ids)]
            assert sum(counts) <= rate * (local.clock.elapsed() - began_at) + 1e-3
            local.clock.advance(sum(number for number, _, _ in plan) / rate + 4)
            assert sum(submitted(omics, batch_id) for batch_id in batch_ids) == sum(number for number, _, _ in plan)
            batches = [omics.get_batch(batchId=batch_id) for batch_id in batch_ids]
            outcomes.append(
                (counts, [(batch["submittedTime"] - batches[0]["creationTime"]).total_seconds() for batch in batches])
            )

    assert outcomes[0][0] == outcomes[1][0]
    assert outcomes[0][1] == pytest.approx(outcomes[1][1], abs=0.002)


@needs_batches
def test_a_region_keeps_only_so_many_runs(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.settings.max_runs_kept = 5
    full = start(omics, 7)
    local_healthomics.clock.advance(100)
    removing = start(omics, 1, retentionMode="REMOVE")
    local_healthomics.clock.advance(100)

    failed = omics.list_runs_in_batch(batchId=full, submissionStatus="FAILED")["runs"]

    assert {run["runSettingId"] for run in failed} == {"sample-5", "sample-6"}
    assert {run["submissionFailureReason"] for run in failed} == {"ServiceQuotaExceededException"}
    assert submitted(omics, removing) == 1
    omics.delete_run(id=omics.list_runs(batchId=removing)["items"][0]["id"])
    omics.delete_run_batch(batchId=full)
    again = start(omics, 6)
    local_healthomics.clock.advance(100)
    assert submitted(omics, again) == 5


def test_calls_above_a_rate_limit_are_throttled(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.settings.rate_limits = {"ListRunCaches": 2}

    def served() -> int:
        number = 0
        for _ in range(5):
            try:
                omics.list_run_caches()
                number += 1
            except omics.exceptions.ThrottlingException:
                continue
        return number

    assert served() == 2
    local_healthomics.clock.advance(0.5)
    assert served() == 1
    local_healthomics.clock.advance(60)
    assert served() == 2
