"""Print how many tests ran on each line, and why others were skipped: ``make test-results``."""

from __future__ import annotations

import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree  # nosec B405  # files that pytest wrote

ROOT = Path(__file__).resolve().parents[1]
#: Environment of each run of the tests by the name of its results, ``build/test-airflow-3.3.xml`` and so on.
ENVIRONMENTS = {
    "airflow-3.3": ".venv",
    "python-3.12": ".venv-python-3.12",
    "python-3.13": ".venv-python-3.13",
    "airflow-3.2": ".venv-airflow-3.2",
    "airflow-3.1": ".venv-airflow-3.1",
    "airflow-3.0": ".venv-airflow-3.0",
    "airflow-2.11": ".venv-airflow-2.11",
    "minimum": ".venv-minimum",
}
#: Each line runs more. With fewer, somebody has chosen tests with PYTEST_ARGS.
FEWEST_TESTS = 2_000


@dataclass
class Result:
    """The result of one run."""

    passed: int = 0
    failed: int = 0
    seconds: float = 0
    skips: Counter[str] = field(default_factory=Counter)
    real_airflow: bool = False


def read_result(path: Path) -> Result:
    """Read the results of one run of pytest.

    :param path: its JUnit file.
    """
    result = Result()
    for suite in ElementTree.parse(path).iter("testsuite"):  # nosec B314  # pytest wrote it
        result.seconds += float(suite.get("time", 0))
        for case in suite.iter("testcase"):
            skipped = case.find("skipped")
            if skipped is not None:
                result.skips[_reason(skipped)] += 1
            elif case.find("failure") is not None or case.find("error") is not None:
                result.failed += 1
            else:
                result.passed += 1
                result.real_airflow |= case.get("classname") == "tests.system.test_quickstart"
    return result


def _reason(skipped: ElementTree.Element) -> str:
    message = skipped.get("message") or ""
    if message == "collection skipped":  # of a whole module: its text is a tuple of file, line and reason
        found = re.search(r"Skipped: (.*?)['\"]\)?$", skipped.text or "", re.DOTALL)
        return found[1] if found else message
    return message


def report(build: Path) -> list[str]:
    """Print the results of every run, and return what is wrong.

    :param build: directory of the JUnit files.
    """
    wrong = []
    for name in ENVIRONMENTS:
        path = build / f"test-{name}.xml"
        if not path.exists():
            print(f"{name}: not run")
            continue
        result = read_result(path)
        count = sum(result.skips.values())
        print(f"{name}: {result.passed} passed, {result.failed} failed, {count} skipped in {result.seconds:.0f} s")
        for reason, times in result.skips.most_common():
            print(f"  {times} skipped: {reason}")
        if result.failed:
            wrong.append(f"{name}: {result.failed} tests failed")
        if result.passed < FEWEST_TESTS:
            wrong.append(f"{name}: only {result.passed:,} tests passed; at least {FEWEST_TESTS:,} must")
        if not all(result.skips):
            wrong.append(f"{name}: a test was skipped without a reason")
    return wrong


if __name__ == "__main__":
    found = report(ROOT / "build")
    sys.exit("\n".join(found) or 0)
