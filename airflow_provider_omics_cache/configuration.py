"""How many calls a second the author of the Airflow environment allows."""

from __future__ import annotations

import math

from airflow_provider_omics_cache._compat import conf
from airflow_provider_omics_cache.exceptions import OmicsParameterError


def calls_per_second(option: str, *, default: float) -> float:
    """Read an option of ``[omics_cache]``.

    :param option: name of the option.
    :param default: what holds where nothing is configured.
    :raises OmicsParameterError: it is no number above 0.
    """
    text = conf.get("omics_cache", option, fallback=str(default))
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < math.inf:
        raise OmicsParameterError(f"[omics_cache] {option}", "has to be a number above 0", text)
    return rate
