from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_omics_cache.exceptions import OmicsParameterError
from airflow_provider_omics_cache.healthomics.completion import join
from airflow_provider_omics_cache.healthomics.run_failures import RUN_FAILURES, NewRun, reasons_of
from airflow_provider_omics_cache.healthomics.states import RunStatus
from airflow_provider_omics_cache.operators.run_batch import StartRunBatchOperator
from airflow_provider_omics_cache.resubmission import (
    RERUN_KEY,
    RESUMABLE_RUN_FAILURES,
    RETRYABLE_SUBMISSION_FAILURES,
    SampleStep,
    failed_run_settings,
    next_steps,
    resumable_run_settings,
)


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
        "listing must have a record of each of the 3 run settings: pass batch= (the sensor's XCom) to "
        "confirm that a missing run was never "
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


def ended(run_setting_id: str, status: str = "COMPLETED", reason: str | None = None) -> dict[str, Any]:
    return {
        "run_setting_id": run_setting_id,
        "run_id": None if status in {"NOT_SUBMITTED", "UNKNOWN"} else f"9{run_setting_id[1:]}",
        "status": status,
        "failure_reason": reason,
    }


CACHED = {"workflowId": "1", "roleArn": "arn:aws:iam::123456789012:role/omics", "cacheId": "42"}
RUN_SETTINGS = settings_of("S1", "S2", "S3", "S4", "S5", "S6", "S7")
RUNS = [
    ended("S7", "DELETED"),
    ended("S6", "CANCELLED"),
    ended("S5", "NOT_SUBMITTED", "ThrottlingException"),
    ended("S4", "FAILED", "INSTANCE_RESERVATION_FAILED"),
    ended("S3", "FAILED", "RUN_TASK_FAILED"),
    ended("S2", "FAILED", "SERVICE_ERROR"),
    ended("S1"),
]


def resume_error(run_settings: Any = RUN_SETTINGS, runs: Any = RUNS, **members: Any) -> str:
    with pytest.raises(OmicsParameterError) as caught:
        resumable_run_settings(run_settings, runs, **{"default_run_setting": CACHED, **members})
    return str(caught.value)


@pytest.mark.parametrize(
    ("members", "ids"),
    [
        ({}, ["S2", "S4"]),
        ({"reasons": RESUMABLE_RUN_FAILURES | {"RUN_TASK_FAILED"}}, ["S2", "S3", "S4"]),
        ({"reasons": ["RUN_TASK_FAILED"]}, ["S3"]),
        ({"reasons": ["A_CODE_OF_NEXT_YEAR"]}, []),
        ({"statuses": ["FAILED", "CANCELLED"]}, ["S2", "S4", "S6"]),
        ({"statuses": [RunStatus.CANCELLED]}, ["S6"]),
    ],
)
def test_resumes_what_failed_in_the_original_order(members: dict[str, Any], ids: list[str]) -> None:
    given = resumable_run_settings(iter(RUN_SETTINGS), iter(RUNS), default_run_setting=CACHED, **members)
    assert given == settings_of(*ids)


def test_resumes_from_files(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(json.dumps(RUN_SETTINGS))
    (tmp_path / "runs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in RUNS))
    given = resumable_run_settings(
        tmp_path / "settings.json", str(tmp_path / "runs.jsonl"), default_run_setting=CACHED, allow=("file",)
    )
    assert given == settings_of("S2", "S4")


def test_only_failures_of_aws_are_resumed_by_default() -> None:
    assert reasons_of(NewRun.CAN_SUCCEED) == RESUMABLE_RUN_FAILURES
    codes = dict(zip([f"S{number}" for number in range(len(RUN_FAILURES))], RUN_FAILURES, strict=True))
    runs = [ended(name, "FAILED", code) for name, code in codes.items()]
    resumed = resumable_run_settings(settings_of(*codes), runs, default_run_setting=CACHED)
    assert {codes[setting["runSettingId"]] for setting in resumed} == RESUMABLE_RUN_FAILURES


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        (
            None,
            "default_run_setting must be the default run setting of the batch, with the cacheId of its run cache. "
            "Without a run cache set allow_without_cache=True; got None",
        ),
        ("s3://lab/settings.json", "Without a run cache set allow_without_cache=True; got 'str'"),
        *(
            (
                {"roleArn": "arn:aws:iam::123456789012:role/omics", **cache},
                "default_run_setting.cacheId must be the id of a run cache. Without one the new runs compute every "
                "task again, and you pay for every task again. Set allow_without_cache=True to accept that; "
                f"got {cache.get('cacheId')!r}",
            )
            for cache in ({}, {"cacheId": None}, {"cacheId": ""}, {"cacheId": "None"})
        ),
    ],
)
def test_a_batch_without_a_cache_is_refused_unless_it_is_allowed(setting: Any, text: str) -> None:
    message = resume_error(default_run_setting=setting)
    assert message.endswith(text)
    assert "arn:aws" not in message
    given = resumable_run_settings(RUN_SETTINGS, RUNS, default_run_setting=setting, allow_without_cache=True)
    assert given == settings_of("S2", "S4")


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (ended("S1", "RUNNING"), "the status RUNNING does not show how the run ended"),
        (ended("S1", "UNKNOWN"), "the status UNKNOWN does not show how the run ended"),
        ({**ended("S1"), "run_id": None}, "the record has the status COMPLETED, but no run id"),
    ],
)
def test_a_run_whose_end_is_not_certain_is_an_error(record: dict[str, Any], text: str) -> None:
    assert resume_error(runs=[*RUNS[:-1], record]) == (
        f"runs must show how each run ended, but {text}: wait until every run has ended, and list the batch again; "
        "got 'S1'"
    )


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"runs": RUNS[1:]}, "runs must show how each run ended, but the sample has no record"),
        ({"runs": [*RUNS, RUNS[0]]}, "runs, row 8, run_setting_id must be unique; got 'S7'"),
        ({"runs": [*RUNS, ended("S8")]}, "runs, run_setting_id must be the runSettingId of one of run_settings"),
        ({"runs": [{**ended("S1"), "status": 1}]}, "runs, row 1, status must be a string or null; got 1"),
        ({"runs": [{"status": "FAILED"}]}, "runs, row 1, run_setting_id must be a non-empty string; got None"),
        ({"runs": {"S1": "91"}}, "runs must be an iterable of dicts"),
        ({"run_settings": []}, "run_settings must have at least one row"),
        ({"run_settings": [*RUN_SETTINGS, RUN_SETTINGS[0]]}, "run_settings, row 8, runSettingId must be unique"),
        ({"run_settings": [{}]}, "run_settings, row 1, runSettingId must be a non-empty string"),
        ({"reasons": "SERVICE_ERROR"}, "reasons must be a list of non-empty strings; got 'SERVICE_ERROR'"),
        ({"reasons": None}, "reasons must be a list of non-empty strings"),
        ({"statuses": "FAILED"}, "statuses must be a list of non-empty strings"),
        ({"statuses": ["COMPLETED"]}, "statuses must be FAILED, CANCELLED or both; got ['COMPLETED']"),
        ({"statuses": ["DELETED", "FAILED"]}, "statuses must be FAILED, CANCELLED or both"),
    ],
)
def test_refuses_runs_that_do_not_fit(changed: dict[str, Any], text: str) -> None:
    assert text in resume_error(**changed)


def test_the_next_step_of_each_sample() -> None:
    assert list(next_steps(iter(RUN_SETTINGS), iter(RUNS[1:]))) == [
        SampleStep("S1", "completed", None),
        SampleStep("S2", "resume", "SERVICE_ERROR"),
        SampleStep("S3", "given up", "RUN_TASK_FAILED"),
        SampleStep("S4", "resume", "INSTANCE_RESERVATION_FAILED"),
        SampleStep("S5", "submit again", "ThrottlingException"),
        SampleStep("S6", "given up", "CANCELLED"),
        SampleStep("S7", "unknown", "the sample has no record"),
    ]
    without = {step.step for step in next_steps(RUN_SETTINGS, RUNS, reasons=(), submission_reasons=())}
    assert without == {"completed", "given up"}
    with pytest.raises(OmicsParameterError, match="submission_reasons must be a list of non-empty strings"):
        next_steps(RUN_SETTINGS, RUNS, submission_reasons="ThrottlingException")


#: An entry of ListRunsInBatch without its runSettingId, and the run's status and failureReason.
LISTED = st.one_of(
    st.tuples(
        st.just({"runId": "9", "submissionStatus": "SUCCESS"}),
        st.sampled_from([*RunStatus, None, "NEW_STATUS"]),
        st.sampled_from([*RUN_FAILURES, "NEW_CODE", None]),
    ),
    st.tuples(
        st.sampled_from([*RETRYABLE_SUBMISSION_FAILURES, "ValidationException", "NewException"]).map(
            lambda reason: {"submissionStatus": "FAILED", "submissionFailureReason": reason}
        ),
        st.none(),
        st.none(),
    ),
    st.tuples(st.sampled_from([{"submissionStatus": "CANCEL_SUCCESS"}]), st.none(), st.none()),
)


@given(listed=st.lists(LISTED, min_size=1, max_size=10), data=st.data())
def test_each_sample_has_one_next_step_that_agrees_with_the_settings(listed: list[Any], data: st.DataObject) -> None:
    names = [f"S{number}" for number in range(len(listed))]
    rows = [{"runSettingId": name, **row} for name, (row, _, _) in zip(names, listed, strict=True)]
    runs = [
        join(row, {"status": status} if status else None, {"failureReason": reason}, batch_id="1")
        for row, (_, status, reason) in zip(rows, listed, strict=True)
    ]
    mapping = [
        record(
            row["runSettingId"],
            run="runId" in row,
            status=row["submissionStatus"],
            reason=row.get("submissionFailureReason"),
        )
        for row in rows
    ]
    settings = settings_of(*names)
    reasons = data.draw(st.sampled_from([RESUMABLE_RUN_FAILURES, set(RUN_FAILURES), set[str]()]))
    statuses = data.draw(st.sampled_from([["FAILED"], ["CANCELLED"], ["FAILED", "CANCELLED"]]))
    given_runs = data.draw(st.permutations(runs))
    steps = list(next_steps(settings, given_runs, reasons=reasons, statuses=statuses))
    assert [step.run_setting_id for step in steps] == names
    again = failed_run_settings(settings, mapping, reasons=RETRYABLE_SUBMISSION_FAILURES)
    assert again == settings_of(*(step.run_setting_id for step in steps if step.step == "submit again"))
    completed = {run["run_setting_id"] for run in runs if run["status"] == "COMPLETED"}
    assert completed == {step.run_setting_id for step in steps if step.step == "completed"}
    try:
        resumed = resumable_run_settings(
            settings, given_runs, reasons=reasons, statuses=statuses, default_run_setting=CACHED
        )
    except OmicsParameterError:
        assert any(step.step == "unknown" for step in steps)
        return
    assert resumed == settings_of(*(step.run_setting_id for step in steps if step.step == "resume"))
    for step, run in zip(steps, runs, strict=True):
        assert step.step != "unknown"
        is_asked_for = run["status"] in statuses and (run["status"] != "FAILED" or run["failure_reason"] in reasons)
        assert (step.step == "resume") == is_asked_for
        assert step.step == "completed" or step.reason


def test_the_documentation_has_the_verdict_on_every_code() -> None:
    page = (Path(__file__).parents[1] / "docs" / "resubmission.rst").read_text()
    table = page.partition("Failure reasons of runs")[2].partition("\n   * - ")[2].split("\n   * - ")[1:]
    rows = dict(zip(NewRun, table, strict=False))
    assert {
        new_run: set(re.findall("[A-Z]+(?:_[A-Z]+)+", row.partition("\n\n")[0])) for new_run, row in rows.items()
    } == {new_run: reasons_of(new_run) for new_run in NewRun}
