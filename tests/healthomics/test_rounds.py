from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_omics_cache.exceptions import OmicsApiError
from airflow_provider_omics_cache.healthomics import completion, rounds, submission
from airflow_provider_omics_cache.healthomics.rounds import Batch, BatchWait, Event, EventStatus, FirstSeen, Silence
from airflow_provider_omics_cache.healthomics.states import BatchStatus, Verdict


def failure_of(code: str, http_status: int | None = None) -> OmicsApiError:
    return OmicsApiError(f"GetBatch failed: {code}", code=code, http_status=http_status, operation="GetBatch")


GONE = failure_of("ResourceNotFoundException", 404)
THROTTLE = failure_of("ThrottlingException", 429)
LOST = failure_of("ConnectionClosedError")
UNREACHABLE = failure_of("EndpointConnectionError")
DENIED = failure_of("AccessDeniedException", 403)
SUBMITTING = {"status": "SUBMITTING", "totalRuns": 10, "submissionSummary": {"successfulStartSubmissionCount": 4}}
PROCESSED = {"status": "PROCESSED", "totalRuns": 10}


def new_wait(**changes: Any) -> BatchWait:
    arguments: dict[str, Any] = {
        "batch_id": "42",
        "decide": submission.decide,
        "progress": submission.progress,
        "max_silence": 100,
        "deadline": 5_000.0,
        **changes,
    }
    return BatchWait(**arguments)


@pytest.mark.parametrize(
    "failure",
    [
        THROTTLE,
        failure_of("InternalServerException", 500),
        failure_of("ServiceUnavailable", 503),
        failure_of("RequestTimeoutException", 408),
        failure_of("ReadTimeoutError"),
        failure_of("ConnectionClosedError"),
        failure_of("ConnectTimeoutError"),
        failure_of("Throttling", 400),
        failure_of("RequestTimeout", 400),
        failure_of("MetadataRetrievalError"),
        UNREACHABLE,
    ],
    ids=str,
)
def test_passing_failures_are_rounds_without_news(failure: OmicsApiError) -> None:
    assert failure.is_passing
    wait = new_wait()
    assert wait.failed(failure, 1_001) is None
    assert wait.is_disturbed
    assert wait.answered(SUBMITTING, 0.0) is None
    assert not wait.is_disturbed


@pytest.mark.parametrize(
    "failure",
    [
        DENIED,
        failure_of("ExpiredTokenException", 403),
        failure_of("ValidationException", 400),
        failure_of("ConflictException", 409),
        failure_of("ServiceQuotaExceededException", 402),
        failure_of("NoCredentialsError"),
        failure_of("PartialCredentialsError"),
    ],
    ids=str,
)
def test_other_failures_end_the_wait_with_their_code(failure: OmicsApiError) -> None:
    assert not failure.is_passing
    event = new_wait().failed(failure, 1_001)
    assert event is not None
    assert (event.status, event.code) == ("error", failure.code)
    assert failure.code in event.message


def test_silence_ends_the_wait_after_max_silence_and_not_before() -> None:
    wait = new_wait()
    assert wait.failed(THROTTLE, 1_000) is None
    assert wait.failed(THROTTLE, 1_099) is None
    event = wait.failed(THROTTLE, 1_100)
    assert event is not None
    assert (event.status, event.code) == ("error", rounds.SILENCE)
    assert "100 s" in event.message
    assert "ThrottlingException" in event.message


def test_an_answer_breaks_the_silence() -> None:
    wait = new_wait()
    assert wait.failed(THROTTLE, 1_000) is None
    assert wait.failed(THROTTLE, 1_090) is None
    assert wait.answered(SUBMITTING, 0.0) is None
    assert wait.failed(THROTTLE, 1_190) is None


def test_an_interval_longer_than_max_silence_is_no_silence() -> None:
    wait = new_wait(max_silence=100)
    assert wait.answered(SUBMITTING, 0.0) is None
    assert wait.failed(THROTTLE, 90_000) is None
    assert wait.answered(SUBMITTING, 0.0) is None


def test_silence_is_logged_once() -> None:
    wait = new_wait()
    for now in (1_001, 1_002, 1_003):
        wait.failed(THROTTLE, now)
    assert len(wait.take_lines()) == 1
    assert wait.take_lines() == []


def test_three_rounds_running_without_the_batch_end_the_wait() -> None:
    wait = new_wait()
    assert wait.failed(GONE, 1_001) is None
    assert wait.failed(GONE, 1_002) is None
    event = wait.failed(GONE, 1_003)
    assert event is not None
    assert (event.status, event.code) == ("error", rounds.NOT_FOUND)


def test_rounds_without_the_batch_are_counted_in_a_row() -> None:
    wait = new_wait()
    wait.failed(GONE, 1_001)
    wait.failed(GONE, 1_002)
    wait.answered(SUBMITTING, 0.0)
    assert wait.failed(GONE, 1_004) is None
    assert wait.failed(GONE, 1_005) is None


def test_rounds_without_an_answer_do_not_end_the_count_of_rounds_that_did_not_find_the_batch() -> None:
    wait = new_wait(max_silence=1_000)
    outcomes = [wait.failed(failure, 1_001 + n) for n, failure in enumerate([GONE, THROTTLE, GONE, LOST, LOST, GONE])]
    assert outcomes[:-1] == [None] * 5
    assert outcomes[-1] is not None
    assert (outcomes[-1].status, outcomes[-1].code) == ("error", rounds.NOT_FOUND)


def test_rounds_that_did_not_find_the_batch_do_not_end_the_silence() -> None:
    wait = new_wait()
    assert wait.failed(GONE, 1_000) is None
    assert wait.failed(THROTTLE, 1_050) is None
    assert wait.failed(GONE, 1_099) is None
    event = wait.failed(LOST, 1_100)
    assert event is not None
    assert (event.status, event.code) == ("error", rounds.SILENCE)
    assert event.message == (
        "Batch 42: GetBatch has not returned the batch for 100 s; calls without an answer: 2, "
        f"calls that did not find the batch: 2. Last error: {LOST}"
    )


def test_a_round_that_did_not_find_the_batch_ends_a_silence_that_is_too_long() -> None:
    wait = new_wait()
    assert wait.failed(THROTTLE, 1_000) is None
    event = wait.failed(GONE, 1_100)
    assert event is not None
    assert event.code == rounds.SILENCE


@pytest.mark.parametrize("max_silence", [0, 100])
def test_three_rounds_decide_on_a_young_batch_however_long_the_interval_is(max_silence: float) -> None:
    wait = new_wait(max_silence=max_silence)
    assert wait.failed(GONE, 1_000) is None
    assert wait.failed(GONE, 5_000) is None
    event = wait.failed(GONE, 9_000)
    assert event is not None
    assert event.code == rounds.NOT_FOUND


def test_a_wait_continues_the_silence_of_an_earlier_process() -> None:
    asked = []

    def recall() -> Silence:
        asked.append(1)
        return Silence(since=1_000, not_found=1, no_answer=4)

    wait = new_wait()
    wait.recall = recall
    assert wait.failed(GONE, 1_050) is None
    assert wait.silence == Silence(since=1_000, not_found=2, no_answer=4)
    event = wait.failed(THROTTLE, 1_100)
    assert event is not None
    assert "GetBatch has not returned the batch for 100 s" in event.message
    assert asked == [1]


@pytest.mark.parametrize("first", [SUBMITTING, DENIED], ids=["answered", "denied"])
def test_an_earlier_silence_is_asked_for_only_in_a_first_round_without_an_answer(
    first: dict[str, Any] | OmicsApiError,
) -> None:
    wait = new_wait()
    wait.recall = lambda: pytest.fail("nothing was needed")
    if isinstance(first, OmicsApiError):
        assert wait.failed(first, 1_000) is not None
        return
    wait.answered(first, 1_000)
    assert wait.failed(THROTTLE, 1_001) is None
    assert wait.silence == Silence(since=1_001, no_answer=1)


def test_an_endpoint_out_of_reach_fails_in_the_very_first_round_only() -> None:
    event = new_wait(first_round=True).failed(UNREACHABLE, 1_001)
    assert event is not None
    assert event.code == "EndpointConnectionError"
    wait = new_wait(first_round=True)
    assert wait.failed(THROTTLE, 1_001) is None
    assert wait.failed(UNREACHABLE, 1_002) is None


def test_the_deadline_ends_the_wait_and_says_what_was_known() -> None:
    wait = new_wait()
    wait.answered(SUBMITTING, 0.0)
    assert wait.overdue(4_999.9) is None
    event = wait.overdue(5_000)
    assert event is not None
    assert event.status == "timeout"
    assert "submitted 4 of 10" in event.message
    assert event.deadline == 5_000


def test_without_deadline_nothing_is_overdue() -> None:
    assert new_wait(deadline=None).overdue(9e9) is None


def test_progress_is_logged_when_it_changes() -> None:
    wait = new_wait()
    for _ in range(3):
        wait.answered(SUBMITTING, 0.0)
    assert wait.take_lines() == [(logging.INFO, "Batch 42 is SUBMITTING: submitted 4 of 10, 0 failed")]


def test_progress_is_logged_once_a_minute_with_rate_and_remaining_time() -> None:
    created = datetime.fromtimestamp(1_000, UTC)

    def counted(number: int, **changes: Any) -> dict[str, Any]:
        summary = {"successfulStartSubmissionCount": number, "pendingStartSubmissionCount": 1_000 - number}
        answer = {"status": "SUBMITTING", "totalRuns": 1_000, "submissionSummary": summary, "creationTime": created}
        return {**answer, **changes}

    wait = new_wait()
    lines = []
    for number in range(13):
        wait.answered(counted(50 * number), 1_000.0 + 10 * number)
        lines += [line for _, line in wait.take_lines()]
    assert lines == [
        "Batch 42 is SUBMITTING: submitted 0 of 1,000, 0 failed",
        "Batch 42 is SUBMITTING: submitted 300 of 1,000, 0 failed, 5.0/s, about 2 min left",
        "Batch 42 is SUBMITTING: submitted 600 of 1,000, 0 failed, 5.0/s, about 1 min left",
    ]
    overdue = wait.overdue(5_000)
    assert overdue is not None
    assert overdue.message == "Timed out. Batch 42 is SUBMITTING: submitted 600 of 1,000, 0 failed"
    wait.answered(counted(650), 1_130.0)
    assert wait.take_lines() == []
    wait.answered(counted(650, status="STOPPING"), 1_131.0)
    wait.answered(counted(1_000, status="PROCESSED"), 1_132.0)
    assert [line.split(",")[0] for _, line in wait.take_lines()] == [
        "Batch 42 is STOPPING: submitted 650 of 1",
        "Batch 42 is PROCESSED: submitted 1",
    ]


def test_the_rate_is_that_of_the_last_lines() -> None:
    wait = new_wait(decide=completion.decide, progress=completion.progress)
    created = datetime.fromtimestamp(1_000, UTC)
    for minute, completed in enumerate([0, 100, *range(160, 1_400, 60)]):
        answer = {
            "status": "INPROGRESS",
            "totalRuns": 10_000,
            "runSummary": {"runningRunCount": 10, "completedRunCount": completed},
            "creationTime": created,
        }
        wait.answered(answer, 100_000.0 + 60 * minute)
    assert wait.take_lines()[-1][1] == (
        "Batch 42 is INPROGRESS: completed 1,360 of 10,000, 0 failed, 1.0/s, about 2 h left"
    )
    assert wait.shown_progress.endswith("about 2 h left")


def test_an_unknown_status_is_warned_of_once() -> None:
    wait = new_wait()
    for pending in (5, 4, 3):
        answer = {"status": "REHYDRATING", "submissionSummary": {"pendingStartSubmissionCount": pending}}
        assert wait.answered(answer, 0.0) is None
    warnings = [line for level, line in wait.take_lines() if level == logging.WARNING]
    assert warnings == ["Batch 42 is REHYDRATING. This version of the package does not know this status."]


def test_a_missing_status_is_warned_of_once_and_never_shown_as_none() -> None:
    wait = new_wait()
    for pending in (5, 4, 3):
        assert wait.answered({"submissionSummary": {"pendingStartSubmissionCount": pending}}, 0.0) is None
    overdue = wait.overdue(5_000)
    assert overdue is not None
    lines = [line for _, line in wait.take_lines()]
    assert lines == [
        "Batch 42 is without a status. This version of the package does not know this status.",
        "Batch 42 is without a status",
    ]
    assert "without a status" in overdue.message
    assert "None" not in overdue.message


def test_the_batch_of_an_event_carries_the_reason_of_its_failure() -> None:
    event = new_wait().answered({"status": "FAILED", "failureReason": "Invalid JSON format"}, 7.0)
    assert event is not None
    assert (event.status, event.message) == ("failed", "Batch 42 is FAILED")
    assert event.batch == Batch(id="42", status="FAILED", failure_reason="Invalid JSON format", seen_at=7.0)
    arrived = Event.from_json(json.loads(json.dumps(event.to_json())))
    assert arrived.batch is not None
    assert arrived.batch.failure_reason == "Invalid JSON format"


def test_the_message_of_an_older_failed_event_is_the_reason() -> None:
    batch = Batch(id="42", status="FAILED").to_json()
    del batch["failure_reason"]
    event = Event.from_json({"status": "failed", "message": "Invalid JSON format", "batch": batch})
    assert event.batch == Batch(id="42", status="FAILED", failure_reason="Invalid JSON format")


@pytest.mark.parametrize(
    ("status", "settled"),
    [
        ("PROCESSED", "processedTime"),
        ("RUNS_DELETED", "processedTime"),
        ("FAILED", "failedTime"),
        ("CANCELLED", None),
        ("INPROGRESS", None),
    ],
)
def test_a_batch_is_settled_since_a_time_that_is_about_its_last_change(status: str, settled: str | None) -> None:
    names = ("creationTime", "submittedTime", "processedTime", "failedTime")
    times = {name: datetime(2026, 11, day, tzinfo=UTC) for day, name in enumerate(names, 1)}
    assert Batch.from_answer("1", {"status": status, **times}).settled_time == times.get(settled or "")


def test_submitted_time_falls_back_to_processed_time() -> None:
    processed = datetime(2026, 11, 20, tzinfo=UTC)
    assert Batch.from_answer("1", {"processedTime": processed}).submitted_time == processed
    earlier = datetime(2026, 11, 19, tzinfo=UTC)
    assert Batch.from_answer("1", {"processedTime": processed, "submittedTime": earlier}).submitted_time == earlier


counts = st.none() | st.integers(0, 100_000)
batches = st.builds(
    Batch,
    id=st.from_regex(r"[0-9]{1,18}", fullmatch=True),
    arn=st.none() | st.text(),
    uuid=st.none() | st.text(),
    status=st.none() | st.text(),
    total_runs=counts,
    submitted=counts,
    failed=counts,
    pending=counts,
    run_counts=st.dictionaries(st.sampled_from(["completed", "failed", "running"]), st.integers(0, 100_000)),
    submitted_time=st.none() | st.datetimes(timezones=st.just(UTC)),
    processed_time=st.none() | st.datetimes(timezones=st.just(UTC)),
    failed_time=st.none() | st.datetimes(timezones=st.just(UTC)),
    failure_reason=st.none() | st.text(),
    seen_at=st.none() | st.floats(0, 1e10),
)


first_seen = st.none() | st.builds(FirstSeen, status=st.text(), at=st.floats(0, 1e10))


@given(batches, first_seen)
def test_a_batch_survives_its_journey_in_an_event(batch: Batch, seen: FirstSeen | None) -> None:
    event = Event(status=EventStatus.DONE, batch=batch, first_seen=seen)
    arrived = Event.from_json(json.loads(json.dumps(event.to_json())))
    assert arrived == event
    assert arrived.batch == batch


@pytest.mark.parametrize(
    "value",
    [
        None,
        "done",
        [],
        {},
        {"status": "success"},
        {"status": "done"},
        {"status": "done", "batch": None},
        {"status": "failed", "batch": {}},
        {"status": "done", "batch": {"id": 5}},
        {"status": ["done"]},
        {"status": "done", "batch": {"id": "5", "counts": [1]}},
        {"status": "done", "batch": {"id": "5", "counts": {"pending": "0"}}},
        {"status": "done", "batch": {"id": "5", "submitted_time": "yesterday"}},
        {"status": "done", "batch": {"id": "5", "submitted_time": 17}},
        {"status": "done", "batch": {"id": "5", "total_runs": "3"}},
        {"status": "done", "batch": {"id": "5", "total_runs": True}},
        {"status": "timeout", "deadline": "x"},
        {"status": "failed", "batch": {"id": "5", "failure_reason": 7}},
        {"status": "error", "message": 5},
        {"status": "error", "first_seen": 5},
        {"status": "error", "first_seen": {"status": "CANCELLED", "at": "now"}},
    ],
)
def test_an_event_that_is_not_ours_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"event|isoformat"):
        Event.from_json(value)


def test_an_event_of_another_version_is_read() -> None:
    event = Event.from_json({"status": "done", "batch": {"id": "5", "colour": "red"}, "later": 1})
    assert event.batch == Batch(id="5")
    assert event.subject == event.batch
    assert event.deadline is None


#: How a wait ends at once on a verdict.
STATUSES = {Verdict.DONE: EventStatus.DONE, Verdict.FAILED: EventStatus.FAILED}

answers = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from([*BatchStatus, "RUNS_ARCHIVED"]),
        "totalRuns": st.integers(0, 10),
        "submissionSummary": st.fixed_dictionaries(
            {},
            optional={
                "pendingStartSubmissionCount": st.integers(0, 10),
                "failedStartSubmissionCount": st.integers(0, 10),
            },
        ),
    },
)


@pytest.mark.parametrize("about", [submission, completion])
@given(rounds=st.lists(answers | st.sampled_from([GONE, THROTTLE, DENIED, UNREACHABLE]), max_size=20))
def test_no_order_of_answers_and_failures_is_misread(about: Any, rounds: list[dict[str, Any] | OmicsApiError]) -> None:
    wait = new_wait(decide=about.decide, progress=about.progress)
    for number, got in enumerate(rounds):
        now = 1_001.0 + number
        event = wait.failed(got, now) if isinstance(got, OmicsApiError) else wait.answered(got, now)
        if isinstance(got, dict):
            verdict = about.decide(Batch.from_answer("42", got))
            assert (event.status if event else None) == STATUSES.get(verdict)
        elif got is DENIED:
            assert event is not None
        elif event is not None:
            answered = [n for n, outcome in enumerate(rounds[:number]) if isinstance(outcome, dict)]
            assert rounds[answered[-1] + 1 if answered else 0 : number + 1].count(GONE) == 3
        if event:
            json.dumps(event.to_json(), allow_nan=False)
            return


failures = st.sampled_from([GONE, THROTTLE, LOST, failure_of("InternalServerException", 500)])


@given(
    max_silence=st.integers(1, 10_000),
    rounds=st.lists(st.tuples(failures, st.floats(1, 600)), min_size=1, max_size=60),
    restarts=st.sets(st.integers(0, 60)),
)
def test_no_order_of_failures_outlasts_max_silence(
    max_silence: int, rounds: list[tuple[OmicsApiError, float]], restarts: set[int]
) -> None:
    """However often a process hands the silence on to the next one."""
    wait, now = new_wait(max_silence=max_silence), 1_000.0
    for number, (failure, interval) in enumerate(rounds):
        if number in restarts:
            stored = wait.silence.to_json() if wait.silence else None
            wait = new_wait(max_silence=max_silence)
            wait.recall = lambda stored=stored: None if stored is None else Silence.from_json(stored)  # type: ignore[misc]
        so_far = [got for got, _ in rounds[: number + 1]]
        must_end = so_far.count(GONE) == 3 or (set(so_far) != {GONE} and now - 1_000 >= max_silence)
        event = wait.failed(failure, now)
        assert (event is not None) == must_end
        if event:
            assert event.code == ("BatchNotFound" if so_far.count(GONE) == 3 else "MaxSilence")
            return
        now += interval


silences = st.builds(
    Silence, since=st.floats(0, 1e10), not_found=st.integers(0, 2), no_answer=st.integers(0, 1_000_000)
)


@given(silences)
def test_a_silence_survives_its_journey(silence: Silence) -> None:
    assert Silence.from_json(json.loads(json.dumps(silence.to_json()))) == silence


@pytest.mark.parametrize(
    "value",
    [
        None,
        "17",
        [],
        {},
        {"since": "17", "not_found": 0, "no_answer": 0},
        {"since": True, "not_found": 0, "no_answer": 0},
        {"since": float("nan"), "not_found": 0, "no_answer": 0},
        {"since": 17, "not_found": -1, "no_answer": 0},
        {"since": 17, "not_found": 0, "no_answer": 0.5},
        {"since": 17, "not_found": True, "no_answer": 0},
        {"since": 17, "not_found": 0},
    ],
)
def test_a_value_that_is_not_a_silence_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="not a"):
        Silence.from_json(value)
