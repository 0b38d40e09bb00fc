from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_omics_cache.healthomics.identity import digest
from airflow_provider_omics_cache.healthomics.outputs import (
    OWN_OUTPUT_URIS,
    SAMPLE_SIZE,
    OutputEvidence,
    OutputLocations,
    OutputUris,
    own_output_uris,
    spread,
)

LAYOUTS = ("{uri}/{id}", "{uri}/{id}/", "{uri}/{id}/{uuid}", "{uri}/{id}/{uuid}/")


def row_of(number: int) -> dict[str, Any]:
    return {"runSettingId": f"sample-{number}", "runId": str(number), "runInternalUuid": f"uuid-{number}"}


def answer(number: int, layout: str, output_uri: str = "s3://results/runs/") -> dict[str, Any]:
    location = layout.format(uri=output_uri.rstrip("/"), id=number, uuid=f"uuid-{number}")
    return {"outputUri": output_uri, "runOutputUri": location}


def locations_of(
    answers: dict[int, dict[str, Any]], default: str | None = "s3://results/runs/", own: dict[str, str] | None = None
) -> OutputLocations | None:
    evidence = OutputEvidence(OutputUris(default, own or {}))
    for number, run in answers.items():
        evidence.add(row_of(number), run)
    return evidence.locations()


@given(number=st.integers(0, 100_000))
def test_a_sample_is_spread_over_the_batch(number: int) -> None:
    positions = spread(number, SAMPLE_SIZE)
    assert len(positions) == len(set(positions)) == min(number, SAMPLE_SIZE)
    assert positions == sorted(positions)
    if number:
        assert (positions[0], positions[-1]) == (0, number - 1)
    gaps = [after - before for before, after in pairwise(positions)]
    assert not gaps or max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("output_uri", ["s3://results", "s3://results/runs", "s3://results/runs/"])
def test_locations_follow_from_answers_in_one_layout(layout: str, output_uri: str) -> None:
    locations = locations_of({number: answer(number, layout, output_uri) for number in (7, 8)}, output_uri)
    assert locations
    assert locations.of(row_of(9)) == answer(9, layout, output_uri)["runOutputUri"]
    assert locations.of({**row_of(9), "runId": None}) is None
    without_uuid = locations.of({**row_of(9), "runInternalUuid": None})
    assert (without_uuid is None) == ("{uuid}" in layout)


@pytest.mark.parametrize(
    "answers",
    [
        {},
        {7: {"outputUri": "s3://results/runs/"}},
        {7: {"runOutputUri": "s3://results/runs/7"}},
        {7: answer(7, "{uri}/{id}")},
        {7: answer(7, "{uri}/{id}"), 8: {"outputUri": "s3://results/runs/"}},
        {7: answer(7, "{uri}/{id}"), 8: answer(8, "{uri}/{id}"), 9: {"status": "COMPLETED"}},
        {7: answer(7, "{uri}/output/{id}"), 8: answer(8, "{uri}/output/{id}")},
        {7: answer(7, "{uri}/{id}0"), 8: answer(8, "{uri}/{id}0")},
        {7: answer(8, "{uri}/{id}"), 8: answer(7, "{uri}/{id}")},
        {7: answer(7, "{uri}/{id}"), 8: answer(8, "{uri}/{id}/")},
        {7: answer(7, "{uri}/{id}"), 8: answer(8, "{uri}/{id}", "s3://results/others/")},
        {7: answer(7, "{uri}/{id}"), 8: {"runOutputUri": "s3://results/others/8"}},
        {7: answer(7, "{uri}/{uuid}"), 8: answer(8, "{uri}/{id}")},
    ],
)
def test_locations_do_not_follow(answers: dict[int, dict[str, Any]]) -> None:
    assert locations_of(answers) is None


def test_a_failed_run_may_lack_its_location() -> None:
    shown = {number: answer(number, "{uri}/{id}") for number in (7, 8)}
    assert locations_of({**shown, 9: {"status": "FAILED"}})


@given(own=st.sets(st.integers(1, 30)), shown=st.sets(st.integers(1, 30), min_size=2))
def test_with_the_settings_each_run_has_its_own_output_uri(own: set[int], shown: set[int]) -> None:
    settings = [{"runSettingId": f"sample-{number}", "outputUri": f"s3://own/{number}/"} for number in sorted(own)]
    own_uris = own_output_uris([*settings, {"runSettingId": "sample-31"}])
    right = {
        number: answer(number, "{uri}/{id}", f"s3://own/{number}/" if number in own else "s3://results/runs")
        for number in range(1, 32)
    }
    locations = locations_of({number: right[number] for number in sorted(shown)}, "s3://results/runs", own_uris)
    assert locations
    assert {number: locations.of(row_of(number)) for number in right} == {
        number: run["runOutputUri"] for number, run in right.items()
    }


def test_settings_that_the_answers_contradict() -> None:
    own = {"sample-8": "s3://own/"}
    both = {number: answer(number, "{uri}/{id}") for number in (7, 9)}
    locations = locations_of(both, own=own)
    assert locations
    assert locations.of({**row_of(8), "runSettingId": None}) is None
    assert locations_of({**both, 8: answer(8, "{uri}/{id}")}, own=own) is None
    assert locations_of(both, "s3://results/runs", own) is None
    assert locations_of(both, None) is None
    assert locations_of({number: {"runOutputUri": run["runOutputUri"]} for number, run in both.items()}, own=own)


OWN = {"sample-8": "s3://own/8", "sample-9": "s3://own/9"}


@pytest.mark.parametrize(
    ("tagged", "given", "is_known"),
    [
        ({}, {}, True),
        (OWN, dict(reversed(OWN.items())), True),
        (OWN, {}, False),
        ({}, OWN, False),
        (OWN, {**OWN, "sample-9": "s3://own/8"}, False),
        (OWN, {"sample-8": "s3://own/8"}, False),
        (None, {}, False),
    ],
)
def test_the_tag_of_the_batch_confirms_which_settings_have_their_own_output_uri(
    tagged: dict[str, str] | None, given: dict[str, str], is_known: bool
) -> None:
    batch = {
        "defaultRunSetting": {"outputUri": "s3://results/runs"},
        "tags": {} if tagged is None else {OWN_OUTPUT_URIS: digest(tagged)},
    }
    assert OutputUris.of_batch(batch, given) == (OutputUris("s3://results/runs", given) if is_known else None)
    assert OutputUris.of_batch({}, given) is None
    without_default = OutputUris.of_batch({"tags": batch["tags"]}, given)
    assert (without_default and without_default.of(row_of(7))) is None
