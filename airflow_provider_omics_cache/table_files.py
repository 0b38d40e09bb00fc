"""Which paths of a table are allowed, and how much of a file is read.

The path of a table often comes from a template, which anyone who triggers a DAG run can fill. A str therefore gives
access to S3 only, with the connection that the author of the DAG chose, unless the author allows other schemes.
"""

from __future__ import annotations

import io
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from botocore.exceptions import BotoCoreError, ClientError

from airflow_provider_omics_cache._compat import object_storage_path
from airflow_provider_omics_cache.exceptions import OmicsParameterError
from airflow_provider_omics_cache.hooks.connections import hook_parameters
from airflow_provider_omics_cache.hooks.errors import api_error
from airflow_provider_omics_cache.hooks.s3 import check_object_uri, open_object, s3_client, shown_uri
from airflow_provider_omics_cache.redaction import printable

#: Maximum size, in bytes, of a file that is read: 256 MB.
MAX_TABLE_BYTES = 256 * 1024**2

_CHUNK_BYTES = 64 * 1024
_SCHEME = re.compile("[a-z][a-z0-9+.-]*", re.IGNORECASE)
#: The beginning of a str that fsspec or a URL parser could take for a scheme.
_SCHEME_AND_COLON = re.compile("[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f]")
_NEVER_ALLOWED = frozenset({"http", "https"})
_S3_ALIASES = frozenset({"s3a", "s3n"})


def check_allow(allow: Any) -> frozenset[str]:
    """Return the schemes that a DAG author allows, in lower case.

    :param allow: value of the parameter ``allow``.
    :raises OmicsParameterError: the value is not a list of schemes, or has http or https.
    """
    given: list[Any] = list(allow) if isinstance(allow, Iterable) and not isinstance(allow, (str, bytes)) else [None]
    if not all(isinstance(scheme, str) and _SCHEME.fullmatch(scheme) for scheme in given):
        raise OmicsParameterError("allow", 'must be a list of schemes without "://", such as ("file", "gs")', allow)
    schemes = frozenset(scheme.lower() for scheme in given)
    if any(_is_http(scheme) for scheme in schemes):
        raise OmicsParameterError("allow", "must not have http or https: copy the file to S3", sorted(schemes))
    return schemes


def check_max_bytes(max_bytes: Any) -> int:
    """Return the maximum size of a file in bytes.

    :param max_bytes: value of the parameter ``max_bytes``.
    :raises OmicsParameterError: the value is not a positive integer.
    """
    if not isinstance(max_bytes, int) or isinstance(max_bytes, bool) or max_bytes < 1:
        raise OmicsParameterError("max_bytes", "must be a positive integer", max_bytes)
    return max_bytes


def check_path(parameter: str, path: str, allow: frozenset[str]) -> tuple[str, str]:
    """Return the scheme of a path or URI, and what follows the scheme. The scheme of a local path is ``file``.

    :param parameter: name of the parameter, for the error.
    :param path: the path or URI.
    :param allow: the schemes that the author allows besides ``s3``, from :func:`check_allow`.
    :raises OmicsParameterError: the path is not allowed.
    """
    if _CONTROL_CHARACTERS.search(path):
        raise OmicsParameterError(parameter, "must not have control characters", shown_uri(path))
    head, separator, rest = path.partition("://")
    scheme = head.lower()
    if not separator or not _SCHEME.fullmatch(head):
        if "::" in path:
            raise OmicsParameterError(parameter, "must be one URI, not a chain of URIs (::)", shown_uri(path))
        if _SCHEME_AND_COLON.match(path):
            rule = "must begin with s3://, or be a local path (begin the path with ./ if its first folder has a colon)"
            raise OmicsParameterError(parameter, rule, shown_uri(path))
        scheme, rest = "file", path
    if _is_http(scheme):
        raise OmicsParameterError(parameter, "must not be an http or https URL: copy the file to S3", shown_uri(path))
    if scheme in _S3_ALIASES:
        raise OmicsParameterError(parameter, "must begin with s3:// for a file in S3", shown_uri(path))
    if scheme == "s3":
        check_object_uri(parameter, f"s3://{rest}")
        return scheme, rest
    if scheme not in allow:
        what = "a local path" if scheme == "file" else f"{scheme}://"
        rule = f"must begin with s3://; {what} needs allow=({scheme!r},) from the author of the DAG"
        raise OmicsParameterError(parameter, rule, shown_uri(path))
    if "::" in path:
        raise OmicsParameterError(parameter, "must be one URI, not a chain of URIs (::)", shown_uri(path))
    if "@" in rest.partition("/")[0] and scheme != "file":
        rule = "must not name an Airflow connection before the @: pass the connection as conn_id"
        raise OmicsParameterError(parameter, rule, shown_uri(path))
    if scheme == "file" and separator and not rest.startswith("/"):
        raise OmicsParameterError(parameter, "must have an absolute path after file://", shown_uri(path))
    return scheme, rest


def read_file(
    parameter: str,
    table: Any,
    *,
    conn_id: str | Mapping[str, Any] | None,
    allow: frozenset[str],
    suffixes: tuple[str, ...],
    max_bytes: int,
) -> bytes:
    """Read a file whose size is at most ``max_bytes``.

    :param parameter: name of the parameter, for errors.
    :param table: path or URI as a str, or a path object, which is read as it is.
    :param conn_id: Airflow connection for a str. None is the default connection of the filesystem. A task gives the
        parameters of its own hook instead, which are for S3 only.
    :param allow: schemes that a str can have besides ``s3``, from :func:`check_allow`.
    :param suffixes: suffixes that the file's name can have, in lower case.
    :param max_bytes: maximum size of the file in bytes. A larger file is not read.
    :raises OmicsParameterError: the path is not allowed, or the file does not exist, cannot be read or is too large.
    :raises OmicsApiError: S3 refused or did not answer the call.
    """
    name = shown_uri(str(table))
    if isinstance(table, str):
        scheme, rest = check_path(parameter, table, allow)
    elif any(_is_http(part.partition(":")[0].lower()) for part in name.split("::")):
        raise OmicsParameterError(parameter, "must not be an http or https URL: copy the file to S3", name)
    if not str(table).lower().endswith(suffixes):
        raise OmicsParameterError(parameter, f"must end in {', '.join(suffixes)}", name)
    if not isinstance(table, str):
        return _read_path(parameter, lambda: table, name, max_bytes)
    if scheme == "s3":
        s3 = s3_client(**hook_parameters(conn_id))
        with open_object(f"s3://{rest}", parameter=parameter, s3=s3) as (body, size):
            return _read(parameter, body, name, size=size, max_bytes=max_bytes)
    if scheme == "file":
        return _read_path(parameter, lambda: Path(rest), name, max_bytes)
    own_id = conn_id if isinstance(conn_id, str) and hook_parameters(conn_id) else None
    return _read_path(parameter, lambda: object_storage_path(f"{scheme}://{rest}", conn_id=own_id), name, max_bytes)


def _is_http(scheme: str) -> bool:
    return not _NEVER_ALLOWED.isdisjoint(scheme.split("+"))


def _read_path(parameter: str, get_path: Any, name: str, max_bytes: int) -> bytes:
    with _as_our_error(parameter, name):
        path = get_path()
        found = path.stat()
        if stat.S_IFMT(found.st_mode or 0) not in {0, stat.S_IFREG, stat.S_IFLNK}:
            raise OmicsParameterError(parameter, "must be a readable file (it is a folder or a device)", name)
        _check_size(parameter, name, found.st_size, max_bytes)
        with path.open("rb") as file:
            return _read(parameter, file, name, size=None, max_bytes=max_bytes)


def _read(parameter: str, file: IO[bytes], name: str, *, size: int | None, max_bytes: int) -> bytes:
    """Read a file to its end, but at most ``max_bytes`` and one chunk.

    :param parameter: name of the parameter, for the error.
    :param file: the file.
    :param name: path or URI of the file, for the error.
    :param size: size in bytes that was announced, None if it is not known.
    :param max_bytes: maximum size in bytes.
    """
    _check_size(parameter, name, size, max_bytes)
    data = io.BytesIO()
    while chunk := file.read(_CHUNK_BYTES):
        data.write(chunk)
        if data.tell() > max_bytes:
            raise _too_large(parameter, name, f"more than {max_bytes:,}", max_bytes)
    return data.getvalue()


def _check_size(parameter: str, name: str, size: int | None, max_bytes: int) -> None:
    if size is not None and size > max_bytes:
        raise _too_large(parameter, name, f"{size:,}", max_bytes)


def _too_large(parameter: str, name: str, size: str, max_bytes: int) -> OmicsParameterError:
    rule = f"must have at most {max_bytes:,} bytes (max_bytes); it has {size} bytes"
    return OmicsParameterError(parameter, rule, name)


@contextmanager
def _as_our_error(parameter: str, name: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        raise OmicsParameterError(parameter, f"must be a readable file ({error})", name) from printable(error)
    except (ImportError, ValueError) as error:
        rule = f"must use a filesystem whose package is installed ({error})"
        raise OmicsParameterError(parameter, rule, name) from printable(error)
    except (BotoCoreError, ClientError) as error:
        failure = api_error(error, "GetObject")
        raise failure.with_text(f"Cannot read {parameter} {name!r}: {failure}") from printable(error)
