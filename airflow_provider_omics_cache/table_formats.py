"""The formats of a table's file: CSV, TSV, JSON and JSON Lines, checked and read row by row."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from airflow_provider_omics_cache.healthomics.settings import BrokenRules
from airflow_provider_omics_cache.hooks.s3 import shown_uri

_SHOWN_CHARACTERS = 100
#: Bytes of a file that are decoded at once.
_WINDOW = 64 * 1024
_LINE = re.compile(rb"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+")
_JSON_SPACES = re.compile(r"[ \t\n\r]*")


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
#: A row that was checked, with the position of its first byte in the file.
CheckedRow = tuple[int, Place, dict[str, Any]]


class BrokenRows(BrokenRules):
    """The errors of one table: for each broken rule the first rows and the number of rows.

    :param parameter: name of the parameter.
    :param table: value of the parameter. The errors name it if it is the path or URI of a file.
    """

    entries = "rows"

    def __init__(self, parameter: str, table: Any = None) -> None:
        super().__init__(parameter)
        self._file = shown_uri(str(table)) if isinstance(table, str) or hasattr(table, "read_bytes") else ""

    def summary(self) -> tuple[str, str, Any]:
        """Return parameter, rule and value of the first offender; the rule names the file and the other offenders."""
        parameter, rule, value = super().summary()
        return parameter, f"{rule} (file {self._file})" if self._file and self._file not in rule else rule, value

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


class Content(ABC):
    """Content of a file in one format.

    :param name: path or URI of the file.
    :param data: bytes of the file.
    """

    def __init__(self, name: str, data: bytes) -> None:
        self._name = shown_uri(name)
        self._data = data
        self._begin = len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0

    def check(self, broken: BrokenRows) -> Iterator[CheckedRow]:
        """Check the whole content, and yield the rows without an error.

        :param broken: object to which the errors are added.
        """
        wrong = _not_utf8(self._data)
        if wrong is None:
            yield from self._check(broken)
        else:
            line = self._data.count(b"\n", 0, wrong.start) + 1
            broken.add("must be UTF-8: save the file as UTF-8", self._data[wrong], member=f"line {line}")

    @abstractmethod
    def rows(self, start: int) -> Iterator[dict[str, Any]]:
        """Yield the rows from a given row to the end. It must be called only after :meth:`check` found no error.

        :param start: position of the first byte of the row.
        """

    @abstractmethod
    def _check(self, broken: BrokenRows) -> Iterator[CheckedRow]:
        """Check every row of a file in UTF-8, and yield the rows without an error."""


def check_objects(values: Iterable[tuple[Place, Any]], broken: BrokenRows) -> Iterator[Row]:
    """Yield the values that are dicts.

    :param values: values with their places.
    :param broken: object to which the errors of the others are added.
    """
    for place, value in values:
        if isinstance(value, Mapping):
            yield place, value
        else:
            broken.add("must be an object (a dict)", type(value).__name__, index=place)


def shown(value: Any) -> Any:
    """Return a value as an error shows it: shortened if it is long.

    :param value: value of a cell.
    """
    text = value if isinstance(value, str) else repr(value)
    if len(text) > _SHOWN_CHARACTERS:
        return f"{text[:_SHOWN_CHARACTERS]}... ({len(text):,} characters)"
    return value


def content_of(name: str, data: bytes) -> Content:
    """Return the content of a file.

    :param name: path or URI of the file, which ends in one of :data:`FORMATS`.
    :param data: bytes of the file.
    """
    return next(made for suffix, made in FORMATS.items() if name.lower().endswith(suffix))(name, data)


def _not_utf8(data: bytes) -> slice | None:
    """Return the first bytes that are not UTF-8. No more than one window is decoded at once.

    :param data: the bytes.
    """
    view, start = memoryview(data), 0
    while start < len(data):
        end = start + _WINDOW
        try:
            start += codecs.utf_8_decode(view[start:end], "strict", end >= len(data))[1]
        except UnicodeDecodeError as error:
            return slice(start + error.start, start + error.end)
    return None


class _Lines:
    r"""The lines of a file, each with its end: ``\n``, ``\r\n`` or ``\r``.

    :param data: bytes of the file.
    :param start: position of the first byte.
    """

    def __init__(self, data: bytes, start: int) -> None:
        self._found = _LINE.finditer(data, start)
        #: Position after the last line that was read.
        self.position = start
        #: Number of lines that were read.
        self.count = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = next(self._found)
        self.position = line.end()
        self.count += 1
        return line[0].decode()


class _Csv(Content):
    """A CSV file with a header."""

    _delimiter = ","

    def __init__(self, name: str, data: bytes) -> None:
        super().__init__(name, data)
        self._columns: list[str] = []

    def _check(self, broken: BrokenRows) -> Iterator[CheckedRow]:
        columns: list[str] = []
        number = 0
        lines = _Lines(self._data, self._begin)
        try:
            for position, line, cells in self._records(lines):
                if not columns:
                    columns = self._columns = cells
                    if "" in columns or len(set(columns)) < len(columns):
                        broken.add("must give each column a unique, non-empty name", columns, member=f"line {line}")
                        return
                    continue
                number += 1
                place = Place(number, line)
                if len(cells) == len(columns):
                    yield position, place, dict(zip(columns, cells, strict=True))
                else:
                    rule = f"must have {len(columns)} cells, as many as the header"
                    broken.add(rule, f"{len(cells)} cells", index=place)
        except csv.Error as error:
            broken.add("must be valid CSV", str(error), member=f"line {lines.count}")

    def rows(self, start: int) -> Iterator[dict[str, Any]]:
        """Yield the rows from a given row to the end."""
        for _, _, cells in self._records(_Lines(self._data, start)):
            yield dict(zip(self._columns, cells, strict=True))

    def _records(self, lines: _Lines) -> Iterator[tuple[int, int, list[str]]]:
        """Yield position, line and cells of each record that has a cell with text."""
        position, line = lines.position, 1
        for cells in csv.reader(lines, delimiter=self._delimiter, strict=True):
            cells = [cell.strip() for cell in cells]
            if any(cells):
                yield position, line, cells
            position, line = lines.position, lines.count + 1


class _Tsv(_Csv):
    """A TSV file with a header."""

    _delimiter = "\t"


class _JsonLines(Content):
    """A file with one JSON object per line."""

    def _check(self, broken: BrokenRows) -> Iterator[CheckedRow]:
        decoder = _Decoder()
        number = 0
        position = self._begin
        for line, content in enumerate(self._lines(position), 1):
            start, position = position, position + len(content)
            if not content.strip():
                continue
            number += 1
            place = Place(number, line)
            try:
                value = decoder.decode(content.decode())
            except (ValueError, RecursionError) as error:
                broken.add("must be valid JSON", str(error), index=place)
            else:
                wrong = decoder.wrong(value, self._name)
                if wrong:
                    broken.add(*wrong, index=place)
                else:
                    yield start, place, value

    def rows(self, start: int) -> Iterator[dict[str, Any]]:
        """Yield the rows from a given row to the end."""
        for content in self._lines(start):
            if content.strip():
                yield json.loads(content)

    def _lines(self, start: int) -> Iterator[bytes]:
        file = io.BytesIO(self._data)
        file.seek(start)
        return iter(file)


class _Json(Content):
    """A file with a JSON array of objects."""

    def _check(self, broken: BrokenRows) -> Iterator[CheckedRow]:
        cursor = _JsonCursor(self._data, self._begin)
        number = 0
        wrong_rows: list[tuple[tuple[str, Any], Place]] = []
        try:
            if cursor.character() != "[":
                broken.add("must be a JSON array of objects", type(cursor.value()).__name__)
                return
            cursor.skip()
            if cursor.character() != "]":
                for position, value in cursor.elements():
                    number += 1
                    place = Place(number)
                    wrong = cursor.decoder.wrong(value, self._name)
                    if wrong:
                        wrong_rows.append((wrong, place))
                    else:
                        yield position, place, value
                if cursor.character() != "]":
                    raise cursor.error("Expecting ',' delimiter")
            cursor.skip()
            if cursor.character():
                raise cursor.error("Extra data")
        except (ValueError, RecursionError) as error:
            broken.add("must be valid JSON", str(error))
            return
        for wrong, place in wrong_rows:
            broken.add(*wrong, index=place)

    def rows(self, start: int) -> Iterator[dict[str, Any]]:
        """Yield the rows from a given row to the end."""
        for _, value in _JsonCursor(self._data, start).elements():
            yield value


class _JsonCursor:
    """A place in JSON text. No more than a window of the text is decoded, unless a single value is longer.

    :param data: the JSON in UTF-8.
    :param position: position of the first byte.
    """

    def __init__(self, data: bytes, position: int) -> None:
        self.decoder = _Decoder()
        #: Position of the cursor's byte.
        self.position = position
        self._data = data
        self._text = ""
        self._at = 0
        self._fill(_WINDOW)

    def character(self) -> str:
        """Skip white space, and return the next character; an empty str at the end."""
        while True:
            found = _JSON_SPACES.match(self._text, self._at)
            self._move(found.end() if found else self._at)
            if self._at < len(self._text) or self._is_last:
                return self._text[self._at : self._at + 1]
            self._fill(_WINDOW)

    def skip(self) -> None:
        """Skip one character."""
        self._move(self._at + 1)

    def value(self) -> Any:
        """Return the value that begins here, and skip it.

        :raises ValueError: there is no valid value.
        """
        size = _WINDOW
        while True:
            try:
                value, end = self.decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._is_last:
                    self._move(error.pos)
                    raise self.error(error.msg) from None
            else:
                if self._is_last or end < len(self._text):
                    self._move(end)
                    return value
            size *= 2
            self._fill(size)

    def elements(self) -> Iterator[tuple[int, Any]]:
        """Yield position and value of this element of an array and of each next one, until no comma follows."""
        while True:
            self.character()
            position = self.position
            yield position, self.value()
            if self.character() != ",":
                return
            self.skip()

    def error(self, text: str) -> ValueError:
        """Return an error with line and column of the cursor.

        :param text: what is wrong.
        """
        line_start = self._data.rfind(b"\n", 0, self.position) + 1
        line = self._data.count(b"\n", 0, line_start) + 1
        before = memoryview(self._data)[line_start : self.position]
        return ValueError(f"{text}: line {line} column {len(str(before, 'utf-8-sig')) + 1}")

    def _move(self, end: int) -> None:
        self.position += len(self._text[self._at : end].encode())
        self._at = end

    def _fill(self, size: int) -> None:
        end = self.position + size
        window = memoryview(self._data)[self.position : end]
        self._text, self._at = codecs.utf_8_decode(window, "strict", False)[0], 0
        self._is_last = end >= len(self._data)


class _Decoder(json.JSONDecoder):
    """Python's JSON decoder that notes a repeated key, and refuses NaN and Infinity."""

    def __init__(self) -> None:
        super().__init__(object_pairs_hook=self._make_object, parse_constant=_refuse_constant)
        #: Key that an object of the last value has more than once, None if there is no such key.
        self._repeated: str | None = None

    def wrong(self, row: Any, name: str) -> tuple[str, Any] | None:
        """Return rule and value of the error of the row that was decoded last, None if it has no error.

        :param row: the row.
        :param name: path or URI of the file.
        """
        if not isinstance(row, dict):
            return "must be an object (a dict)", type(row).__name__
        if self._repeated is not None:
            return f"must have each key of an object only once in {name}", shown(self._repeated)
        return None

    def raw_decode(self, s: str, idx: int = 0) -> tuple[Any, int]:
        """Decode one value.

        :param s: the text.
        :param idx: where the value begins.
        """
        self._repeated = None
        return super().raw_decode(s, idx)

    def _make_object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            counts = Counter(key for key, _ in pairs)
            self._repeated = next(key for key, count in counts.items() if count > 1)
        return made


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


#: The formats by the suffix of the file's name.
FORMATS: dict[str, type[Content]] = {
    ".csv": _Csv,
    ".tsv": _Tsv,
    ".json": _Json,
    ".jsonl": _JsonLines,
    ".ndjson": _JsonLines,
}
