"""Read rows from a CSV, TSV, JSON or JSON Lines file (local, in S3 or elsewhere), or from an iterable of dicts."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from airflow_provider_omics_cache._compat import object_storage_path
from airflow_provider_omics_cache.exceptions import OmicsParameterError
from airflow_provider_omics_cache.healthomics.settings import BrokenRules
from airflow_provider_omics_cache.hooks.errors import api_error
from airflow_provider_omics_cache.hooks.s3 import bucket_and_key, check_object_uri, get_object, s3_client
from airflow_provider_omics_cache.redaction import printable

_SHOWN_CHARACTERS = 100


class Place(NamedTuple):
    """Place of a row in its table.

    :param row: number of the row, from 1. The header is not counted.
    :param line: number of the line on which the row begins, from 1. Default: None, for a table without lines, such as
        a list.
    """

    row: int
    line: int | None = None

    def __str__(self) -> str:
        return f"row {self.row}" if self.line is None else f"row {self.row} (line {self.line})"


Row = tuple[Place, Mapping[str, Any]]


class BrokenRows(BrokenRules):
    """The errors of one table: for each broken rule the first rows and the number of rows."""

    entries = "rows"

    def place(self, index: Any) -> str:
        """Return the name of a row in an error.

        :param index: place of the row.
        """
        return str(index)

    def path(self, member: str, index: Any) -> str:
        """Return the name of a column of a row in an error.

        :param member: the column, empty for the row (or the table) itself.
        :param index: place of the row, None for an error that is not about one row.
        """
        return ", ".join(str(part) for part in (self._parameter, index, member) if part)


def read_table(table: Any, *, conn_id: str | None = None) -> list[dict[str, Any]]:
    """Read the rows of a file, for example the listing that a sensor writes to ``mapping_s3_uri`` or ``runs_s3_uri``.

    The listing of a batch that failed before its first run has no rows.

    An ObjectStoragePath is read with its own filesystem. A str that begins with ``s3://`` is read with the amazon
    provider's S3Hook, which needs no other package. Any other str is opened as an ObjectStoragePath, which needs the
    package of the URI's filesystem.

    :param table: path or URI (str, pathlib or ObjectStoragePath) of a ``.csv`` or ``.tsv`` file with a header, of a
        ``.json`` file with an array of objects, or of a ``.jsonl`` or ``.ndjson`` file with one object per line. The
        file must be UTF-8.
    :param conn_id: Airflow connection for reading the file. Default: the one in the URI
        (``s3://conn_id@bucket/key``), else ``aws_default`` for S3.
    :return: the rows. Cells of a CSV or TSV file are strings without leading and trailing spaces.
    :raises OmicsParameterError: the file does not exist or cannot be read, its suffix is not one of those above, or its
        content is not valid. The error names the line or the row.
    :raises OmicsApiError: S3 refused or did not answer the call.
    """
    return [dict(row) for _, row in read_rows("table", table, conn_id=conn_id, least=0)]


def read_rows(
    parameter: str, table: Any, *, conn_id: str | None = None, least: int = 1, most: int | None = None
) -> list[Row]:
    """Read the rows of a file or of an iterable, with their places.

    :param parameter: name of the parameter, for errors.
    :param table: a file as for :func:`read_table`, or an iterable of dicts.
    :param conn_id: Airflow connection for reading a file, as for :func:`read_table`.
    :param least: minimum number of rows, 0 or 1. Default: 1.
    :param most: maximum number of rows. Default: no limit.
    :return: pairs of place and row.
    :raises OmicsParameterError: ``table`` is not a table, the file cannot be read, a row is not valid, or the number of
        rows is outside the limits. The error names the parameter, the row and the rule.
    :raises OmicsApiError: S3 refused or did not answer the call.
    """
    broken = BrokenRows(parameter)
    if isinstance(table, str) or hasattr(table, "read_bytes"):
        found = _parse(parameter, str(table), _read(parameter, table, conn_id), broken)
    elif isinstance(table, (bytes, Mapping)) or not isinstance(table, Iterable):
        raise OmicsParameterError(
            parameter, "must be an iterable of dicts, or the path or URI of a file", type(table).__name__
        )
    else:
        found = _objects(((Place(number), row) for number, row in enumerate(table, 1)), broken)
    rows = []
    for row in found:
        rows.append(row)
        if most is not None and len(rows) > most:
            raise OmicsParameterError(parameter, f"must have at most {most:,} rows", f"more than {most:,} rows")
    broken.raise_if_any()
    if len(rows) < least:
        raise OmicsParameterError(
            parameter, "must have at least one row", table if isinstance(table, str) else "no rows"
        )
    return rows


def shown(value: Any) -> Any:
    """Return a value as an error shows it: shortened if it is long.

    :param value: value of a cell.
    """
    text = value if isinstance(value, str) else repr(value)
    if len(text) > _SHOWN_CHARACTERS:
        return f"{text[:_SHOWN_CHARACTERS]}... ({len(text):,} characters)"
    return value


def _read(parameter: str, table: Any, conn_id: str | None) -> bytes:
    uri = str(table)
    _check_suffix(parameter, uri)
    scheme, _, rest = uri.partition("://")
    if isinstance(table, str) and scheme.lower() in {"s3a", "s3n"}:
        raise OmicsParameterError(parameter, "must begin with s3:// for a file in S3", uri)
    if isinstance(table, str) and scheme.lower() == "s3":
        return _read_s3(parameter, f"s3://{rest}", conn_id)
    try:
        path = object_storage_path(table, conn_id=conn_id) if isinstance(table, str) else table
        data: bytes = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        raise OmicsParameterError(parameter, f"must be a readable file ({error})", uri) from printable(error)
    except (ImportError, ValueError) as error:
        raise OmicsParameterError(
            parameter, f"must use a filesystem whose package is installed ({error})", uri
        ) from printable(error)
    except (BotoCoreError, ClientError) as error:
        failure = api_error(error, "GetObject")
        raise failure.with_text(f"Cannot read {parameter} {uri!r}: {failure}") from printable(error)
    return data


def _read_s3(parameter: str, uri: str, conn_id: str | None) -> bytes:
    bucket, key = bucket_and_key(uri)
    own_conn_id, _, bucket = bucket.rpartition("@")
    uri = f"s3://{bucket}/{key}"
    check_object_uri(parameter, uri)
    conn_id = conn_id or own_conn_id
    s3 = s3_client(**({"aws_conn_id": conn_id} if conn_id else {}))
    return get_object(uri, parameter=parameter, s3=s3)


def _suffix(uri: str) -> str:
    return PurePosixPath(uri).suffix.lower()


def _check_suffix(parameter: str, uri: str) -> None:
    if _suffix(uri) not in _PARSERS:
        raise OmicsParameterError(parameter, f"must end in {', '.join(_PARSERS)}", uri)


def _parse(parameter: str, uri: str, data: bytes, broken: BrokenRows) -> Iterator[Row]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        broken.add("must be UTF-8: save the file as UTF-8", data[error.start : error.end], member=f"line {line}")
        return iter(())
    return _PARSERS[_suffix(uri)](text, broken)


def _parse_csv(text: str, broken: BrokenRows, delimiter: str = ",") -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns: list[str] = []
    number = last_line = 0
    try:
        for cells in reader:
            line, last_line = last_line + 1, reader.line_num
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            if not columns:
                columns = cells
                if "" in columns or len(set(columns)) < len(columns):
                    broken.add("must give each column a unique, non-empty name", columns, member=f"line {line}")
                    return
                continue
            number += 1
            place = Place(number, line)
            if len(cells) == len(columns):
                yield place, dict(zip(columns, cells, strict=True))
            else:
                broken.add(f"must have {len(columns)} cells, as many as the header", f"{len(cells)} cells", index=place)
    except csv.Error as error:
        broken.add("must be valid CSV", str(error), member=f"line {reader.line_num}")


def _parse_tsv(text: str, broken: BrokenRows) -> Iterator[Row]:
    return _parse_csv(text, broken, delimiter="\t")


def _parse_json(text: str, broken: BrokenRows) -> Iterator[Row]:
    try:
        rows = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        broken.add("must be valid JSON", str(error))
        return iter(())
    if not isinstance(rows, list):
        broken.add("must be a JSON array of objects", type(rows).__name__)
        return iter(())
    return _objects(((Place(number), row) for number, row in enumerate(rows, 1)), broken)


def _parse_json_lines(text: str, broken: BrokenRows) -> Iterator[Row]:
    def values() -> Iterator[tuple[Place, Any]]:
        number = 0
        for line, content in enumerate(text.split("\n"), 1):
            if not content.strip():
                continue
            number += 1
            place = Place(number, line)
            try:
                value = json.loads(content, parse_constant=_refuse_constant)
            except (ValueError, RecursionError) as error:
                broken.add("must be valid JSON", str(error), index=place)
            else:
                yield place, value

    return _objects(values(), broken)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _objects(values: Iterable[tuple[Place, Any]], broken: BrokenRows) -> Iterator[Row]:
    for place, value in values:
        if isinstance(value, Mapping):
            yield place, value
        else:
            broken.add("must be an object (a dict)", type(value).__name__, index=place)


_PARSERS = {
    ".csv": _parse_csv,
    ".tsv": _parse_tsv,
    ".json": _parse_json,
    ".jsonl": _parse_json_lines,
    ".ndjson": _parse_json_lines,
}
