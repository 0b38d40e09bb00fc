"""Each supported line has its lock and its environment, and its results are counted."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import support_table
import test_results
from packaging.requirements import Requirement

from tests.packaging.test_environment import ENVIRONMENTS

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()


def listed(variable: str) -> list[str]:
    (value,) = re.findall(rf"^{variable} := (.*)$", MAKEFILE, re.MULTILINE)
    return str(value).split()


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / "requirements" / name).read_text().splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {one.name: next(iter(one.specifier)).version for one in found}


def test_every_line_has_its_lock_and_its_versions() -> None:
    older = [f"airflow-{line}" for line in listed("OLDER_LINES")]
    pythons = [f"python-{version}" for version in listed("NEWER_PYTHONS")]
    assert set(ENVIRONMENTS) == {"airflow-3.3", "minimum", *older}
    assert set(test_results.ENVIRONMENTS) == {*ENVIRONMENTS, *pythons}
    for line, versions in ENVIRONMENTS.items():
        locked = pins(f"{line}.txt")
        assert {name: locked.get(name) for name in versions} == versions
    for line in older:
        chosen = pins(f"{line}.in")
        assert chosen.items() <= ENVIRONMENTS[line].items()
        assert chosen["apache-airflow"].startswith(line.removeprefix("airflow-") + ".")


JUNIT = """<testsuites><testsuite time="2.5"><testcase classname="tests.system.test_quickstart"/>
<testcase classname="a"><skipped message="there is no batch">a.py:1: there is no batch</skipped></testcase>
<testcase classname=""><skipped message="collection skipped">('a.py', 3, 'Skipped: no aiobotocore')</skipped></testcase>
<testcase classname="a"><failure message="no"/></testcase></testsuite></testsuites>"""


def test_results_are_counted_with_the_reasons_of_skips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "test-airflow-3.0.xml").write_text(JUNIT)
    result = test_results.read_result(tmp_path / "test-airflow-3.0.xml")
    assert (result.passed, result.failed, result.seconds, result.real_airflow) == (1, 1, 2.5, True)
    assert result.skips == {"there is no batch": 1, "no aiobotocore": 1}
    wrong = test_results.report(tmp_path)
    assert wrong == ["airflow-3.0: 1 tests failed", "airflow-3.0: only 1 tests passed; at least 2,000 must"]
    printed = capsys.readouterr().out
    assert "airflow-3.0: 1 passed, 1 failed, 2 skipped in 2 s\n  1 skipped: there is no batch\n" in printed
    assert "airflow-3.1: not run\n" in printed


def test_only_a_run_without_failures_gets_into_the_table(tmp_path: Path) -> None:
    before = {"airflow-3.1": {"passed": 600}}
    assert support_table.collect(tmp_path, before) == before
    with pytest.raises(SystemExit, match="has no results: run make test-all"):
        support_table.collect(tmp_path, {})
    (tmp_path / "test-airflow-3.0.xml").write_text(JUNIT)
    with pytest.raises(SystemExit, match=r"1 failed: run make test-airflow-3\.0 again"):
        support_table.collect(tmp_path, before)


def test_a_missing_python_is_named_with_what_to_install() -> None:
    done = subprocess.run([ROOT / ".ci" / "python", "3.98", "3.97"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("Python 3.98 or 3.97 is needed")
    assert "pyenv install 3.98" in done.stderr


def test_the_python_that_is_found_has_the_first_version_that_is_there() -> None:
    ours = "{}.{}".format(*sys.version_info)
    done = subprocess.run([ROOT / ".ci" / "python", "3.98", ours], capture_output=True, text=True, check=True)
    asked = "import sys; print('%d.%d' % sys.version_info[:2])"
    version = subprocess.run([done.stdout.strip(), "-c", asked], capture_output=True, text=True, check=True)
    assert version.stdout.strip() == ours


def test_an_environment_refuses_another_python(tmp_path: Path) -> None:
    command = [ROOT / ".ci" / "venv", tmp_path / "made", "requirements/minimum.txt", sys.executable, "3.98"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"needs Python 3.98, and {sys.executable} is" in done.stderr
    assert "pyenv install 3.98" in done.stderr
    assert not (tmp_path / "made").exists()


def test_uv_gets_the_settings_of_pip(tmp_path: Path) -> None:
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\nindex-url = https://mirror/simple\nextra-index-url =\n  https://one/simple\n  https://two/simple\n"
        "[install]\ntrusted-host = mirror\nfind-links = /wheels /more\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
    done = subprocess.run(
        [sys.executable, ROOT / ".ci" / "uv_settings.py"],
        env={**environment, "PIP_CONFIG_FILE": str(config), "PIP_FIND_LINKS": "/other", "UV_INSECURE_HOST": "mine"},
        capture_output=True,
        text=True,
        check=True,
    )
    assignments = set(done.stdout.splitlines())
    assert {
        "export UV_DEFAULT_INDEX=https://mirror/simple",
        "export UV_INDEX='https://one/simple https://two/simple'",
        "export UV_FIND_LINKS=/other",
    } <= assignments
    assert "UV_INSECURE_HOST" not in done.stdout
