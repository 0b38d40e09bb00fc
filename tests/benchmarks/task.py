"""What operators and sensors use of Airflow's task instance."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any


class TaskInstance:
    """A task instance that keeps nothing of what is pushed.

    :param run_id: the DAG run.
    """

    dag_id = "benchmark"
    task_id = "task"
    map_index = -1
    try_number = 1

    def __init__(self, run_id: str = "run") -> None:
        self.run_id = run_id
        self.start_date = datetime.now(UTC)

    def xcom_push(self, key: str, value: Any) -> None:
        """Take a value."""


def context(run_id: str = "run") -> Any:
    """Make the context of a task."""
    ti = TaskInstance(run_id)
    return {"ti": ti, "task_instance": ti, "run_id": run_id}
