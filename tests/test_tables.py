from __future__ import annotations

import importlib.util
import io
import json
import os
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.response import StreamingBody
from botocore.stub import Stubber
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_omics_cache import table_files
from airflow_provider_omics_cache._compat import object_storage_path
from airflow_provider_omics_cache.exceptions import OmicsApiError, OmicsParameterError
from airflow_provider_omics_cache.hooks.s3 import check_object_uri
from airflow_provider_omics_cache.resubmission import failed_run_settings
from airflow_provider_omics_cache.samplesheets import run_settings_from_table
from airflow_provider_omics_cache.tables import Table, read_rows, read_table

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
    assert read_table(as_path(path), allow=("file",)) == ROWS
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
        ("a.csv.gz", b"\x1f\x8b", "must end in .csv, .tsv, .json, .jsonl, .ndjson"),
    ],
)
def test_an_error_names_the_place(tmp_path: Path, name: str, content: bytes, text: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(OmicsParameterError) as caught:
        read_table(tmp_path / name)
    named = str(tmp_path / name)
    assert named in str(caught.value)
    assert text in str(caught.value).replace(f" (file {named})", "")


@pytest.mark.parametrize(
    ("name", "content"), [("a.csv", b"sample,lane\n"), ("a.csv", b""), ("a.json", b"[]"), ("a.jsonl", b"")]
)
def test_no_rows_are_an_error_only_where_rows_are_needed(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert list(read_table(tmp_path / name)) == []
    with pytest.raises(OmicsParameterError, match="rows must have at least one row"):
        read_rows("rows", tmp_path / name)


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
        read_table("nowhere://b/a.csv", allow=["nowhere"])


def test_reads_s3_in_process(local_healthomics: LocalHealthOmics) -> None:
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="sheets")
    s3.put_object(Bucket="sheets", Key="a b/#1.csv", Body=CONTENTS[".csv"].encode())
    for table in ("s3://sheets/a b/#1.csv", "S3://sheets/a b/#1.csv"):
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


@pytest.mark.parametrize(
    ("name", "content", "place", "key"),
    [
        ("a.json", '[{"sample": "S1"}, {"sample": "S2", "lane": 1, "sample": "S3"}]', "row 2", "sample"),
        ("a.json", '[{"a": {"depth": 1, "depth": 1}}]', "row 1", "depth"),
        ("a.jsonl", '{"a": 1}\n\n{"a": 1, "a": 1}\n', "row 2 (line 3)", "a"),
        ("a.ndjson", '\ufeff{"ü": [{"x": 1, "ü": 2, "\\u00fc": 3}]}', "row 1 (line 1)", "ü"),
    ],
)
def test_a_repeated_key_is_an_error_with_file_place_and_key(
    tmp_path: Path, name: str, content: str, place: str, key: str
) -> None:
    path = tmp_path / name
    path.write_text(content)
    text = f"rows, {place} must have each key of an object only once in {path}; got {key!r}"
    with pytest.raises(OmicsParameterError) as caught:
        read_rows("rows", path)
    assert str(caught.value) == text
    with pytest.raises(OmicsParameterError) as caught:
        read_table(path)
    assert str(caught.value) == text.replace("rows,", "table,", 1)


def test_every_row_with_a_repeated_key_is_counted(tmp_path: Path) -> None:
    for name, content in {
        "a.json": "[" + ",".join(['{"a": 1, "a": 2}'] * 25) + "]",
        "a.jsonl": '{"a": 1, "a": 2}\n' * 25,
    }.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(OmicsParameterError, match="25 rows have this error; the first 20: row 1"):
            read_table(tmp_path / name)


def test_many_keys_do_not_take_long_to_compare(tmp_path: Path) -> None:
    keys = ", ".join(f'"{number}": 0' for number in range(100_000))
    (tmp_path / "a.json").write_text(f'[{{{keys}, "99999": 0}}]')
    with pytest.raises(OmicsParameterError, match=r"must have each key of an object only once .*got '99999'"):
        read_table(tmp_path / "a.json")


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.json", "a.jsonl"])
def test_a_table_needs_at_most_three_times_the_memory_of_its_file(tmp_path: Path, name: str) -> None:
    path, count = tmp_path / name, 10_000
    rows = [{"sample": f"HG{number:05}", "note": "😀", "fastq": f"s3://b/{number}.fq"} for number in range(count)]
    if name == "a.json":
        content = json.dumps(rows, ensure_ascii=False)
    elif name == "a.jsonl":
        content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        delimiter = "," if name == "a.csv" else "\t"
        content = "".join(delimiter.join(cells) + "\n" for cells in [[*rows[0]], *(row.values() for row in rows)])
    path.write_text(content)
    size = path.stat().st_size
    del rows, content
    tracemalloc.start()
    try:
        table = read_table(path)
        assert sum(1 for row in table if row["note"] == "😀") == len(table) == count
        assert tracemalloc.get_traced_memory()[1] <= 3 * size
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("suffix", CONTENTS)
def test_a_table_is_a_sequence_of_its_rows(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"sheet{suffix}"
    path.write_text(CONTENTS[suffix], newline="")
    table = read_table(path)
    assert isinstance(table, Table)
    assert (len(table), list(table), list(table)) == (2, ROWS, ROWS)
    assert (table[0], table[-1], table[1:], table[::-1]) == (ROWS[0], ROWS[1], ROWS[1:], ROWS[::-1])
    with pytest.raises(IndexError):
        table[2]
    assert table + table == table + ROWS == [*ROWS, *ROWS] == ROWS + table
    assert ROWS[1] in table
    assert table != ROWS[:1]
    assert repr(table) == f"<Table {path}: 2 rows>"


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


@given(
    rows=st.lists(st.dictionaries(TEXTS, TEXTS | st.integers() | st.lists(st.none()), max_size=3), max_size=40),
    indent=st.sampled_from([None, 1]),
    is_ascii=st.booleans(),
    window=st.integers(4, 40),
    has_mark=st.booleans(),
)
def test_reads_json_in_windows_of_any_size(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[dict[str, Any]],
    indent: int | None,
    is_ascii: bool,
    window: int,
    has_mark: bool,
) -> None:
    folder = tmp_path_factory.mktemp("tables")
    mark = "\ufeff" if has_mark else ""
    whole = mark + json.dumps(rows, indent=indent, ensure_ascii=is_ascii)
    lines = mark + "\n".join(json.dumps(row, ensure_ascii=is_ascii) for row in rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("airflow_provider_omics_cache.table_formats._WINDOW", window)
        for name, content in {"a.json": whole, "a.jsonl": lines}.items():
            (folder / name).write_bytes(content.encode())
            table = read_table(folder / name)
            assert list(table) == rows
            assert [table[number] for number in range(len(rows))] == rows
        (folder / "a.json").write_bytes(whole.encode()[:-1])
        with pytest.raises(OmicsParameterError, match="must be valid JSON"):
            read_table(folder / "a.json")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ('[{"a": 1}\n {"a": 2}]', "Expecting ',' delimiter: line 2 column 2"),
        ('\ufeff["ü" x', "Expecting ',' delimiter: line 1 column 6"),
        ('[{"a": 1}]\n]', "Extra data: line 2 column 1"),
        ('[{"a": 1},\n{"ü": x}]', "Expecting value: line 2 column 7"),
        ('[{"a": "x', "Unterminated string starting at: line 1 column 8"),
        ("", "Expecting value: line 1 column 1"),
    ],
)
def test_names_line_and_column_of_broken_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, text: str
) -> None:
    monkeypatch.setattr("airflow_provider_omics_cache.table_formats._WINDOW", 4)
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(OmicsParameterError) as caught:
        read_table(tmp_path / "a.json")
    assert str(caught.value) == f"table must be valid JSON (file {tmp_path / 'a.json'}); got {text!r}"


def test_finds_bytes_that_are_not_utf_8_in_any_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_omics_cache.table_formats._WINDOW", 4)
    for content in (b"sample\nS\xe9\nS2\n", b"sample\nS\xc3", b"samp\n\xf0\x9f"):
        (tmp_path / "a.csv").write_bytes(content)
        with pytest.raises(OmicsParameterError, match=r"line 2 must be UTF-8"):
            read_table(tmp_path / "a.csv")


@pytest.mark.parametrize("suffix", CONTENTS)
def test_a_file_has_at_most_max_bytes(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"sheet{suffix}"
    path.write_bytes(CONTENTS[suffix].encode())
    size = path.stat().st_size
    assert read_table(path, max_bytes=size) == ROWS
    for table in (path, str(path), object_storage_path(str(path), conn_id=None)):
        with pytest.raises(OmicsParameterError) as caught:
            read_table(table, max_bytes=size - 1, allow=("file",))
        rule = f"table must have at most {size - 1} bytes (max_bytes); it has {size} bytes; got "
        assert str(caught.value).startswith(rule)
        assert path.name in str(caught.value)


def test_a_file_above_256_mb_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with path.open("wb") as file:
        file.truncate(256 * 1024**2 + 1)
    tracemalloc.start()
    try:
        for call in (
            lambda: read_table(path),
            lambda: run_settings_from_table(path, run_setting_id="sample", parameters={}),
            lambda: failed_run_settings(path, []),
        ):
            with pytest.raises(OmicsParameterError, match=r"at most 268,435,456 bytes .*it has 268,435,457 bytes"):
                call()
        assert tracemalloc.get_traced_memory()[1] < 1024**2
    finally:
        tracemalloc.stop()


def test_a_file_that_is_larger_than_announced_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(bytes(6_000_000))

    class Growing(type(tmp_path)):  # type: ignore[misc]
        def stat(self, **_: Any) -> os.stat_result:
            return os.stat_result((0, 0, 0, 0, 0, 0, 0, 0, 0, 0))

    with pytest.raises(OmicsParameterError, match=r"at most 5,000,000 bytes .*it has more than 5,000,000 bytes"):
        read_table(Growing(path), max_bytes=5_000_000)


def test_a_folder_or_a_device_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "device.csv").symlink_to("/dev/null")
    os.mkfifo(tmp_path / "fifo.csv")
    for name in ("folder.csv", "device.csv", "fifo.csv"):
        with pytest.raises(OmicsParameterError, match=r"must be a readable file \(it is a folder or a device\)"):
            read_table(tmp_path / name)


@pytest.mark.parametrize("announced", [None, 11])
def test_an_object_of_s3_is_read_only_if_it_is_small_enough(
    monkeypatch: pytest.MonkeyPatch, announced: int | None
) -> None:
    class Body(io.BytesIO):
        taken = 0

        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            self.taken += len(data)
            return data

    body = Body(b"sample\nS1\nS2\n")
    s3 = boto3.client("s3", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    monkeypatch.setattr(table_files, "s3_client", lambda **_: s3)
    answer = {
        "ETag": '"a"',
        "Body": StreamingBody(body, announced),
        **({} if announced is None else {"ContentLength": announced}),
    }
    with Stubber(s3) as stubber:
        stubber.add_response("get_object", answer, {"Bucket": "sheets", "Key": "a.csv"})
        with pytest.raises(OmicsParameterError, match=r"table must have at most 10 bytes .*got 's3://sheets/a.csv'"):
            read_table("s3://sheets/a.csv", max_bytes=10)
    assert body.closed
    assert body.taken == (13 if announced is None else 0)


def test_an_object_of_s3_that_is_shorter_than_announced_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    s3 = boto3.client("s3", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    monkeypatch.setattr(table_files, "s3_client", lambda **_: s3)
    with Stubber(s3) as stubber:
        body = StreamingBody(io.BytesIO(b"sample\nS1\n"), 20)
        stubber.add_response("get_object", {"ETag": '"a"', "Body": body, "ContentLength": 20})
        with pytest.raises(OmicsApiError, match=r"^Cannot read table 's3://sheets/a.csv'") as caught:
            read_table("s3://sheets/a.csv")
    assert caught.value.is_passing


@pytest.mark.parametrize("max_bytes", [0, -1, None, True, 1.5, "256 MB"])
def test_max_bytes_is_a_positive_integer(max_bytes: Any) -> None:
    with pytest.raises(OmicsParameterError, match=r"^max_bytes must be a positive integer; got "):
        read_table([], max_bytes=max_bytes)


NEEDS_ALLOW = r"table must begin with s3://; .* needs allow=\('{}',\) from the author of the DAG; got "


@pytest.mark.parametrize(
    "path",
    [
        "/etc/a.csv",
        "a.csv",
        "../../a.csv",
        "~/a.csv",
        " s3://sheets/a.csv",
        "file:///etc/a.csv",
        "FILE:///etc/a.csv",
        "/proc/self/fd/0/../a.csv",
    ],
)
def test_a_str_names_no_local_file_unless_the_author_allows_it(path: str) -> None:
    with pytest.raises(OmicsParameterError, match=NEEDS_ALLOW.format("file")):
        read_table(path)
    for call in (
        lambda: run_settings_from_table(path, run_setting_id="sample", parameters={}, allow=("gs",)),
        lambda: failed_run_settings(path, []),
        lambda: failed_run_settings([{"runSettingId": "S1"}], path),
    ):
        with pytest.raises(OmicsParameterError, match=r"needs allow=\('file',\)"):
            call()


def test_a_scheme_that_is_allowed_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").write_text(CONTENTS[".csv"])
    monkeypatch.chdir(tmp_path)
    for path in ("a.csv", "./a.csv", str(tmp_path / "a.csv"), f"FILE://{tmp_path}/a.csv"):
        assert read_table(path, allow=["File"]) == ROWS
    with pytest.raises(OmicsParameterError, match=r"must have an absolute path after file://; got 'file://a.csv'"):
        read_table("file://a.csv", allow=("file",))


@pytest.mark.skipif(importlib.util.find_spec("airflow.sdk") is None, reason="Airflow 2 does not know local://")
def test_another_scheme_is_opened_as_an_object_storage_path_if_it_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(CONTENTS[".csv"])
    with pytest.raises(OmicsParameterError, match=NEEDS_ALLOW.format("local")):
        read_table(f"local://{tmp_path}/a.csv", allow=("file",))
    assert read_table(f"local://{tmp_path}/a.csv", allow=("local",)) == ROWS


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("http://169.254.169.254/a.csv", "must not be an http or https URL"),
        ("HTTPS://b/a.csv", "must not be an http or https URL"),
        ("webdav+https://b/a.csv", "must not be an http or https URL"),
        ("http:/b/a.csv", "must begin with s3://"),
        ("file:/etc/a.csv", "must begin with s3://"),
        ("data:text/csv,a.csv", "must begin with s3://"),
        ("ht\ttp://b/a.csv", "must not have control characters"),
        ("\x01http://b/a.csv", "must not have control characters"),
        ("/etc/a\0.csv", "must not have control characters"),
        ("s3://sheets/a\0.csv", "must not have control characters"),
        ("simplecache::http://b/a.csv", "must be one URI, not a chain"),
        ("simplecache::/etc/a.csv", "must be one URI, not a chain"),
        ("file:///tmp/a.csv::http://b/a.csv", "must be one URI, not a chain"),
        ("gs://b/x::file:///a.csv", "must be one URI, not a chain"),
        ("gs://prod@b/a.csv", "must not name an Airflow connection"),
        ("s3://prod@sheets/a.csv", "must not name an Airflow connection"),
        ("S3://prod@sheets/a.csv", "must not name an Airflow connection"),
        ("s3://@sheets/a.csv", "must not name an Airflow connection"),
        ("s3:///sheets/a.csv", "must be an s3:// URI with a bucket"),
        ("s3:/sheets/a.csv", "must begin with s3://"),
        ("s3a://sheets/a.csv", "must begin with s3:// for a file in S3"),
        ("s3n://sheets/a.csv", "must begin with s3:// for a file in S3"),
    ],
)
def test_a_str_that_is_never_allowed(path: str, text: str) -> None:
    for allow in ((), ("file", "gs", "data", "simplecache", "s3", "s3a", "s3n", "webdav")):
        if not allow and path.startswith(("gs:", "file:///")):
            continue
        with pytest.raises(OmicsParameterError) as caught:
            read_table(path, allow=allow)
        assert str(caught.value).startswith(f"table {text}")


@pytest.mark.parametrize(
    ("uri", "rule"),
    [
        ("s3://prod@settings/a.json", "must not name an Airflow connection"),
        ("s3://settings/a\0.json", "must not have the character NUL"),
    ],
)
def test_the_uri_of_run_settings_follows_the_same_rule(uri: str, rule: str) -> None:
    with pytest.raises(OmicsParameterError, match=f"^run_settings {rule}"):
        check_object_uri("run_settings", uri)


def test_an_at_sign_in_a_key_is_no_connection(local_healthomics: LocalHealthOmics) -> None:
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="sheets")
    s3.put_object(Bucket="sheets", Key="a@b::c:/../d.csv", Body=CONTENTS[".csv"].encode())
    assert read_table("s3://sheets/a@b::c:/../d.csv") == ROWS


def test_no_path_object_leads_to_http() -> None:
    class Url:
        def __str__(self) -> str:
            return "simplecache::https://b/a.csv"

        read_bytes = stat = open = pytest.fail

    with pytest.raises(OmicsParameterError, match="table must not be an http or https URL"):
        read_table(Url())


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("https://me:secret@b/a.csv?X-Amz-Signature=secret", "https://***@b/a.csv?***"),
        ("s3://key:secret@sheets/a.csv", "s3://***@sheets/a.csv"),
        ("gs://me:secret@b/a.csv", "gs://***@b/a.csv"),
        ("s3a://key:secret@sheets/a.csv", "s3a://***@sheets/a.csv"),
    ],
)
def test_an_error_shows_no_credential_of_a_uri(path: str, name: str) -> None:
    with pytest.raises(OmicsParameterError) as caught:
        read_table(path, allow=("gs",))
    assert str(caught.value).endswith(f"; got {name!r}")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("allow", ["file", b"file", None, 7, [None], ["file://"], [""], ["simplecache::file"]])
def test_allow_is_a_list_of_schemes(allow: Any) -> None:
    with pytest.raises(OmicsParameterError, match=r'^allow must be a list of schemes without "://"'):
        read_table([], allow=allow)


@pytest.mark.parametrize("scheme", ["http", "HTTPS", "webdav+http"])
def test_http_cannot_be_allowed(scheme: str) -> None:
    with pytest.raises(OmicsParameterError, match=r"^allow must not have http or https"):
        read_table([], allow=["gs", scheme])
