"""Run the tests that must notice a mutant, on a copy of the package that has the mutant's fault.

Each copy is tested in a new process. The processes are forked from one that has imported Airflow, because that import
takes longer than most of the tests.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tests.mutants.catalogue import Mutant

ROOT = Path(__file__).parents[2]
_PACKAGE = "airflow_provider_omics_cache"
_COPIED = (_PACKAGE, "tests", "example_dags", ".ci", "pyproject.toml")
#: What the tests import, apart from the package and themselves.
_PRELOADED = [
    "pytest",
    "hypothesis",
    "pytest_asyncio",
    "airflow.sdk",
    "airflow.providers.amazon.aws.hooks.base_aws",
    "airflow.providers.amazon.aws.hooks.s3",
    "moto.core",
]
#: Seconds after which a run of tests that does not end fails.
_LONGEST = 300
_PASSED, _FAILED = 0, 1


@dataclass(frozen=True)
class Result:
    """What the tests of a mutant found.

    :param mutant: the mutant.
    :param seconds: how long the tests took.
    :param error: None if each of its tests failed, as it must; else what went wrong.
    """

    mutant: Mutant
    seconds: float
    error: str | None


class _Failed:
    """A plugin of pytest that keeps which tests failed."""

    def __init__(self) -> None:
        self.node_ids: list[str] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.node_ids.append(report.nodeid)


def run(mutants: Iterable[Mutant], processes: int) -> Iterator[Result]:
    """Test each mutant.

    :param mutants: the mutants.
    :param processes: number of processes that test at the same time.
    :raises ValueError: a mutant does not fit the module that it changes.
    :raises RuntimeError: a test fails without a mutant.
    """
    mutants = list(mutants)
    for mutant in mutants:
        mutant.apply((ROOT / mutant.path).read_text())
    os.environ.setdefault("AIRFLOW_HOME", str(ROOT / "build" / "airflow"))
    os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
    context = get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    with (
        tempfile.TemporaryDirectory(prefix="omics-mutants-") as directory,
        ProcessPoolExecutor(processes, mp_context=context, max_tasks_per_child=1) as pool,
    ):
        plain = Path(directory) / "plain"
        plain.mkdir()
        for name in _COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
            copy(ROOT / name, plain / name)
        tests = sorted({test for mutant in mutants for test in mutant.tests})
        code, failed, output = pool.submit(_run_tests, plain, tests).result()
        if code != _PASSED:
            raise RuntimeError(f"The tests fail without a mutant: {', '.join(failed) or output}")
        yield from pool.map(_test, [plain] * len(mutants), mutants)


def _test(plain: Path, mutant: Mutant) -> Result:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=plain.parent) as directory:
        tree = Path(directory) / "tree"
        shutil.copytree(plain, tree)
        module = tree / mutant.path
        module.write_text(mutant.apply(module.read_text()))
        for compiled in module.parent.glob(f"__pycache__/{module.stem}.*"):
            compiled.unlink()
        code, failed, output = _run_tests(tree, mutant.tests)
    passed = [test for test in mutant.tests if not any(node_id.startswith(f"tests/{test}") for node_id in failed)]
    error = None
    if code not in {_PASSED, _FAILED}:
        error = f"pytest ended with {code}: {output}"
    elif passed:
        error = f"survived {', '.join(passed)}"
    return Result(mutant, time.monotonic() - began, error)


def _run_tests(tree: Path, tests: Iterable[str]) -> tuple[int, list[str], str]:
    """Run tests in this process. Return pytest's exit code, the tests that failed, and the end of the output."""
    import pytest
    from hypothesis import Phase, settings

    os.chdir(tree)
    sys.path.insert(0, str(tree))
    # Airflow has already imported the installed package. The tests must import the copy.
    for name in [name for name in sys.modules if name.partition(".")[0] == _PACKAGE]:
        del sys.modules[name]
    failed, output = _Failed(), io.StringIO()
    # A shorter example of a failure is of no use here.
    settings.register_profile("mutants", derandomize=True, phases=[Phase.explicit, Phase.generate])
    arguments = ["-q", "-p", "no:cacheprovider", "-n0", "--hypothesis-profile=mutants", "--tb=line"]
    # The modules were imported before pytest could rewrite their asserts.
    arguments += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output), _time_limit():
        code = pytest.main([*arguments, *(f"tests/{test}" for test in tests)], plugins=[failed])
    tested = Path(str(sys.modules[_PACKAGE].__file__))
    if not tested.is_relative_to(tree):
        raise RuntimeError(f"The tests have imported {tested}, not the copy in {tree}")
    return int(code), failed.node_ids, output.getvalue()[-2000:]


@contextmanager
def _time_limit() -> Iterator[None]:
    def end(*_: object) -> None:
        raise TimeoutError(f"The test did not end within {_LONGEST} s")

    signal.signal(signal.SIGALRM, end)
    signal.alarm(_LONGEST)
    try:
        yield
    finally:
        signal.alarm(0)
