"""What the machine must have before anything is started."""

from __future__ import annotations

import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

#: Where Debian has the programs of each version of PostgreSQL.
POSTGRESQL_VERSIONS = Path("/usr/lib/postgresql")


class UnusableMachineError(Exception):
    """Something that the matrix needs is missing or taken."""


@dataclass(frozen=True, kw_only=True)
class Programs:
    """The server programs.

    :param postgresql: directory of PostgreSQL's programs.
    :param redis: Redis's server.
    """

    postgresql: Path
    redis: str


def find_programs() -> Programs:
    """Find the server programs.

    :raises UnusableMachineError: one of them is missing.
    """
    found = shutil.which("initdb")
    versions = [Path(found).resolve().parent] if found else []
    versions += sorted(POSTGRESQL_VERSIONS.glob("*/bin"), key=lambda path: float(path.parent.name))
    postgresql = next((path for path in reversed(versions) if (path / "initdb").exists()), None)
    redis = shutil.which("redis-server")
    missing = [name for name, there in (("postgresql", postgresql), ("redis-server", redis)) if not there]
    if postgresql is None or redis is None:
        raise UnusableMachineError(
            f"{' and '.join(missing)} must be installed, as by: apt-get install {' '.join(missing)}"
        )
    return Programs(postgresql=postgresql, redis=redis)


def check_port(port: int) -> None:
    """Check that nobody listens on a port.

    :param port: the port.
    :raises UnusableMachineError: somebody does.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UnusableMachineError(f"port {port} cannot be used ({error.strerror}): name another") from None
