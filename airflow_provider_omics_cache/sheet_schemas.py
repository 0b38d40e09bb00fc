"""Check the rows of a samplesheet against a schema of nf-schema or nf-validation, which is a JSON schema.

The rows are checked one by one. All rows are needed at once only if the schema has a keyword for the whole array that
is not listed in :data:`_ARRAY_KEYWORDS`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Any

from jsonschema import Draft7Validator, Draft202012Validator, FormatChecker, SchemaError, ValidationError
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable

from airflow_provider_omics_cache.exceptions import OmicsParameterError
from airflow_provider_omics_cache.hooks.s3 import shown_uri
from airflow_provider_omics_cache.table_files import check_allow, check_max_bytes, read_file
from airflow_provider_omics_cache.table_formats import BrokenRows, Place, shown

#: Keywords of the array that are checked row by row, and keywords that check nothing.
_ARRAY_KEYWORDS = frozenset({"allOf", "items", "maxItems", "minItems", "type", "uniqueEntries", "uniqueItems"})
_ANNOTATIONS = frozenset({"$schema", "$id", "$comment", "$defs", "definitions", "title", "description", "errorMessage"})
_INTEGER = re.compile(r"[+-]?[0-9]{1,1000}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_BOOLEANS = {"true": True, "false": False}
#: In URLs with these schemes Nextflow does not expand ``*`` and ``?``.
_WEB_URL = re.compile("(https?|ftps?)://", re.IGNORECASE)
#: Text of the error by keyword. Errors of other keywords show the keyword.
_RULES = {
    "enum": "must be one of {}",
    "format": "must have the format {}",
    "maximum": "must be at most {}",
    "minimum": "must be at least {}",
    "pattern": "must match the pattern {}",
    "type": "must have the type {}",
}
#: Keywords whose own message is the text of the error. It names columns, not values of cells.
_OWN_MESSAGES = frozenset({"dependentRequired", "deprecated", "required"})
_MESSAGES_OF_COLUMNS = frozenset({"additionalProperties", "dependencies", "unevaluatedProperties"})


def _required(validator: Any, columns: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if validator.is_type(instance, "object"):
        for column in columns:
            if column not in instance:
                yield ValidationError("must not be empty", path=[column])


def _dependent_required(validator: Any, dependent: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    # In nf-validation the schema of a column can have a list here. SheetSchema checks that list.
    if isinstance(dependent, Mapping) and validator.is_type(instance, "object"):
        for column, others in dependent.items():
            for other in others if column in instance else ():
                if other not in instance:
                    yield ValidationError(f"must not be empty if the row has a {column!r}", path=[other])


def _deprecated(validator: Any, is_deprecated: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if is_deprecated is True:
        yield ValidationError("is deprecated: leave it out")


def _is_file_path(value: Any) -> bool:
    if not isinstance(value, str):
        return True
    is_pattern = not _WEB_URL.match(value) and ("*" in value or "?" in value)
    return not is_pattern and not value.endswith("/")


_KEYWORDS = {"required": _required, "dependentRequired": _dependent_required}
_Draft7 = extend(Draft7Validator, _KEYWORDS)
_Draft202012 = extend(Draft202012Validator, {**_KEYWORDS, "deprecated": _deprecated})
_DRAFTS = {"json-schema.org/draft-07/schema": _Draft7, "json-schema.org/draft/2020-12/schema": _Draft202012}
_FORMATS = FormatChecker()
for _name in ("file-path", "file-path-exists"):
    _FORMATS.checks(_name)(_is_file_path)


def read_schema(
    schema: Any, *, conn_id: str | Mapping[str, Any] | None, allow: Iterable[str], max_bytes: int
) -> SheetSchema:
    """Read and check a schema.

    :param schema: the schema (a dict), or the URI (str) or path of a ``.json`` file.
    :param conn_id: Airflow connection for reading a str. Default: ``aws_default`` for S3.
    :param allow: schemes that a str can have besides ``s3``.
    :param max_bytes: maximum size of the file in bytes.
    :raises OmicsParameterError: the file cannot be read, or is not a JSON schema of an array.
    :raises MissingConnectionError: Airflow does not find the connection.
    :raises OmicsApiError: S3 refused or did not answer the call.
    """
    if not isinstance(schema, str) and not hasattr(schema, "read_bytes"):
        return SheetSchema(schema)
    data = read_file(
        "schema",
        schema,
        conn_id=conn_id,
        allow=check_allow(allow),
        suffixes=(".json",),
        max_bytes=check_max_bytes(max_bytes),
    )
    try:
        loaded = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise OmicsParameterError("schema", f"must be valid JSON ({error})", shown_uri(str(schema))) from None
    return SheetSchema(loaded)


class SheetSchema:
    """A checked schema, and what it keeps of the rows that were already checked.

    :param schema: the JSON schema of an array of rows.
    :raises OmicsParameterError: it is not a JSON schema, or not a schema of an array.
    """

    def __init__(self, schema: Any) -> None:
        draft = _draft_of(schema)
        try:
            with _AsSchemaError():
                draft.check_schema(schema)
        except SchemaError as error:
            rule = f"must be a JSON schema ({error.json_path}: {shown(error.message)})"
            raise OmicsParameterError("schema", rule, shown(error.instance)) from None
        self._root = schema
        self._is_draft7 = draft is _Draft7
        validator = draft(schema, registry=Registry(), format_checker=_FORMATS)
        parts = list(_array_schemas(schema))
        if not any("items" in part or "array" in _as_list(part.get("type")) for part in parts):
            rule = 'must describe the rows of a samplesheet ("type": "array", with "items")'
            raise OmicsParameterError("schema", rule, shown(schema))
        items = [part["items"] for part in parts if isinstance(part.get("items"), (dict, bool))]
        self._row_schemas = [found for item in items for found in _in_place(item, schema)]
        self._rows = [validator.evolve(schema=item) for item in items]
        self._rest = [validator.evolve(schema=rest) for part in parts if (rest := _rest(part))]
        self._unique = [_Unique(tuple(part["uniqueEntries"])) for part in parts if _is_list(part.get("uniqueEntries"))]
        self._unique += [_Unique(None) for part in parts if part.get("uniqueItems") is True]
        self._counts = [(part.get("minItems", 0), part.get("maxItems")) for part in parts]
        self._dependent: dict[str, list[str]] = {}
        if self._is_draft7:
            self._read_keywords_of_nf_validation()
        self._columns: dict[str, _Column] = {}
        self._count = 0
        self._kept: list[dict[str, Any]] = []
        self._places: list[Place] = []

    def check_row(self, place: Place, cells: Mapping[str, str], broken: BrokenRows) -> None:
        """Check a row.

        :param place: place of the row.
        :param cells: the row's cells as text. An empty text is a missing value.
        :param broken: object to which the errors are added.
        """
        self._count += 1
        with _AsSchemaError():
            row = {name: self._column(name).value(text) for name, text in cells.items() if text}
        for column, others in self._dependent.items():
            for other in others if column in row else ():
                if other not in row:
                    rule = f"must not be empty if the row has a {column!r}"
                    self._add(rule, None, other, place, cells, broken)
        with _AsSchemaError():
            for validator in self._rows:
                for error in validator.iter_errors(row):
                    self._add_error(error, list(error.path), place, cells, broken)
        for unique in self._unique:
            unique.check(place, cells, broken)
        if self._rest:
            self._kept.append(row)
            self._places.append(place)

    def check_table(self, broken: BrokenRows) -> None:
        """Check the rules about all rows. It must be called after the last row.

        :param broken: object to which the errors are added.
        """
        for least, most in self._counts:
            if self._count < least:
                broken.add(f"must have at least {least:,} rows (minItems of the schema)", f"{self._count:,} rows")
            if most is not None and self._count > most:
                broken.add(f"must have at most {most:,} rows (maxItems of the schema)", f"{self._count:,} rows")
        with _AsSchemaError():
            for validator in self._rest:
                for error in validator.iter_errors(self._kept):
                    path = list(error.path)
                    place = self._places[path[0]] if path else None
                    cells = self._kept[path[0]] if path else {}
                    self._add_error(error, path[1:], place, cells, broken)

    def unnamed(self, columns: Iterable[str]) -> list[str]:
        """Return the columns that the schema does not name.

        :param columns: the columns.
        """
        named = {name for schema in self._row_schemas for name in schema.get("properties", {})}
        return [column for column in columns if column not in named] if named else []

    def _read_keywords_of_nf_validation(self) -> None:
        for schema in self._row_schemas:
            for column, found in schema.get("properties", {}).items():
                if not isinstance(found, dict):
                    continue
                if _is_list(found.get("dependentRequired")):
                    self._dependent.setdefault(column, []).extend(found["dependentRequired"])
                unique = found.get("unique")
                if unique is True or _is_list(unique):
                    others = [name for name in _as_list(unique) if name is not True and name != column]
                    self._unique.append(_Unique((column, *others), is_checked_with=column))

    def _column(self, name: str) -> _Column:
        if name not in self._columns:
            schemas = [s["properties"][name] for s in self._row_schemas if name in s.get("properties", {})]
            validators = [self._rows[0].evolve(schema=schema) for schema in schemas]
            types = {found for schema in schemas for found in _types(schema, self._root)}
            self._columns[name] = _Column(types, validators)
        return self._columns[name]

    def _add_error(
        self, error: ValidationError, path: list[Any], place: Place | None, cells: Mapping[str, Any], broken: BrokenRows
    ) -> None:
        column = path[0] if path else None
        keyword = str(error.validator)
        schema = error.schema if isinstance(error.schema, dict) else {}
        message = schema.get("errorMessage") if keyword not in ("required", "dependentRequired") else None
        if keyword in _OWN_MESSAGES:
            rule = error.message
        elif keyword in _RULES:
            rule = _RULES[keyword].format(shown(repr(error.validator_value)))
        elif keyword in _MESSAGES_OF_COLUMNS:
            rule = f"must match the schema: {shown(error.message)}"
        else:
            rule = f"must match {keyword} of the schema"
            if not message:
                rule += f", {shown(json.dumps(error.validator_value, default=repr))}"
        self._add(rule, message, column, place, cells, broken)

    def _add(
        self, rule: str, message: Any, column: Any, place: Place | None, cells: Mapping[str, Any], broken: BrokenRows
    ) -> None:
        """Add an error, with the schema's own message.

        :param rule: the rule.
        :param message: the schema's message. With None, the message of the column is used.
        :param column: the column, None for an error of the row.
        :param place: place of the row, None for an error of the whole table.
        :param cells: the row.
        :param broken: object to which the error is added.
        """
        properties = [s["properties"][column] for s in self._row_schemas if column in s.get("properties", {})]
        messages = [message, *(found.get("errorMessage") for found in properties if isinstance(found, dict))]
        said = next((text for text in messages if isinstance(text, str) and text), None)
        value = shown(dict(cells)) if column is None else shown(cells.get(column, "no such column"))
        member = "" if column is None else f"column {column!r}"
        broken.add(f"{rule}: {said}" if said else rule, value, member=member, index=place)


class _Column:
    """How the text of a column becomes a value.

    :param types: the types that the schema declares for the column.
    :param validators: validators of the column.
    """

    def __init__(self, types: set[str], validators: list[Any]) -> None:
        self._types = types
        self._validators = validators
        self._is_text = not types & {"boolean", "integer", "number"}

    def value(self, text: str) -> Any:
        """Return the value of a cell. Text that does not fit the declared type stays text.

        :param text: the cell, not empty.
        """
        if self._is_text:
            return text
        made = self._converted(text)
        if "string" in self._types and not all(validator.is_valid(made) for validator in self._validators):
            return text
        return made

    def _converted(self, text: str) -> Any:
        if "boolean" in self._types and text.lower() in _BOOLEANS:
            return _BOOLEANS[text.lower()]
        if self._types & {"integer", "number"}:
            if _INTEGER.fullmatch(text):
                return int(text)
            if _NUMBER.fullmatch(text) and abs(number := float(text)) != float("inf"):
                return number
        return text


class _Unique:
    """Checks that the cells of some columns are unique together.

    :param columns: the columns. Default: None, for all columns.
    :param is_checked_with: only rows with text in this column are checked. Default: None, for rows with text in any of
        the columns.
    """

    def __init__(self, columns: tuple[str, ...] | None, *, is_checked_with: str | None = None) -> None:
        self._columns = columns
        self._is_checked_with = is_checked_with
        self._first: dict[bytes, Place] = {}

    def check(self, place: Place, cells: Mapping[str, str], broken: BrokenRows) -> None:
        """Compare a row with the rows that were already checked.

        :param place: place of the row.
        :param cells: the row's cells as text.
        :param broken: object to which the error is added.
        """
        names = sorted(cells) if self._columns is None else self._columns
        given = {name: cells[name] for name in names if cells.get(name)}
        if not given or (self._is_checked_with and self._is_checked_with not in given):
            return
        key = blake2b(repr(given).encode(), digest_size=16).digest()
        first = self._first.setdefault(key, place)
        if first is not place:
            where = f" in {' and '.join(map(repr, self._columns))}" if self._columns else ""
            value = f"{shown(', '.join(given.values()))} as in {first}"
            broken.add(f"must be unique{where}", value, index=place)


class _AsSchemaError:
    """Turns errors that jsonschema raises for an unusable part of the schema into an error of the parameter."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, Unresolvable):
            rule = "must not refer to another document or to a missing part of itself ($ref)"
            raise OmicsParameterError("schema", rule, error.ref) from None
        if isinstance(error, RecursionError):
            rule = "must not refer to itself without end ($ref), and must not be nested too deeply"
            raise OmicsParameterError("schema", rule, "a schema without end") from None


def _draft_of(schema: Any) -> Any:
    if not isinstance(schema, dict):
        raise OmicsParameterError("schema", "must be a JSON schema (a dict), or its URI or path", type(schema).__name__)
    uri = schema.get("$schema", "https://json-schema.org/draft/2020-12/schema")
    name = re.sub(r"^https?://|#$", "", uri) if isinstance(uri, str) else ""
    if name not in _DRAFTS:
        raise OmicsParameterError("schema", "must be a JSON schema of draft-07 or 2020-12 ($schema)", uri)
    return _DRAFTS[name]


def _array_schemas(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield the schema of the array, and the schemas of its allOf."""
    if isinstance(schema, dict):
        yield schema
        for part in schema.get("allOf", []):
            yield from _array_schemas(part)


def _rest(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keywords of an array that can only be checked with all rows."""
    streamed = _ARRAY_KEYWORDS - ({"items"} if isinstance(schema.get("items"), list) else set())
    return {name: value for name, value in schema.items() if name not in streamed | _ANNOTATIONS}


def _in_place(schema: Any, root: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a schema, and the schemas that it applies to the same value: $ref, allOf, anyOf, oneOf, then, else."""
    waiting, seen = [schema], set()
    while waiting:
        found = waiting.pop(0)
        if not isinstance(found, dict) or id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        waiting += [part for name in ("allOf", "anyOf", "oneOf") for part in found.get(name, [])]
        waiting += [found.get("then"), found.get("else"), _target(found.get("$ref"), root)]


def _target(reference: Any, root: Any) -> Any:
    """Return the part of a schema that a JSON pointer such as ``#/$defs/row`` names. None if it does not exist."""
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return None
    for name in reference[2:].split("/"):
        root = root.get(name.replace("~1", "/").replace("~0", "~")) if isinstance(root, dict) else None
    return root


def _types(schema: Any, root: Mapping[str, Any]) -> Iterator[str]:
    for found in _in_place(schema, root):
        if "type" in found:
            yield from _as_list(found["type"])
        else:
            for value in [*found.get("enum", []), *([found["const"]] if "const" in found else [])]:
                yield (
                    "boolean" if isinstance(value, bool) else "number" if isinstance(value, (int, float)) else "string"
                )


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)
