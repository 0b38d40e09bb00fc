from __future__ import annotations

import pytest

from airflow_provider_omics_cache.healthomics.start import GENERATION_TAG, StartDecision, decide_start, generation_of
from airflow_provider_omics_cache.healthomics.states import BatchStatus

TABLE = {
    # status: the same request, another request, the request is unknown
    "CREATING": ("REATTACH", "REFUSE_OTHER_SETTINGS", "REFUSE_OTHER_SETTINGS"),
    "PENDING": ("REATTACH", "REFUSE_OTHER_SETTINGS", "REFUSE_OTHER_SETTINGS"),
    "SUBMITTING": ("REATTACH", "REFUSE_OTHER_SETTINGS", "REFUSE_OTHER_SETTINGS"),
    "INPROGRESS": ("REATTACH", "REFUSE_OTHER_SETTINGS", "REFUSE_OTHER_SETTINGS"),
    "PROCESSED": ("REATTACH", "START", "REFUSE_OTHER_SETTINGS"),
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
