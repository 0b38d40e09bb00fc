from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_omics_cache.exceptions import OmicsParameterError
from airflow_provider_omics_cache.operators.run_batch import StartRunBatchOperator
from airflow_provider_omics_cache.resubmission import RERUN_KEY, RETRYABLE_SUBMISSION_FAILURES, failed_run_settings


def settings_of(*ids: str) -> list[dict[str, Any]]:
    return [{"runSettingId": run_setting_id, "parameters": {"sample": run_setting_id}} for run_setting_id in ids]


def record(run_setting_id: str, *, run: bool = False, status: str | None = None, **members: Any) -> dict[str, Any]:
    return {
        "run_setting_id": run_setting_id,
        "run_id": f"9{run_setting_id[1:]}" if run else None,
        "run_uuid": None,
        "status": status or ("SUCCESS" if run else "FAILED"),
        "reason": None if run else "ThrottlingException",
        "message": None,
        "run_arn": None,
        **members,
    }


def numbers(total: int, submitted: int, failed: int | None = None) -> dict[str, Any]:
    failed = total - submitted if failed is None else failed
    return {"id": "1", "status": "INPROGRESS", "total_runs": total, "submitted": submitted, "failed": failed}


SETTINGS = settings_of("S1", "S2", "S3")
LISTING = [
    record("S3", reason="ValidationException"),
    record("S1", run=True),
    record("S2"),
]


def error_of(run_settings: Any, listing: Any, **members: Any) -> str:
    with pytest.raises(OmicsParameterError) as caught:
        failed_run_settings(run_settings, listing, **members)
    return str(caught.value)


def test_gives_what_was_not_submitted_in_the_original_order() -> None:
    assert failed_run_settings(SETTINGS, LISTING) == settings_of("S2", "S3")
    assert failed_run_settings(SETTINGS, LISTING, batch=numbers(3, 1)) == settings_of("S2", "S3")
    assert failed_run_settings(iter(SETTINGS), iter(LISTING), reasons=[]) == []


def test_gives_only_what_failed_for_one_of_the_reasons() -> None:
    assert failed_run_settings(SETTINGS, LISTING, reasons=RETRYABLE_SUBMISSION_FAILURES) == settings_of("S2")
    assert failed_run_settings(SETTINGS, LISTING, reasons={"ValidationException"}) == settings_of("S3")


def test_reads_both_from_files(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(json.dumps(SETTINGS))
    (tmp_path / "mapping.jsonl").write_text("".join(json.dumps(row) + "\n" for row in LISTING))
    given = failed_run_settings(tmp_path / "settings.json", str(tmp_path / "mapping.jsonl"), allow=("file",))
    assert given == settings_of("S2", "S3")


@pytest.mark.parametrize(
    "status", ["SUCCESS", "CANCEL_SUCCESS", "CANCEL_FAILED", "DELETE_SUCCESS", "FAILED", "", "NEW"]
)
def test_never_gives_a_run_that_was_submitted_whatever_became_of_it(status: str) -> None:
    listing = [record("S1", run=True, status=status, reason="ThrottlingException")]
    assert failed_run_settings(settings_of("S1"), listing) == []


@pytest.mark.parametrize("status", ["SUCCESS", "CANCEL_FAILED", "DELETE_SUCCESS", "DELETE_FAILED", "NEW"])
def test_a_run_without_id_that_may_exist_is_an_error(status: str) -> None:
    text = error_of(settings_of("S1"), [record("S1", status=status)], batch=numbers(1, 0))
    rule = f"must not be empty if the status is {status}, because a run may exist: list the batch again"
    assert text == f"listing, row 1, run_id {rule}; got None"


def test_a_run_that_was_cancelled_before_its_submission_was_not_submitted() -> None:
    listing = [record("S1", status="CANCEL_SUCCESS", reason=None)]
    assert failed_run_settings(settings_of("S1"), listing) == settings_of("S1")


def test_what_is_not_listed_counts_only_if_the_batch_confirms_it() -> None:
    listing = [record("S1", run=True)]
    assert error_of(SETTINGS, listing).startswith(
        "listing must have all 3 run settings: pass batch= (the sensor's XCom) to confirm that a missing run was never "
        "submitted; got '2 missing: S2, S3'"
    )
    assert failed_run_settings(SETTINGS, listing, batch=numbers(3, 1)) == settings_of("S2", "S3")
    assert failed_run_settings(SETTINGS, [], batch=numbers(3, 0)) == SETTINGS
    assert failed_run_settings(SETTINGS, listing, batch=numbers(3, 1), reasons=["ThrottlingException"]) == []


def test_what_has_no_outcome_counts_only_if_the_batch_confirms_it() -> None:
    listing = [record("S1", run=True), {**record("S2"), "status": None}, record("S3")]
    assert error_of(SETTINGS, listing).startswith(
        "listing, row 2, status is missing: pass batch= (the sensor's XCom) to confirm that this run was never "
        "submitted; got None"
    )
    assert failed_run_settings(SETTINGS, listing, batch=numbers(3, 1)) == settings_of("S2", "S3")


@pytest.mark.parametrize(
    "batch",
    [numbers(3, 2), numbers(4, 1), numbers(3, 1, 1), numbers(2, 1), {}, {"total_runs": 3}, "batch", [3, 1, 2]],
)
def test_numbers_that_do_not_add_up_are_an_error(batch: Any) -> None:
    text = error_of(SETTINGS, LISTING, batch=batch)
    assert text.startswith(
        "batch must match run_settings and listing, which have {'total_runs': 3, 'submitted': 1, 'failed': 2}; got "
    )


def test_the_xcom_of_failed_submissions_is_not_taken_for_the_listing() -> None:
    settings = settings_of(*(f"S{number}" for number in range(3_000)))
    capped = [record(f"S{number}") for number in range(1_000)]
    for row in capped:
        del row["run_arn"]
    assert "2,000 missing: S1000, S1001" in error_of(settings, capped)
    assert "must be the full listing (see mapping_s3_uri)" in error_of(settings, capped, batch=numbers(3_000, 0))
    assert error_of(settings, capped, batch=numbers(3_000, 1_000)).startswith(
        "batch must match run_settings and listing"
    )


@pytest.mark.parametrize(
    ("run_settings", "listing", "text"),
    [
        (SETTINGS, [*LISTING, record("S2")], "listing, row 4, run_setting_id must be unique; got 'S2 as in row 3'"),
        (
            SETTINGS,
            [*LISTING, record("S4")],
            "listing, row 4, run_setting_id must be the runSettingId of one of run_settings; got 'S4'",
        ),
        (SETTINGS, [{"runSettingId": "S1"}], "listing, row 1, run_setting_id must be a non-empty string; got None"),
        (SETTINGS, {"S1": "91"}, "listing must be the full listing (see mapping_s3_uri), not the mapping; got 'dict'"),
        ([*SETTINGS, *SETTINGS], LISTING, "run_settings, row 4, runSettingId must be unique (3 rows have this error"),
        ([{"parameters": {}}], LISTING, "run_settings, row 1, runSettingId must be a non-empty string; got None"),
        ([], LISTING, "run_settings must have at least one row"),
        (
            SETTINGS,
            [{**LISTING[0], "status": ["FAILED"]}, *LISTING[1:]],
            "listing, row 1, status must be a string or null",
        ),
        (SETTINGS, [{**LISTING[0], "reason": ["a"]}, *LISTING[1:]], "listing, row 1, reason must be a string or null"),
    ],
)
def test_refuses_what_does_not_fit(run_settings: Any, listing: Any, text: str) -> None:
    assert text in error_of(run_settings, listing)
    assert text in error_of(run_settings, listing, batch=numbers(3, 1))


def test_one_reason_has_to_be_in_a_list() -> None:
    text = error_of(SETTINGS, LISTING, reasons="ThrottlingException")
    assert text == "reasons must be a list of submission failure reasons; got 'ThrottlingException'"


ROW = st.tuples(
    st.sampled_from(["run", "failed", "cancelled", "no outcome", "unlisted", "unknown"]),
    st.sampled_from([*sorted(RETRYABLE_SUBMISSION_FAILURES), "ValidationException"]),
)


@given(rows=st.lists(ROW, min_size=1, max_size=12), wrong=st.integers(-1, 1), data=st.data())
def test_what_is_given_and_what_was_submitted_are_all_and_disjoint(
    rows: list[tuple[str, str]], wrong: int, data: st.DataObject
) -> None:
    ids = [f"S{number}" for number in range(len(rows))]
    kinds = dict(zip(ids, (kind for kind, _ in rows), strict=True))
    statuses = {"failed": "FAILED", "cancelled": "CANCEL_SUCCESS", "no outcome": "", "unknown": "SOMETHING"}
    listing = [
        record(name, run=True) if kind == "run" else {**record(name, reason=reason), "status": statuses[kind]}
        for name, (kind, reason) in zip(ids, rows, strict=True)
        if kind != "unlisted"
    ]
    submitted = {name for name in ids if kinds[name] == "run"}
    batch = data.draw(st.sampled_from([None, numbers(len(ids), len(submitted) + wrong)]))
    reasons = data.draw(st.sampled_from([None, RETRYABLE_SUBMISSION_FAILURES]))
    is_sure = "unknown" not in kinds.values() and (
        wrong == 0 if batch else not {"unlisted", "no outcome"} & set(kinds.values())
    )
    try:
        result = failed_run_settings(
            settings_of(*ids), data.draw(st.permutations(listing)), batch=batch, reasons=reasons
        )
    except OmicsParameterError:
        assert not is_sure
        return
    assert is_sure
    given_ids = {setting["runSettingId"] for setting in result}
    assert given_ids.isdisjoint(submitted)
    if reasons is None:
        assert given_ids | submitted == set(ids)
        assert [setting["runSettingId"] for setting in result] == [name for name in ids if name not in submitted]
    else:
        listed = dict(zip(ids, rows, strict=True))
        assert given_ids == {n for n in ids if listed[n][0] not in {"run", "unlisted"} and listed[n][1] in reasons}


@pytest.mark.parametrize(
    ("variables", "params", "key"),
    [
        ({}, {}, ""),
        ({}, {"rerun_key": "2"}, "2"),
        ({"omics_rerun_key_my-dag_manual__2026-11-20T09-00-00-00-00": "3"}, {"rerun_key": "2"}, "3"),
        ({"omics_rerun_key_other_manual__2026-11-20T09-00-00-00-00": "3"}, {"rerun_key": "2"}, "2"),
    ],
)
def test_the_rerun_key_of_a_dag_run(variables: dict[str, str], params: dict[str, str], key: str) -> None:
    task = StartRunBatchOperator(task_id="start", default_run_setting={}, run_settings=[], rerun_key=RERUN_KEY)
    context = {
        "var": SimpleNamespace(value=variables),
        "params": params,
        "ti": SimpleNamespace(dag_id="my-dag"),
        "run_id": "manual__2026-11-20T09:00:00+00:00",
    }
    task.render_template_fields(context)  # type: ignore[arg-type]
    assert task.rerun_key == key
