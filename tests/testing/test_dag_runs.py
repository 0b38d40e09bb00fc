"""The fixture that runs a DAG inside a test: Airflow's database and DAGs folder, and time."""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from airflow import settings

from airflow_provider_omics_cache import timing
from airflow_provider_omics_cache.hooks import pace
from airflow_provider_omics_cache.local.clock import Clock
from airflow_provider_omics_cache.testing.airflow_database import use_airflow
from airflow_provider_omics_cache.testing.service_time import use_service_time
from tests.conftest import needs_aiobotocore, needs_batches

try:
    from airflow.sdk import DAG, get_current_context, task
except ImportError:  # Airflow 2
    from airflow.decorators import task
    from airflow.models.dag import DAG
    from airflow.operators.python import get_current_context

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics
    from airflow_provider_omics_cache.testing.dag_run import LocalDags

DAG_FILE = Path(__file__).parents[1] / "dags" / "cohort_of_300.py"
WHEN = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds for which the process of the test has slept."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


@needs_batches
@needs_aiobotocore
def test_waits_of_every_mode_take_service_time_only(
    local_healthomics: LocalHealthOmics, local_healthomics_dag_run: LocalDags, slept: list[float]
) -> None:
    boto3.client("s3").create_bucket(Bucket="cohort-of-300")
    local_healthomics.register_workflow("1234567")
    local_healthomics.faults.fail_run("sample-007")

    run = local_healthomics_dag_run(DAG_FILE).run(conf={"runs": 300})

    assert run.state == "success"
    waits = {"rescheduled": "success", "deferred": "success", "poked": "success"}
    maps = {"count[0]": "success", "count[1]": "success"}
    assert run.states == {"make_settings": "success", "start_batch": "success", **waits, **maps}
    assert len(run.xcom("rescheduled")) == 300
    assert run.xcom("poked")["failed"] == 1
    assert [run.xcom("count", map_index=index) for index in range(2)] == [2, 4]
    assert run.xcom("poked", "no such key") is None
    with pytest.raises(KeyError, match="no task 'gone' with map index -1; it has"):
        run.xcom("gone")
    content = boto3.client("s3").get_object(Bucket="cohort-of-300", Key="runs.jsonl")["Body"].read()
    records = [json.loads(line) for line in content.splitlines()]
    assert sum(record["run_output_uri"] is not None for record in records) == 300
    # GetRun is called for a sample of 20 completed runs, and twice for the failed run.
    assert local_healthomics.calls["GetRun"] == 22
    # The delay before the retry is an hour: the timeouts of the sensors, 600 s, count from the start of each.
    assert 3600 < local_healthomics.clock.elapsed() < 3600 + 300
    assert slept == []
    assert run.errors == {}


def test_a_dag_object_and_a_second_run_of_the_same_date(local_healthomics_dag_run: LocalDags) -> None:
    ran: list[str] = []
    with DAG("numbers", schedule=None, params={"number": 1}) as dag:

        @task
        def remember(number: Any) -> int:
            ran.append(number)
            return len(ran)

        remember("{{ params.number }}")
    runnable = local_healthomics_dag_run(dag)
    first, again, other = runnable.run({"number": 2}, date=WHEN), runnable.run(date=WHEN), runnable.run()
    assert [run.state for run in (first, again, other)] == ["success"] * 3
    assert first.run_id == again.run_id != other.run_id
    assert ran == ["2", "1", "1"]
    assert other.xcom("remember") == 3
    assert dag.fileloc == __file__


def test_failed_tasks_fail_the_run_and_keep_their_errors(local_healthomics_dag_run: LocalDags) -> None:
    with DAG("fails", schedule=None) as dag:

        @task
        def fail(number: int) -> None:
            if number:
                raise RuntimeError(f"failed for {number}")

        @task
        def after() -> None: ...

        @task(retries=1)
        def fail_once() -> None:
            if get_current_context()["ti"].try_number == 1:
                raise RuntimeError("on demand")

        fail.override(task_id="alone")(7) >> after()
        fail.expand(number=[0, 8])
        fail_once()
    run = local_healthomics_dag_run(dag).run()
    assert run.state == "failed"
    maps = {"fail[0]": "success", "fail[1]": "failed"}
    assert run.states == {"alone": "failed", "after": "upstream_failed", "fail_once": "success", **maps}
    assert {name: repr(error) for name, error in run.errors.items()} == {
        "alone": "RuntimeError('failed for 7')",
        "fail[1]": "RuntimeError('failed for 8')",
    }


def test_what_is_no_dag_is_refused(local_healthomics_dag_run: LocalDags, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import airflow\nimport no_such_module_of_a_dag\n")
    (tmp_path / "two.py").write_text(
        "try:\n    from airflow.sdk import DAG\nexcept ImportError:\n    from airflow import DAG\n"
        "import beside\none, two = DAG('one', schedule=None), DAG('two', schedule=None)\n"
    )
    (tmp_path / "beside.py").write_text("")
    with pytest.raises(FileNotFoundError, match=r"gone\.py"):
        local_healthomics_dag_run(tmp_path / "gone.py")
    with pytest.raises(ImportError, match="no_such_module_of_a_dag"):
        local_healthomics_dag_run(tmp_path / "broken.py")
    with pytest.raises(LookupError, match=r"dag_id must be one of \['one', 'two'\].*got None"):
        local_healthomics_dag_run(tmp_path / "two.py")
    assert local_healthomics_dag_run(tmp_path / "two.py", "two").dag.dag_id == "two"
    with pytest.raises(TypeError, match="Call a function that has @dag"):
        local_healthomics_dag_run(lambda: None)  # type: ignore[arg-type]


def test_everything_is_as_before_after_the_test(tmp_path: Path) -> None:
    def state() -> tuple[Any, ...]:
        airflow = settings.SQL_ALCHEMY_CONN, settings.DAGS_FOLDER, str(settings.engine.url)
        return *airflow, list(sys.path), dict(os.environ), pace, timing._source

    before, pace_before = state(), pace.get_run_pace
    with use_service_time(Clock()) as service_time, use_airflow(tmp_path / "a.db", dags_folder=tmp_path / "dags"):
        assert str(settings.engine.url).endswith("/a.db")
        assert str(tmp_path / "dags") == settings.DAGS_FOLDER
        assert timing._source is service_time
        assert pace.get_run_pace is not pace_before
        os.environ["AIRFLOW__CORE__LEFT_BEHIND"] = "True"
    assert state() == before
    assert pace.get_run_pace is pace_before
