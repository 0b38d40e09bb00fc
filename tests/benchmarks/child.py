"""Run a function of the benchmarks in a fresh Python process."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any, Self

_RESULT = "result: "
_READY = "ready"


class Child:
    """A process that calls ``function(**arguments)``; see :func:`ready` for one that waits before it begins.

    It is a context, at whose end the process is killed if it still runs.

    :param function: ``module:function`` below ``tests.benchmarks``.
    :param environment: what is added to the environment, from which AWS's own variables are left out.
    :param arguments: what the function is called with; all of it and its result is JSON.
    """

    def __init__(self, function: str, environment: Mapping[str, str] | None = None, **arguments: Any) -> None:
        self._function = function
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.child", function],
            env=clean_environment(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._write(json.dumps(arguments))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def wait_until_ready(self) -> None:
        """Wait until the function is ready to begin."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.strip() == _READY:
                return
        self.result()
        raise RuntimeError(f"{self._function} ended before it was ready")

    def begin(self) -> None:
        """Let the function begin."""
        self._write("")

    def result(self) -> Any:
        """Wait for the function's end, and give its result."""
        output, _ = self._process.communicate()
        lines = [line for line in output.splitlines() if line.startswith(_RESULT)]
        if self._process.returncode or not lines:
            self._errors.seek(0)
            raise RuntimeError(f"{self._function} failed:\n{output[-1000:]}\n{self._errors.read()[-3000:]}")
        return json.loads(lines[-1].removeprefix(_RESULT))

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()


def run(function: str, environment: Mapping[str, str] | None = None, **arguments: Any) -> Any:
    """Call a function in a fresh process, and give its result; see :class:`Child`."""
    with Child(function, environment, **arguments) as child:
        return child.result()


def ready() -> None:
    """Say in the child that it is ready, and wait until it shall begin."""
    print(_READY, flush=True)
    sys.stdin.readline()


def clean_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Give this process's environment without what AWS's clients read, and with more variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return {**kept, "AWS_EC2_METADATA_DISABLED": "true", "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING", **(more or {})}


def main() -> None:
    """Call the function that the command line names with the arguments on standard input."""
    module, _, name = sys.argv[1].partition(":")
    arguments = json.loads(sys.stdin.readline())
    result = getattr(importlib.import_module(f"tests.benchmarks.{module}"), name)(**arguments)
    print(_RESULT + json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
