from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from airflow_provider_omics_cache._compat import object_storage_path
from airflow_provider_omics_cache.exceptions import OmicsApiError, OmicsParameterError
from airflow_provider_omics_cache.tables import read_rows, read_table

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics
    from airflow_provider_omics_cache.local.wsgi import LocalHealthOmicsServer

ROWS = [{"sample": "S1", "fastq_1": "s3://b/1.fq"}, {"sample": "S2", "fastq_1": "s3://b/ü.fq"}]
CONTENTS = {
    ".csv": "sample,fastq_1\nS1,s3://b/1.fq\nS2,s3://b/ü.fq\n",
    ".tsv": "sample\tfastq_1\nS1\ts3://b/1.fq\nS2\ts3://b/ü.fq\n",
    ".json": json.dumps(ROWS),
    ".jsonl": "".join(json.dumps(row) + "\n" for row in ROWS),
    ".ndjson": "\n\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS),
    ".CSV": '\ufeffsample , fastq_1\r\n"S1","s3://b/1.fq"\r\n\r\n,\r\nS2,s3://b/ü.fq',
}


@pytest.mark.parametrize("suffix", CONTENTS)
@pytest.mark.parametrize("as_path", [str, Path, lambda path: f"file://{path}"], ids=["str", "Path", "URI"])
def test_reads_the_same_rows_from_every_format(tmp_path: Path, suffix: str, as_path: Any) -> None:
    path = tmp_path / f"sheet{suffix}"
    path.write_bytes(CONTENTS[suffix].encode())
    assert read_table(as_path(path)) == ROWS
    assert read_table(object_storage_path(str(path), conn_id=None)) == ROWS


def test_a_quoted_cell_may_hold_commas_and_lines(tmp_path: Path) -> None:
    path = tmp_path / "sheet.csv"
    path.write_text('sample,note\nS1,"a, b\nc"\nS2,d\n')
    rows = read_rows("rows", path)
    assert [row for _, row in rows] == [{"sample": "S1", "note": "a, b\nc"}, {"sample": "S2", "note": "d"}]
    assert [str(place) for place, _ in rows] == ["row 1 (line 2)", "row 2 (line 4)"]


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.csv", b"sample,lane\nS1,1\nS2\nS3,1,2\n", "table, row 2 (line 3) must have 2 cells, as many as the header"),
        ("a.csv", b"sample,lane\nS1,1\nS2\nS3,1,2\n", "(2 rows have this error: row 2 (line 3) '1 cells', row 3 (line"),
        ("a.csv", b"sample,lane\nS1,\xe9\n", r"table, line 2 must be UTF-8: save the file as UTF-8; got b'\xe9'"),
        ("a.csv", b'sample,lane\nS1,"1\n', "table, line 2 must be valid CSV; got 'unexpected end of data'"),
        (
            "a.csv",
            b"sample,sample\nS1,1\n",
            "line 1 must give each column a unique, non-empty name; got ['sample', 'sample'",
        ),
        ("a.csv", b"sample,\nS1,1\n", "line 1 must give each column a unique, non-empty name"),
        ("a.json", b'[{"depth": NaN}]', "must be valid JSON; got 'NaN is not a JSON number'"),
        ("a.jsonl", b'{"depth": -Infinity}', "row 1 (line 1) must be valid JSON; got '-Infinity is not a JSON number'"),
        ("a.json", b"[1,", "must be valid JSON; got 'Expecting value: line 1 column 4"),
        ("a.json", b"[" * 100_000, "must be valid JSON"),
        ("a.json", b'{"sample": "S1"}', "must be a JSON array of objects; got 'dict'"),
        ("a.json", b'[{"sample": "S1"}, ["S2"]]', "row 2 must be an object (a dict); got 'list'"),
        ("a.jsonl", b'{"sample": "S1"}\n\nS2\n', "row 2 (line 3) must be valid JSON"),
        ("a.jsonl", b'{"sample": "S1"}\n7\n', "row 2 (line 2) must be an object (a dict); got 'int'"),
        ("a.xlsx", b"PK", "must end in .csv, .tsv, .json, .jsonl, .ndjson"),
    ],
)
def test_an_error_names_the_place(tmp_path: Path, name: str, content: bytes, text: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(OmicsParameterError) as caught:
        read_table(tmp_path / name)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"), [("a.csv", b"sample,lane\n"), ("a.csv", b""), ("a.json", b"[]"), ("a.jsonl", b"")]
)
def test_no_rows_are_an_error_only_where_rows_are_needed(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert read_table(tmp_path / name) == []
    with pytest.raises(OmicsParameterError, match="rows must have at least one row"):
        read_rows("rows", str(tmp_path / name))


def test_twenty_bad_rows_are_shown_and_all_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "sheet.csv"
    path.write_text("sample,lane\n" + "S\n" * 25)
    with pytest.raises(OmicsParameterError, match="25 rows have this error; the first 20: ") as caught:
        read_table(path)
    assert "row 20 (line 21)" in str(caught.value)
    assert "row 21 " not in str(caught.value)


@pytest.mark.parametrize("table", [None, 7, b"a.csv", {"sample": "S1"}])
def test_takes_only_an_iterable_of_dicts_or_a_path(table: Any) -> None:
    with pytest.raises(OmicsParameterError, match="table must be an iterable of dicts, or the path or URI of a file"):
        read_table(table)


def test_names_rows_of_an_iterable_that_are_no_dicts() -> None:
    with pytest.raises(OmicsParameterError, match=r"table, row 2 must be an object \(a dict\); got 'str'"):
        read_table(iter([{"sample": "S1"}, "S2"]))


def test_more_rows_than_allowed_are_an_error_however_many_come() -> None:
    def endless() -> Any:
        while True:
            yield {"sample": "S1"}

    with pytest.raises(OmicsParameterError, match="rows must have at most 1,000 rows; got 'more than 1,000 rows'"):
        read_rows("rows", endless(), most=1_000)


def test_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(OmicsParameterError, match=r"table must be a readable file .*none.csv"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(OmicsParameterError, match=r"table must use a filesystem whose package is installed .*nowhere"):
        read_table("nowhere://b/a.csv")


def test_reads_s3_in_process(local_healthomics: LocalHealthOmics) -> None:
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="sheets")
    s3.put_object(Bucket="sheets", Key="a b/#1.csv", Body=CONTENTS[".csv"].encode())
    for table in ("s3://sheets/a b/#1.csv", "S3://sheets/a b/#1.csv", "s3://aws_default@sheets/a b/#1.csv"):
        assert read_table(table) == ROWS
    for table in ("s3://sheets/none.csv", "s3://no-such-bucket/a.csv"):
        with pytest.raises(OmicsParameterError, match=r"table must exist in S3 .*NoSuch.*got 's3://"):
            read_table(table)
    with pytest.raises(
        OmicsParameterError, match=r"table must have a bucket name of 3 to 63 .*got 's3://Sheets!/a.csv'"
    ):
        read_table("s3://Sheets!/a.csv")
    with pytest.raises(OmicsParameterError, match=r"must begin with s3:// for a file in S3; got 's3a://sheets/a.csv'"):
        read_table("s3a://sheets/a.csv")


def test_reads_s3_over_http_with_the_connection(
    local_healthomics_server: LocalHealthOmicsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = local_healthomics_server
    monkeypatch.setenv("AIRFLOW_CONN_SHEETS", server.airflow_connection)
    s3 = boto3.client("s3", **server.client_kwargs)
    s3.create_bucket(Bucket="sheets")
    s3.put_object(Bucket="sheets", Key="a.csv", Body=CONTENTS[".csv"].encode())
    assert read_table("s3://sheets/a.csv", conn_id="sheets") == ROWS
    assert read_table("s3://sheets@sheets/a.csv") == ROWS


@pytest.mark.skipif(importlib.util.find_spec("s3fs") is None, reason="s3fs is not installed")
def test_reads_an_object_storage_path_as_it_is(
    local_healthomics_server: LocalHealthOmicsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = local_healthomics_server
    monkeypatch.setenv("AIRFLOW_CONN_SHEETS", server.airflow_connection)
    s3 = boto3.client("s3", **server.client_kwargs)
    s3.create_bucket(Bucket="sheets")
    s3.put_object(Bucket="sheets", Key="a.csv", Body=CONTENTS[".csv"].encode())
    assert read_table(object_storage_path("s3://sheets@sheets/a.csv", conn_id=None)) == ROWS
    with pytest.raises(OmicsParameterError, match="table must be a readable file"):
        read_table(object_storage_path("s3://sheets@sheets/none.csv", conn_id=None))


def test_an_error_of_s3_can_be_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {
        "conn_type": "aws",
        "login": "testing",
        "password": "testing",
        "extra": {
            "region_name": "us-east-1",
            "endpoint_url": "http://127.0.0.1:9",
            "config_kwargs": {"retries": {"total_max_attempts": 1}},
        },
    }
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
    with pytest.raises(OmicsApiError, match=r"^Cannot read table 's3://sheets/a.csv': ") as caught:
        read_table("s3://sheets/a.csv")
    assert not isinstance(caught.value, OmicsParameterError)
    assert caught.value.operation == "GetObject"
