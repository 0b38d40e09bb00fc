"""Servers that are started, killed, frozen and started again, each in a session of its own."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil


class Process:
    """A server and everything that it has started.

    :param name: name in messages, and of its log.
    :param command: command line.
    :param environment: environment.
    :param logs: directory of its log.
    :param user: user to run as. Default: the user of this process.
    """

    def __init__(
        self, name: str, command: Sequence[str], environment: dict[str, str], logs: Path, user: str | None = None
    ) -> None:
        self.name = name
        self.starts = 0
        self.log = logs / f"{name}.log"
        self._command = command
        self._environment = environment
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server."""
        self.starts += 1
        with self.log.open("ab") as log:
            log.write(f"\n=== start {self.starts} at {time.strftime('%H:%M:%S')}\n".encode())
            log.flush()
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=self._user,
                extra_groups=[] if self._user else None,
            )

    @property
    def is_alive(self) -> bool:
        """Whether the server itself runs."""
        return self._process is not None and self._process.poll() is None

    def last_words(self) -> str:
        """Return the end of its log."""
        return self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""

    def kill(self) -> None:
        """Kill the server and all its processes, as the loss of their machine does."""
        family = self._signal(signal.SIGSTOP)  # so that none of them starts another meanwhile
        family |= self._signal(signal.SIGSTOP)
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=30)
        if self._process:
            self._process.wait()

    def freeze(self) -> None:
        """Freeze the server and all its processes."""
        self._signal(signal.SIGSTOP)
        self._signal(signal.SIGSTOP)  # those too that were started meanwhile

    def thaw(self) -> None:
        """Let a frozen server go on."""
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """Ask the server to stop, and kill what is left of it."""
        family = self._signal(signal.SIGCONT)
        if self.is_alive and self._process:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.kill()

    def _signal(self, number: signal.Signals) -> set[psutil.Process]:
        family = self._family()
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        return family

    def _family(self) -> set[psutil.Process]:
        """Return the processes of the server's session, and its children, which may have sessions of their own."""
        if self._process is None:
            return set()
        found = set()
        with suppress(psutil.NoSuchProcess):
            root = psutil.Process(self._process.pid)
            found |= {root, *root.children(recursive=True)} if self.is_alive else set()
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess, ProcessLookupError, PermissionError):
                if session_of(process.pid) == self._process.pid:
                    found.add(process)
        return found


def session_of(pid: int) -> int:
    """Return the session of a process.

    :param pid: id of the process.
    :raises ProcessLookupError: there is no such process.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError as error:
        raise ProcessLookupError(pid) from error
    return int(stat.rpartition(")")[2].split()[3])
