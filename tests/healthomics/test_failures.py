from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_omics_cache.healthomics.failures import Failures, allowed, parse_allowance, what_continues


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
    with pytest.raises(ValueError, match="an integer, 0 or more, or a share"):
        parse_allowance(value)


@given(st.integers(0, 100), st.integers(0, 100_000))
def test_a_share_never_allows_more_than_its_percentage(percent: int, total: int) -> None:
    number = allowed(parse_allowance(f"{percent}%"), total)
    assert number * 100 <= percent * total < (number + 1) * 100


def test_the_summary_begins_with_the_most_frequent_reason() -> None:
    failures = Failures()
    failures.add("AccessDeniedException", "sample-9")
    for number in range(7):
        failures.add("ValidationException", f"sample-{number}", "no such input")
    failures.add_unnamed("never submitted", 1_200)
    failures.add_unnamed("never submitted", 0)
    failures.add_unnamed("never submitted", -3)
    assert failures.count == 1_208
    assert failures.summary() == (
        "never submitted (1,200 runs); "
        "ValidationException: no such input (sample-0, sample-1, sample-2, sample-3, sample-4 and 2 more); "
        "AccessDeniedException (sample-9)"
    )


def test_a_summary_adds_up_to_the_number_of_all_failures() -> None:
    failures = Failures()
    assert failures.summary(3) == ""
    failures.add("AccessDeniedException", "A")
    failures.add("AccessDeniedException", None)
    failures.add("ValidationException", None, "no such input")
    groups = "AccessDeniedException (A and 1 more); ValidationException: no such input (1 run)"
    assert failures.summary() == failures.summary(3) == failures.summary(2) == groups
    assert failures.summary(1_203) == f"{groups}; 1,200 more without details"


@pytest.mark.parametrize(
    ("submitted", "text"),
    [
        (None, "the batch continues"),
        (0, "the batch continues"),
        (1, "1 run was submitted; the batch continues"),
        (9_999, "9,999 runs were submitted; the batch continues"),
    ],
)
def test_no_submitted_run_is_said_to_continue(submitted: int | None, text: str) -> None:
    assert what_continues(submitted) == text


def test_a_summary_is_short_however_many_messages_there_are() -> None:
    failures = Failures()
    for number in range(5_000):
        failures.add("ValidationException", f"sample-{number}", f"s3://bucket/{number}.fastq.gz is not found")
    failures.add("AccessDeniedException", "sample-x", "no access")
    assert failures.summary() == (
        "ValidationException (sample-100, sample-101, sample-102, sample-103, sample-104 and 4,895 more); "
        "ValidationException: s3://bucket/0.fastq.gz is not found (sample-0); "
        "ValidationException: s3://bucket/1.fastq.gz is not found (sample-1); "
        "98 more with ValidationException; 1 more with AccessDeniedException"
    )


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("Run cache 1008271\n  does not exist", "Run cache 1008271 does not exist"),
        ("x" * 1_000, "x" * 200 + "..."),
        ("cannot read https://user:hunter2@files.example/a", "cannot read https://***@files.example/a"),
        (
            "Value '{\"Statement\": []}' at 'sessionPolicy' failed to satisfy constraint",
            "the service refused sessionPolicy (its message repeats the policy and is not shown)",
        ),
    ],
)
def test_a_message_is_one_short_line_without_secrets(message: str, shown: str) -> None:
    failures = Failures()
    failures.add("ValidationException", "A", message)
    assert failures.summary() == f"ValidationException: {shown} (A)"
