"""The settings of ``[omics_cache]`` in ``airflow.cfg``. ``get_provider_info`` defines their defaults."""

from __future__ import annotations

import math

from airflow_provider_omics_cache._compat import conf
from airflow_provider_omics_cache.exceptions import OmicsParameterError
from airflow_provider_omics_cache.get_provider_info import OPTIONS, SECTION


def setting(option: str) -> str:
    """Return a setting, or its default.

    :param option: name of the setting.
    """
    return str(conf.get(SECTION, option, fallback=OPTIONS[option]["default"]) or "")


def is_set(option: str) -> bool:
    """Return whether a setting that is a boolean is true.

    :param option: name of the setting.
    """
    return bool(conf.getboolean(SECTION, option, fallback=OPTIONS[option]["default"] == "True"))


def calls_per_second(option: str) -> float:
    """Return a setting that limits calls to AWS.

    :param option: name of the setting.
    :raises OmicsParameterError: the setting is not a number above 0.
    """
    text = setting(option)
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < math.inf:
        raise OmicsParameterError(f"[{SECTION}] {option}", "must be a number above 0", text)
    return rate
