"""Ids of the form that AWS prints."""

from __future__ import annotations

import hashlib
import re
import secrets

_ID = re.compile(r"[1-9][0-9]{0,17}")


def number_of(identifier: str) -> int:
    """Return the number that an id stands for; -1 when the service would write it otherwise."""
    return int(identifier) if _ID.fullmatch(identifier) else -1


def new_uuid() -> str:
    """Return a new uuid: 8-4-4-4-12 hexadecimal digits, but no RFC 4122 version 4."""
    return _as_uuid(secrets.token_hex(16))


def derived_uuid(name: str) -> str:
    """Return the uuid that belongs to a name."""
    return _as_uuid(hashlib.md5(name.encode(), usedforsecurity=False).hexdigest())


def _as_uuid(digits: str) -> str:
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
