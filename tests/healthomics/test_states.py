from __future__ import annotations

from enum import StrEnum

import botocore.session
import pytest

from airflow_provider_omics_cache.healthomics import states, submission
from airflow_provider_omics_cache.healthomics.rounds import Batch, Verdict
from tests.conftest import needs_batches

OMICS = botocore.session.Session().get_service_model("omics")


@pytest.mark.parametrize(
    ("shape", "ours"),
    [
        ("RunCacheStatus", states.RunCacheStatus),
        ("RunStatus", states.RunStatus),
        pytest.param("BatchStatus", states.BatchStatus, marks=needs_batches),
        pytest.param("SubmissionStatus", states.SubmissionStatus, marks=needs_batches),
    ],
)
def test_every_state_of_botocore_is_known(shape: str, ours: type[StrEnum]) -> None:
    assert set(OMICS.shape_for(shape).enum) <= set(ours)


def test_the_groups_of_batch_states_do_not_overlap() -> None:
    groups = [states.ACTIVE_BATCH_STATES, states.CANCELLED_BATCH_STATES, states.DELETED_BATCH_STATES]
    assert sum(map(len, groups)) == len(frozenset().union(*groups))


@pytest.mark.parametrize("status", states.BatchStatus)
def test_every_batch_state_is_classified(status: states.BatchStatus) -> None:
    active = {*states.ACTIVE_BATCH_STATES, states.BatchStatus.STOPPING}
    verdict = submission.decide(Batch(id="1", status=status, pending=7))
    if status in active:
        assert verdict == Verdict.WAIT
    elif status == states.BatchStatus.PROCESSED:
        assert verdict == Verdict.DONE
    else:
        assert verdict == Verdict.FAILED
