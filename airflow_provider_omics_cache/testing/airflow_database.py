"""An Airflow database and DAGs folder for a test, in place of those that Airflow is configured with."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from airflow import settings
from airflow.utils import db

try:
    import airflow.sdk  # noqa: F401

    _EXECUTOR = "LocalExecutor"
except ImportError:  # Airflow 2, in which only this executor can use SQLite
    _EXECUTOR = "SequentialExecutor"


def create_database(database: Path) -> None:
    """Create an empty Airflow database.

    :param database: file of the SQLite database.
    """
    with use_airflow(database, dags_folder=database.parent):
        db.initdb()


@contextmanager
def use_airflow(database: Path, *, dags_folder: Path) -> Iterator[None]:
    """Make Airflow use a database and a DAGs folder while the context lasts.

    :param database: file of the SQLite database.
    :param dags_folder: folder in which Airflow looks for DAG files.
    """
    dags_folder.mkdir(parents=True, exist_ok=True)
    bundle = {
        "name": "dags-folder",
        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        "kwargs": {"path": str(dags_folder)},
    }
    environment = {
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{database}",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": f"sqlite+aiosqlite:///{database}",
        "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags_folder),
        "AIRFLOW__CORE__EXECUTOR": _EXECUTOR,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([bundle]),
    }
    # dag.test() changes the environment, and reading the DAGs folder changes the path of imports.
    with patch.dict(os.environ, environment), patch.object(sys, "path", [*sys.path]):
        _configure()
        try:
            yield
        finally:
            settings.dispose_orm()
    _configure()


def _configure() -> None:
    settings.configure_vars()
    settings.reconfigure_orm()
