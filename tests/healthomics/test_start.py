from __future__ import annotations

from datetime import UTC, datetime

import pytest

from airflow_provider_omics_cache.healthomics.once import (
    GENERATION_TAG,
    StartDecision,
    generation_of,
    newest_first,
)
from airflow_provider_omics_cache.healthomics.start import decide_start
from airflow_provider_omics_cache.healthomics.states import BatchStatus
from airflow_provider_omics_cache.healthomics.tokens import may_be_about_token

TABLE = {
    # status: the same request, another request, the request is unknown
    "CREATING": ("REATTACH", "REFUSE_OTHER_SETTINGS", "REFUSE_UNKNOWN_SETTINGS"),
    "PENDING": ("REATTACH", "REFUSE_OTHER_SETTINGS", "REFUSE_UNKNOWN_SETTINGS"),
    "SUBMITTING": ("REATTACH", "REFUSE_OTHER_SETTINGS", "REFUSE_UNKNOWN_SETTINGS"),
    "INPROGRESS": ("REATTACH", "REFUSE_OTHER_SETTINGS", "REFUSE_UNKNOWN_SETTINGS"),
    "PROCESSED": ("REATTACH", "START", "REFUSE_UNKNOWN_SETTINGS"),
    "STOPPING": ("REFUSE_CANCELLED",) * 3,
    "CANCELLED": ("REFUSE_CANCELLED",) * 3,
    "RUNS_DELETING": ("REFUSE_DELETED",) * 3,
    "RUNS_DELETE_FAILED": ("REFUSE_DELETED",) * 3,
    "RUNS_DELETED": ("REFUSE_DELETED",) * 3,
    "FAILED": ("START",) * 3,
}
A_STATUS_OF_TOMORROW = "PAUSED"


@pytest.mark.parametrize("status", list(BatchStatus))
@pytest.mark.parametrize(("column", "found_digest"), list(enumerate(["same", "other", None])))
def test_every_row_of_the_table(status: str, column: int, found_digest: str | None) -> None:
    decision = decide_start(status, request_digest="same", found_digest=found_digest, runs_started=0)
    assert decision.name == TABLE[status][column]


@pytest.mark.parametrize("found_digest", ["same", "other", None])
def test_a_failed_batch_with_runs_is_never_replaced(found_digest: str | None) -> None:
    decision = decide_start("FAILED", request_digest="same", found_digest=found_digest, runs_started=1)
    assert decision == StartDecision.REFUSE_RUNS_STARTED


@pytest.mark.parametrize("status", [A_STATUS_OF_TOMORROW, None])
def test_an_unknown_status_counts_as_active(status: str | None) -> None:
    same = decide_start(status, request_digest="same", found_digest="same", runs_started=0)
    other = decide_start(status, request_digest="same", found_digest="other", runs_started=0)
    assert (same, other) == (StartDecision.REATTACH, StartDecision.REFUSE_OTHER_SETTINGS)


@pytest.mark.parametrize(
    ("tags", "generation"),
    [(None, 0), ({}, 0), ({GENERATION_TAG: "3"}, 3), ({GENERATION_TAG: "x"}, 0), ({GENERATION_TAG: "-1"}, 0)],
)
def test_generation_of(tags: dict[str, str] | None, generation: int) -> None:
    assert generation_of(tags) == generation


def test_the_newest_batch_comes_first_then_the_largest_id() -> None:
    early, late = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
    unsorted = [
        {"id": "300", "creationTime": early},
        {"id": "9", "creationTime": late},
        {"id": "100", "creationTime": late},
        {"id": "5"},
    ]
    assert [batch["id"] for batch in newest_first(unsorted)] == ["5", "100", "9", "300"]


@pytest.mark.parametrize("status", ["INPROGRESS", "PROCESSED"])
@pytest.mark.parametrize(
    ("request_etag", "found_etag", "is_same"),
    [("a", "a", True), ("a", None, True), (None, "a", True), (None, None, True), ("a", "b", False)],
)
def test_an_etag_that_is_not_known_matches_every_etag(
    status: str, request_etag: str | None, found_etag: str | None, is_same: bool
) -> None:
    decision = decide_start(
        status, request_digest="same", found_digest="same", request_etag=request_etag, found_etag=found_etag
    )
    assert (decision == StartDecision.REATTACH) is is_same


@pytest.mark.parametrize("runs_started", [0, 1])
def test_a_cancelled_batch_that_failed_is_never_replaced(runs_started: int) -> None:
    decision = decide_start(
        "FAILED", request_digest="same", found_digest="same", runs_started=runs_started, is_cancelled=True
    )
    assert decision != StartDecision.START


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        ("ConflictException", "", True),
        ("ValidationException", "The requestId was used with other parameters", True),
        ("ValidationException", "Idempotency token reused", True),
        ("ValidationException", "Request parameters differ from those of the first request", True),
        ("ValidationException", "1 validation error detected: Value at 'workflowId' is invalid", False),
        ("ValidationException", "Value at 'workflowId' is invalid for this token", True),
        ("ValidationException", "Value at 'parameters' is too long", False),
        ("ValidationException", "Value at 'tags.key' is too long", False),
        ("AccessDeniedException", "requestId", False),
    ],
)
def test_which_refusals_may_be_about_the_token(code: str, text: str, expected: bool) -> None:
    assert may_be_about_token(code, text, frozenset({"workflowId", "roleArn", "parameters", "tags"})) is expected
