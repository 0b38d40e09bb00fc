"""How many failures are allowed can come from a template, such as a param of the DAG."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from airflow_provider_omics_cache.exceptions import OmicsParameterError
from airflow_provider_omics_cache.operators.run_batch import StartRunBatchOperator
from airflow_provider_omics_cache.sensors.run_batch import BatchCompletionSensor, BatchSubmissionSensor

TASKS: list[Any] = [
    pytest.param(BatchSubmissionSensor, "max_failed_submissions", {"batch_id": "42"}, id="submission"),
    pytest.param(BatchCompletionSensor, "max_failed_runs", {"batch_id": "42"}, id="completion"),
    pytest.param(
        StartRunBatchOperator,
        "max_failed_runs",
        {"default_run_setting": {}, "run_settings": [], "wait_for_completion": True},
        id="operator",
    ),
]


@pytest.mark.parametrize(("kind", "parameter", "arguments"), TASKS)
def test_a_template_is_checked_when_the_task_runs(kind: Any, parameter: str, arguments: dict[str, Any]) -> None:
    for rendered, allowed in (("3", 3), ("5%", Fraction(1, 20)), (7, 7), ("five", None)):
        task = kind(task_id="task", **arguments, **{parameter: "{{ limit }}"})
        task.render_template_fields({"limit": rendered})
        if allowed is None:
            with pytest.raises(OmicsParameterError, match=f"^{parameter} must be an integer, 0 or more"):
                task.allowance(parameter)
        else:
            assert task.allowance(parameter) == allowed


@pytest.mark.parametrize(("kind", "parameter", "arguments"), TASKS)
def test_anything_else_is_checked_when_the_dag_is_parsed(kind: Any, parameter: str, arguments: dict[str, Any]) -> None:
    for value in ("five", -1, 0.5, None, True):
        with pytest.raises(OmicsParameterError, match=f"^{parameter} must be an integer, 0 or more"):
            kind(task_id="task", **arguments, **{parameter: value})
