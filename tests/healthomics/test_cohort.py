from __future__ import annotations

import io
import json
import tracemalloc
from collections import Counter
from typing import IO, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_omics_cache.exceptions import OmicsParameterError
from airflow_provider_omics_cache.healthomics.cohort import MAX_FAILURES, Cohort, CohortResult
from airflow_provider_omics_cache.healthomics.completion import NOT_SUBMITTED
from airflow_provider_omics_cache.healthomics.next_steps import Decision, NextStep, Retries
from airflow_provider_omics_cache.xcoms import CohortFailure, CohortRecord, CohortRound, CohortSummary, EarlierRun

RETRIES = Retries(submissions=frozenset({"ThrottlingException"}), runs=frozenset({"SERVICE_ERROR"}))
UNKNOWN_TEXT = "the sample has no record"


def record(name: str, status: str = "COMPLETED", reason: str | None = None, **members: Any) -> dict[str, Any]:
    has_run = status != NOT_SUBMITTED
    return {
        "run_setting_id": name,
        "run_id": f"9{name[1:]}" if has_run else None,
        "run_uuid": f"uuid-{name}" if has_run else None,
        "status": status,
        "failure_reason": reason,
        "status_message": f"message of {reason}" if reason else None,
        "creation_time": "2026-11-22T04:00:00+00:00" if has_run else None,
        "start_time": "2026-11-22T04:00:05+00:00" if has_run else None,
        "stop_time": "2026-11-22T04:01:00+00:00" if has_run else None,
        "run_output_uri": f"s3://lab/runs/9{name[1:]}" if has_run else None,
        "output_source": "derived" if has_run else None,
        **members,
    }


def lines(*records: dict[str, Any]) -> IO[bytes]:
    return io.BytesIO(b"".join(json.dumps(one).encode() + b"\n" for one in records))


def cohort_of(names: list[str], *rounds: list[dict[str, Any]]) -> Cohort:
    cohort = Cohort(names)
    for number, records in enumerate(rounds, 1):
        cohort.add_round(f"batch-{number}", [one["run_setting_id"] for one in records], lines(*records))
    return cohort


def result_of(cohort: Cohort) -> tuple[list[CohortRecord], CohortResult]:
    result = CohortResult(cohort.batch_ids)
    return list(result.count(cohort.records())), result


def test_one_record_per_sample_with_its_history() -> None:
    cohort = Cohort(["S1", "S2", "S3", "S4"])
    first = [record("S3", NOT_SUBMITTED, "ThrottlingException"), record("S1"), record("S2", "FAILED", "SERVICE_ERROR")]
    cohort.add_round("11", ["S1", "S2", "S3", "S4"], lines(*first))
    later = {"creation_time": "2026-11-22T05:00:00Z", "start_time": None, "stop_time": "2026-11-22T05:00:10.5Z"}
    second = [record("S2", run_id="77", **later), record("S3", "FAILED", "RUN_TASK_FAILED", **later)]
    cohort.add_round("12", ["S2", "S3"], lines(*second), cache_hits={"S2": 2, "S3": 0})
    records, result = result_of(cohort)
    assert [(one["run_setting_id"], one["status"], one["round"], one["batch_id"]) for one in records] == [
        ("S1", "COMPLETED", 1, "11"),
        ("S2", "COMPLETED", 2, "12"),
        ("S3", "FAILED", 2, "12"),
        ("S4", "UNKNOWN", 1, "11"),
    ]
    assert records[1] == {**second[0], "round": 2, "batch_id": "12", "cache_hits": 2, "history": records[1]["history"]}
    earlier = {**first[2], "round": 1, "batch_id": "11", "cache_hits": None}
    del earlier["run_setting_id"], earlier["output_source"]
    assert records[1]["history"] == [earlier]
    assert records[0]["history"] == records[3]["history"] == []
    assert [one["status"] for one in records[2]["history"]] == [NOT_SUBMITTED]
    for one in records:
        assert one.keys() == CohortRecord.__annotations__.keys()
        assert all(run.keys() == EarlierRun.__annotations__.keys() for run in one["history"])
    summary = result.summary()
    assert summary == {
        "total": 4,
        "completed": 2,
        "statuses": {"COMPLETED": 2, "FAILED": 1, "UNKNOWN": 1},
        "failures": [
            {
                "reason": "RUN_TASK_FAILED",
                "message": "message of RUN_TASK_FAILED",
                "remedy": "read the log of the task that failed",
                "count": 1,
                "run_setting_ids": ["S3"],
            },
            {"reason": "UNKNOWN", "message": None, "remedy": None, "count": 1, "run_setting_ids": ["S4"]},
        ],
        "rounds": [
            {
                "round": 1,
                "batch_id": "11",
                "samples": 4,
                "statuses": {"COMPLETED": 1, "FAILED": 1, NOT_SUBMITTED: 1, "UNKNOWN": 1},
                "seconds": 60.0,
                "cache_hits": None,
            },
            {
                "round": 2,
                "batch_id": "12",
                "samples": 2,
                "statuses": {"COMPLETED": 1, "FAILED": 1},
                "seconds": 10.5,
                "cache_hits": 2,
            },
        ],
        "seconds": 3610.5,
        "cache_hits": 2,
    }
    assert summary.keys() == CohortSummary.__annotations__.keys()
    assert summary["rounds"][0].keys() == CohortRound.__annotations__.keys()
    assert summary["failures"][0].keys() == CohortFailure.__annotations__.keys()


@pytest.mark.parametrize(
    ("max_failed", "is_enough"),
    [(1, False), ("1", False), ("39%", False), (2, True), ("40%", True), ("100%", True)],
)
def test_the_verdict(max_failed: int | str, is_enough: bool) -> None:
    failed = [record("S1", NOT_SUBMITTED, "ThrottlingException"), record("S2", "FAILED", "SERVICE_ERROR")]
    _, result = result_of(cohort_of(["S1", "S2", "S3", "S4", "S5"], [*failed, *map(record, ("S3", "S4", "S5"))]))
    complaint = result.complaint(max_failed)
    if is_enough:
        assert complaint is None
    else:
        assert complaint == (
            f"2 of 5 samples did not complete; max_failed is {max_failed}: not submitted, ThrottlingException: "
            "message of ThrottlingException (S1); SERVICE_ERROR: message of SERVICE_ERROR (S2)"
        )


def test_a_limit_that_is_not_one_is_refused() -> None:
    with pytest.raises(OmicsParameterError, match=r"max_failed must be an integer.*; got .120%"):
        CohortResult([]).complaint("120%")


def test_many_messages_are_counted_by_reason() -> None:
    names = [f"S{number}" for number in range(50)]
    records = [record(name, "FAILED", "RUN_TASK_FAILED", status_message=f"task of {name}") for name in names]
    failures = result_of(cohort_of(names, records))[1].summary()["failures"]
    assert len(failures) == MAX_FAILURES + 1
    assert (failures[-1]["reason"], failures[-1]["message"], failures[-1]["count"]) == ("RUN_TASK_FAILED", None, 30)
    assert sum(failure["count"] for failure in failures) == 50


def test_without_a_batch_nothing_is_known() -> None:
    cohort = cohort_of(["S1"])
    records, result = result_of(cohort)
    assert records[0]["status"] == "UNKNOWN"
    assert list(cohort.decisions(RETRIES)) == [("S1", Decision(NextStep.UNKNOWN, UNKNOWN_TEXT))]
    assert result.summary()["seconds"] is None
    assert result.summary()["rounds"] == []


def test_a_completed_run_stands_for_its_sample_even_if_a_later_run_failed() -> None:
    blank = b"\n  \n"
    cohort = Cohort(["S1", "S2"])
    cohort.add_round("1", ["S1", "S2"], io.BytesIO(blank + lines(record("S2"), record("S1")).read() + blank))
    cohort.add_round("2", ["S1"], lines(record("S1", "FAILED", "SERVICE_ERROR")))
    cohort.add_round("3", ["S1"], lines(record("S1", "RUNNING")))
    sample, _ = cohort.records()
    assert (sample["status"], sample["round"]) == ("COMPLETED", 1)
    assert [(run["round"], run["status"]) for run in sample["history"]] == [(2, "FAILED"), (3, "RUNNING")]
    assert dict(cohort.decisions(RETRIES)) == dict.fromkeys(["S1", "S2"], Decision(NextStep.COMPLETED, None))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"\n{broken\n", "runs of batch 1, line 2 must be valid JSON"),
        (b"\xff\n", "runs of batch 1, line 1 must be valid JSON"),
        (b"[]\n", "runs of batch 1, line 1 must be an object; got 'list'"),
        (lines(record("S1"), record("S1")).read(), "runs of batch 1, line 2, run_setting_id must be unique; got 'S1'"),
        (lines(record("S1"), record("S2")).read(), "line 2, run_setting_id must be of the batch; got 'S2'"),
        (lines(record("S1"), record("S3")).read(), "line 2, run_setting_id must be of the cohort; got 'S3'"),
        (lines({"status": "FAILED"}).read(), "line 1, run_setting_id must be of the cohort; got None"),
        (lines(record("S1", run_setting_id=["S1"])).read(), "line 1, run_setting_id must be of the cohort"),
        (lines(record("S1", "")).read(), "line 1, status must be a non-empty string; got 'str'"),
        (lines(record("S1", status=["FAILED"])).read(), "line 1, status must be a non-empty string; got 'list'"),
        (lines(record("S1", failure_reason={})).read(), "line 1, failure_reason must be a string or null; got 'dict'"),
    ],
)
def test_a_record_that_is_not_valid_is_named(content: bytes, text: str) -> None:
    with pytest.raises(OmicsParameterError) as caught:
        Cohort(["S1", "S2"]).add_round("1", ["S1"], io.BytesIO(content))
    assert text in str(caught.value)


def test_ids_and_batches_are_unique() -> None:
    with pytest.raises(OmicsParameterError, match="runSettingId must be unique"):
        Cohort(["S1", "S2", "S1"])
    with pytest.raises(OmicsParameterError, match="runSettingId must be a non-empty string"):
        Cohort(["S1", ""])
    cohort = cohort_of(["S1"], [record("S1")])
    with pytest.raises(OmicsParameterError, match="batch_id must be unique: the batch was added before; got 'batch-1'"):
        cohort.add_round("batch-1", ["S1"], lines())
    with pytest.raises(OmicsParameterError, match=r"run_setting_ids of batch 2\[1\] must be of the cohort; got 'S2'"):
        cohort.add_round("2", ["S1", "S2"], lines())


OUTCOME = st.sampled_from(
    [
        ("COMPLETED", None),
        ("FAILED", "SERVICE_ERROR"),
        ("FAILED", "RUN_TASK_FAILED"),
        ("CANCELLED", None),
        ("DELETED", None),
        ("RUNNING", None),
        (NOT_SUBMITTED, "ThrottlingException"),
        (NOT_SUBMITTED, "ValidationException"),
        (NOT_SUBMITTED, None),
        None,
    ]
)


@given(outcomes=st.lists(st.lists(OUTCOME, min_size=4, max_size=4), min_size=1, max_size=8), data=st.data())
def test_rounds_of_what_is_left(outcomes: list[list[tuple[str, str | None] | None]], data: st.DataObject) -> None:
    """Start rounds as a cohort does: each batch has the samples that the rounds before it have left."""
    names = [f"S{number}" for number in range(len(outcomes))]
    cohort = Cohort(names)
    submitted: dict[str, list[tuple[str, str | None] | None]] = {name: [] for name in names}
    wanted = names
    for number in range(4):
        happened = {name: outcomes[names.index(name)][number] for name in wanted}
        for name, outcome in happened.items():
            submitted[name].append(outcome)
        records = [record(name, *outcome) for name, outcome in happened.items() if outcome]
        cohort.add_round(f"batch-{number}", wanted, lines(*data.draw(st.permutations(records))))
        decisions = dict(cohort.decisions(RETRIES))
        assert list(decisions) == names
        wanted = [name for name, one in decisions.items() if one.step in {NextStep.SUBMIT_AGAIN, NextStep.RESUME}]
    merged, result = result_of(cohort)
    assert [one["run_setting_id"] for one in merged] == names
    for one, outcomes_of_sample in zip(merged, submitted.values(), strict=True):
        known = [outcome or ("UNKNOWN", None) for outcome in outcomes_of_sample]
        final = {"COMPLETED", "RUNNING", "CANCELLED", "DELETED", "UNKNOWN"}
        assert not final & {status for status, _ in known[:-1]}, "submitted again, although a run must not be repeated"
        runs = [*one["history"], one]
        assert [(run["status"], run["failure_reason"]) for run in runs] == known
        assert [run["round"] for run in runs] == list(range(1, len(known) + 1))
    summary = result.summary()
    assert summary["total"] == len(names) == sum(summary["statuses"].values())
    assert summary["completed"] == sum(one["status"] == "COMPLETED" for one in merged)
    assert summary["completed"] + sum(failure["count"] for failure in summary["failures"]) == len(names)
    started = Counter((outcome or ("UNKNOWN",))[0] for known in submitted.values() for outcome in known)
    assert sum((Counter(one["statuses"]) for one in summary["rounds"]), Counter()) == started


def test_records_stay_in_their_files() -> None:
    number = 1_000
    names = [f"sample-{index:06d}" for index in range(number)]
    message = "x" * 1_000
    rounds = [
        lines(*(record(name, status, "RUN_TASK_FAILED", status_message=message) for name in names))
        for status in ("FAILED", "FAILED", "COMPLETED")
    ]
    tracemalloc.start()
    try:
        cohort = Cohort(iter(names))
        for index, file in enumerate(rounds):
            cohort.add_round(str(index), iter(names), file)
        result = CohortResult(cohort.batch_ids)
        assert sum(1 for _ in result.count(cohort.records())) == number
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < number * 1_500, "150 MB for 100,000 samples"
