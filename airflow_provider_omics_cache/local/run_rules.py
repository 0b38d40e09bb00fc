"""Rules for the settings of a run that the model of the API does not have: pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from airflow_provider_omics_cache.local.protocol import dump_json, load_json, shorten, validation_error

_OUTPUT_URI = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?", re.DOTALL)
#: Maximum number of characters of ``runOutputUri`` in the model. It is the outputUri and /{run id}/{run uuid}.
LONGEST_RUN_OUTPUT_URI = 750
_LONGEST_OUTPUT_URI = LONGEST_RUN_OUTPUT_URI - len("/") - 18 - len("/") - 36
#: Maximum size of the parameters of a run, as JSON.
MAX_PARAMETER_BYTES = 256_000
#: ``outputUriPrefixMode`` of a run whose outputs are directly below its ``outputUri``.
NO_PREFIX = "NONE_WITH_OVERWRITE"


def check_batch_default(default: Mapping[str, Any]) -> None:
    """Check the default run setting of a batch, as StartRunBatch does before it answers.

    :param default: the default run setting of a batch.
    :raises ServiceError: no run of a batch can have this setting.
    """
    if default.get("workflowType") == "READY2RUN":
        raise validation_error("defaultRunSetting.workflowType READY2RUN is not supported in a batch")
    check_shared_settings(default, "defaultRunSetting.")


def check_shared_settings(settings: Mapping[str, Any], prefix: str = "") -> None:
    """Check the members that the default run setting of a batch and the request of StartRun have in common.

    :param settings: the default run setting, or the request.
    :param prefix: text before the name of a member in errors.
    :raises ServiceError: no run can have these settings.
    """
    if "cacheBehavior" in settings and "cacheId" not in settings:
        raise validation_error(f"{prefix}cacheBehavior requires {prefix}cacheId")
    if settings.get("networkingMode") == "VPC" and "configurationName" not in settings:
        raise validation_error(f"{prefix}networkingMode VPC requires {prefix}configurationName")
    if "sessionPolicy" in settings and not _is_json_object(settings["sessionPolicy"]):
        raise validation_error(f"{prefix}sessionPolicy must be a JSON object")


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(load_json(text.encode()), dict)
    except ValueError:
        return False


def parameters_error(parameters: Mapping[str, Any]) -> str | None:
    """Return why a run cannot have these parameters. Return None if it can."""
    if len(dump_json(parameters)) > MAX_PARAMETER_BYTES:
        return f"The parameters exceed {MAX_PARAMETER_BYTES} bytes"
    return None


def output_uri_error(output_uri: str, *, prefix_mode: str | None = None) -> str | None:
    """Return why a run cannot write its outputs to an ``outputUri``, None if it can.

    :param output_uri: the run's ``outputUri``.
    :param prefix_mode: its ``outputUriPrefixMode``.
    """
    if _OUTPUT_URI.fullmatch(output_uri) is None:
        return f"outputUri must begin with s3:// and the name of a bucket; got '{shorten(output_uri)}'"
    length = len(output_uri.rstrip("/"))
    if length > _LONGEST_OUTPUT_URI and prefix_mode != NO_PREFIX:
        return (
            f"outputUri must have at most {_LONGEST_OUTPUT_URI} characters, because runOutputUri has at most "
            f"{LONGEST_RUN_OUTPUT_URI}; got {length}"
        )
    return None
