"""Write the records of a cohort to a file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from airflow_provider_omics_cache.xcoms import CohortRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Columns of a CSV file. The history of a sample is in JSON Lines only.
_COLUMNS = tuple(name for name in CohortRecord.__annotations__ if name != "history")


def write_json_lines(records: Iterable[CohortRecord], file: IO[bytes]) -> None:
    """Write one JSON document for each record.

    :param records: the records.
    :param file: the file.
    """
    for record in records:
        file.write(json.dumps(record).encode() + b"\n")


def write_csv(
    records: Iterable[CohortRecord],
    parameters: Iterable[Mapping[str, Any]],
    names: Sequence[str],
    file: IO[bytes],
) -> None:
    """Write one row for each record, with the parameters of its run setting.

    A parameter with the name of another column gets the prefix ``parameter_``. Values that are not text are JSON.

    :param records: the records.
    :param parameters: the parameters of each record, in the same order.
    :param names: names of all parameters.
    :param file: the file.
    """
    columns = [f"parameter_{name}" if name in _COLUMNS else name for name in names]
    file.write(_line([*_COLUMNS, *columns]))
    for record, given in zip(records, parameters, strict=True):
        members: Mapping[str, Any] = record
        file.write(_line([*_texts(members, _COLUMNS), *_texts(given, names)]))


def _texts(members: Mapping[str, Any], names: Sequence[str]) -> Iterator[str]:
    for name in names:
        value = members.get(name)
        yield "" if value is None else value if isinstance(value, str) else json.dumps(value)


def _line(cells: Iterable[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()
