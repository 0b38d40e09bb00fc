"""The samplesheet of a cohort."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_omics_cache.exceptions import OmicsParameterError
from airflow_provider_omics_cache.samplesheets import (
    check_group_parameters,
    run_settings_from_samplesheet,
    run_settings_from_table,
)
from airflow_provider_omics_cache.tables import MAX_TABLE_BYTES


@dataclass(frozen=True)
class Samplesheet:
    """A samplesheet whose rows become the runs of a cohort. It is read when the DAG runs.

    With ``run_setting_id`` each row is a run, as
    :func:`~airflow_provider_omics_cache.samplesheets.run_settings_from_table` makes it. With ``group_by`` each group of
    rows is a run of a pipeline that takes a samplesheet, as
    :func:`~airflow_provider_omics_cache.samplesheets.run_settings_from_samplesheet` makes it.

    :param rows: URI or path of the file, a list of dicts, or the output of a task. (templated)
    :param run_setting_id: column or template of columns that names the run of each row.
    :param group_by: column or template of columns that names the run of each group of rows.
    :param parameters: parameters of the workflow. With ``run_setting_id``: the source of each parameter by its name, or
        a list of columns that are parameters of the same name. With ``group_by``: the other parameters of each run.
    :param optional: with ``run_setting_id``: columns whose cells can be empty. Default: no column.
    :param parameter: with ``group_by``: parameter that gets the URI of the group's samplesheet. Default: ``input``.
    :param schema: with ``group_by``: JSON schema of the samplesheet, as a dict, URI or path. Default: no check.
    :param conn_id: Airflow connection for reading the files and, with ``group_by``, for writing the samplesheets of the
        groups. Default: the group's connection for S3.
    :param allow: schemes that a path or URI can have besides ``s3``. Default: no other scheme.
    :param max_bytes: maximum size of a file in bytes. Default: 256 MB (268,435,456).
    :raises OmicsParameterError: a parameter is not valid, or has no effect.
    """

    rows: Any
    run_setting_id: str | None = None
    group_by: str | None = None
    parameters: Any = None
    optional: Iterable[str] = ()
    parameter: str = "input"
    schema: Any = None
    conn_id: str | None = None
    allow: Iterable[str] = ()
    max_bytes: int = MAX_TABLE_BYTES

    def __post_init__(self) -> None:
        """Check the parameters.

        :raises OmicsParameterError: a parameter is not valid, or has no effect.
        """
        if bool(self.run_setting_id) == bool(self.group_by):
            rule = "must have either run_setting_id (a run for each row) or group_by (a run for each group of rows)"
            given = {"run_setting_id": self.run_setting_id, "group_by": self.group_by}
            raise OmicsParameterError("samplesheet", rule, given)
        for name in ("run_setting_id", "group_by"):
            if not isinstance(getattr(self, name), str | None):
                rule = "must be the name of a column, or a template of columns"
                raise OmicsParameterError(f"samplesheet.{name}", rule, getattr(self, name))
        if self.group_by:
            self._check_unused("optional", (), needs="run_setting_id")
            check_group_parameters(self.parameters, self.parameter, prefix="samplesheet.")
        else:
            self._check_unused("parameter", "input", needs="group_by")
            self._check_unused("schema", None, needs="group_by")
            if self.parameters is None or isinstance(self.parameters, str):
                rule = "must be a dict, or a list of columns"
                raise OmicsParameterError("samplesheet.parameters", rule, self.parameters)

    def run_settings(
        self,
        rows: Any,
        *,
        samplesheet_s3_prefix: str,
        conn_id: Any,
        s3_extra_args: dict[str, Any] | None,
    ) -> list[dict[str, Any]]:
        """Read the samplesheet, and return the run settings.

        :param rows: ``rows`` as it was rendered.
        :param samplesheet_s3_prefix: ``s3://`` URI below which the samplesheets of groups are written.
        :param conn_id: the group's Airflow connection for S3, or the parameters of its hook.
        :param s3_extra_args: arguments of uploads to S3.
        """
        given: dict[str, Any] = {"conn_id": self.conn_id or conn_id, "allow": self.allow, "max_bytes": self.max_bytes}
        if self.group_by:
            return run_settings_from_samplesheet(
                rows,
                group_by=self.group_by,
                samplesheet_s3_prefix=samplesheet_s3_prefix,
                parameter=self.parameter,
                parameters=self.parameters,
                schema=self.schema,
                s3_extra_args=s3_extra_args,
                **given,
            )
        parameters = self.parameters
        if not isinstance(parameters, Mapping):
            parameters = {column: column for column in parameters}
        return run_settings_from_table(
            rows, run_setting_id=str(self.run_setting_id), parameters=parameters, optional=self.optional, **given
        )

    def _check_unused(self, name: str, default: Any, *, needs: str) -> None:
        value = getattr(self, name)
        if value != default and value:
            raise OmicsParameterError(f"samplesheet.{name}", f"has no effect without {needs}", value)
