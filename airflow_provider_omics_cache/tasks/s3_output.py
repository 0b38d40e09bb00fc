"""Base of the tasks that write a file to S3."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import IO, TYPE_CHECKING, Any

from airflow_provider_omics_cache.exceptions import OmicsApiError, OmicsError, OmicsParameterError
from airflow_provider_omics_cache.healthomics.identity import digest
from airflow_provider_omics_cache.hooks.connections import check_connection
from airflow_provider_omics_cache.hooks.s3 import (
    check_object_uri,
    check_upload_args,
    head_object,
    put_object,
    s3_client,
)
from airflow_provider_omics_cache.tasks.parameters import check_effect
from airflow_provider_omics_cache.tasks.wait import AwsTask

if TYPE_CHECKING:
    from airflow.sdk import Context

#: Seconds for which an upload that S3 does not answer is repeated.
_UPLOAD_SECONDS = 600
#: Seconds to wait before each new attempt after S3 refused a conditional write.
_REFUSAL_DELAYS = (0, 1, 4)
#: Metadata keys of an object that a mapped task has written: digest of the task in its DAG run, and the map index.
_TASK_METADATA = "airflow-task-digest"
_MAP_INDEX_METADATA = "airflow-map-index"


class S3OutputTask(AwsTask):
    """Writes files to S3, with the connection ``s3_conn_id`` (by default the task's own) and ``s3_extra_args``."""

    s3_conn_id: str | None
    s3_extra_args: dict[str, Any] | None
    _hook_parameters: dict[str, Any]
    log: Any

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
            check_object_uri(parameter, uri)
            check_upload_args(self.s3_extra_args)
            self.check_s3_connection()

    def check_s3_connection(self) -> None:
        """Check that the connection ``s3_conn_id`` exists if it is given.

        :raises MissingConnectionError: it does not exist.
        """
        if self.s3_conn_id:
            check_connection("s3_conn_id", self.s3_conn_id)

    def write_to_s3(self, file: IO[bytes], parameter: str, context: Context) -> str:
        """Upload a file, and return its URI. A mapped task does not overwrite an object of another map index.

        :param file: the file.
        :param parameter: name of the parameter with the object's URI.
        :param context: Airflow's context of the task.
        :raises OmicsParameterError: another map index of the task has written the object in the same DAG run.
        :raises OmicsError: another task writes the object at the same time.
        :raises OmicsApiError: S3 refused a call.
        """
        uri: str = getattr(self, parameter)
        map_index = context["ti"].map_index
        if map_index is None or map_index < 0:
            self._put(file, parameter, self.s3_extra_args)
        else:
            self._put_for_map_index(file, parameter, context)
        self.log.info("Wrote %s", uri)
        return uri

    def _put_for_map_index(self, file: IO[bytes], parameter: str, context: Context) -> None:
        ti = context["ti"]
        own = {_TASK_METADATA: digest([ti.dag_id, ti.run_id, ti.task_id]), _MAP_INDEX_METADATA: str(ti.map_index)}
        extra_args = self.s3_extra_args or {}
        metadata = extra_args.get("Metadata", {})
        if isinstance(metadata, dict):  # S3's client refuses any other type
            extra_args = {**extra_args, "Metadata": {**metadata, **own}}
        condition = {"IfNoneMatch": "*"}
        for delay in (*_REFUSAL_DELAYS, None):
            refusal = self._put(file, parameter, extra_args, condition)
            if refusal is None:
                return
            if refusal == "PreconditionFailed":
                condition = {"IfMatch": self._etag_unless_foreign(parameter, own)}
            if delay is not None:
                self.hook.rest(delay)
        raise OmicsError(
            f"{getattr(self, parameter)} cannot be written: another task writes it at the same time ({refusal})"
        )

    def _etag_unless_foreign(self, parameter: str, own: dict[str, str]) -> str:
        """Return the ETag of an existing object.

        :param parameter: name of the parameter with the object's URI.
        :param own: metadata of the objects that this map index writes.
        :raises OmicsParameterError: another map index of the task has written the object in the same DAG run.
        """
        uri: str = getattr(self, parameter)
        head = partial(head_object, uri, s3=self._s3, extra_args=self.s3_extra_args or {})
        try:
            found = self.hook.patiently(head, service="s3", max_silence=_UPLOAD_SECONDS)
        except OmicsApiError as error:
            text = f"Cannot read {parameter} {uri!r}, to see which map index has written it: {error}"
            raise error.with_text(text) from error.__cause__
        metadata: dict[str, str] = found.get("Metadata") or {}
        writer = metadata.get(_MAP_INDEX_METADATA)
        if metadata.get(_TASK_METADATA) == own[_TASK_METADATA] and writer != own[_MAP_INDEX_METADATA]:
            raise OmicsParameterError(
                parameter,
                f"must differ for each map index: map index {writer} of this task has written this object in this DAG "
                "run. Put {{ ti.map_index }} into the URI, or delete the object if nobody needs it",
                uri,
            )
        return str(found["ETag"])

    def _put(
        self,
        file: IO[bytes],
        parameter: str,
        extra_args: dict[str, Any] | None,
        condition: dict[str, str] | None = None,
    ) -> str | None:
        put = partial(
            put_object,
            file,
            getattr(self, parameter),
            parameter=parameter,
            s3=self._s3,
            extra_args=extra_args,
            condition=condition,
        )
        return self.hook.patiently(put, service="s3", max_silence=_UPLOAD_SECONDS)
