"""Read rows from a CSV, TSV, JSON or JSON Lines file (local, in S3 or elsewhere), or from an iterable of dicts."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, overload

from airflow_provider_omics_cache.exceptions import OmicsParameterError
from airflow_provider_omics_cache.hooks.s3 import shown_uri
from airflow_provider_omics_cache.table_files import (
    MAX_TABLE_BYTES,
    check_allow,
    check_max_bytes,
    read_file,
)
from airflow_provider_omics_cache.table_formats import (
    FORMATS,
    BrokenRows,
    CheckedRow,
    Content,
    Place,
    Row,
    check_objects,
    content_of,
    shown,
)

__all__ = ["MAX_TABLE_BYTES", "BrokenRows", "Place", "Row", "Table", "read_rows", "read_table", "shown"]

#: The position of each row whose number is a multiple of this is kept.
_ROWS_PER_MARK = 16


class Table(Sequence[dict[str, Any]]):
    """The rows of a file. The file's bytes are kept in memory, and each row is made when it is asked for.

    A Table can be read any number of times, and has a length, indexes and slices. ``list(table)`` makes all rows at
    once, for example for an XCom, and needs several times the memory.

    :param name: path or URI of the file.
    :param content: content of the file.
    :param rows: the rows of the content after they were checked.
    """

    def __init__(self, name: str, content: Content, rows: Iterable[CheckedRow]) -> None:
        self._name = name
        self._content = content
        self._marks = array("Q")
        self._length = 0
        for position, _, _ in rows:
            if self._length % _ROWS_PER_MARK == 0:
                self._marks.append(position)
            self._length += 1

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self._content.rows(self._marks[0]) if self._length else iter(())

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        numbers = range(self._length)[index]
        return [self._row(number) for number in numbers] if isinstance(numbers, range) else self._row(numbers)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (Table, list)):
            return NotImplemented
        return len(self) == len(other) and all(mine == its for mine, its in zip(self, other, strict=True))

    def __add__(self, other: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        return [*self, *other]

    def __radd__(self, other: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        return [*other, *self]

    def __repr__(self) -> str:
        return f"<Table {self._name}: {self._length:,} rows>"

    def _row(self, number: int) -> dict[str, Any]:
        mark, rest = divmod(number, _ROWS_PER_MARK)
        return next(islice(self._content.rows(self._marks[mark]), rest, None))


def read_table(
    table: Any, *, conn_id: str | None = None, allow: Iterable[str] = (), max_bytes: int = MAX_TABLE_BYTES
) -> Sequence[dict[str, Any]]:
    """Read the rows of a file, for example the listing that a sensor writes to ``mapping_s3_uri`` or ``runs_s3_uri``.

    The listing of a batch that failed before its first run has no rows.

    The whole file is checked at once. Its rows are made one by one, when they are asked for: the result needs little
    more memory than the size of the file. To return the rows of a task as an XCom, or to keep them all, call
    ``list()``.

    A str that begins with ``s3://`` is read with the amazon provider's S3Hook, which needs no other package. A str
    often comes from a template, which anyone who triggers the DAG can fill. Any other str is therefore refused, unless
    ``allow`` has its scheme. A pathlib.Path or an ObjectStoragePath can only be made by the author of the DAG. It is
    read as it is, with its own filesystem and connection.

    :param table: URI (str) or path (pathlib or ObjectStoragePath) of a ``.csv`` or ``.tsv`` file with a header, of a
        ``.json`` file with an array of objects, or of a ``.jsonl`` or ``.ndjson`` file with one object per line. The
        file must be UTF-8. No object of a JSON file can have a key twice. A compressed file is not read. An iterable
        of dicts is also accepted.
    :param conn_id: Airflow connection for reading a str. A str cannot name a connection itself
        (``s3://conn_id@bucket/key``). Default: ``aws_default`` for S3.
    :param allow: schemes that a str can have besides ``s3``, for example ``("file", "gs")``. ``file`` also stands for
        paths without a scheme. Other schemes are opened as an ObjectStoragePath, which needs the package of their
        filesystem. ``http`` and ``https`` are always refused. Default: no other scheme.
    :param max_bytes: maximum size of the file in bytes. A larger file is refused before it is read. Default: 256 MB
        (268,435,456).
    :return: the rows: a :class:`Table` of a file, or a list of an iterable's rows. Cells of a CSV or TSV file are
        strings without leading and trailing spaces.
    :raises OmicsParameterError: the path is not allowed; the file does not exist, cannot be read or is too large; its
        suffix is not one of those above; or its content is not valid. The error names the line or the row.
    :raises MissingConnectionError: Airflow does not find the connection.
    :raises OmicsApiError: S3 refused or did not answer the call.
    """
    found = _find("table", table, conn_id, allow, max_bytes)
    broken = BrokenRows("table", table)
    rows: Sequence[dict[str, Any]]
    if isinstance(found, Content):
        rows = Table(shown_uri(str(table)), found, found.check(broken))
    else:
        rows = [dict(row) for _, row in check_objects(found, broken)]
    broken.raise_if_any()
    return rows


def read_rows(
    parameter: str,
    table: Any,
    *,
    conn_id: str | None = None,
    allow: Iterable[str] = (),
    max_bytes: int = MAX_TABLE_BYTES,
    least: int = 1,
    most: int | None = None,
) -> list[Row]:
    """Read the rows of a file or of an iterable, with their places.

    :param parameter: name of the parameter, for errors.
    :param table: a file as for :func:`read_table`, or an iterable of dicts.
    :param conn_id: Airflow connection for reading a file, as for :func:`read_table`.
    :param allow: schemes that a str can have besides ``s3``, as for :func:`read_table`.
    :param max_bytes: maximum size of a file in bytes, as for :func:`read_table`.
    :param least: minimum number of rows, 0 or 1. Default: 1.
    :param most: maximum number of rows. Default: no limit.
    :return: pairs of place and row.
    :raises OmicsParameterError: ``table`` is not a table, the file cannot be read, a row is not valid, or the number of
        rows is outside the limits. The error names the parameter, the row and the rule.
    :raises MissingConnectionError: Airflow does not find the connection.
    :raises OmicsApiError: S3 refused or did not answer the call.
    """
    rows: list[Row] = []
    for row in iterate_rows(parameter, table, conn_id=conn_id, allow=allow, max_bytes=max_bytes, least=least):
        rows.append(row)
        if most is not None and len(rows) > most:
            raise OmicsParameterError(parameter, f"must have at most {most:,} rows", f"more than {most:,} rows")
    return rows


def iterate_rows(
    parameter: str,
    table: Any,
    *,
    conn_id: str | None = None,
    allow: Iterable[str] = (),
    max_bytes: int = MAX_TABLE_BYTES,
    least: int = 1,
) -> Iterator[Row]:
    """Read the rows of a file or of an iterable one by one, with their places.

    Rows that are not valid are left out. An error that names them is raised after the last row.

    :param parameter: name of the parameter, for errors.
    :param table: a file as for :func:`read_table`, or an iterable of dicts.
    :param conn_id: Airflow connection for reading a file, as for :func:`read_table`.
    :param allow: schemes that a str can have besides ``s3``, as for :func:`read_table`.
    :param max_bytes: maximum size of a file in bytes, as for :func:`read_table`.
    :param least: minimum number of rows, 0 or 1. Default: 1.
    :raises OmicsParameterError: as :func:`read_rows`.
    :raises MissingConnectionError: Airflow does not find the connection.
    :raises OmicsApiError: S3 refused or did not answer the call.
    """
    broken = BrokenRows(parameter, table)
    number = 0
    for row in check_rows(parameter, table, broken, conn_id=conn_id, allow=allow, max_bytes=max_bytes):
        number += 1
        yield row
    broken.raise_if_any()
    if number < least:
        raise no_rows(parameter, table)


def check_rows(
    parameter: str,
    table: Any,
    broken: BrokenRows,
    *,
    conn_id: str | None = None,
    allow: Iterable[str] = (),
    max_bytes: int = MAX_TABLE_BYTES,
) -> Iterator[Row]:
    """Return the rows of a file or of an iterable one by one, with their places. Rows with an error are left out.

    :param parameter: name of the parameter, for errors.
    :param table: a file as for :func:`read_table`, or an iterable of dicts.
    :param broken: object to which the errors of the rows are added.
    :param conn_id: Airflow connection for reading a file, as for :func:`read_table`.
    :param allow: schemes that a str can have besides ``s3``, as for :func:`read_table`.
    :param max_bytes: maximum size of a file in bytes, as for :func:`read_table`.
    :raises OmicsParameterError: ``table`` is not a table, or the file cannot be read.
    :raises MissingConnectionError: Airflow does not find the connection.
    :raises OmicsApiError: S3 refused or did not answer the call.
    """
    found = _find(parameter, table, conn_id, allow, max_bytes)
    if isinstance(found, Content):
        return ((place, row) for _, place, row in found.check(broken))
    return check_objects(found, broken)


def no_rows(parameter: str, table: Any) -> OmicsParameterError:
    """Return the error for a table without rows.

    :param parameter: name of the parameter.
    :param table: the table.
    """
    name = shown_uri(table) if isinstance(table, str) else "no rows"
    return OmicsParameterError(parameter, "must have at least one row", name)


def _find(
    parameter: str, table: Any, conn_id: str | None, allow: Iterable[str], max_bytes: int
) -> Content | Iterator[tuple[Place, Any]]:
    """Return the content of a file, or the values of an iterable with their places."""
    schemes, limit = check_allow(allow), check_max_bytes(max_bytes)
    if isinstance(table, str) or hasattr(table, "read_bytes"):
        data = read_file(parameter, table, conn_id=conn_id, allow=schemes, suffixes=tuple(FORMATS), max_bytes=limit)
        return content_of(str(table), data)
    if isinstance(table, (bytes, Mapping)) or not isinstance(table, Iterable):
        raise OmicsParameterError(
            parameter, "must be an iterable of dicts, or the path or URI of a file", type(table).__name__
        )
    return ((Place(number), row) for number, row in enumerate(table, 1))
