"""The errors of the tasks that run in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from airflow.listeners import hookimpl

try:
    from airflow.sdk.listener import get_listener_manager
except ImportError:  # Airflow before 3.2
    from airflow.listeners.listener import get_listener_manager  # type: ignore[assignment]


def task_name(ti: Any) -> str:
    """Return the name of a task: its id or, if it is mapped, ``task_id[map_index]``.

    :param ti: Airflow's task instance.
    """
    return str(ti.task_id) if ti.map_index < 0 else f"{ti.task_id}[{ti.map_index}]"


class _TaskListener:
    """An Airflow listener. Airflow calls it before each try of a task, and after a try that failed."""

    def __init__(self) -> None:
        self.errors: dict[str, BaseException] = {}

    @hookimpl
    def on_task_instance_running(self, task_instance: Any) -> None:
        self.errors.pop(task_name(task_instance), None)

    @hookimpl
    def on_task_instance_failed(self, task_instance: Any, error: Any) -> None:
        if isinstance(error, BaseException):
            self.errors[task_name(task_instance)] = error


@contextmanager
def collect_task_errors() -> Iterator[dict[str, BaseException]]:
    """Collect the exception of each task whose last try failed. The keys are the names of the tasks."""
    listener = _TaskListener()
    manager = get_listener_manager()
    manager.add_listener(listener)
    try:
        yield listener.errors
    finally:
        manager.pm.unregister(listener)
