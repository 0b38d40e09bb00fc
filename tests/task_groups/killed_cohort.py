"""Run the DAG of a cohort again and again, each time in a process that is killed in the middle of a task.

``python -m tests.task_groups.killed_cohort DATABASE FOLDER TASK_ID:OPERATION...``: one process for each pair. It is
killed when the task has got the answer of the operation. The next process clears the DAG run and runs it again. The
last process is not killed. The state of its DAG run is printed.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

import tests.conftest  # noqa: F401 - it says where Airflow's home is, before anything imports Airflow

# isort: split
import botocore.handlers

from airflow_provider_omics_cache.testing.dag_run import LocalDags, local_dags
from tests import quick_dag_runs
from tests.task_groups.large_cohort import MAX_FAILED
from tests.task_groups.test_cohort_runs import WHEN, cohort_dag


def run(dags: LocalDags, task_id: str, operation: str) -> str:
    """Run the DAG. Return the state of the DAG run.

    :param dags: gives the DAG.
    :param task_id: the task in which the process is killed; empty for a process that is not killed.
    :param operation: the operation after whose answer it is killed.
    """

    def kill(**_: Any) -> None:
        if os.environ.get("AIRFLOW_CTX_TASK_ID") == task_id:
            os.kill(os.getpid(), signal.SIGKILL)

    if task_id:
        botocore.handlers.BUILTIN_HANDLERS.append((f"after-call.*.{operation}", kill))
    return dags(cohort_dag(max_failed=MAX_FAILED, poke_interval=1)).run(date=WHEN).state


def main(database: str, folder: str, *kills: str) -> None:
    """Run the DAG in one process after the other.

    :param database: file of an empty Airflow database, which is made if it does not exist.
    :param folder: folder for the files of the DAG runs.
    :param kills: the task and the operation for each process that is killed.
    """
    quick_dag_runs.install(pytest.MonkeyPatch())
    with local_dags(Path(database), Path(folder)) as dags:
        for one in (*kills, ":"):
            child = os.fork()
            if not child:
                state = run(dags, *one.split(":"))
                print(f"state: {state}", flush=True)
                os._exit(0)
            status = os.waitpid(child, 0)[1]
            print(
                f"{one} {signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else 'ended'}", flush=True
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
