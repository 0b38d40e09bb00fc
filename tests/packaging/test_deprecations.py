"""A warning that something will be removed is an error in the tests of this package."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

CONFIGURATION = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
FILTERS = CONFIGURATION["tool"]["pytest"]["ini_options"]["filterwarnings"]

#: Tests that must fail, and tests that must pass.
DEPRECATED = """
import locale
import warnings

import pytest
from airflow import exceptions

(REMOVED_IN_AIRFLOW,) = {getattr(exceptions, name) for name in dir(exceptions) if name.startswith("RemovedInAirflow")}

def test_a_call_of_python():
    locale.getdefaultlocale()

@pytest.mark.parametrize(
    "category",
    [FutureWarning, PendingDeprecationWarning, REMOVED_IN_AIRFLOW, exceptions.AirflowProviderDeprecationWarning],
)
def test_a_call_of_a_library(category):
    warnings.warn("use something else", category, stacklevel=2)
"""
ALLOWED = """
import warnings

def test_of_the_web_server_of_airflow_2():
    warnings.warn_explicit("old", DeprecationWarning, "convert.py", 1, module="flask_sqlalchemy.convert")

def test_of_another_kind():
    warnings.warn("a warning of another kind", UserWarning)
"""


def test_a_deprecated_call_fails_a_test(pytester: pytest.Pytester) -> None:
    pytester.makepyprojecttoml(f"[tool.pytest.ini_options]\nfilterwarnings = {json.dumps(FILTERS)}\n")
    pytester.makepyfile(test_deprecated=DEPRECATED, test_allowed=ALLOWED)
    result = pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider", "-p", "no:asyncio")
    result.assert_outcomes(failed=5, passed=2, warnings=1)
    result.stdout.fnmatch_lines(["*DeprecationWarning: *getdefaultlocale*", "*FutureWarning: use something else*"])
