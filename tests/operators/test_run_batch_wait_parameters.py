"""The parameters of StartRunBatchOperator that are about the wait."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow import DAG

from airflow_provider_omics_cache.exceptions import OmicsParameterError
from airflow_provider_omics_cache.operators.run_batch import (
    CancelRunBatchOperator,
    DeleteRunBatchOperator,
    StartRunBatchOperator,
)
from airflow_provider_omics_cache.sensors.run_batch import BatchCompletionSensor, BatchSubmissionSensor
from tests.operators.waiting_task import Run, waiting_task

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics

NEW = {"waiter_delay": 7, "timeout": 8, "max_silence": 9, "deferrable": True, "cancel_on_kill": True}


def values_of(task: StartRunBatchOperator) -> dict[str, Any]:
    return {name: getattr(task, name) for name in NEW}


def test_default_args_reach_it() -> None:
    with DAG("cohorts", schedule=None, default_args=NEW) as dag:
        StartRunBatchOperator(task_id="plain", default_run_setting={}, run_settings=[])
        own = {"timeout": 10, "deferrable": False, "wait_for_completion": True}
        StartRunBatchOperator(task_id="own", default_run_setting={}, run_settings=[], **own)
        StartRunBatchOperator.partial(task_id="mapped", default_run_setting={}).expand(run_settings=[[], []])
    assert values_of(dag.get_task("plain")) == NEW
    assert values_of(dag.get_task("own")) == {**NEW, "timeout": 10, "deferrable": False}
    assert values_of(dag.get_task("mapped").unmap({"run_settings": []})) == NEW


def test_they_can_be_mapped() -> None:
    with DAG("cohorts", schedule=None) as dag:
        waits = {"default_run_setting": {}, "wait_for_completion": True}
        StartRunBatchOperator.partial(task_id="partial", **waits, **NEW).expand(run_settings=[[], []])
        StartRunBatchOperator.partial(task_id="expanded", **waits, run_settings=[]).expand(
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
        ({"include_outputs": True, "runs_s3_uri": ""}, "runs_s3_uri"),
        ({"cancel_on_kill": "False"}, "cancel_on_kill"),
        ({"fail_fast": 1}, "fail_fast"),
        ({"wait_for_completion": "yes"}, "wait_for_completion"),
        ({"cancel_on_failure": True}, "cancel_on_failure"),
    ],
)
def test_bad_parameters_start_nothing(
    parameters: dict[str, Any], parameter: str, local: LocalHealthOmics, run: Run
) -> None:
    with pytest.raises(OmicsParameterError, match=f"^{parameter} ") as caught:
        run(**parameters)
    assert caught.value.parameter == parameter
    assert local.calls.total() == 0


@pytest.mark.parametrize(
    "parameters",
    [
        {"waiter_delay": 20},
        {"timeout": timedelta(days=1)},
        {"max_silence": 60},
        {"deferrable": True},
        {"max_failed_runs": "2%"},
        {"fail_fast": True},
        {"runs_s3_uri": "s3://results/runs.jsonl"},
        {"runs_s3_uri": "s3://results/runs.jsonl", "include_outputs": True},
        {"consistency_timeout": 60},
        {"cancel_on_kill": True},
        {"cancel_on_timeout": True},
    ],
)
def test_a_parameter_of_the_wait_needs_the_wait(parameters: dict[str, Any]) -> None:
    name, value = next(iter(parameters.items()))
    given = {"task_id": "start", "default_run_setting": {}, "run_settings": [], **parameters}
    with pytest.raises(OmicsParameterError) as caught:
        StartRunBatchOperator(**given)
    text = f"{name} has no effect without wait_for_completion=True: set wait_for_completion=True, or remove {name}"
    assert str(caught.value) == f"{text}; got {value!r}"
    assert getattr(StartRunBatchOperator(**given, wait_for_completion=True), name)
    with DAG("cohorts", schedule=None, default_args=parameters) as dag:
        StartRunBatchOperator(task_id="start", default_run_setting={}, run_settings=[])
    assert getattr(dag.get_task("start"), name)


@pytest.mark.parametrize("operator", [CancelRunBatchOperator, DeleteRunBatchOperator])
@pytest.mark.parametrize("parameters", [{"waiter_delay": 20}, {"deferrable": True}])
def test_a_cancellation_or_deletion_without_a_wait(operator: Any, parameters: dict[str, Any]) -> None:
    (name,) = parameters
    with pytest.raises(OmicsParameterError, match=f"^{name} has no effect without wait_for_completion=True"):
        operator(task_id="end", batch_id="42", wait_for_completion=False, **parameters)
    # Both limit the calls that a task makes without a wait.
    operator(task_id="end", batch_id="42", wait_for_completion=False, timeout=60, max_silence=60)
    with DAG("cohorts", schedule=None, default_args=parameters):
        operator(task_id="end", batch_id="42", wait_for_completion=False)


@pytest.mark.parametrize(
    ("task", "needs"),
    [
        (BatchSubmissionSensor, "mapping_s3_uri"),
        (BatchCompletionSensor, "runs_s3_uri"),
        (DeleteRunBatchOperator, "save_mapping_s3_uri"),
    ],
)
@pytest.mark.parametrize(
    ("parameters", "shown"),
    [
        ({"s3_conn_id": "lab"}, "'lab'"),
        ({"s3_extra_args": {"SSECustomerKey": "secret", "SSECustomerAlgorithm": "AES256"}}, None),
    ],
)
def test_parameters_of_s3_need_the_uri(task: Any, needs: str, parameters: dict[str, Any], shown: str | None) -> None:
    (name,) = parameters
    with pytest.raises(OmicsParameterError) as caught:
        task(task_id="task", batch_id="42", **parameters)
    text = f"{name} has no effect without {needs}: set {needs}, or remove {name}; got "
    assert str(caught.value) == text + (shown or "['SSECustomerAlgorithm', 'SSECustomerKey']")
    task(task_id="task", batch_id="42", **parameters, **{needs: "s3://results/lines.jsonl"})
    task(task_id="task", batch_id="42", s3_conn_id="", s3_extra_args={})
    with DAG("cohorts", schedule=None, default_args=parameters):
        task(task_id="task", batch_id="42")


@pytest.mark.parametrize("parameters", [{"s3_conn_id": "lab"}, {"s3_extra_args": {"ACL": "private"}}])
def test_parameters_of_s3_need_a_use_of_s3(parameters: dict[str, Any]) -> None:
    (name,) = parameters
    given = {"task_id": "start", "default_run_setting": {}, "run_settings": [], **parameters}
    with pytest.raises(OmicsParameterError, match=f"^{name} has no effect without settings_s3_prefix or runs_s3_uri: "):
        StartRunBatchOperator(**given)
    for used in (
        {"settings_s3_prefix": "s3://settings"},
        {"runs_s3_uri": "s3://results/runs.jsonl", "wait_for_completion": True},
        {"run_settings": "s3://settings/own.json"},
        {"run_settings": "{{ params.may_be_a_uri }}"},
    ):
        StartRunBatchOperator(**{**given, **used})
    StartRunBatchOperator(**{**given, "s3_conn_id": "", "s3_extra_args": {}})
    with DAG("cohorts", schedule=None, default_args=parameters) as dag:
        StartRunBatchOperator(task_id="plain", default_run_setting={}, run_settings=[])
        StartRunBatchOperator.partial(task_id="mapped", default_run_setting={}).expand(run_settings=[[], []])
        upstream = BatchSubmissionSensor(task_id="upstream", batch_id="42").output
        StartRunBatchOperator(**{**given, "task_id": "later", "run_settings": upstream})
    assert getattr(dag.get_task("mapped").unmap({"run_settings": []}), name)


def test_defaults_and_false_ask_for_nothing() -> None:
    given = {"task_id": "start", "default_run_setting": {}, "run_settings": []}
    StartRunBatchOperator(**given, deferrable=False, cancel_on_kill=False, waiter_delay=60, max_failed_runs=0)
    StartRunBatchOperator(**given, runs_s3_uri=None, timeout=timedelta(days=7))


def test_deferrable_must_be_a_boolean() -> None:
    with pytest.raises(OmicsParameterError, match="deferrable must be True or False"):
        waiting_task(deferrable=None)
