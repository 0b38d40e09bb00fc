"""``make test-wheel``: build wheel and sdist, install the wheel into an empty environment, and use it as users do.

``requirements/airflow-3.3.txt`` stands for the constraints file that Airflow publishes for each version.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from airflow_provider_omics_cache.get_provider_info import OPTIONS, SECTION

ROOT = Path(__file__).parents[2]
DISTRIBUTION = "airflow-provider-omics-cache"
PACKAGE = "airflow_provider_omics_cache"
CONSTRAINTS = ROOT / "requirements" / "airflow-3.3.txt"
RESULTS = ROOT / "build" / "wheel"
ENVIRONMENT = ROOT / ".venv-wheel"
PYTHON = ENVIRONMENT / "bin" / "python"
TWINE = ROOT / ".venv-release" / "bin" / "twine"
#: Lines of wrong_dag.py that mypy must report.
WRONG_LINES = ["8", "9"]
_TAIL = 3000


class Failure(Exception):
    """A step has not found what it must find."""


@dataclass(frozen=True)
class Workplace:
    """Where the commands run: outside the checkout, so that they cannot import the package from it.

    :param directory: the directory.
    """

    directory: Path

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of the commands: an Airflow of its own, without settings of the user's."""
        foreign = ("AIRFLOW", "AWS_", "PYTHON", "VIRTUAL_ENV")
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(foreign)},
            "AIRFLOW_HOME": str(self.directory / "airflow"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(examples()),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "COLUMNS": "200",
        }

    def run(self, *command: str | Path, may_fail: bool = False) -> str:
        """Run a command, and return what it prints.

        :param command: the command.
        :param may_fail: whether an exit code other than 0 is no error.
        """
        done = subprocess.run(
            [str(part) for part in command],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode and not may_fail:
            raise Failure(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout[-_TAIL:]}")
        return done.stdout

    def airflow(self, *arguments: str) -> str:
        """Run an ``airflow`` command of the environment.

        :param arguments: its arguments.
        """
        return self.run(PYTHON, "-m", "airflow", *arguments)


def examples() -> Path:
    """Return the folder of the installed examples."""
    return next(ENVIRONMENT.glob(f"lib/python*/site-packages/{PACKAGE}"), ENVIRONMENT) / "example_dags"


def built(pattern: str) -> Path:
    """Return the only file in the folder of results that fits a pattern.

    :param pattern: the pattern.
    """
    (path,) = RESULTS.glob(pattern)
    return path


def build(place: Workplace) -> str:
    """Build wheel and sdist, and the wheel once more from the sdist: both wheels must have the same files."""
    shutil.rmtree(RESULTS, ignore_errors=True)
    hatchling(ROOT, RESULTS)
    with tarfile.open(built("*.tar.gz")) as archive:
        archive.extractall(place.directory, filter="data")
    (source,) = place.directory.glob(f"{PACKAGE}-*")
    again = place.directory / "again"
    hatchling(source, again, "-t", "wheel")
    (wheel,) = again.glob("*.whl")
    if contents(wheel) != contents(built("*.whl")):
        raise Failure(
            "The wheel that is built from the sdist has other files than the wheel that is built from the tree"
        )
    return ", ".join(sorted(path.name for path in RESULTS.iterdir()))


def hatchling(source: Path, target: Path, *arguments: str) -> None:
    """Build a source tree.

    :param source: the tree.
    :param target: where the results are written.
    :param arguments: more arguments.
    """
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(target), *arguments]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failure(f"hatchling cannot build {source}:\n{done.stderr[-_TAIL:]}")


def contents(wheel: Path) -> dict[str, int]:
    """Return the checksums of a wheel's files, by their paths.

    :param wheel: the wheel.
    """
    with zipfile.ZipFile(wheel) as archive:
        return {file.filename: file.CRC for file in archive.infolist()}


def check_metadata(place: Workplace) -> str:
    """Let twine check the metadata and the README."""
    place.run(TWINE, "check", "--strict", built("*.whl"), built("*.tar.gz"))
    return "twine check --strict"


def install(place: Workplace) -> str:
    """Install the wheel with its extra ``batch`` into an empty environment."""
    place.run(sys.executable, "-m", "venv", "--clear", ENVIRONMENT)
    place.run(PYTHON, "-m", "pip", "install", "-c", CONSTRAINTS, f"{built('*.whl')}[batch]")
    place.run(PYTHON, "-m", "pip", "check")
    return f"{len(list(examples().parents[1].glob('*.dist-info')))} packages, and pip check finds no conflict"


def list_provider(place: Workplace) -> str:
    """Look for the provider among Airflow's providers."""
    listed = place.airflow("providers", "list")
    if not re.search(rf"^{DISTRIBUTION} .*\| {re.escape(version(DISTRIBUTION))}\s*$", listed, re.MULTILINE):
        raise Failure(
            f"airflow providers list does not show {DISTRIBUTION} {version(DISTRIBUTION)}:\n{listed[-_TAIL:]}"
        )
    return "airflow providers list"


def list_options(place: Workplace) -> str:
    """Look for each option among Airflow's options."""
    listed = place.airflow("config", "list", "--section", SECTION)
    missing = [name for name in OPTIONS if not re.search(rf"^(# )?{name} = ", listed, re.MULTILINE)]
    if missing:
        raise Failure(f"airflow config list does not show {', '.join(missing)}:\n{listed[-_TAIL:]}")
    return f"airflow config list shows {len(OPTIONS)} options"


def parse_examples(place: Workplace) -> str:
    """Let a DAG processor parse the installed examples."""
    place.airflow("db", "migrate")
    log = place.airflow("dag-processor", "--num-runs", "1")
    with sqlite3.connect(place.directory / "airflow" / "airflow.db") as database:
        errors = database.execute("select filename, stacktrace from import_error").fetchall()
        dags = {dag_id for (dag_id,) in database.execute("select dag_id from serialized_dag")}
    if errors:
        raise Failure("\n".join(f"{name}:\n{text}" for name, text in errors))
    files = [path.stem for path in (ROOT / "example_dags").glob("*.py")]
    if missing := {f"omics_{name}" for name in files} - dags:
        raise Failure(f"The DAG processor has not found {', '.join(sorted(missing))}:\n{log[-_TAIL:]}")
    return f"a DAG processor has parsed {len(dags)} examples"


def check_types(place: Workplace) -> str:
    """Let mypy check a user's DAG, and a DAG with wrong types, against the installed package."""
    for name in ("user_dag.py", "wrong_dag.py"):
        shutil.copy(Path(__file__).with_name(name), place.directory)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", ROOT / "build" / "mypy-wheel"]
    report = place.run(*mypy, "--python-executable", PYTHON, "user_dag.py", "wrong_dag.py", may_fail=True)
    if re.findall(r"^(\w+\.py):(\d+): error:", report, re.MULTILINE) != [
        ("wrong_dag.py", line) for line in WRONG_LINES
    ]:
        raise Failure(f"mypy must report lines {' and '.join(WRONG_LINES)} of wrong_dag.py and nothing else:\n{report}")
    return "mypy --strict accepts a user's DAG, and reports wrong types"


def main() -> int:
    """Take each step, and print what it has found."""
    with tempfile.TemporaryDirectory(prefix="omics-wheel-") as directory, ThreadPoolExecutor(2) as pool:
        place = Workplace(Path(directory))

        def take(step: Callable[[Workplace], str]) -> None:
            began = time.monotonic()
            print(f"{step(place)} ({time.monotonic() - began:.0f} s)", flush=True)

        try:
            for step in (build, check_metadata, install, parse_examples):
                take(step)
            list(pool.map(take, (check_types, list_provider, list_options)))
        except Failure as failure:
            sys.exit(str(failure))
    return 0


if __name__ == "__main__":
    sys.exit(main())
