"""Every answer that a test of this folder gets is checked against botocore's model; this is the check of the check."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_omics_cache.local.healthomics import OPERATIONS
from tests.local.broken_requests import MODEL
from tests.local.shapes import problems

GOOD = {
    "id": "1",
    "arn": "arn:aws:omics:us-east-1:123456789012:runCache/1",
    "status": "ACTIVE",
    "creationTime": "2026-11-20T11:00:00.000Z",
    "tags": {"a": ""},
}


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("createdAt", "2026-11-20T11:00:00.000Z"),
        ("status", "SLEEPING"),
        ("id", 1),
        ("id", "one"),
        ("arn", ""),
        ("name", "x" * 129),
        ("creationTime", 1_700_000_000),
        ("creationTime", "2026-11-20T11:00:00"),
        ("tags", {"a": 1}),
    ],
)
def test_a_wrong_answer_is_noticed(omics: Any, monkeypatch: pytest.MonkeyPatch, member: str, value: Any) -> None:
    shape = MODEL.operation_model("GetRunCache").output_shape
    assert shape is not None
    assert problems(shape, GOOD) == []
    wrong = {**GOOD, member: value}
    assert problems(shape, wrong)
    monkeypatch.setitem(OPERATIONS, "GetRunCache", lambda *_: wrong)

    with pytest.raises(AssertionError):
        omics.get_run_cache(id="1")
