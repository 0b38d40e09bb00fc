"""Runs of a DAG inside a test."""

from __future__ import annotations

import copy
import importlib
import inspect
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

from airflow_provider_omics_cache.testing.airflow_database import create_database, use_airflow
from airflow_provider_omics_cache.testing.task_errors import collect_task_errors, task_name

try:
    from airflow.sdk import DAG
    from airflow.sdk.definitions.param import ParamsDict

    _IS_AIRFLOW_2 = False
except ImportError:  # Airflow 2
    from airflow.models.dag import DAG  # type: ignore[no-redef]
    from airflow.models.param import ParamsDict  # type: ignore[no-redef]

    _IS_AIRFLOW_2 = True
try:
    from airflow.dag_processing.dagbag import DagBag
except ImportError:  # Airflow before 3.2
    from airflow.models.dagbag import DagBag  # type: ignore[no-redef]

#: Airflow 3 reads the DAG of a run from a file of its DAGs folder. This file gives it the DAG of the test.
_DAG_FILE = f"""# Airflow looks for the word DAG.
from {__name__} import dags_of_the_test

globals().update(dags_of_the_test())
"""
_dags: dict[str, DAG] = {}


def dags_of_the_test() -> dict[str, DAG]:
    """Return copies of the DAGs for the file in Airflow's DAGs folder. Airflow stores the path of that file in them."""
    return {dag_id: copy.copy(dag) for dag_id, dag in _dags.items()}


@dataclass(frozen=True)
class LocalDagRun:
    """A DAG run that has ended.

    :param airflow: Airflow's own object.
    :param errors: the exception of each task that failed. The keys are those of ``states``. A task that is
        ``upstream_failed`` did not run, and has no exception.
    """

    airflow: Any
    errors: Mapping[str, BaseException] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """State of the DAG run: ``success`` or ``failed``."""
        return str(self.airflow.state)

    @property
    def run_id(self) -> str:
        """Id of the DAG run."""
        return str(self.airflow.run_id)

    @property
    def states(self) -> dict[str, str]:
        """State of each task by its id; a mapped task has one for each map index, under ``task_id[map_index]``."""
        instances = sorted(self.airflow.get_task_instances(), key=lambda ti: (ti.task_id, ti.map_index))
        return {task_name(ti): str(ti.state) for ti in instances}

    def xcom(self, task_id: str, key: str = "return_value", *, map_index: int = -1) -> Any:
        """Return an XCom of a task; None if the task has not pushed it.

        :param task_id: id of the task.
        :param key: key of the XCom. Default: what the task returned.
        :param map_index: map index of a mapped task. Default: the task is not mapped.
        """
        instance = self.airflow.get_task_instance(task_id, map_index=map_index)
        if instance is None:
            raise KeyError(f"the DAG run has no task {task_id!r} with map index {map_index}; it has {[*self.states]}")
        return instance.xcom_pull(task_ids=task_id, key=key, map_indexes=map_index)


class LocalDag:
    """A DAG that can be run inside a test.

    :param dag: the DAG.
    """

    def __init__(self, dag: DAG) -> None:
        self.dag = dag

    def run(self, conf: Mapping[str, Any] | None = None, *, date: datetime | None = None) -> LocalDagRun:
        """Run the DAG in this process and return the DAG run that has ended.

        :param conf: configuration of the DAG run: values for the DAG's params. Default: the params' own defaults.
        :param date: logical date, with a time zone. A second run with the same date clears every task of the first
            run and runs it again. Default: now, which makes a new DAG run.
        """
        given: dict[str, Any] = {"run_conf": dict(conf) if conf is not None else None}
        if date is not None:
            names = inspect.signature(self.dag.test).parameters
            given |= {name: date for name in ("run_after", "logical_date", "execution_date") if name in names}
        with (
            patch.dict(_dags, {self.dag.dag_id: self.dag}, clear=True),
            _params_as_before(self.dag),
            dates_of_reschedules(),
            collect_task_errors() as errors,
        ):
            return LocalDagRun(self.dag.test(**given), errors)


@contextmanager
def _params_as_before(dag: DAG) -> Iterator[None]:
    """Restore the values of a DAG's params, in which Airflow leaves the configuration of the DAG run."""
    dicts = [owner.params for owner in (dag, *dag.tasks)]
    params = [given.get_param(name) for given in dicts if isinstance(given, ParamsDict) for name in given]
    values = [param.value for param in params]
    try:
        yield
    finally:
        for param, value in zip(params, values, strict=True):
            param.value = value


@contextmanager
def dates_of_reschedules() -> Iterator[None]:
    """Make the first reschedule date of a task a datetime. Airflow 3.0 gives the tasks of ``dag.test()`` its text."""
    try:
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
    except ImportError:  # Airflow 2
        yield
        return
    get_date = RuntimeTaskInstance.get_first_reschedule_date

    def get_datetime(ti: Any, context: Any) -> datetime | None:
        date: Any = get_date(ti, context)
        return datetime.fromisoformat(date) if isinstance(date, str) else date

    with patch.object(RuntimeTaskInstance, "get_first_reschedule_date", get_datetime):
        yield


class LocalDags:
    """Gives the DAGs of a test, as objects that can be run. It is the fixture ``local_healthomics_dag_run``."""

    def __call__(self, dag: DAG | str | Path, dag_id: str | None = None) -> LocalDag:
        """Return a DAG that can be run.

        :param dag: the DAG, or the path of the file that defines it.
        :param dag_id: id of the DAG, if the file defines several. Default: the only DAG of the file.
        :raises ImportError: the file cannot be imported.
        :raises LookupError: the file does not define that DAG, or it defines several.
        """
        if isinstance(dag, str | Path):
            return LocalDag(_read(Path(dag), dag_id))
        if not isinstance(dag, DAG):
            raise TypeError(f"dag must be a DAG or the path of a file; got {dag!r}. Call a function that has @dag.")
        return LocalDag(dag)


def _read(path: Path, dag_id: str | None) -> DAG:
    if not path.is_file():
        raise FileNotFoundError(f"there is no DAG file {path}")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)  # as Airflow does with its DAGs folder
    bag = DagBag(str(path))
    if bag.import_errors:
        raise ImportError("\n".join(str(text) for text in bag.import_errors.values()))
    found: dict[str, Any] = dict(bag.dags)
    if dag_id is None and len(found) == 1:
        (dag_id,) = found
    if dag_id not in found:
        raise LookupError(f"dag_id must be one of {sorted(found)}, which {path} defines; got {dag_id!r}")
    dag: DAG = found[dag_id]
    return dag


def _import_table_of_users() -> None:
    """Import the table of users of Airflow 2. A DAG run that is cleared has notes, and notes refer to their users."""
    with suppress(ImportError):
        importlib.import_module("airflow.providers.fab.auth_manager.models")


@contextmanager
def local_dags(empty_database: Path, folder: Path) -> Iterator[LocalDags]:
    """Give Airflow a database and a DAGs folder for one test.

    :param empty_database: file of an empty Airflow database. It is created if it does not exist.
    :param folder: folder for the files of the test.
    """
    if not empty_database.exists():
        create_database(empty_database)
    database, dags_folder = folder / "airflow.db", folder / "dags"
    shutil.copy(empty_database, database)
    if _IS_AIRFLOW_2:
        _import_table_of_users()
    with use_airflow(database, dags_folder=dags_folder):
        (dags_folder / "dag_of_the_test.py").write_text(_DAG_FILE)
        yield LocalDags()
