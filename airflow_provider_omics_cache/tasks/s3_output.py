"""What tasks that write a file to S3 have in common."""

from __future__ import annotations

from functools import cached_property
from typing import IO, Any

from airflow_provider_omics_cache.hooks.s3 import check_object_uri, check_upload_args, s3_client, upload


class S3OutputMixin:
    """Write a file to where a parameter of the task says.

    The task has ``s3_conn_id`` (None or empty: its own connection) and ``s3_extra_args``.
    """

    s3_conn_id: str | None
    s3_extra_args: dict[str, Any] | None
    _hook_parameters: dict[str, Any]
    log: Any

    @cached_property
    def _s3(self) -> Any:
        """S3's client, of the other connection if there is one."""
        return s3_client(**({"aws_conn_id": self.s3_conn_id} if self.s3_conn_id else self._hook_parameters))

    def check_s3_output(self, parameter: str) -> None:
        """Refuse what S3 would, before the task does anything.

        :param parameter: name of the parameter with the object's URI; None is none.
        :raises OmicsParameterError: naming the parameter, the rule and the value.
        """
        uri = getattr(self, parameter)
        if uri is not None:
            check_object_uri(parameter, uri)
            check_upload_args(self.s3_extra_args)

    def write_to_s3(self, file: IO[bytes], parameter: str) -> str:
        """Upload a file; give its URI.

        :param file: the file.
        :param parameter: name of the parameter with the object's URI.
        :raises OmicsApiError: S3 refuses it.
        """
        uri: str = getattr(self, parameter)
        upload(file, uri, parameter=parameter, s3=self._s3, extra_args=self.s3_extra_args)
        self.log.info("Wrote %s", uri)
        return uri
