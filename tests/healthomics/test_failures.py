from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_omics_cache.healthomics import allowance


@pytest.mark.parametrize(
    ("value", "total", "allowed"),
    [
        (0, 10, 0),
        (3, 10, 3),
        ("0%", 10, 0),
        ("5%", 100, 5),
        ("5%", 99, 4),
        (" 12.5 % ", 80, 10),
        ("100%", 7, 7),
        ("0.1%", 100_000, 100),
    ],
)
def test_allowed(value: int | str, total: int, allowed: int) -> None:
    assert allowance.allowed(allowance.parse(value), total) == allowed


@pytest.mark.parametrize(
    "value",
    [-1, "120%", "100.1%", "-5%", "5", "", "%", "five%", "\u0665%", 0.05, True, None, "5%%", "1e1%", Fraction(1, 2)],
)
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="whole number of runs from 0, or a share"):
        allowance.parse(value)


@given(st.integers(0, 100), st.integers(0, 100_000))
def test_a_share_never_allows_more_than_it_says(percent: int, total: int) -> None:
    allowed = allowance.allowed(allowance.parse(f"{percent}%"), total)
    assert allowed * 100 <= percent * total < (allowed + 1) * 100
