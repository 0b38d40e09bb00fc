from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_omics_cache.healthomics.failures import Failures, allowed, parse_allowance


@pytest.mark.parametrize(
    ("value", "total", "number"),
    [
        (0, 10, 0),
        (3, 10, 3),
        (" 3 ", 10, 3),
        ("0%", 10, 0),
        ("5%", 100, 5),
        ("5%", 99, 4),
        (" 12.5 % ", 80, 10),
        ("100%", 7, 7),
        ("0.1%", 100_000, 100),
    ],
)
def test_allowed(value: int | str, total: int, number: int) -> None:
    assert allowed(parse_allowance(value), total) == number


@pytest.mark.parametrize(
    "value",
    [
        -1,
        "120%",
        "100.1%",
        "-5%",
        "-5",
        "0.5",
        "",
        "%",
        "five%",
        "\u0665%",
        0.05,
        True,
        None,
        "5%%",
        "1e1%",
        Fraction(1, 2),
    ],
)
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="whole number of runs from 0, or a share"):
        parse_allowance(value)


@given(st.integers(0, 100), st.integers(0, 100_000))
def test_a_share_never_allows_more_than_its_percentage(percent: int, total: int) -> None:
    number = allowed(parse_allowance(f"{percent}%"), total)
    assert number * 100 <= percent * total < (number + 1) * 100


def test_the_summary_begins_with_the_most_frequent_reason() -> None:
    failures = Failures()
    failures.add("AccessDeniedException", "sample-9")
    for number in range(7):
        failures.add("ValidationException", f"sample-{number}")
    failures.add_unnamed("never submitted", 1_200)
    failures.add_unnamed("never submitted", 0)
    failures.add_unnamed("never submitted", -3)
    assert failures.count == 1_208
    assert failures.summary() == (
        "never submitted: 1,200 (...); "
        "ValidationException: 7 (sample-0, sample-1, sample-2, sample-3, sample-4, ...); "
        "AccessDeniedException: 1 (sample-9)"
    )
