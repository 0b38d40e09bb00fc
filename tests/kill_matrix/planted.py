"""Secrets that are planted in the matrix, and the search for them where they must not be."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: Each has a text of its own, so that a finding names it.
SECRETS = {
    "secret key": "planted+secret/key+of+the+connection+4711",
    "session token": "planted-session-token-of-the-connection-4711",
    "database password": "planted-password-of-the-database-4711",
    "broker password": "planted-password-of-the-broker-4711",
    "api key": "planted-key-of-the-api-server-4711",
    "jwt secret": "planted-secret-of-the-tokens-4711-4711-4711-4711-4711-4711-4711-4711",
    "session policy": json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {"Sid": "PlantedSessionPolicy4711", "Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}
            ],
        }
    ),
}
#: botocore writes requests and answers to DEBUG logs, also of processes that do not know which texts are policies. A
#: session policy in a log is reported, and not judged.
_NOT_JUDGED_IN_LOGS = frozenset({"session policy"})
#: What is searched for. A session policy may be written in many ways; its statement's id stands in all of them.
_MARKS = {**SECRETS, "session policy": "PlantedSessionPolicy4711"}


@dataclass(frozen=True, order=True)
class Finding:
    """A secret where it must not be.

    :param secret: name of the secret.
    :param place: where it was found.
    """

    secret: str
    place: str

    @property
    def is_violation(self) -> bool:
        """Whether the matrix fails because of it."""
        return self.secret not in _NOT_JUDGED_IN_LOGS or not self.place.endswith(".log")

    def __str__(self) -> str:
        return f"{self.secret} in {self.place}"


def find_secrets(content: bytes) -> list[str]:
    """Return the names of the secrets that stand in a text, plain, in hexadecimal or in base64.

    :param content: the text.
    """
    return [name for name, mark in _MARKS.items() if any(form in content for form in _forms(mark))]


def _forms(mark: str) -> Iterator[bytes]:
    raw = mark.encode()
    yield raw
    yield raw.hex().encode()
    for shift in range(3):  # base64 depends on what stands before
        encoded = base64.b64encode(b"\0" * shift + raw)
        yield encoded[4:-4]


def find_in_files(directory: Path) -> Iterator[tuple[Path, str]]:
    """Search every file below a directory; yield path and name of the secret.

    :param directory: the directory.
    """
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            for name in find_secrets(path.read_bytes()):
                yield path, name
