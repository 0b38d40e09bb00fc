"""Checks of arguments that several operations take."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from airflow_provider_omics_cache.exceptions import OmicsParameterError
from airflow_provider_omics_cache.redaction import passwords_in, with_schemes

_MAX_TAGS = 50


def check_id(parameter: str, value: Any) -> str:
    """Return the id of a HealthOmics resource as a string.

    :param parameter: name of the parameter, for the error.
    :param value: the id, as a string or an integer.
    :raises OmicsParameterError: the value is not an id of 1 to 18 digits.
    """
    text = str(value)
    if not re.fullmatch("[0-9]{1,18}", text):
        raise OmicsParameterError(parameter, "must be an id of 1 to 18 digits", value)
    return text


def check_request_id(value: Any) -> str | None:
    """Return an idempotency token as a string, None when it is not given.

    :param value: the token.
    :raises OmicsParameterError: the value is not a token of 1 to 128 characters.
    """
    if value is None or value == "":
        return None
    text = str(value)
    if text == "None" or len(text) > 128:
        raise OmicsParameterError("request_id", "must be a token of 1 to 128 characters", value)
    return text


def check_tags(
    parameter: str, tags: Mapping[str, str], *, present: Mapping[str, str] | None = None, reserved: int = 0
) -> None:
    """Check how many tags a resource would have, and that no key begins with ``aws:``.

    :param parameter: name of the parameter, for the error.
    :param tags: the tags to set.
    :param present: tags that the resource has already.
    :param reserved: number of tags that the package adds.
    :raises OmicsParameterError: the service would refuse the tags.
    """
    foreign = sorted(key for key in tags if key.lower().startswith("aws:"))
    if foreign:
        raise OmicsParameterError(parameter, "must not have keys that begin with aws:", foreign)
    count = len({key for key in present or () if not key.lower().startswith("aws:")} | tags.keys())
    if count > _MAX_TAGS - reserved:
        merged = ", together with the tags that the resource has" if present else ""
        raise OmicsParameterError(
            parameter, f"must have at most {_MAX_TAGS - reserved} entries{merged}", f"{count} entries"
        )


def check_deferred_config(botocore_config: Mapping[str, Any] | None) -> None:
    """Check that the ``botocore_config`` of a deferred task holds no password, because Airflow stores it unencrypted.

    :param botocore_config: the value, None if it is not given.
    :raises OmicsParameterError: a URL in it has user information, or it holds a private key.
    """
    if not isinstance(botocore_config, Mapping):
        return
    found = sorted(name for name, value in botocore_config.items() if _is_secret(name, value))
    if found:
        raise OmicsParameterError(
            "botocore_config",
            "must not hold a password if the task is deferred, because Airflow stores the arguments of a trigger in "
            "its database without encryption. Move it to config_kwargs in the extra of the Airflow connection",
            found,
        )


def _is_secret(name: str, value: Any) -> bool:
    if name == "proxies":
        value = with_schemes(value)
    return bool(passwords_in(value)) or "-----BEGIN " in str(value)


def check_one_filter(method: str, **filters: Any) -> None:
    """Check that a list call has at most one filter. The service does not define how it combines several filters.

    :param method: name of the method, for the error.
    :param filters: the filters; None means that a filter is not given.
    :raises OmicsParameterError: more than one filter is given.
    """
    given = {name: value for name, value in filters.items() if value is not None}
    if len(given) > 1:
        raise OmicsParameterError(method, f"takes at most one of {', '.join(filters)}", given)
