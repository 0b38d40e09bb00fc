from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import HAS_BATCHES

# ``dag.test()`` looks for the DAG there.
os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(Path(__file__).parents[2] / "example_dags")


@pytest.fixture(scope="session", autouse=True)
def _airflow_database() -> None:
    """Give ``dag.test()`` the database of the tests' own AIRFLOW_HOME."""
    if not HAS_BATCHES:
        pytest.skip("the installed botocore has no HealthOmics batches")
    command = [sys.executable, "-m", "airflow", "db", "migrate"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.fixture(autouse=True)
def _environment_as_before() -> Iterator[None]:
    """Take back what ``dag.test()`` leaves in the environment."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
