from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import boto3
import pytest

from airflow_provider_omics_cache.exceptions import OmicsParameterError
from airflow_provider_omics_cache.local import LocalHealthOmics
from airflow_provider_omics_cache.samplesheets import run_settings_from_samplesheet
from airflow_provider_omics_cache.sheet_schemas import SheetSchema
from airflow_provider_omics_cache.table_formats import BrokenRows, Place

READS = r"^\S+\.f(ast)?q\.gz$"
READS_MESSAGE = "Reads end in .fq.gz or .fastq.gz"
#: In the shape of nf-core/rnaseq: nf-schema, optional columns with formats, meta as list and as text, a number.
RNA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": "https://pipelines.example/rna/schema_input.json",
    "title": "Samples of an RNA pipeline",
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "sample": {"type": "string", "pattern": r"^\S+$", "errorMessage": "A sample has a name", "meta": ["id"]},
            "fastq_1": {
                "type": "string",
                "format": "file-path",
                "exists": True,
                "mimetype": "application/gzip",
                "pattern": READS,
                "errorMessage": READS_MESSAGE,
            },
            "fastq_2": {"type": "string", "format": "file-path", "exists": True, "pattern": READS},
            "strandedness": {
                "type": "string",
                "enum": ["forward", "reverse", "unstranded", "auto"],
                "errorMessage": "Name the strand",
                "meta": ["strandedness"],
            },
            "mapped": {"type": "number", "minimum": 0, "maximum": 100, "meta": "mapped"},
            "controls": {"type": "integer"},
            "is_pilot": {"type": "boolean", "deprecated": False},
            "protocol": {"type": "string", "deprecated": True, "errorMessage": "Use strandedness"},
        },
        "required": ["sample", "fastq_1", "strandedness"],
        "dependentRequired": {"fastq_2": ["fastq_1"], "mapped": ["controls"]},
    },
    "uniqueEntries": ["sample", "fastq_1"],
}
RNA_ROW = {"sample": "LIVER", "fastq_1": "s3://reads/l1_1.fastq.gz", "strandedness": "auto"}


def text_or_empty(pattern: str, **more: Any) -> dict[str, Any]:
    return {"anyOf": [{"type": "string", "pattern": pattern}, {"type": "string", "maxLength": 0}], **more}


#: In the shape of older nf-core/sarek: nf-validation, alternatives that can be empty, lists of dependent columns.
VARIANTS: dict[str, Any] = {
    "$schema": "http://json-schema.org/draft-07/schema",
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "patient": {"type": "string", "pattern": r"^\S+$", "errorMessage": "A patient has an id"},
            "sample": {"type": "string", "pattern": r"^\S+$"},
            "status": text_or_empty("^[01]$", errorMessage="A status is 0 or 1"),
            "lane": text_or_empty(r"^\S+$", unique=["patient", "sample"]),
            "fastq_1": text_or_empty(READS, format="file-path"),
            "fastq_2": text_or_empty(READS, dependentRequired=["fastq_1"]),
            "bam": text_or_empty(r"\.bam$", unique=True),
        },
        "required": ["patient", "sample"],
    },
}
VARIANTS_ROW = {"patient": "P1", "sample": "N", "status": "0", "lane": "L1", "fastq_1": "s3://b/1.fq.gz", "bam": ""}


def errors_of(schema: Any, rows: list[dict[str, str]]) -> str:
    checked, broken = SheetSchema(schema), BrokenRows("rows")
    for number, row in enumerate(rows, 1):
        checked.check_row(Place(number, number + 1), row, broken)
    checked.check_table(broken)
    return str(OmicsParameterError(*broken.summary())) if broken else ""


def column(schema: Any, draft: str = "https://json-schema.org/draft/2020-12/schema") -> dict[str, Any]:
    return {"$schema": draft, "type": "array", "items": {"properties": {"x": schema}}}


def is_valid(schema: Any, text: str) -> bool:
    return not errors_of(column(schema), [{"x": text}])


def test_rows_in_the_shape_of_rnaseq_pass() -> None:
    rows = [
        {**RNA_ROW, "fastq_2": "", "mapped": "", "is_pilot": "TRUE", "protocol": "", "more": "a column of the user"},
        {
            **RNA_ROW,
            "fastq_1": "https://x.org/a.fq.gz",
            "fastq_2": "/data/l2_2.fq.gz",
            "mapped": "99.5",
            "controls": "2",
        },
        {**RNA_ROW, "sample": "007", "is_pilot": "false", "mapped": "1e1", "controls": "-0"},
    ]
    assert errors_of(RNA, rows) == ""
    assert errors_of({**RNA, "$schema": "http://json-schema.org/draft-07/schema#"}, rows) == ""


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"sample": "A B"}, "column 'sample' must match the pattern '^\\\\S+$': A sample has a name; got 'A B'"),
        ({"sample": ""}, "column 'sample' must not be empty: A sample has a name; got ''"),
        ({"fastq_1": "x.bam"}, f"column 'fastq_1' must match the pattern {READS!r}: {READS_MESSAGE}; got 'x.bam'"),
        ({"fastq_2": "s3://b/*.fq.gz"}, "column 'fastq_2' must have the format 'file-path'; got 's3://b/*.fq.gz'"),
        (
            {"strandedness": "Auto"},
            "column 'strandedness' must be one of ['forward', 'reverse', 'unstranded', 'auto']: Name the strand; "
            "got 'Auto'",
        ),
        ({"mapped": "101", "controls": "1"}, "column 'mapped' must be at most 100; got '101'"),
        ({"mapped": "-1", "controls": "1"}, "column 'mapped' must be at least 0; got '-1'"),
        ({"mapped": "many", "controls": "1"}, "column 'mapped' must have the type 'number'; got 'many'"),
        ({"mapped": "5"}, "column 'controls' must not be empty if the row has a 'mapped'; got 'no such column'"),
        ({"controls": "1.5"}, "column 'controls' must have the type 'integer'; got '1.5'"),
        ({"is_pilot": "yes"}, "column 'is_pilot' must have the type 'boolean'; got 'yes'"),
        ({"protocol": "x"}, "column 'protocol' is deprecated: leave it out: Use strandedness; got 'x'"),
    ],
)
def test_a_broken_row_is_named_with_the_message_of_the_schema(changes: dict[str, str], text: str) -> None:
    rows = [{**RNA_ROW, "sample": "KIDNEY"}, {**RNA_ROW, **changes}]
    assert errors_of(RNA, rows) == f"rows, row 2 (line 3), {text}"


def test_rows_that_must_be_unique() -> None:
    text = errors_of(RNA, [RNA_ROW, {**RNA_ROW, "sample": "LUNG"}, RNA_ROW])
    found = "LIVER, s3://reads/l1_1.fastq.gz as in row 1 (line 2)"
    assert text == f"rows, row 3 (line 4) must be unique in 'sample' and 'fastq_1'; got '{found}'"
    pairs = {"type": "array", "allOf": [{"uniqueEntries": ["a", "b"]}], "uniqueItems": True}
    assert errors_of(pairs, [{"a": "1"}, {"a": "1", "b": "2"}, {"c": "3"}, {"c": "4"}]) == ""
    assert "row 2 (line 3) must be unique in 'a' and 'b'" in errors_of(
        pairs, [{"a": "1", "c": "1"}, {"a": "1", "b": ""}]
    )
    assert errors_of(pairs, [{"c": "1"}, {"c": "1"}]).startswith(
        "rows, row 2 (line 3) must be unique; got '1 as in row 1"
    )


def test_rows_in_the_shape_of_sarek() -> None:
    other = {**VARIANTS_ROW, "lane": "L2", "status": "", "fastq_2": "s3://b/2.fq.gz"}
    assert errors_of(VARIANTS, [VARIANTS_ROW, other, {"patient": "P2", "sample": "T", "bam": "s3://b/t.bam"}]) == ""
    rows = [VARIANTS_ROW, {**VARIANTS_ROW, "status": "2"}, {"sample": "T", "fastq_2": "x.fq.gz", "status": ""}]
    text = errors_of(VARIANTS, rows)
    assert text.startswith("rows, row 2 (line 3), column 'status' must match anyOf of the schema: A status is 0 or 1")
    assert "must be unique in 'lane' and 'patient' and 'sample' (got 'L1, P1, N as in row 1 (line 2)' at row 2" in text
    assert (
        "column 'fastq_1' must not be empty if the row has a 'fastq_2' (got 'no such column' at row 3 (line 4))" in text
    )
    assert "column 'patient' must not be empty: A patient has an id (got 'no such column' at row 3 (line 4))" in text
    bams = [{"patient": "P", "sample": name, "bam": "t.bam"} for name in "NT"]
    assert "row 2 (line 3) must be unique in 'bam'; got 't.bam as in row 1 (line 2)'" in errors_of(VARIANTS, bams)


def test_rows_in_the_shape_of_newer_sarek() -> None:
    needs = [{"dependentRequired": {"lane": [reads]}} for reads in ("fastq_1", "bam")]
    properties = {
        **{name: {"type": "string", "pattern": r"^\S+$", "meta": [name]} for name in ("patient", "sample", "lane")},
        "status": {"type": "integer", "enum": [0, 1], "default": 0, "errorMessage": "A status is 0 or 1"},
        "fastq_1": {"type": "string", "format": "file-path", "exists": True, "pattern": READS},
    }
    row_schema = {"type": "object", "properties": properties, "required": ["patient", "sample"], "anyOf": needs}
    schema = {"$schema": RNA["$schema"], "type": "array", "items": row_schema, "uniqueItems": True}
    row = {"patient": "P1", "sample": "T", "status": "1", "lane": "1", "fastq_1": "s3://b/1.fq.gz", "bam": ""}
    assert errors_of(schema, [row, {**row, "lane": "2"}, {"patient": "P1", "sample": "N", "status": ""}]) == ""
    text = errors_of(schema, [row, {**row, "status": "2"}, {**row, "fastq_1": ""}, row])
    assert text.startswith("rows, row 2 (line 3), column 'status' must be one of [0, 1]: A status is 0 or 1")
    assert 'must match anyOf of the schema, [{"dependentRequired": {"lane": ["fastq_1"]}}' in text
    assert "must be unique (got 's3://b/1.fq.gz, 1, P1, T, 1 as in row 1 (line 2)' at row 4 (line 5))" in text


def test_alternatives_of_a_row() -> None:
    either = {"anyOf": [{"required": ["short"]}, {"required": ["long"]}], "additionalProperties": False}
    schema = {"type": "array", "items": {"properties": {"short": {}, "long": {}}, **either}}
    assert errors_of(schema, [{"short": "a", "long": ""}, {"long": "b"}]) == ""
    text = errors_of(schema, [{"short": "", "long": "", "x": ""}, {"short": "a", "other": "b"}])
    assert text.startswith('rows, row 1 (line 2) must match anyOf of the schema, [{"required": ["short"]}')
    assert "Additional properties are not allowed ('other' was unexpected)" in text
    only_one = {"type": "array", "items": {"oneOf": either["anyOf"]}}
    assert "row 1 (line 2) must match oneOf of the schema" in errors_of(only_one, [{"short": "a", "long": "b"}])


@pytest.mark.parametrize(
    ("schema", "valid", "broken"),
    [
        ({"type": "integer"}, ["1", "+7", "2.0", "0"], ["1.5", "a", "1_0", "", "1" * 5000]),
        ({"type": "number"}, ["1", "-.5", "1e-3"], ["NaN", "inf", "1e999", "0x1"]),
        ({"type": "string", "pattern": "^[0-9]+$"}, ["007"], ["7a"]),
        ({"type": ["string", "integer"], "minimum": 5}, ["5", "abc"], []),
        ({"anyOf": [{"type": "integer", "minimum": 5}, {"type": "string", "pattern": "^all$"}]}, ["6", "all"], ["4"]),
        ({"oneOf": [{"type": "boolean"}, {"type": "integer"}]}, ["true", "3"], ["yes"]),
        ({"enum": [0, 1]}, ["0", "1"], ["2"]),
        ({"enum": ["0", "1"]}, ["0"], ["2"]),
        ({"const": True}, ["true"], ["false"]),
        ({"$ref": "#/$defs/age"}, ["30"], ["-1", "old"]),
        ({"allOf": [{"$ref": "#/$defs/age"}, {"maximum": 40}]}, ["30"], ["41"]),
        ({"type": "string", "format": "file-path"}, ["a", "s3://b/a", "https://x/a?b=1"], ["s3://b/a/", "a?.fq"]),
        ({"type": "string", "format": "directory-path", "exists": True}, ["s3://b/a/", "/data"], []),
        ({"type": "string", "format": "path", "exists": False}, ["s3://b/a/", "a"], []),
        ({"type": "string", "format": "file-path-pattern"}, ["s3://b/*.fq.gz"], []),
        ({"type": "string", "format": "email"}, ["a@b.org"], ["ab"]),
        ({"type": "string", "maxLength": 2, "meta": "x", "default": "a", "fa_icon": "fas"}, ["ab"], ["abc"]),
    ],
)
def test_text_becomes_the_declared_type(schema: Any, valid: list[str], broken: list[str]) -> None:
    whole = {**column(schema), "$defs": {"age": {"type": "integer", "minimum": 0}}}
    whole["items"]["required"] = ["x"]
    for text in valid:
        assert errors_of(whole, [{"x": text}]) == "", text
    for text in broken:
        assert errors_of(whole, [{"x": text}]).startswith("rows, row 1 (line 2), column 'x' must"), text


def test_keywords_of_the_whole_array() -> None:
    assert errors_of({"type": "array", "minItems": 2}, [{}]).startswith("rows must have at least 2 rows (minItems")
    assert errors_of({"type": "array", "maxItems": 1}, [{}, {}]).startswith("rows must have at most 1 rows (maxItems")
    has_control = {"type": "array", "contains": {"properties": {"kind": {"const": "control"}}, "required": ["kind"]}}
    assert errors_of(has_control, [{"kind": "case"}, {"kind": "control"}]) == ""
    assert errors_of(has_control, [{"kind": "case"}]).startswith("rows must match contains of the schema")
    first = {"type": "array", "prefixItems": [{"properties": {"kind": {"const": "control"}}}]}
    assert errors_of(first, [{"kind": "case"}]).startswith("rows, row 1 (line 2), column 'kind' must match const")


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (["sample"], "schema must be a JSON schema (a dict), or its URI or path; got 'list'"),
        ({"type": "rows"}, "schema must be a JSON schema ($.type: 'rows' is not valid"),
        (column({"pattern": "("}), "schema must be a JSON schema ($.items.properties.x.pattern: '(' is not a 'regex')"),
        (column({}, "http://json-schema.org/draft-04/schema#"), "schema must be a JSON schema of draft-07 or 2020-12"),
        ({}, 'schema must describe the rows of a samplesheet ("type": "array", with "items"); got {}'),
        ({"type": "object", "properties": {"input": {}}}, "schema must describe the rows of a samplesheet"),
        (column({"$ref": "https://example.org/x.json"}), "schema must not refer to another document or to a missing"),
        (
            column({"$ref": "#/$defs/missing"}),
            "schema must not refer to another document or to a missing part of itself",
        ),
    ],
)
def test_a_schema_that_cannot_be_used_is_named(schema: Any, text: str) -> None:
    with pytest.raises(OmicsParameterError, match=f"^{re.escape(text)}"):
        errors_of(schema, [{"x": "1"}])


def test_the_first_20_rows_of_an_error_are_shown() -> None:
    text = errors_of(RNA, [{**RNA_ROW, "sample": f"S{n}", "strandedness": "?"} for n in range(1_000)])
    assert "(1,000 rows have this error; the first 20: row 1 (line 2) '?', " in text
    assert "row 20 (line 21) '?')" in text


def test_schemas_are_read_from_files(
    tmp_path: Path, local_healthomics: LocalHealthOmics, caplog: pytest.LogCaptureFixture
) -> None:
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="schemas")
    s3.put_object(Bucket="schemas", Key="schema_input.json", Body=json.dumps(RNA))
    path = tmp_path / "schema_input.json"
    path.write_text(json.dumps(RNA))
    rows = [RNA_ROW]
    arguments: dict[str, Any] = {"group_by": "sample", "samplesheet_s3_prefix": "s3://schemas/sheets"}
    made = run_settings_from_samplesheet(rows, schema="s3://schemas/schema_input.json", **arguments)
    assert run_settings_from_samplesheet(rows, schema=path, **arguments) == made
    assert run_settings_from_samplesheet(rows, schema=str(path), allow=("file",), **arguments) == made
    assert "does not name" not in caplog.text
    run_settings_from_samplesheet([{**RNA_ROW, "fastq2": "x.fq.gz"}], schema=RNA, **arguments)
    assert "The schema does not name these columns: fastq2" in caplog.text
    with pytest.raises(OmicsParameterError, match="row 1, column 'strandedness' must not be empty: Name the strand"):
        run_settings_from_samplesheet([{"sample": "A", "fastq_1": "1.fq.gz"}], schema=RNA, **arguments)
    path.write_text("{")
    with pytest.raises(OmicsParameterError, match="schema must be valid JSON"):
        run_settings_from_samplesheet(rows, schema=path, **arguments)
    assert s3.list_objects_v2(Bucket="schemas", Prefix="sheets/")["KeyCount"] == 2
