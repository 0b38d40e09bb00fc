"""Keep secrets out of texts, errors and logs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

HIDDEN = "***"
#: Airflow masks no shorter secrets in its logs, because they occur in other words.
_SHORTEST_MASKED = 5

#: User information of a URL, in this order: ``user:password``, also with characters that a URL must not have there;
#: ``user:password`` with a double quote; a name or a token alone. The ``conn_id`` that Airflow puts into
#: ``s3://conn_id@bucket`` is not among them.
_USERINFO = (
    re.compile(r"""(?<=://)[^\s/?#@:\[]*:(?!\d+(?:[/?#\s"'),]|$))[^\s"]*(?=@)"""),
    re.compile(r"""(?<=://)[^\s/?#@:\[]*:[^\s/?#]*(?=@)"""),
    re.compile(r"""(?:(?<=https://)|(?<=http://)|(?<=ftp://)|(?<=socks5://))[^\s/?#@]+(?=@)""", re.IGNORECASE),
)


def without_passwords(text: str) -> str:
    """Replace the user information of every URL in a text by ``***``.

    :param text: the text.
    """
    if "@" in text and "://" in text:
        for pattern in _USERINFO:
            text = pattern.sub(HIDDEN, text)
    return text


def passwords_in(value: Any) -> set[str]:
    """Return the passwords of the URLs in a value, as they are written and without percent-encoding.

    :param value: a string, or dicts and lists of any depth with strings in them.
    """
    found = set()
    for text in _strings_in(value):
        for pattern in _USERINFO:
            for userinfo in pattern.findall(text):
                name, _, password = userinfo.partition(":")
                found |= {password or name, unquote(password or name)}
            text = pattern.sub(HIDDEN, text)
    return found - {"", HIDDEN}


def with_schemes(proxies: Any) -> list[str]:
    """Return the URLs of proxies. A proxy can be given without its scheme.

    :param proxies: URLs of proxies by scheme; another value has no URLs.
    """
    if not isinstance(proxies, Mapping):
        return []
    return [str(url) if "://" in str(url) else f"http://{url}" for url in proxies.values()]


def mask(secrets: Iterable[str]) -> None:
    """Make Airflow mask texts in the log of this task, including the log lines of other packages.

    :param secrets: the texts.
    """
    # Imported here, because modules that do not import Airflow use this module too.
    from airflow_provider_omics_cache._compat import mask_secret

    for secret in secrets:
        if len(secret) >= _SHORTEST_MASKED:
            # An error of Airflow's masker must not fail the task.
            with suppress(Exception):
                mask_secret(secret)


def printable(error: Exception) -> Exception:
    """Return an error that can be the cause of another error: its traceback shows no password of a URL.

    :param error: the error.
    :return: the error itself if neither it nor its causes show a password; else a copy without causes, of the same
        class where possible.
    """
    if not any(_shows_password(each) for each in _chain(error)):
        return error
    text = without_passwords(str(error))
    # Some classes cannot be copied in this way, or make their text from other attributes.
    with suppress(Exception):
        copy = _copy(error, text)
        if str(copy) == text and not _shows_password(copy):
            return copy
    return RuntimeError(f"{type(error).__name__}: {text}")


def _copy(error: Exception, text: str) -> Exception:
    copy: Exception = type(error).__new__(type(error), text)
    copy.__dict__.update(_clean(error.__dict__))
    copy.args = (text,)
    return copy


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        current = waiting.pop()
        if current is not None and id(current) not in seen:
            seen.add(id(current))
            waiting += [current.__cause__, current.__context__]
            yield current


def _shows_password(error: BaseException) -> bool:
    return any(without_passwords(text) != text for text in (str(error), repr(error)))


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return without_passwords(value)
    if isinstance(value, Mapping):
        return {name: _clean(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(member) for member in value]
    return value if isinstance(value, int | float | None) else without_passwords(str(value))


def _strings_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for member in value.values():
            yield from _strings_in(member)
    elif isinstance(value, list | tuple | set):
        for member in value:
            yield from _strings_in(member)
