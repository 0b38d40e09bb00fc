from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import ANY

import boto3
import pytest
from botocore.stub import Stubber
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_omics_cache import samplesheets, sheet_groups
from airflow_provider_omics_cache.exceptions import MissingConnectionError, OmicsApiError, OmicsParameterError
from airflow_provider_omics_cache.run_settings import save_run_settings
from airflow_provider_omics_cache.samplesheets import run_settings_from_samplesheet
from tests.conftest import needs_batches

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics

BUCKET = "omics-sheets"
PREFIX = f"s3://{BUCKET}/sheets"
SHEET = """sample,fastq_1,fastq_2,strandedness
LIVER,s3://reads/l1_1.fq.gz,s3://reads/l1_2.fq.gz,auto
LUNG,s3://reads/u1_1.fq.gz,,forward
LIVER,"s3://reads/l2,1.fq.gz",s3://reads/l2_2.fq.gz,auto
"""
LIVER = """sample,fastq_1,fastq_2,strandedness
LIVER,s3://reads/l1_1.fq.gz,s3://reads/l1_2.fq.gz,auto
LIVER,"s3://reads/l2,1.fq.gz",s3://reads/l2_2.fq.gz,auto
"""
LUNG = "sample,fastq_1,fastq_2,strandedness\nLUNG,s3://reads/u1_1.fq.gz,,forward\n"


@pytest.fixture(autouse=True)
def _bucket(local_healthomics: LocalHealthOmics) -> None:
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})


@pytest.fixture
def sheet(tmp_path: Path) -> Path:
    path = tmp_path / "samplesheet.csv"
    path.write_text(SHEET)
    return path


def make(rows: Any, **changes: Any) -> list[dict[str, Any]]:
    return run_settings_from_samplesheet(rows, **{"group_by": "sample", "samplesheet_s3_prefix": PREFIX, **changes})


def error_of(rows: Any, **changes: Any) -> str:
    with pytest.raises(OmicsParameterError) as caught:
        make(rows, **changes)
    assert written() == []
    return str(caught.value)


def written() -> list[str]:
    found = boto3.client("s3").list_object_versions(Bucket=BUCKET).get("Versions", [])
    return [f"s3://{BUCKET}/{version['Key']}" for version in found]


def read(uri: str) -> str:
    answer = boto3.client("s3").get_object(Bucket=BUCKET, Key=uri.removeprefix(f"s3://{BUCKET}/"))
    assert answer["ContentType"] == "text/csv"
    return answer["Body"].read().decode()


def uri_of(text: str) -> str:
    return f"{PREFIX}/{sha256(text.encode()).hexdigest()}.csv"


def test_one_run_and_one_sheet_for_each_group(sheet: Path) -> None:
    parameters = {
        "genome": "GRCh38",
        "skip_qc": True,
        "save": None,
        "paired": lambda rows: all(row["fastq_2"] for row in rows),
        "pairs": lambda rows: len(rows) if len(rows) > 1 else None,
    }
    settings = make(sheet, parameters=parameters, parameter="samplesheet")
    common = {"genome": "GRCh38", "skip_qc": True}
    assert settings == [
        {"runSettingId": "LIVER", "parameters": {**common, "paired": True, "pairs": 2, "samplesheet": uri_of(LIVER)}},
        {"runSettingId": "LUNG", "parameters": {**common, "paired": False, "samplesheet": uri_of(LUNG)}},
    ]
    assert [read(uri_of(LIVER)), read(uri_of(LUNG))] == [LIVER, LUNG]
    # The second try writes nothing again, and the URI of a group does not depend on the other groups.
    sheet.write_text(SHEET.replace("forward", "reverse"))
    again = make(sheet)
    assert again[0]["parameters"] == {"input": uri_of(LIVER)}
    assert sorted(written()) == sorted({uri_of(LIVER), uri_of(LUNG), again[1]["parameters"]["input"]})
    assert len(written()) == 3


@needs_batches
def test_the_settings_are_saved_for_a_batch(sheet: Path) -> None:
    uri = f"s3://{BUCKET}/settings.json"
    save_run_settings(lambda: make(sheet), uri)
    saved = json.loads(boto3.client("s3").get_object(Bucket=BUCKET, Key="settings.json")["Body"].read())
    assert [setting["parameters"]["input"] for setting in saved] == [uri_of(LIVER), uri_of(LUNG)]


def test_a_template_and_rows_with_different_columns() -> None:
    rows = [
        {"patient": 1, "sample": "N", "bam": " s3://b/1.bam "},
        {"patient": 1, "sample": "T", "depth": 30.5, "tumor": True},
        {"patient": 1, "sample": "N", "lane": None, "note": 'a "b", c'},
    ]
    first, second = make(rows, group_by="{patient:0>3}-{sample}")
    assert [first["runSettingId"], second["runSettingId"]] == ["001-N", "001-T"]
    lines = ["patient,sample,bam,lane,note", "1,N,s3://b/1.bam,,", '1,N,,,"a ""b"", c"']
    assert read(first["parameters"]["input"]) == "\n".join([*lines, ""])
    assert read(second["parameters"]["input"]) == "patient,sample,depth,tumor\n1,T,30.5,true\n"


@pytest.mark.parametrize(
    ("rows", "changes", "text"),
    [
        ([], {}, "rows must have at least one row; got 'no rows'"),
        ([{"sample": "A"}, {"sample": " "}], {}, "rows, row 2, column 'sample' must not be empty: group_by names it"),
        ([{"sample": "A"}, {"x": "A"}], {}, "rows, row 2, column 'sample' must not be empty: group_by names it"),
        ([{"id": "A"}], {}, "rows must have the column 'sample'; got 'id'"),
        ([{"sample;id": "A"}], {}, "rows must have the column 'sample' (its only column has ';'"),
        (["A"], {}, "rows, row 1 must be an object (a dict)"),
        ([{"sample": "A", "x": [1]}], {}, "rows, row 1, column 'x' must be a string, a number, a boolean or None"),
        ([{"sample": "A", "x": float("nan")}], {}, "rows, row 1, column 'x' must be a string, a number, a boolean"),
        ([{"sample": "A", "x": "a\nb"}], {}, "rows, row 1, column 'x' must not have a line break"),
        ([{"sample": "A", "x": "\ud800"}], {}, "rows, row 1, column 'x' must not have a line break"),
        ([{"sample": "A", " x": "a"}], {}, "rows, row 1 must have names of columns that are text"),
        ([{"sample": "A", 7: "a"}], {}, "rows, row 1 must have names of columns that are text"),
        (
            [{"a": "1_2", "b": "3"}, {"a": "1", "b": "2_3"}],
            {"group_by": "{a}_{b}"},
            "rows, row 2, group_by '{a}_{b}' must give rows with different cells different values; "
            "got '1_2_3 as in row 1'",
        ),
        ([{"sample": "A"}], {"group_by": None}, "group_by must be a column or a template of columns"),
        ([{"sample": "A"}], {"group_by": "{"}, "group_by must be a column or a template of columns"),
        ([{"sample": "A"}], {"samplesheet_s3_prefix": "/tmp"}, "samplesheet_s3_prefix must be an s3:// URI"),
        ([{"sample": "A"}], {"samplesheet_s3_prefix": None}, "samplesheet_s3_prefix must be an s3:// URI"),
        (
            [{"sample": "A"}],
            {"samplesheet_s3_prefix": "s3://no-such-bucket/x"},
            "samplesheet_s3_prefix must be in a bucket that exists; got 's3://no-such-bucket/x'",
        ),
        ([{"sample": "A"}], {"parameter": ""}, "parameter must be the name of a parameter of the workflow"),
        ([{"sample": "A"}], {"parameters": {"input": "x"}}, "parameters must not have 'input'"),
        ([{"sample": "A"}], {"parameters": ["x"]}, "parameters must be a dict"),
        ([{"sample": "A"}], {"parameters": {"x": {1}}}, "rows, row 1, parameter 'x' must be a JSON value"),
        (
            [{"sample": "A"}],
            {"parameters": {"x": lambda rows: rows[1]}},
            "rows, row 1, parameter 'x' cannot be computed: its function raised an error; got IndexError",
        ),
        ([{"sample": "A"}], {"s3_extra_args": {"Body": "x"}}, "s3_extra_args must have only keys of S3 uploads"),
        ([{"sample": "A"}], {"schema": "/etc/schema.json"}, "schema must begin with s3://; a local path needs allow="),
        ([{"sample": "A"}], {"schema": "https://x.org/schema.json"}, "schema must not be an http or https URL"),
        ([{"sample": "A"}], {"schema": "s3://omics-sheets/schema.csv"}, "schema must end in .json"),
        ([{"sample": "A"}], {"schema": {"type": "rows"}}, "schema must be a JSON schema ($.type: 'rows' is not valid"),
        ("/etc/samplesheet.csv", {}, "rows must begin with s3://; a local path needs allow="),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(rows: Any, changes: dict[str, Any], text: str) -> None:
    assert error_of(rows, **changes).startswith(text)


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "sheet.csv"
    path.write_text("sample,fastq_1\n")
    assert error_of(str(path), allow=("file",)) == f"rows must have at least one row; got '{path}'"
    path.write_text("sample,sample\nA,B\n")
    assert error_of(str(path), allow=("file",)).startswith("rows, line 1 must give each column a unique")


def test_more_groups_than_a_batch_has_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_omics_cache.samplesheets.MAX_RUN_SETTINGS", 2)
    assert error_of([{"sample": n} for n in range(3)]) == "rows must have at most 2 groups; got '3 groups'"
    assert len(make([{"sample": n % 2} for n in range(3)])) == 2


def test_a_connection_must_exist(sheet: Path) -> None:
    with pytest.raises(MissingConnectionError, match="conn_id must be the id"):
        make(sheet, conn_id="missing")


def test_upload_arguments_and_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    s3 = boto3.client("s3")
    monkeypatch.setattr(sheet_groups, "s3_client", lambda **_: s3)
    extra_args = {"ExpectedBucketOwner": "123456789012", "ServerSideEncryption": "aws:kms"}
    call = {"Bucket": BUCKET, "Key": ANY, "Body": ANY, "IfNoneMatch": "*", "ContentType": "text/csv", **extra_args}
    with Stubber(s3) as stub:
        stub.add_response("put_object", {"ETag": "a"}, call)
        assert len(make([{"sample": "A"}], s3_extra_args=extra_args)) == 1
        stub.add_client_error("put_object", "AccessDenied", http_status_code=403)
        with pytest.raises(OmicsApiError, match="Cannot write samplesheet_s3_prefix"):
            make([{"sample": "A"}], s3_extra_args=extra_args)
        stub.assert_no_pending_responses()


CELLS = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=4)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.fixed_dictionaries({"sample": st.sampled_from("ABC"), "reads": CELLS, "n": st.integers()}), min_size=1
    ),
    data=st.data(),
)
def test_each_row_is_in_one_group_and_order_is_kept(
    monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]], data: st.DataObject
) -> None:
    files: dict[str, bytes] = {}

    def keep(groups: Iterable[sheet_groups.SheetGroup], prefix: str, **_: Any) -> None:
        files.update({group.s3_uri(prefix): group.content() for group in groups})

    monkeypatch.setattr(samplesheets, "write_groups", keep)
    made = {setting["runSettingId"]: setting["parameters"]["input"] for setting in make(rows)}
    assert list(made) == list(dict.fromkeys(row["sample"] for row in rows))
    assert set(made.values()) == files.keys()
    for sample, uri in made.items():
        expected = [{**row, "n": str(row["n"])} for row in rows if row["sample"] == sample]
        assert list(csv.DictReader(io.StringIO(files[uri].decode(), newline=""))) == expected
    # A group has the same URI in any other samplesheet.
    sample = data.draw(st.sampled_from(sorted(made)))
    others = data.draw(st.permutations([row for row in rows if row["sample"] != sample]))
    same = [*others, *(row for row in rows if row["sample"] == sample)]
    assert {setting["runSettingId"]: setting["parameters"]["input"] for setting in make(same)}[sample] == made[sample]
