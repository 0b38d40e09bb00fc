"""Run settings out of a samplesheet."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from string import Formatter
from typing import Any

from airflow_provider_omics_cache.exceptions import OmicsParameterError
from airflow_provider_omics_cache.healthomics.settings import MAX_RUN_SETTINGS
from airflow_provider_omics_cache.tables import BrokenRows, Place, Row, read_rows, shown

Source = str | Callable[[dict[str, Any]], Any]


def run_settings_from_table(
    rows: Any,
    *,
    run_setting_id: str,
    parameters: Mapping[str, Source],
    optional: Iterable[str] = (),
    conn_id: str | None = None,
) -> list[dict[str, Any]]:
    """Make the ``run_settings`` of a batch out of an nf-core style samplesheet: one run for each row.

    ``s3://`` is read with the amazon provider's S3Hook, anything else with Airflow's ObjectStoragePath, which needs
    the package of the URI's filesystem. The file is read when the function is called: call it in a task.

    :param rows: an iterable of dicts; or the path or URI (str, pathlib or ObjectStoragePath) of a ``.csv`` or ``.tsv``
        file with a header, of a ``.json`` array of objects, or of a ``.jsonl`` or ``.ndjson`` file with one object a
        line; in UTF-8. What a CSV file holds is text without the spaces around it, and lines without any are left out.
    :param run_setting_id: column that names the run, or a template of columns such as ``"{sample}_{lane}"``
        (:meth:`str.format`'s, without attributes and indexes).
    :param parameters: for each parameter of the workflow the column that it is taken from, or a function of the row
        (a dict) that gives it, for a number or a list; where the function gives None, the run goes without.
    :param optional: columns whose empty cell leaves the parameter out; an empty cell of any other column is an error.
    :param conn_id: Airflow connection to read the file with. Default: the one in the URI
        (``s3://conn_id@bucket/key``), else for S3 ``aws_default``.
    :return: ``[{"runSettingId": ..., "parameters": {...}}, ...]``, in the order of the rows.
    :raises OmicsParameterError: naming the row, the column and the rule, for the first 20 rows that break it.
    :raises OmicsApiError: S3 refuses the file.
    """
    optional = _checked_optional(optional, _checked_parameters(parameters))
    found = read_rows("rows", rows, conn_id=conn_id, most=MAX_RUN_SETTINGS)
    broken = BrokenRows("rows")
    settings = make_run_settings(
        found, run_setting_id=run_setting_id, parameters=parameters, optional=optional, broken=broken
    )
    broken.raise_if_any()
    return settings


def make_run_settings(
    rows: Sequence[Row],
    *,
    run_setting_id: str,
    parameters: Mapping[str, Source],
    optional: Iterable[str],
    broken: BrokenRows,
) -> list[dict[str, Any]]:
    """Make run settings out of rows; those of rows that break a rule are missing.

    :param rows: the rows with their places.
    :param run_setting_id: as for :func:`run_settings_from_table`.
    :param parameters: likewise.
    :param optional: likewise.
    :param broken: takes what is wrong.
    """
    columns = dict.fromkeys(column for _, row in rows for column in row)
    template = _Template(run_setting_id, columns)
    optional = frozenset(optional)
    sources = [source for source in parameters.values() if isinstance(source, str)]
    used = dict.fromkeys([*template.columns, *sources])
    for column in used:
        if column not in columns:
            broken.add(f"must have the column {column!r}", shown(", ".join(map(str, columns))))
    if broken:
        return []
    required = [column for column in used if column in template.columns or column not in optional]
    first_places: dict[str, Place] = {}
    settings = []
    for place, row in rows:
        is_whole = True
        for column in required:
            if _is_empty(row.get(column)):
                broken.add("must not be empty", row.get(column), member=f"column {column!r}", index=place)
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


class _Template:
    """How the runSettingId is made: from one column, or from several.

    :param text: the column or the template.
    :param columns: columns of the table.
    :raises OmicsParameterError: it is neither.
    """

    def __init__(self, text: Any, columns: Iterable[str]) -> None:
        rule = 'must be a column or a template of columns such as "{sample}_{lane}"'
        if not isinstance(text, str) or not text:
            raise OmicsParameterError("run_setting_id", rule, text)
        self._text = text
        self._is_column = text in columns or "{" not in text
        self.member = f"column {text!r}" if self._is_column else f"run_setting_id {text!r}"
        try:
            names = [text] if self._is_column else [name for _, name, _, _ in Formatter().parse(text) if name]
        except ValueError as error:
            raise OmicsParameterError("run_setting_id", f"{rule} ({error})", text) from None
        if not names:
            raise OmicsParameterError("run_setting_id", rule, text)
        self.columns = tuple(names)

    def fill(self, row: Mapping[str, Any], place: Place, broken: BrokenRows) -> str | None:
        """Make the runSettingId of a row, or None when it cannot be made.

        :param row: the row.
        :param place: where it stands.
        :param broken: takes what is wrong.
        """
        for column in self.columns:
            value = row[column]
            if not isinstance(value, (str, int)) or isinstance(value, bool):
                broken.add("must be text or a whole number", shown(value), member=f"column {column!r}", index=place)
                return None
        if self._is_column:
            return str(row[self._text])
        try:
            return _ColumnFormatter().vformat(self._text, (), row)
        except (KeyError, ValueError) as error:
            broken.add("must fit the row", str(error), member=self.member, index=place)
            return None


class _ColumnFormatter(Formatter):
    """Formats with columns, whatever is in their names."""

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
                broken.add("must be made without an error", shown(repr(error)), member=member, index=place)
                continue
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            broken.add("must be what JSON can hold", shown(str(error)), member=member, index=place)
        else:
            if value is not None:
                values[name] = value
    return values


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _checked_parameters(parameters: Any) -> Mapping[str, Source]:
    if not isinstance(parameters, Mapping):
        raise OmicsParameterError("parameters", "must be a dict", type(parameters).__name__)
    for name, source in parameters.items():
        if not isinstance(name, str) or not (callable(source) or isinstance(source, str)):
            raise OmicsParameterError(
                "parameters", "must give a column or a function for each parameter", {name: source}
            )
    return parameters


def _checked_optional(optional: Any, parameters: Mapping[str, Source]) -> frozenset[str]:
    columns: list[Any] = list(optional) if isinstance(optional, Iterable) and not isinstance(optional, str) else [None]
    if not all(isinstance(column, str) for column in columns):
        raise OmicsParameterError("optional", "must be a list of columns", optional)
    names = frozenset(columns)
    unknown = sorted(str(name) for name in names if name not in parameters.values())
    if unknown:
        raise OmicsParameterError("optional", "must name columns that parameters are taken from", unknown)
    return names
