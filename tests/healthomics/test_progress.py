from __future__ import annotations

import pytest

from airflow_provider_omics_cache.healthomics.progress import Mark, Progress, with_pace

TEXT = "submitted 12,400 of 100,000, 3 failed"


@pytest.mark.parametrize(
    ("done", "total", "seconds", "pace"),
    [
        (12_403, 100_000, 2_531, ", 4.9/s, about 5 h left"),
        (50, 60, 10, ", 5.0/s, about 2 s left"),
        (60, 60, 10, ", 6.0/s"),
        (60, None, 10, ", 6.0/s"),
        (30, 100, 600, ", 3.0/min, about 23 min left"),
        (3, 1_000, 10_800, ", 1.0/h, about 42 days left"),
        (0, 60, 10, ""),
        (None, 60, 10, ""),
        (50, 60, 0, ""),
        (50, 60, -5, ""),
    ],
)
def test_rate_and_remaining_time(done: int | None, total: int | None, seconds: float, pace: str) -> None:
    progress = Progress(TEXT, "submitted", done, total)
    assert with_pace(progress, Mark(1_000.0, 0), 1_000.0 + seconds) == TEXT + pace


def test_without_an_earlier_count_there_is_no_rate() -> None:
    assert with_pace(Progress(TEXT, "submitted", 5, 10), None, 1_000.0) == TEXT
