"""What the documentation calls a parameter of an operator or sensor stands in its signature, with its type."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from airflow_provider_omics_cache.operators import run as run_operators
from airflow_provider_omics_cache.operators import run_batch as batch_operators
from airflow_provider_omics_cache.operators import run_cache as cache_operators
from airflow_provider_omics_cache.sensors import run as run_sensors
from airflow_provider_omics_cache.sensors import run_batch as batch_sensors

CONNECTION = {"aws_conn_id", "region_name", "verify", "botocore_config"}
TASKS = [
    value
    for module in (batch_operators, cache_operators, run_operators, batch_sensors, run_sensors)
    for name, value in vars(module).items()
    if inspect.isclass(value) and value.__module__ == module.__name__ and name.endswith(("Operator", "Sensor"))
]


@pytest.mark.parametrize("task", TASKS)
def test_every_documented_parameter_is_in_the_signature_with_its_type(task: Any) -> None:
    parameters = dict(inspect.signature(task.__init__).parameters)
    assert (parameters.pop("self").kind, parameters.pop("kwargs").kind) == (
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.VAR_KEYWORD,
    )
    documented = set(re.findall(r"^\s*:param (\w+):", inspect.getdoc(task) or "", re.MULTILINE))
    assert set(parameters) == documented
    assert set(parameters) >= CONNECTION
    assert [name for name, parameter in parameters.items() if parameter.annotation is inspect.Parameter.empty] == []


@pytest.mark.parametrize("task", [task for task in TASKS if hasattr(task, "trigger_class")])
def test_a_task_that_waits_takes_how_it_waits(task: Any) -> None:
    parameters = inspect.signature(task.__init__).parameters
    delay = "poke_interval" if task.__name__.endswith("Sensor") else "waiter_delay"
    assert {"timeout", "max_silence", "deferrable", delay} <= set(parameters)
    assert {parameters[name].kind for name in parameters if name not in {"self", "kwargs"}} == {
        inspect.Parameter.KEYWORD_ONLY
    }


def test_the_tasks_are_found() -> None:
    assert {task.__name__ for task in TASKS} >= {
        "StartRunBatchOperator",
        "BatchSubmissionSensor",
        "DeleteRunCacheOperator",
        "StartRunOperator",
        "RunCompletionSensor",
    }
