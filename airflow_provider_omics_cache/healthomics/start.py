"""The decision "start a batch, or take the one that is there?": pure functions, no Airflow, no AWS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from airflow_provider_omics_cache.healthomics.states import (
    CANCELLED_BATCH_STATES,
    DELETED_BATCH_STATES,
    BatchStatus,
)

#: Batch tag with the digest of the request that started the batch.
DIGEST_TAG = "omics-cache-request-digest"
#: Batch tag with the generation that the request token was made of.
GENERATION_TAG = "omics-cache-generation"
OWN_TAGS = frozenset({DIGEST_TAG, GENERATION_TAG})


class StartDecision(StrEnum):
    """What to do about a batch that an earlier try of the same task may have started."""

    START = "start a new one"
    REATTACH = "take this one"
    REFUSE_OTHER_SETTINGS = "it runs with other settings"
    REFUSE_RUNS_STARTED = "it failed after runs were started"
    REFUSE_CANCELLED = "it was cancelled on purpose"
    REFUSE_DELETED = "it was cleaned up"


@dataclass(frozen=True, kw_only=True)
class StartedBatch:
    """The batch that a task works with.

    :param batch: the answer of GetBatch.
    :param request_id: the request token of the batch.
    :param reattached: whether an earlier try had started it.
    """

    batch: dict[str, Any]
    request_id: str
    reattached: bool


def decide_start(
    status: str | None, *, request_digest: str, found_digest: str | None, runs_started: int
) -> StartDecision:
    """Decide about a batch that was found under the task's own batch name.

    A status that this version does not know counts as active. A batch that lost its digest counts as one
    with other settings, and is never replaced: nobody pays twice because of a missing tag.

    :param status: GetBatch's status.
    :param request_digest: digest of the request at hand.
    :param found_digest: digest of the request that started the batch, None if unknown.
    :param runs_started: how many runs of the batch are known to have been started; used if it FAILED.
    """
    if status == BatchStatus.FAILED:
        return StartDecision.REFUSE_RUNS_STARTED if runs_started else StartDecision.START
    if status in CANCELLED_BATCH_STATES:
        return StartDecision.REFUSE_CANCELLED
    if status in DELETED_BATCH_STATES:
        return StartDecision.REFUSE_DELETED
    if found_digest == request_digest:
        return StartDecision.REATTACH
    if status == BatchStatus.PROCESSED and found_digest is not None:
        return StartDecision.START
    return StartDecision.REFUSE_OTHER_SETTINGS


def generation_of(tags: Mapping[str, str] | None) -> int:
    """Give the generation of a batch from its tags; 0 where it is not told.

    :param tags: tags of the batch.
    """
    text = (tags or {}).get(GENERATION_TAG, "0")
    return int(text) if text.isdecimal() else 0
