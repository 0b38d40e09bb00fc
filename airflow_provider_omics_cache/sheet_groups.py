"""The groups of a samplesheet. Each is written to S3 as a CSV file whose name is the SHA-256 of its content."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from itertools import islice
from typing import Any

from airflow_provider_omics_cache.healthomics.staging import write_once
from airflow_provider_omics_cache.hooks.connections import hook_parameters
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.hooks.s3 import s3_client
from airflow_provider_omics_cache.table_formats import BrokenRows, Place, shown

#: Number of files that are uploaded at the same time. botocore keeps 10 connections for each client.
_UPLOADS_AT_ONCE = 8
_UPLOADS_QUEUED = 1_000
#: Line breaks, NUL, and halves of surrogate pairs, which UTF-8 does not allow.
_NOT_IN_A_CELL = re.compile(r"[\n\r\0\ud800-\udfff]")


class SheetGroup:
    """The rows of a samplesheet that belong to one run, as lines of CSV.

    :param place: place of the first row.
    :param key: cells of the columns of ``group_by``.
    """

    __slots__ = ("_columns", "_lines", "key", "place")

    def __init__(self, place: Place, key: tuple[str, ...]) -> None:
        self.place = place
        self.key = key
        self._columns: dict[str, None] = {}
        self._lines: list[str] = []

    def add(self, cells: Mapping[str, str]) -> None:
        """Add a row.

        :param cells: the row's cells as text.
        """
        new = cells.keys() - self._columns.keys()
        if new:
            self._lines = [line + "," * len(new) for line in self._lines]
            self._columns.update(dict.fromkeys(cells))
        self._lines.append(_csv_line(cells.get(column, "") for column in self._columns))

    def content(self) -> bytes:
        """Return the group as a CSV file in UTF-8."""
        return "\n".join([_csv_line(self._columns), *self._lines, ""]).encode()

    def rows(self) -> list[dict[str, str]]:
        """Return the rows."""
        return [dict(zip(self._columns, cells, strict=True)) for cells in csv.reader(self._lines)]

    def s3_uri(self, prefix: str) -> str:
        """Return the URI of the group's file.

        :param prefix: ``s3://`` URI below which the file is written.
        """
        return f"{prefix.rstrip('/')}/{sha256(self.content()).hexdigest()}.csv"


def text_cells(row: Mapping[str, Any], place: Place, broken: BrokenRows) -> dict[str, str] | None:
    """Return the cells of a row as the text for a CSV file. Return None if the row has an error.

    :param row: the row.
    :param place: place of the row, for errors.
    :param broken: object to which the errors are added.
    """
    cells = {}
    for column, value in row.items():
        if not isinstance(column, str) or not column or column != column.strip() or _NOT_IN_A_CELL.search(column):
            rule = "must have names of columns that are text without line breaks and without spaces around it"
            broken.add(rule, shown(column), index=place)
            return None
        text = _cell_text(value)
        if text is None:
            rule = "must be a string, a number, a boolean or None"
        elif _NOT_IN_A_CELL.search(text):
            rule = "must not have a line break, the character NUL or text that is not Unicode: Nextflow reads lines"
        else:
            cells[column] = text
            continue
        broken.add(rule, shown(value), member=f"column {column!r}", index=place)
        return None
    return cells


def write_groups(
    groups: Iterable[SheetGroup],
    prefix: str,
    *,
    conn_id: str | Mapping[str, Any] | None,
    extra_args: Mapping[str, Any] | None,
) -> None:
    """Write the file of each group to S3. Files that exist are not written again.

    :param groups: the groups.
    :param prefix: ``s3://`` URI below which the files are written.
    :param conn_id: Airflow connection for S3, or the parameters of a hook. None is ``aws_default``.
    :param extra_args: arguments of the uploads.
    :raises OmicsParameterError: the bucket does not exist, or ``extra_args`` has a value of the wrong type.
    :raises OmicsError: another task writes one of the objects at the same time.
    :raises OmicsApiError: S3 refused the upload, or did not answer.
    """
    connection = hook_parameters(conn_id)
    hook, s3 = OmicsCacheHook(**connection), s3_client(**connection)
    write = partial(_write, hook, s3, prefix, {"ContentType": "text/csv", **(extra_args or {})})
    remaining, total, written = iter(groups), 0, 0
    with ThreadPoolExecutor(_UPLOADS_AT_ONCE) as pool:
        while queued := list(islice(remaining, _UPLOADS_QUEUED)):
            total += len(queued)
            written += sum(pool.map(write, queued))
    hook.log.info(
        "Wrote %s samplesheets below %s; %s were there already", f"{written:,}", prefix, f"{total - written:,}"
    )


def _write(hook: OmicsCacheHook, s3: Any, prefix: str, extra_args: Mapping[str, Any], group: SheetGroup) -> bool:
    return write_once(
        hook,
        io.BytesIO(group.content()),
        group.s3_uri(prefix),
        parameter="samplesheet_s3_prefix",
        value=prefix,
        s3=s3,
        extra_args=extra_args,
    )


def _cell_text(value: Any) -> str | None:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return repr(value)
    return value.strip() if isinstance(value, str) else None


def _csv_line(cells: Iterable[str]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="").writerow(cells)
    return file.getvalue()
