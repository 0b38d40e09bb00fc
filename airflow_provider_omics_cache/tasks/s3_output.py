"""Base of the tasks that write a file to S3."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import IO, Any

from jinja2 import meta

from airflow_provider_omics_cache.exceptions import OmicsParameterError
from airflow_provider_omics_cache.hooks.connections import check_connection
from airflow_provider_omics_cache.hooks.s3 import check_object_uri, check_upload_args, put_object, s3_client
from airflow_provider_omics_cache.tasks.parameters import check_effect
from airflow_provider_omics_cache.tasks.wait import AwsTask

#: Seconds for which an upload that S3 does not answer is repeated.
_UPLOAD_SECONDS = 600
#: Names of Airflow's templates whose values are the same for each map index of a task.
_SAME_FOR_EACH_MAP_INDEX = frozenset(
    {
        "conf",
        "conn",
        "dag",
        "dag_run",
        "data_interval_end",
        "data_interval_start",
        "ds",
        "ds_nodash",
        "execution_date",
        "logical_date",
        "params",
        "run_id",
        "task_instance_key_str",
        "ts",
        "ts_nodash",
        "ts_nodash_with_tz",
        "var",
    }
)


class S3OutputTask(AwsTask):
    """Writes files to S3, with the connection ``s3_conn_id`` (by default the task's own) and ``s3_extra_args``."""

    s3_conn_id: str | None
    s3_extra_args: dict[str, Any] | None
    _hook_parameters: dict[str, Any]
    dag: Any
    get_closest_mapped_task_group: Any
    get_template_env: Any
    has_dag: Any
    log: Any
    task_id: str

    @cached_property
    def _s3(self) -> Any:
        return s3_client(**({"aws_conn_id": self.s3_conn_id} if self.s3_conn_id else self._hook_parameters))

    def check_s3_effect(
        self, constructor: Callable[..., None], parameter: str, default_args: Mapping[str, Any] | None
    ) -> None:
        """Check that ``s3_conn_id`` and ``s3_extra_args`` have an effect if they are given.

        :param constructor: ``__init__`` of the task.
        :param parameter: name of the parameter with the URI of the object. Without it the task does not use S3.
        :param default_args: Airflow's ``default_args`` of the task.
        :raises OmicsParameterError: one of them was given without the URI.
        """
        if getattr(self, parameter) is None:
            given = {"s3_conn_id": self.s3_conn_id or None, "s3_extra_args": self.s3_extra_args or None}
            check_effect(constructor, given, needs=parameter, default_args=default_args or {})

    def check_s3_output(self, parameter: str) -> None:
        """Check a parameter with the URI of an object, ``s3_conn_id`` and ``s3_extra_args``.

        :param parameter: name of the parameter; nothing is checked if its value is None.
        :raises OmicsParameterError: a parameter breaks a rule.
        :raises MissingConnectionError: the connection ``s3_conn_id`` does not exist.
        """
        uri = getattr(self, parameter)
        if uri is not None:
            task = self.dag.get_task(self.task_id) if self.has_dag() else self
            # What a mapped task was given for all of its map indexes.
            self._check_template(parameter, getattr(task, "partial_kwargs", {}).get(parameter))
            check_object_uri(parameter, uri)
            check_upload_args(self.s3_extra_args)
            self.check_s3_connection()

    def check_s3_connection(self) -> None:
        """Check that the connection ``s3_conn_id`` exists if it is given.

        :raises MissingConnectionError: it does not exist.
        """
        if self.s3_conn_id:
            check_connection("s3_conn_id", self.s3_conn_id)

    def check_differs_for_map_index(self, parameter: str) -> None:
        """Check, when the DAG is parsed, that the tasks of a mapped task group do not all write one object.

        :param parameter: name of the parameter with the URI of the object.
        :raises OmicsParameterError: the URI is the same for each map index.
        """
        if self.get_closest_mapped_task_group():
            self._check_template(parameter, getattr(self, parameter))

    def _check_template(self, parameter: str, uri: object) -> None:
        if not isinstance(uri, str):
            return
        names = meta.find_undeclared_variables(self.get_template_env().parse(uri))
        if names <= _SAME_FOR_EACH_MAP_INDEX:
            raise OmicsParameterError(
                parameter, "must differ for each map index of a mapped task: put {{ ti.map_index }} into it", uri
            )

    def write_to_s3(self, file: IO[bytes], parameter: str) -> str:
        """Upload a file, and return its URI.

        :param file: the file.
        :param parameter: name of the parameter with the object's URI.
        :raises OmicsApiError: S3 refused the upload.
        """
        uri: str = getattr(self, parameter)
        put = partial(put_object, file, uri, parameter=parameter, s3=self._s3, extra_args=self.s3_extra_args)
        self.hook.patiently(put, service="s3", max_silence=_UPLOAD_SECONDS)
        self.log.info("Wrote %s", uri)
        return uri
