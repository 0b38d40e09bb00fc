"""Let ``dag.test()`` do once what it does for each task."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make one API server for all tasks, as Airflow 3.3 does, and check each schema of a DAG's parameter once.

    Airflow 3.0 to 3.2 make the server anew for each task, which takes seconds and leaves a thread. Each Airflow checks
    the schema of a parameter whenever it reads the parameter, a thousand times in a DAG run.
    """
    from jsonschema import Draft202012Validator

    check = Draft202012Validator.check_schema

    @functools.cache
    def check_once(schema: str) -> None:
        check(json.loads(schema))

    def check_schema(schema: Any, *_: Any, **__: Any) -> None:
        check_once(json.dumps(schema, sort_keys=True))

    monkeypatch.setattr(Draft202012Validator, "check_schema", staticmethod(check_schema))
    try:
        from airflow.sdk.execution_time import supervisor
    except ImportError:  # Airflow 2
        return
    monkeypatch.setattr(supervisor, "in_process_api_server", functools.cache(supervisor.in_process_api_server))
