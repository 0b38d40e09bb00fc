"""Run settings from a samplesheet."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from string import Formatter
from typing import Any

from airflow_provider_omics_cache.exceptions import OmicsParameterError
from airflow_provider_omics_cache.healthomics.settings import MAX_RUN_SETTINGS
from airflow_provider_omics_cache.hooks.connections import hook_parameters
from airflow_provider_omics_cache.hooks.s3 import check_bucket_uri, check_upload_args
from airflow_provider_omics_cache.sheet_groups import SheetGroup, text_cells, write_groups
from airflow_provider_omics_cache.tables import (
    MAX_TABLE_BYTES,
    BrokenRows,
    Place,
    Row,
    check_rows,
    no_rows,
    read_rows,
    shown,
)

log = logging.getLogger(__name__)

Source = str | Callable[[dict[str, Any]], Any]


def run_settings_from_table(
    rows: Any,
    *,
    run_setting_id: str,
    parameters: Mapping[str, Source],
    optional: Iterable[str] = (),
    conn_id: str | None = None,
    allow: Iterable[str] = (),
    max_bytes: int = MAX_TABLE_BYTES,
) -> list[dict[str, Any]]:
    """Return the ``run_settings`` of a batch for an nf-core style samplesheet: one run for each row.

    The file is read when the function is called: call it in a task. A str that begins with ``s3://`` is read with the
    amazon provider's S3Hook. A str often comes from a template, which anyone who triggers the DAG can fill. Any other
    str is therefore refused, unless ``allow`` has its scheme. A pathlib.Path or an ObjectStoragePath is read as it is.

    :param rows: the samplesheet: an iterable of dicts, or the URI (str) or path (pathlib or ObjectStoragePath) of a
        ``.csv`` or ``.tsv`` file with a header, of a ``.json`` file with an array of objects, or of a ``.jsonl`` or
        ``.ndjson`` file with one object per line. The file must be UTF-8. Cells of a CSV or TSV file are strings
        without leading and trailing spaces; lines with only empty cells are ignored.
    :param run_setting_id: column whose value becomes the ``runSettingId`` of the run, or a template of columns such as
        ``"{sample}_{lane}"`` (in the syntax of :meth:`str.format`, without attributes and indexes).
    :param parameters: source of each parameter of the workflow, by the parameter's name. The source is a column, or a
        function that takes the row (a dict) and returns the value, for example a number or a list. If the function
        returns None, the run does not get the parameter.
    :param optional: columns whose cells can be empty; the run then does not get the parameter. An empty cell in any
        other column that is used is an error. Default: no column.
    :param conn_id: Airflow connection for reading the file. Default: ``aws_default`` for S3.
    :param allow: schemes that a str can have besides ``s3``, for example ``("file", "gs")``, as for
        :func:`~airflow_provider_omics_cache.tables.read_table`. Default: no other scheme.
    :param max_bytes: maximum size of the file in bytes. A larger file is refused before it is read. Default: 256 MB
        (268,435,456).
    :return: ``[{"runSettingId": ..., "parameters": {...}}, ...]``, in the order of the rows.
    :raises OmicsParameterError: a parameter of this function is not valid, the file cannot be read, a column is
        missing, or a row is not valid. The error names row, column and rule, and shows the first 20 rows of each rule.
    :raises MissingConnectionError: Airflow does not find the connection.
    :raises OmicsApiError: S3 refused or did not answer the call.
    """
    optional = _checked_optional(optional, _checked_parameters(parameters))
    found = read_rows("rows", rows, conn_id=conn_id, allow=allow, max_bytes=max_bytes, most=MAX_RUN_SETTINGS)
    broken = BrokenRows("rows", rows)
    settings = make_run_settings(
        found, run_setting_id=run_setting_id, parameters=parameters, optional=optional, broken=broken
    )
    broken.raise_if_any()
    return settings


def run_settings_from_samplesheet(
    rows: Any,
    *,
    group_by: str,
    samplesheet_s3_prefix: str,
    parameter: str = "input",
    parameters: Mapping[str, Any] | None = None,
    schema: Any = None,
    conn_id: str | None = None,
    s3_extra_args: dict[str, Any] | None = None,
    allow: Iterable[str] = (),
    max_bytes: int = MAX_TABLE_BYTES,
) -> list[dict[str, Any]]:
    """Return the ``run_settings`` of a batch for a pipeline that takes a samplesheet: one run for each group of rows.

    An nf-core pipeline, for example, has one parameter with the URI of a samplesheet. The rows of each group are
    written to S3 as a CSV file of their own. From a CSV or TSV file it gets all columns. From JSON or an iterable of
    dicts it gets the columns that the rows of the group have. The name of the file is the SHA-256 of its content. The
    same group therefore always has the same URI, and a file that exists is not written again. If a row has an error,
    nothing is written.

    The file is read when the function is called: call it in a task.

    :param rows: the samplesheet: an iterable of dicts, or the URI or path of a file, as for
        :func:`run_settings_from_table`. Values must be strings, numbers, booleans or None. None is an empty cell.
    :param group_by: column whose value becomes the ``runSettingId`` of the run, or a template of columns such as
        ``"{patient}_{sample}"``. All rows with the same value are one group. They need not follow each other.
    :param samplesheet_s3_prefix: ``s3://`` URI below which the files are written. The role of the runs must be able to
        read them.
    :param parameter: parameter of the workflow that gets the URI of the group's file. Default: ``input``.
    :param parameters: the other parameters of each run, by their names. A JSON value is the same for all runs. A
        function takes the rows of the group (a list of dicts whose values are strings) and returns the value. If the
        value is None, the run does not get the parameter. Default: no other parameters.
    :param schema: the schema of the samplesheet, such as ``assets/schema_input.json`` of an nf-core pipeline: a dict,
        or the URI or path of a ``.json`` file. It must be a JSON schema of draft-07 or 2020-12, and can have the
        keywords of nf-schema and nf-validation. Default: None, the rows are not checked against a schema.
    :param conn_id: Airflow connection for reading and writing files. Default: ``aws_default`` for S3.
    :param s3_extra_args: arguments of the uploads, such as ``ServerSideEncryption``, ``SSEKMSKeyId`` or
        ``ExpectedBucketOwner``. Default: only the content type.
    :param allow: schemes that a str can have besides ``s3``, as for :func:`run_settings_from_table`. Default: no other
        scheme.
    :param max_bytes: maximum size of a file in bytes. A larger file is refused before it is read. Default: 256 MB
        (268,435,456).
    :return: ``[{"runSettingId": ..., "parameters": {parameter: ..., ...}}, ...]``, in the order of the first rows of
        the groups.
    :raises OmicsParameterError: a parameter of this function is not valid, a file cannot be read, or a row is not
        valid. The error names row, column and rule, and shows the first 20 rows of each rule. Nothing was written.
    :raises MissingConnectionError: Airflow does not find the connection.
    :raises OmicsError: another task writes one of the files at the same time.
    :raises OmicsApiError: S3 refused or did not answer the call.
    """
    check_bucket_uri("samplesheet_s3_prefix", samplesheet_s3_prefix)
    check_upload_args(s3_extra_args)
    others = check_group_parameters(parameters, parameter)
    hook_parameters(conn_id)  # a missing connection is an error before any file is read
    checked_schema = None
    if schema is not None:
        # jsonschema is slow to import, and DAG files import this module.
        from airflow_provider_omics_cache.sheet_schemas import read_schema

        checked_schema = read_schema(schema, conn_id=conn_id, allow=allow, max_bytes=max_bytes)
    broken = BrokenRows("rows", rows)
    found = check_rows("rows", rows, broken, conn_id=conn_id, allow=allow, max_bytes=max_bytes)
    groups: dict[str, SheetGroup] = {}
    template: _Template | None = None
    columns: dict[str, None] = {}
    for place, row in found:
        cells = text_cells(row, place, broken)
        if cells is None:
            continue
        columns.update(dict.fromkeys(cells))
        template = template or _Template(group_by, columns, parameter="group_by")
        _add_to_group(groups, cells, template, place, broken)
        if checked_schema:
            checked_schema.check_row(place, cells, broken)
    if template is None:
        broken.raise_if_any()
        raise no_rows("rows", rows)
    for column in template.columns:
        if column not in columns:
            rule = f"must have the column {column!r}{_hint_at_delimiter(columns)}"
            raise OmicsParameterError("rows", rule, shown(", ".join(columns)))
    if checked_schema:
        checked_schema.check_table(broken)
        if unnamed := checked_schema.unnamed(columns):
            log.warning("The schema does not name these columns: %s", shown(", ".join(unnamed)))
    if len(groups) > MAX_RUN_SETTINGS:
        broken.add(f"must have at most {MAX_RUN_SETTINGS:,} groups", f"{len(groups):,} groups")
    settings = []
    for made, group in groups.items():
        values = _group_values(group, others, broken)
        values[parameter] = group.s3_uri(samplesheet_s3_prefix)
        settings.append({"runSettingId": made, "parameters": values})
    broken.raise_if_any()
    write_groups(groups.values(), samplesheet_s3_prefix, conn_id=conn_id, extra_args=s3_extra_args)
    return settings


def make_run_settings(
    rows: Sequence[Row],
    *,
    run_setting_id: str,
    parameters: Mapping[str, Source],
    optional: Iterable[str],
    broken: BrokenRows,
) -> list[dict[str, Any]]:
    """Return the run settings of rows; rows with an error are left out.

    :param rows: the rows with their places.
    :param run_setting_id: column or template of the ``runSettingId``, as for :func:`run_settings_from_table`.
    :param parameters: sources of the parameters, as for :func:`run_settings_from_table`.
    :param optional: columns whose cells can be empty, as for :func:`run_settings_from_table`.
    :param broken: object to which the errors of the rows are added.
    :raises OmicsParameterError: ``run_setting_id`` is neither a column nor a template.
    """
    columns = dict.fromkeys(column for _, row in rows for column in row)
    template = _Template(run_setting_id, columns)
    optional = frozenset(optional)
    sources = [source for source in parameters.values() if isinstance(source, str)]
    used = dict.fromkeys([*template.columns, *sources])
    for column in used:
        if column not in columns:
            rule = f"must have the column {column!r}{_hint_at_delimiter(columns)}"
            broken.add(rule, shown(", ".join(map(str, columns))))
    if broken:
        return []
    required = [column for column in used if column in template.columns or column not in optional]
    first_places: dict[str, Place] = {}
    settings = []
    for place, row in rows:
        is_whole = True
        for column in required:
            if _is_empty(row.get(column)):
                rule = "must not be empty"
                if column not in template.columns:
                    rule += ", unless optional names the column"
                broken.add(rule, row.get(column), member=f"column {column!r}", index=place)
                is_whole = False
        if not is_whole:
            continue
        made = template.fill(row, place, broken)
        if made is None:
            continue
        first = first_places.setdefault(made, place)
        if first is not place:
            broken.add("must be unique", f"{shown(made)} as in {first}", member=template.member, index=place)
        values = _values(row, parameters, place, broken)
        settings.append({"runSettingId": made, "parameters": values})
    return settings


def check_group_parameters(parameters: Any, parameter: Any, *, prefix: str = "") -> Mapping[str, Any]:
    """Check the parameters of the runs of groups of rows.

    :param parameters: the parameters besides the samplesheet of the group, None for none.
    :param parameter: the parameter that gets the URI of the samplesheet.
    :param prefix: what errors put before the names of both. Default: nothing.
    :return: ``parameters``, as a dict.
    :raises OmicsParameterError: one of them is not valid.
    """
    if not isinstance(parameter, str) or not parameter:
        raise OmicsParameterError(f"{prefix}parameter", "must be the name of a parameter of the workflow", parameter)
    if parameters is None:
        return {}
    if not isinstance(parameters, Mapping) or not all(isinstance(name, str) for name in parameters):
        raise OmicsParameterError(f"{prefix}parameters", "must be a dict with the names of parameters", parameters)
    if parameter in parameters:
        rule = f"must not have {parameter!r}, which is set to the URI of each group's samplesheet"
        raise OmicsParameterError(f"{prefix}parameters", rule, parameters[parameter])
    return parameters


def _hint_at_delimiter(columns: Mapping[Any, None]) -> str:
    """Return a hint for an error if the only column looks like a header with another delimiter."""
    (only, *others) = columns or ("",)
    found = next((delimiter for delimiter in ";\t|," if delimiter in str(only)), None)
    if others or found is None:
        return ""
    return f" (its only column has {found!r}: separate columns with commas in a .csv file, with tabs in a .tsv file)"


class _Template:
    """Template of the ``runSettingId``: one column, or several.

    :param text: the column or the template.
    :param columns: columns of the table.
    :param parameter: name of the parameter whose value is ``text``, for errors. Default: ``run_setting_id``.
    :raises OmicsParameterError: ``text`` is neither a column nor a template.
    """

    def __init__(self, text: Any, columns: Iterable[str], parameter: str = "run_setting_id") -> None:
        rule = 'must be a column or a template of columns such as "{sample}_{lane}"'
        if not isinstance(text, str) or not text:
            raise OmicsParameterError(parameter, rule, text)
        self._text = text
        self._is_column = text in columns or "{" not in text
        self.member = f"column {text!r}" if self._is_column else f"{parameter} {text!r}"
        try:
            names = [text] if self._is_column else [name for _, name, _, _ in Formatter().parse(text) if name]
        except ValueError as error:
            raise OmicsParameterError(parameter, f"{rule} ({error})", text) from None
        if not names:
            raise OmicsParameterError(parameter, rule, text)
        self.columns = tuple(names)

    def fill(self, row: Mapping[str, Any], place: Place, broken: BrokenRows) -> str | None:
        """Return the ``runSettingId`` of a row, or None if the row has an error.

        :param row: the row.
        :param place: place of the row, for errors.
        :param broken: object to which the error is added.
        """
        for column in self.columns:
            value = row[column]
            if not isinstance(value, (str, int)) or isinstance(value, bool):
                broken.add("must be a string or an integer", shown(value), member=f"column {column!r}", index=place)
                return None
        if self._is_column:
            return str(row[self._text])
        try:
            return _ColumnFormatter().vformat(self._text, (), row)
        except (KeyError, ValueError) as error:
            broken.add("must be a format that fits the row", str(error), member=self.member, index=place)
            return None


class _ColumnFormatter(Formatter):
    """A formatter that takes each field name as the name of a column, dots and brackets included."""

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> tuple[Any, str]:
        return kwargs[field_name], field_name


def _values(
    row: Mapping[str, Any], parameters: Mapping[str, Source], place: Place, broken: BrokenRows
) -> dict[str, Any]:
    values = {}
    for name, source in parameters.items():
        if isinstance(source, str):
            member = f"column {source!r}"
            value = None if _is_empty(row.get(source)) else row[source]
        else:
            member = f"parameter {name!r}"
            try:
                value = source(dict(row))
            except Exception as error:
                broken.add("cannot be computed: its function raised an error", shown(error), member=member, index=place)
                continue
        if _is_json(value, member, place, broken) and value is not None:
            values[name] = value
    return values


def _add_to_group(
    groups: dict[str, SheetGroup], cells: Mapping[str, str], template: _Template, place: Place, broken: BrokenRows
) -> None:
    """Add a row to its group. If the row has no group, add an error."""
    empty = [column for column in template.columns if not cells.get(column)]
    for column in empty:
        broken.add("must not be empty: group_by names it", cells.get(column), member=f"column {column!r}", index=place)
    made = None if empty else template.fill(cells, place, broken)
    if made is None:
        return
    key = tuple(cells[column] for column in template.columns)
    group = groups.setdefault(made, SheetGroup(place, key))
    if group.key != key:
        rule = "must give rows with different cells different values"
        broken.add(rule, f"{shown(made)} as in {group.place}", member=template.member, index=place)
    group.add(cells)


def _group_values(group: SheetGroup, parameters: Mapping[str, Any], broken: BrokenRows) -> dict[str, Any]:
    values = {}
    for name, source in parameters.items():
        member = f"parameter {name!r}"
        try:
            value = source(group.rows()) if callable(source) else source
        except Exception as error:
            rule = "cannot be computed: its function raised an error"
            broken.add(rule, shown(error), member=member, index=group.place)
            continue
        if _is_json(value, member, group.place, broken) and value is not None:
            values[name] = value
    return values


def _is_json(value: Any, member: str, place: Place, broken: BrokenRows) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        broken.add("must be a JSON value", shown(str(error)), member=member, index=place)
        return False
    return True


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _checked_parameters(parameters: Any) -> Mapping[str, Source]:
    if not isinstance(parameters, Mapping):
        raise OmicsParameterError("parameters", "must be a dict", type(parameters).__name__)
    for name, source in parameters.items():
        if not isinstance(name, str) or not (callable(source) or isinstance(source, str)):
            raise OmicsParameterError(
                "parameters", "must have a column or a function for each parameter", {name: source}
            )
    return parameters


def _checked_optional(optional: Any, parameters: Mapping[str, Source]) -> frozenset[str]:
    given: list[Any] = list(optional) if isinstance(optional, Iterable) and not isinstance(optional, str) else [None]
    if not all(isinstance(column, str) for column in given):
        raise OmicsParameterError("optional", "must be a list of columns", optional)
    used = dict.fromkeys(source for source in parameters.values() if isinstance(source, str))
    unknown = sorted(set(given) - used.keys())
    if unknown:
        rule = f"names unknown columns: {', '.join(unknown)} (columns used: {', '.join(used) or 'none'})"
        raise OmicsParameterError("optional", rule, unknown)
    return frozenset(given)
