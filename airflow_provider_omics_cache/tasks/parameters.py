"""Checks of parameters that are not templated. They run when the DAG is parsed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from airflow_provider_omics_cache._compat import conf
from airflow_provider_omics_cache.exceptions import OmicsParameterError

#: Default of ``deferrable``.
DEFAULT_DEFERRABLE: bool = conf.getboolean("operators", "default_deferrable", fallback=False)
#: Default of a sensor's ``timeout``, in seconds.
DEFAULT_SENSOR_TIMEOUT: float = conf.getfloat("sensors", "default_timeout", fallback=7 * 24 * 3600.0)


def check_flags(**flags: Any) -> None:
    """Check that parameters are booleans. Any other value, such as the text "False", would count as True.

    :param flags: the values, by the names of the parameters.
    :raises OmicsParameterError: a value is not a boolean.
    """
    for parameter, value in flags.items():
        if not isinstance(value, bool):
            raise OmicsParameterError(parameter, "must be True or False", value)


def check_effect(
    constructor: Callable[..., None], given: Mapping[str, Any], *, needs: str, default_args: Mapping[str, Any]
) -> None:
    """Check that no parameter was given that has no effect.

    ``default_args`` are shared by tasks of several kinds: a value that comes from them is not an error. The default of
    the parameter, and False, are not errors either.

    :param constructor: ``__init__`` of the task, which has the defaults.
    :param given: values of the parameters that have no effect, by their names.
    :param needs: what the parameters need, such as ``wait_for_completion=True``.
    :param default_args: Airflow's ``default_args`` of the task.
    :raises OmicsParameterError: such a parameter was given.
    """
    parameters = inspect.signature(constructor).parameters
    for name, value in given.items():
        number = value.total_seconds() if isinstance(value, timedelta) else value
        is_given = value is not False and number != parameters[name].default
        if is_given and not (name in default_args and default_args[name] is value):
            # The values of a dict, such as a customer's encryption key of an upload, are not shown.
            shown = sorted(map(str, value)) if isinstance(value, Mapping) else value
            raise OmicsParameterError(name, f"has no effect without {needs}: set {needs}, or remove {name}", shown)
