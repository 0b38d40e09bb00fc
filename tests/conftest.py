from __future__ import annotations

import gc
import importlib.util
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import botocore.session
import pytest

from airflow_provider_omics_cache.local.pytest_plugin import UNPACED
from tests import quick_clients, quick_dag_runs

# Before anything imports Airflow, which would make itself a home in the user's. Each process of pytest-xdist has one.
_HOME = f"{version('apache-airflow')}-{Path(sys.prefix).name}-{os.environ.get('PYTEST_XDIST_WORKER', '')}"
os.environ["AIRFLOW_HOME"] = str(Path(__file__).parents[1] / "build" / "airflow" / _HOME)
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
# ``dag.test()`` looks for the DAG there. Airflow reads it when it is imported.
os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(Path(__file__).parents[1] / "example_dags")

# What runs Airflow in other processes, and mostly waits.
_REAL_AIRFLOW = ("tests/system/", "tests/secrets/test_flow.py")
_LONGEST = (
    *_REAL_AIRFLOW,
    "tests/faults/",
    "tests/examples/",
    "tests/task_groups/",
    "tests/triggers/",
    "tests/sensors/",
    "tests/operators/",
    "tests/local/",
)

_OMICS = botocore.session.Session().get_service_model("omics")
HAS_BATCHES = "StartRunBatch" in _OMICS.operation_names
HAS_SESSION_POLICIES = "sessionPolicy" in _OMICS.operation_model("StartRun").input_shape.members
AIRFLOW_3 = not version("apache-airflow").startswith("2.")
HAS_AIOBOTOCORE = importlib.util.find_spec("aiobotocore") is not None

needs_batches = pytest.mark.skipif(not HAS_BATCHES, reason="the installed botocore has no HealthOmics batches")
needs_session_policies = pytest.mark.skipif(
    not (HAS_BATCHES and HAS_SESSION_POLICIES), reason="the installed botocore has no session policies of batches"
)
needs_aiobotocore = pytest.mark.skipif(not HAS_AIOBOTOCORE, reason="aiobotocore is not installed")


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over what was imported: Airflow's modules have a million objects.

    After that few old objects are left, and Python would collect all new ones often. Higher thresholds prevent this.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 1000)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that the processes of pytest-xdist end together.

    With ``TEST_ORDER=reversed`` the last test of a file runs first. With a number, the tests run in the random order of
    this seed. A test that depends on an earlier test then fails.
    """
    order = os.environ.get("TEST_ORDER", "")
    if order == "reversed":
        items.reverse()
    elif order.isdigit():
        random.Random(int(order)).shuffle(items)
    items.sort(key=lambda item: next((n for n, path in enumerate(_LONGEST) if item.nodeid.startswith(path)), 99))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: Any, log: Any) -> Any:
    """Let one process of pytest-xdist run everything that mostly waits for other processes."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "real Airflow" if nodeid.startswith(_REAL_AIRFLOW) else super()._split_scope(nodeid)

    if config.getoption("dist") != "loadfile":
        return None
    config.option.loadscopereorder = False
    return Scheduling(config, log)


class RecordedTaskInstance:
    """What operators and sensors use of Airflow's task instance; keeps what is pushed."""

    def __init__(self) -> None:
        self.dag_id = "cohort"
        self.run_id = "manual__2026-11-20"
        self.task_id = "start_batch"
        self.map_index = -1
        self.try_number = 1
        self.max_tries = 0
        self.task = SimpleNamespace(retries=0)
        self.start_date = datetime.now(UTC)
        self.first_reschedule_date: datetime | None = None
        self.xcoms: dict[str, Any] = {}
        self.links: dict[str, Any] = {}
        self.pushed: list[str] = []
        if AIRFLOW_3:
            self.get_first_reschedule_date = lambda context: self.first_reschedule_date

    def xcom_push(self, key: str, value: Any) -> None:
        stored = json.loads(json.dumps(value, allow_nan=False))
        if key.startswith("zz_"):
            self.links[key] = stored
            return
        self.pushed.append(key)
        self.xcoms[key] = stored

    def xcom_pull(self, task_ids: str, *, key: str, map_indexes: int) -> Any:
        assert (task_ids, map_indexes) == (self.task_id, self.map_index), "other tasks have pushed nothing"
        return self.xcoms.get(key)


@pytest.fixture(autouse=True, scope="session")
def _quick_clients() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        quick_clients.install(monkeypatch)
        yield


@pytest.fixture(autouse=True, scope="session")
def _lenient_service() -> Iterator[None]:
    """Let any workflow, run group and bucket exist, so that a test makes only what it is about."""
    from airflow_provider_omics_cache.local.assumptions import LENIENT, Settings

    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in LENIENT.items():
            monkeypatch.setitem(Settings.__init__.__kwdefaults__, name, value)
        yield


@pytest.fixture
def local_healthomics(local_healthomics: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The local HealthOmics, with calls that are paced as on AWS."""
    for name in UNPACED:
        monkeypatch.delenv(name)
    return local_healthomics


@pytest.fixture(scope="session")
def quick_dag_runs_of_tests() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        quick_dag_runs.install(monkeypatch)
        yield


@pytest.fixture(scope="session")
def airflow_database(quick_dag_runs_of_tests: None) -> None:
    """Give ``dag.test()`` the database of the tests' own AIRFLOW_HOME."""
    command = [sys.executable, "-m", "airflow", "db", "migrate"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    if not AIRFLOW_3:
        # A DAG run that is deleted has notes, and notes have users. Nothing else imports the table of users.
        importlib.import_module("airflow.providers.fab.auth_manager.models")


@pytest.fixture(autouse=True)
def _new_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin each test with a turn of its own: the tests' clocks stand at different times."""

    from airflow_provider_omics_cache.hooks import pace

    monkeypatch.setattr(pace, "get_run_pace", pace.Pace("max_get_run_per_second"))


@pytest.fixture(autouse=True)
def _no_aws_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def new_task_context() -> Callable[[], dict[str, Any]]:
    """Make the context of one more try of a task."""

    def make() -> dict[str, Any]:
        ti = RecordedTaskInstance()
        return {"ti": ti, "task_instance": ti, "run_id": ti.run_id}

    return make


@pytest.fixture
def task_context(new_task_context: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Context of one task; ``task_context["ti"].xcoms`` holds what it pushed."""
    return new_task_context()
