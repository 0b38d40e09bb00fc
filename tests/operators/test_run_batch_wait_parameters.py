"""The parameters of StartRunBatchOperator that are about the wait."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow import DAG

from airflow_provider_omics_cache.exceptions import OmicsParameterError
from airflow_provider_omics_cache.operators.run_batch import StartRunBatchOperator
from tests.operators.waiting_task import Run, waiting_task

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics

NEW = {"waiter_delay": 7, "timeout": 8, "max_silence": 9, "deferrable": True, "cancel_on_kill": True}


def values_of(task: StartRunBatchOperator) -> dict[str, Any]:
    return {name: getattr(task, name) for name in NEW}


def test_default_args_reach_it() -> None:
    with DAG("cohorts", schedule=None, default_args=NEW) as dag:
        StartRunBatchOperator(task_id="plain", default_run_setting={}, run_settings=[])
        StartRunBatchOperator(task_id="own", default_run_setting={}, run_settings=[], timeout=10, deferrable=False)
        StartRunBatchOperator.partial(task_id="mapped", default_run_setting={}).expand(run_settings=[[], []])
    assert values_of(dag.get_task("plain")) == NEW
    assert values_of(dag.get_task("own")) == {**NEW, "timeout": 10, "deferrable": False}
    assert values_of(dag.get_task("mapped").unmap({"run_settings": []})) == NEW


def test_they_can_be_mapped() -> None:
    with DAG("cohorts", schedule=None) as dag:
        StartRunBatchOperator.partial(task_id="partial", default_run_setting={}, **NEW).expand(run_settings=[[], []])
        StartRunBatchOperator.partial(task_id="expanded", default_run_setting={}, run_settings=[]).expand(
            timeout=[8, 9], cancel_on_kill=[True, False]
        )
    assert values_of(dag.get_task("partial").unmap({"run_settings": []})) == NEW
    expanded = dag.get_task("expanded").unmap({"timeout": 9, "cancel_on_kill": False})
    assert (expanded.timeout, expanded.cancel_on_kill, expanded.waiter_delay) == (9, False, 60)


def test_only_what_can_be_text_is_templated() -> None:
    assert not (NEW.keys() | {"wait_for_completion", "cancel_on_timeout", "include_outputs"}) & set(
        StartRunBatchOperator.template_fields
    )


@pytest.mark.parametrize("parameter", ["waiter_delay", "timeout", "max_silence", "consistency_timeout"])
@pytest.mark.parametrize("value", [-1, True, "60", None, float("nan"), float("inf"), timedelta(seconds=-1)])
def test_a_time_is_a_number_of_seconds_or_a_timedelta(parameter: str, value: Any) -> None:
    with pytest.raises(OmicsParameterError, match=f"^{parameter} must be a number of seconds of at least 0") as caught:
        waiting_task(**{parameter: value})
    assert caught.value.parameter == parameter


@pytest.mark.parametrize("wait_for_completion", [True, False])
@pytest.mark.parametrize(
    ("parameters", "parameter"),
    [
        ({"max_failed_runs": -1}, "max_failed_runs"),
        ({"max_failed_runs": True}, "max_failed_runs"),
        ({"max_failed_runs": 0.5}, "max_failed_runs"),
        ({"max_failed_runs": None}, "max_failed_runs"),
        ({"max_failed_runs": "five"}, "max_failed_runs"),
        ({"max_failed_runs": "5 %%"}, "max_failed_runs"),
        ({"max_failed_runs": "-5%"}, "max_failed_runs"),
        ({"max_failed_runs": "101 %"}, "max_failed_runs"),
        ({"max_failed_runs": "100.1%"}, "max_failed_runs"),
        ({"runs_s3_uri": "results/runs.jsonl"}, "runs_s3_uri"),
        ({"runs_s3_uri": "s3://results"}, "runs_s3_uri"),
        ({"runs_s3_uri": "s3://results/a.jsonl", "s3_extra_args": {"Bogus": 1}}, "s3_extra_args"),
        ({"include_outputs": True}, "include_outputs"),
    ],
)
def test_bad_parameters_start_nothing(
    parameters: dict[str, Any], parameter: str, wait_for_completion: bool, local: LocalHealthOmics, run: Run
) -> None:
    with pytest.raises(OmicsParameterError, match=f"^{parameter} ") as caught:
        run(wait_for_completion=wait_for_completion, **parameters)
    assert caught.value.parameter == parameter
    assert local.calls.total() == 0
