"""Rules for the settings of a run that the model of the API does not have: pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from airflow_provider_omics_cache.local.protocol import shorten, validation_error

_OUTPUT_URI = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?", re.DOTALL)


def check_batch_default(default: Mapping[str, Any]) -> None:
    """Check what StartRunBatch checks at once.

    :param default: the default run setting of a batch.
    :raises ServiceError: no run of a batch can have this setting.
    """
    if default.get("workflowType") == "READY2RUN":
        raise validation_error("defaultRunSetting.workflowType READY2RUN is not supported in a batch")


def output_uri_error(output_uri: str) -> str | None:
    """Return why a run cannot write its outputs there, None if it can.

    :param output_uri: the run's ``outputUri``.
    """
    if _OUTPUT_URI.fullmatch(output_uri) is None:
        return f"outputUri must begin with s3:// and the name of a bucket; got '{shorten(output_uri)}'"
    return None
