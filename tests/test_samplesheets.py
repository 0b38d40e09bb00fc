from __future__ import annotations

import json
import string
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_omics_cache.exceptions import OmicsParameterError
from airflow_provider_omics_cache.samplesheets import run_settings_from_table

SHEET = """sample,lane,fastq_1,fastq_2,reads
S1,L1,s3://b/1_1.fq,s3://b/1_2.fq,1000
S1,L2,s3://b/2_1.fq,,2000
S2,L1,s3://b/3_1.fq,s3://b/3_2.fq,3000
"""
PARAMETERS: dict[str, Any] = {"reads_1": "fastq_1", "reads_2": "fastq_2"}


@pytest.fixture
def sheet(tmp_path: Path) -> Path:
    path = tmp_path / "samplesheet.csv"
    path.write_text(SHEET)
    return path


def error_of(rows: Any, **changes: Any) -> str:
    arguments = {"run_setting_id": "sample", "parameters": {"reads_1": "fastq_1"}, **changes}
    with pytest.raises(OmicsParameterError) as caught:
        run_settings_from_table(rows, **arguments)
    return str(caught.value)


def test_one_run_for_each_row(sheet: Path) -> None:
    parameters = {
        "reads_1": "fastq_1",
        "reads_2": "fastq_2",
        "number": lambda row: int(row["reads"]),
        "files": lambda row: [row["fastq_1"], row["fastq_2"]] if row["fastq_2"] else None,
    }
    settings = run_settings_from_table(
        sheet, run_setting_id="{sample}_{lane}", parameters=parameters, optional=["fastq_2"]
    )
    assert settings == [
        {
            "runSettingId": "S1_L1",
            "parameters": {
                "reads_1": "s3://b/1_1.fq",
                "reads_2": "s3://b/1_2.fq",
                "number": 1000,
                "files": ["s3://b/1_1.fq", "s3://b/1_2.fq"],
            },
        },
        {"runSettingId": "S1_L2", "parameters": {"reads_1": "s3://b/2_1.fq", "number": 2000}},
        {
            "runSettingId": "S2_L1",
            "parameters": {
                "reads_1": "s3://b/3_1.fq",
                "reads_2": "s3://b/3_2.fq",
                "number": 3000,
                "files": ["s3://b/3_1.fq", "s3://b/3_2.fq"],
            },
        },
    ]


def test_json_values_stay_what_they_are() -> None:
    rows = [{"id": 7, "depth": 30, "files": ["a"], "paired": False, "note": None}, {"id": 8, "depth": 0, "note": "x"}]
    settings = run_settings_from_table(
        rows,
        run_setting_id="{id:0>3}",
        parameters={"depth": "depth", "files": "files", "paired": "paired", "note": "note"},
        optional=("files", "paired", "note"),
    )
    assert settings == [
        {"runSettingId": "007", "parameters": {"depth": 30, "files": ["a"], "paired": False}},
        {"runSettingId": "008", "parameters": {"depth": 0, "note": "x"}},
    ]


def test_a_column_may_be_named_like_a_template_or_an_attribute() -> None:
    rows = [{"{sample}": "S1", "a.b": "x"}]
    assert run_settings_from_table(rows, run_setting_id="{sample}", parameters={})[0]["runSettingId"] == "S1"
    assert run_settings_from_table(rows, run_setting_id="{a.b}", parameters={})[0]["runSettingId"] == "x"


def test_names_an_empty_cell(sheet: Path) -> None:
    text = error_of(sheet, run_setting_id="{sample}_{lane}", parameters=PARAMETERS)
    rule = "must not be empty, unless optional names the column"
    assert text == f"rows, row 2 (line 3), column 'fastq_2' {rule} (file {sheet}); got ''"
    assert error_of([{"sample": " ", "fastq_1": "x"}]) == "rows, row 1, column 'sample' must not be empty; got ' '"


def test_names_a_missing_column_once(sheet: Path) -> None:
    text = error_of(sheet, run_setting_id="{sample}_{flowcell}", parameters={"reads_1": "fastq"})
    assert text.startswith("rows must have the column 'flowcell'; also must have the column 'fastq'")
    assert text.endswith("got 'sample, lane, fastq_1, fastq_2, reads'")
    assert "'fastq_1 '" in error_of(sheet, parameters={"reads_1": "fastq_1 "}, optional=["fastq_1 "])
    assert error_of([{"fastq_1": "x"}]) == "rows must have the column 'sample'; got 'fastq_1'"


def test_names_both_rows_of_a_duplicate_sample(sheet: Path) -> None:
    text = error_of(sheet)
    assert text == f"rows, row 2 (line 3), column 'sample' must be unique (file {sheet}); got 'S1 as in row 1 (line 2)'"
    text = error_of(sheet, run_setting_id="{sample}-x")
    assert text.startswith("rows, row 2 (line 3), run_setting_id '{sample}-x' must be unique")


def test_names_the_row_whose_function_raises(sheet: Path) -> None:
    parameters = {"number": lambda row: int(row["fastq_2"])}
    text = error_of(sheet, run_setting_id="{sample}_{lane}", parameters=parameters)
    assert text.startswith(
        "rows, row 1 (line 2), parameter 'number' cannot be computed: its function raised an error (3 rows"
    )
    assert "invalid literal for int()" in text
    text = error_of([{"sample": "S1"}], parameters={"depth": lambda row: int(row["d"])})
    assert text == "rows, row 1, parameter 'depth' cannot be computed: its function raised an error; got KeyError('d')"
    text = error_of(sheet, run_setting_id="{sample}_{lane}", parameters={"number": lambda row: {1, 2}})
    assert "parameter 'number' must be a JSON value" in text
    text = error_of(sheet, run_setting_id="{sample}_{lane}", parameters={"number": lambda row: float("nan")})
    assert "parameter 'number' must be a JSON value" in text


@pytest.mark.parametrize("cell", [float("nan"), date(2026, 1, 1), {1, 2}, ["a", b"b"]])
def test_names_a_cell_that_json_cannot_hold(cell: Any) -> None:
    text = error_of([{"sample": "S1", "fastq_1": cell}])
    assert text.startswith("rows, row 1, column 'fastq_1' must be a JSON value; got ")


@pytest.mark.parametrize("cell", [True, 1.5, ["S1"], {"a": 1}])
def test_an_id_is_text_or_a_whole_number(cell: Any) -> None:
    assert error_of([{"sample": cell, "fastq_1": "x"}]).startswith(
        "rows, row 1, column 'sample' must be a string or an integer; got "
    )


def test_a_format_that_does_not_fit_is_named() -> None:
    text = error_of([{"sample": "S1", "fastq_1": "x"}], run_setting_id="{sample:d}")
    assert text.startswith("rows, row 1, run_setting_id '{sample:d}' must be a format that fits the row; got ")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"run_setting_id": ""}, "run_setting_id must be a column or a template"),
        ({"run_setting_id": None}, "run_setting_id must be a column or a template"),
        ({"run_setting_id": "{sample"}, "run_setting_id must be a column or a template"),
        ({"run_setting_id": "{}"}, "run_setting_id must be a column or a template"),
        ({"run_setting_id": "{0}"}, "rows must have the column '0'"),
        ({"parameters": ["fastq_1"]}, "parameters must be a dict; got 'list'"),
        ({"parameters": {"reads_1": 7}}, "parameters must have a column or a function for each parameter"),
        ({"optional": [["fastq_1"]]}, "optional must be a list of columns; got [['fastq_1']]"),
        ({"optional": "fastq_1"}, "optional must be a list of columns; got 'fastq_1'"),
        (
            {"optional": ["fastq_3", "fastq_1", "cram"]},
            "optional names unknown columns: cram, fastq_3 (columns used: fastq_1); got ['cram', 'fastq_3']",
        ),
        (
            {"optional": ["fastq_1"], "parameters": {"reads": len}},
            "optional names unknown columns: fastq_1 (columns used: none); got ['fastq_1']",
        ),
    ],
)
def test_refuses_bad_parameters(changes: dict[str, Any], text: str) -> None:
    assert text in error_of([{"sample": "S1", "fastq_1": "x"}], **changes)


def test_refuses_no_rows_and_too_many() -> None:
    assert error_of([]) == "rows must have at least one row; got 'no rows'"
    rows = ({"sample": str(number), "fastq_1": "x"} for number in range(100_001))
    assert error_of(rows) == "rows must have at most 100,000 rows; got 'more than 100,000 rows'"


def test_long_cells_are_not_shown_whole() -> None:
    text = error_of([{"sample": "S" * 5_000, "fastq_1": "x"}] * 2)
    assert len(text) < 300


def test_every_rule_is_reported_at_once() -> None:
    rows = [{"sample": "S1", "fastq_1": ""}, {"sample": "S2", "fastq_1": "x"}, {"sample": "S2", "fastq_1": "x"}]
    text = error_of(rows)
    assert "column 'fastq_1' must not be empty" in text
    assert "also column 'sample' must be unique" in text


CELLS = st.text(alphabet=string.ascii_letters + " ,\"'\n;é", max_size=8).map(str.strip)


@given(
    rows=st.lists(st.fixed_dictionaries({"sample": CELLS, "fastq": CELLS}), min_size=1, max_size=6),
    is_optional=st.booleans(),
)
def test_gives_every_row_or_an_error(rows: list[dict[str, str]], is_optional: bool) -> None:
    ids = [row["sample"] for row in rows]
    is_good = all(ids) and len(set(ids)) == len(ids) and (is_optional or all(row["fastq"] for row in rows))
    optional = ["fastq"] if is_optional else []
    try:
        settings = run_settings_from_table(
            json.loads(json.dumps(rows)), run_setting_id="sample", parameters={"f": "fastq"}, optional=optional
        )
    except OmicsParameterError:
        assert not is_good
    else:
        assert is_good
        assert settings == [
            {"runSettingId": row["sample"], "parameters": {"f": row["fastq"]} if row["fastq"] else {}} for row in rows
        ]
