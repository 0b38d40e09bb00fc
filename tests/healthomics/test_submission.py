from __future__ import annotations

import tracemalloc
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_omics_cache.healthomics import completion, submission
from airflow_provider_omics_cache.healthomics.rounds import Batch
from airflow_provider_omics_cache.healthomics.states import BatchStatus, SubmissionStatus, Verdict
from airflow_provider_omics_cache.healthomics.submission import Submissions

OVER = {
    BatchStatus.FAILED,
    BatchStatus.CANCELLED,
    BatchStatus.RUNS_DELETING,
    BatchStatus.RUNS_DELETE_FAILED,
    BatchStatus.RUNS_DELETED,
}
counts = st.none() | st.integers(0, 100_000)
batches = st.builds(
    Batch,
    id=st.just("1"),
    status=st.sampled_from([*BatchStatus, "REHYDRATING", None]),
    total_runs=counts,
    submitted=counts,
    failed=counts,
    pending=counts,
)


@pytest.mark.parametrize(
    ("status", "pending", "verdict"),
    [
        ("CREATING", None, Verdict.WAIT),
        ("PENDING", None, Verdict.WAIT),
        ("PENDING", 0, Verdict.WAIT),
        ("STOPPING", 0, Verdict.WAIT),
        ("SUBMITTING", 5, Verdict.WAIT),
        ("SUBMITTING", 0, Verdict.WAIT),
        ("INPROGRESS", 5, Verdict.WAIT),
        ("INPROGRESS", None, Verdict.WAIT),
        ("INPROGRESS", 0, Verdict.DONE),
        ("REHYDRATING", 5, Verdict.WAIT),
        ("REHYDRATING", None, Verdict.WAIT),
        ("REHYDRATING", 0, Verdict.DONE),
        (None, 0, Verdict.DONE),
        ("PROCESSED", 5, Verdict.DONE),
        ("PROCESSED", None, Verdict.DONE),
        ("CANCELLED", 5, Verdict.FAILED),
        ("FAILED", None, Verdict.FAILED),
        ("RUNS_DELETING", 0, Verdict.FAILED),
        ("RUNS_DELETE_FAILED", 0, Verdict.FAILED),
        ("RUNS_DELETED", 0, Verdict.FAILED),
    ],
)
def test_decide(status: str | None, pending: int | None, verdict: Verdict) -> None:
    assert submission.decide(Batch(id="1", status=status, pending=pending)) == verdict


@pytest.mark.parametrize(
    ("status", "failed", "total_runs", "max_failed", "verdict"),
    [
        ("SUBMITTING", 5, 100, Fraction("0.05"), Verdict.WAIT),
        ("SUBMITTING", 6, 100, Fraction("0.05"), Verdict.FAILED),
        ("SUBMITTING", 1, 100, 0, Verdict.FAILED),
        ("SUBMITTING", 1, None, 0, Verdict.FAILED),
        ("SUBMITTING", 6, None, Fraction("0.05"), Verdict.WAIT),
        ("SUBMITTING", None, 100, 0, Verdict.WAIT),
        ("SUBMITTING", 6, 100, None, Verdict.WAIT),
        ("INPROGRESS", 6, 100, 5, Verdict.FAILED),
        ("REHYDRATING", 6, 100, 5, Verdict.FAILED),
        ("STOPPING", 6, 100, 5, Verdict.WAIT),
        ("PROCESSED", 6, 100, 5, Verdict.DONE),
    ],
)
def test_too_many_failures_of_an_active_batch(
    status: str, failed: int | None, total_runs: int | None, max_failed: Any, verdict: Verdict
) -> None:
    batch = Batch(id="1", status=status, failed=failed, total_runs=total_runs)
    assert submission.decide(batch, max_failed=max_failed) == verdict
    assert completion.decide(batch, max_failed=max_failed) == verdict


@given(batches)
def test_no_batch_that_has_ended_is_waited_for(batch: Batch) -> None:
    verdict = submission.decide(batch)
    assert (verdict == Verdict.FAILED) == (batch.status in OVER)
    if batch.status == BatchStatus.PROCESSED:
        assert verdict == Verdict.DONE


@given(batches)
def test_no_batch_with_runs_left_to_submit_is_taken_for_done(batch: Batch) -> None:
    if batch.status != BatchStatus.PROCESSED and batch.pending != 0:
        assert submission.decide(batch) != Verdict.DONE


def test_progress_says_only_what_is_known() -> None:
    assert submission.progress(Batch(id="7")).text == "Batch 7 is without a status"
    assert submission.progress(Batch(id="7", status="CREATING")).text == "Batch 7 is CREATING"
    known = Batch(id="7", status="SUBMITTING", total_runs=10_000, submitted=4_200, failed=12)
    assert submission.progress(known) == (
        "Batch 7 is SUBMITTING: submitted 4,200 of 10,000, 12 failed",
        "submitted",
        4_212,
        10_000,
    )
    assert submission.progress(Batch(id="7", status="SUBMITTING", submitted=3)).text.endswith("submitted 3, 0 failed")


def row(n: int, status: str | None = "SUCCESS", run_id: str | None = "", **members: Any) -> dict[str, Any]:
    entry: dict[str, Any] = {"runSettingId": f"sample-{n}", **members}
    if status:
        entry["submissionStatus"] = status
    run_id = str(1000 + n) if run_id == "" and status != "FAILED" else run_id
    if run_id:
        entry["runId"] = run_id
    return entry


def listed(*rows: dict[str, Any], batch_is_over: bool = False) -> Submissions:
    submissions = Submissions(batch_is_over=batch_is_over)
    for entry in rows:
        submissions.add(entry)
    return submissions


def test_a_complete_listing() -> None:
    submissions = listed(row(1), row(2), row(3, "FAILED", submissionFailureReason="ValidationException"))
    assert submissions.missing(3) is None
    assert submissions.run_ids == {"sample-1": "1001", "sample-2": "1002"}
    assert (submissions.rows, submissions.submitted_count, submissions.failed_count) == (3, 2, 1)
    assert submissions.failed[0] == {
        "run_setting_id": "sample-3",
        "run_id": None,
        "run_uuid": None,
        "status": "FAILED",
        "reason": "ValidationException",
        "message": None,
    }


@pytest.mark.parametrize(
    ("rows", "expected", "says"),
    [
        ([], 0, "no run is listed"),
        ([row(1)], 2, "1 runs are listed, but 2 are expected"),
        ([row(1), row(2)], 1, "2 runs are listed, but 1 are expected"),
        ([row(1), row(2)], None, "2 runs are listed, but the number of runs of the batch is not known"),
        ([row(1), row(2, None, None)], 2, "1 of 2 listed runs have no submission outcome"),
        ([row(1), row(2, None)], 2, "1 of 2 listed runs have no submission outcome"),
        ([row(1), row(2, "SUCCESS", None)], 2, "1 of 2 listed runs have the status SUCCESS but no runId"),
        ([row(1), row(2, "REJECTED", None)], 2, "no submission outcome"),
        ([row(1), {"runId": "9", "submissionStatus": "SUCCESS"}], 2, "1 of 2 listed runs have no runSettingId"),
        ([row(1), row(2, run_id="1001")], 2, "1 of 2 listed runs have the runId of another run"),
        ([row(1), row(1)], 2, "repeat a runSettingId"),
        ([row(1, "FAILED"), row(1)], 2, "repeat a runSettingId"),
    ],
)
def test_an_incomplete_listing_says_what_it_lacks(rows: list[dict[str, Any]], expected: int | None, says: str) -> None:
    assert says in str(listed(*rows).missing(expected))


def test_a_repeated_run_is_counted_once() -> None:
    submissions = listed(row(1), row(2), row(1), row(3, "FAILED"), row(3, "FAILED"))
    assert submissions.submitted_count == 2
    assert (submissions.failed_count, len(submissions.failed)) == (1, 1)
    assert submissions.missing(5) == "2 of 5 listed runs repeat a runSettingId"
    assert all(map(submissions.has, (row(1), row(3, "FAILED"))))
    assert not any(map(submissions.has, (row(4), row(1, run_id="999"), {"submissionStatus": "FAILED"})))


@pytest.mark.parametrize("first", [row(3, None, None), row(3, "SUCCESS", None), row(3, "REJECTED", None)])
def test_a_failure_counts_whatever_its_run_was_listed_as_before(first: dict[str, Any]) -> None:
    submissions = listed(row(1), first, row(3, "FAILED"), row(3, "FAILED"))
    assert (submissions.failed_count, len(submissions.failed)) == (1, 1)
    assert submissions.failure_summary() == "1 submission failed: FAILED (sample-3)"
    assert submissions.failure_summary(3) == "3 submissions failed: FAILED (sample-3); 2 more without details"
    assert listed(row(1)).failure_summary(3) == "3 submissions failed"


def test_a_listing_takes_at_most_twice_the_memory_of_its_mapping() -> None:
    rows = 50_000
    tracemalloc.start()
    try:
        mapping = {f"sample-{n}": str(1000 + n) for n in range(rows)}
        held = tracemalloc.get_traced_memory()[0]
        assert len(mapping) == rows
        del mapping
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        submissions = Submissions()
        for n in range(rows):
            submissions.add(row(n))
        assert submissions.missing(rows) is None
        submissions.fingerprint()
        assert submissions.count_unlisted(str(1000 + n) for n in range(rows // 2, rows + rows // 2)) == rows // 2
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert peak <= 2 * held


links = st.lists(st.tuples(st.sampled_from(["a", "b", "c", "", None]), st.sampled_from(["1", "2", "3", "", None])))


@given(links, links, st.lists(st.sampled_from(["1", "2", "3", "4"])))
def test_the_fingerprint_and_the_count_agree_with_the_mapping(
    first: list[Any], second: list[Any], run_ids: list[str]
) -> None:
    listings = []
    for entries in (first, second):
        listing = Submissions()
        for run_setting_id, run_id in entries:
            listing.add({"runSettingId": run_setting_id, "runId": run_id, "submissionStatus": "SUCCESS"})
        listings.append(listing)
        assert listing.count_unlisted(iter(run_ids)) == len(set(run_ids) - set(listing.run_ids.values()))
    one, other = listings
    assert (one.fingerprint() == other.fingerprint()) == (one.run_ids == other.run_ids)


def test_a_fingerprint_depends_on_which_setting_has_which_run() -> None:
    """Try often: a sum of Python's hashes of the pairs can stay the same when two ids change places."""

    def fingerprint(*run_ids: str, first: int = 0) -> bytes:
        listing = Submissions()
        for n, run_id in enumerate(run_ids, first):
            listing.add(row(n, run_id=run_id))
        return listing.fingerprint()

    assert fingerprint("1", "2") != fingerprint("1", "2", first=1)
    for n in range(200):
        assert fingerprint(f"{n}1", f"{n}2") != fingerprint(f"{n}2", f"{n}1")


def test_a_run_with_a_run_id_was_submitted_whatever_happened_to_it_later() -> None:
    submissions = listed(
        row(1, "CANCEL_SUCCESS"), row(2, "DELETE_FAILED"), row(3, "FAILED", "1003"), row(4, "REJECTED")
    )
    assert submissions.missing(4) is None
    assert list(submissions.run_ids) == ["sample-1", "sample-2", "sample-3", "sample-4"]
    assert [run["run_setting_id"] for run in submissions.changed] == ["sample-1", "sample-2"]
    assert submissions.failed_count == 0


def test_a_run_cancelled_before_its_submission_is_a_failed_submission() -> None:
    submissions = listed(row(1), row(2, "CANCEL_SUCCESS", None))
    assert submissions.missing(2) is None
    assert submissions.failed_count == 1


def test_in_a_batch_that_is_over_a_run_without_run_id_has_failed() -> None:
    submissions = listed(row(1), row(2, None, None), batch_is_over=True)
    assert submissions.failed_count == 1
    assert submissions.failure_summary() == "1 submission failed: never submitted (sample-2)"


@pytest.mark.parametrize("batch_is_over", [False, True])
def test_a_submitted_run_without_a_run_id_is_neither_submitted_nor_failed(batch_is_over: bool) -> None:
    submissions = listed(row(1), row(2, "SUCCESS", None), batch_is_over=batch_is_over)
    assert submissions.missing(2) == "1 of 2 listed runs have the status SUCCESS but no runId"
    assert (submissions.submitted_count, submissions.claimed_count, submissions.failed_count) == (1, 2, 0)


def test_the_number_of_listed_runs_may_have_a_lower_limit() -> None:
    submissions = listed(row(1), row(2))
    assert submissions.missing(3, at_least=2) is None
    assert submissions.missing(4, at_least=3) == "2 runs are listed, but 4 are expected"
    assert submissions.missing(1, at_least=1) == "2 runs are listed, but 1 are expected"


@pytest.mark.parametrize(
    ("batch", "rows", "doubt"),
    [
        (Batch(id="1"), [], None),
        (Batch(id="1", submitted=2), [row(1), row(2)], None),
        (Batch(id="1", submitted=3), [row(1), row(2)], "2 runs are listed, but 3 were submitted"),
        (Batch(id="1", total_runs=3, submitted=2), [row(1), row(2)], "2 runs are listed, but 3 are expected"),
        (Batch(id="1", total_runs=2), [row(1), row(2, "FAILED")], None),
        (Batch(id="1", total_runs=2), [row(1), row(2, None, None)], "1 of 2 listed runs have neither a runId nor"),
        (Batch(id="1", total_runs=2), [row(1), row(2, run_id="1001")], "1 of 2 listed runs have the runId of"),
    ],
)
def test_what_may_be_missing_of_a_batch_that_ended_early(
    batch: Batch, rows: list[dict[str, Any]], doubt: str | None
) -> None:
    found = submission.doubt_about_end(batch, listed(*rows, batch_is_over=True), batch.expected_runs)
    assert (found or "").startswith(doubt or "")
    assert (found is None) == (doubt is None)


def test_counts_that_do_not_include_every_run() -> None:
    batch = Batch(id="1", total_runs=9, submitted=5, failed=1, pending=3)
    assert submission.counted_as_incomplete(batch, 9) == "GetBatch counts only 6 of 9 submissions"
    assert submission.counted_as_incomplete(batch, 6) is None
    assert submission.counted_as_incomplete(batch, None) is None
    assert submission.counted_as_incomplete(Batch(id="1", total_runs=9), 9) is None


def test_the_summary_groups_by_reason_and_names_a_few() -> None:
    invalid = {"submissionFailureReason": "ValidationException", "submissionFailureMessage": "no such input"}
    rows = [row(n, "FAILED", **invalid) for n in range(7)]
    rows.append(row(8, "FAILED", submissionFailureReason="AccessDeniedException"))
    summary = listed(*rows).failure_summary()
    assert summary == (
        "8 submissions failed: "
        "ValidationException: no such input (sample-0, sample-1, sample-2, sample-3, sample-4 and 2 more); "
        "AccessDeniedException (sample-8)"
    )


def test_at_most_a_thousand_failures_are_kept_and_all_are_counted() -> None:
    submissions = listed(
        *(row(n, "FAILED") for n in range(1_500)), *(row(n, "CANCEL_FAILED") for n in range(2_000, 3_500))
    )
    assert (len(submissions.failed), submissions.failed_count) == (1_000, 1_500)
    assert len(submissions.changed) == 1_000
    assert len(submissions.run_ids) == 1_500


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        (Batch(id="1", total_runs=6, submitted=1, failed=1, pending=1), 6),
        (Batch(id="1", submitted=1, failed=2, pending=3), 6),
        (Batch(id="1", submitted=1, failed=2), None),
        (Batch(id="1"), None),
    ],
)
def test_the_number_of_runs_of_a_batch(batch: Batch, expected: int | None) -> None:
    assert batch.expected_runs == expected


@given(total=st.integers(1, 30), data=st.data())
def test_a_listing_that_lost_repeated_or_blanked_a_row_is_never_complete(total: int, data: st.DataObject) -> None:
    statuses = data.draw(st.lists(st.sampled_from(SubmissionStatus), min_size=total, max_size=total))
    rows = [row(n, status) for n, status in enumerate(statuses)]
    assert listed(*data.draw(st.permutations(rows))).missing(total) is None

    damage = data.draw(st.sampled_from(["lost", "repeated", "blanked"]))
    victim = data.draw(st.integers(0, total - 1))
    if damage == "lost":
        del rows[victim]
    elif damage == "repeated":
        rows.append(dict(rows[victim]))
    else:
        rows[victim] = {"runSettingId": rows[victim]["runSettingId"]}
    assert listed(*data.draw(st.permutations(rows))).missing(total) is not None
    if damage == "repeated":
        assert listed(*rows).missing(total + 1) is not None
