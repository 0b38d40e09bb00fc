"""``mapping_s3_uri`` and ``runs_s3_uri`` of mapped tasks: no map index overwrites what another one has written."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import boto3
import pytest

from airflow_provider_omics_cache.exceptions import OmicsParameterError
from airflow_provider_omics_cache.sensors.run_batch import BatchCompletionSensor, BatchSubmissionSensor
from airflow_provider_omics_cache.tables import read_table
from tests.conftest import needs_batches
from tests.sensor_modes import run_sensor, start_batch

pytestmark = needs_batches

URI = "s3://results/of-all.jsonl"
SENSORS = [
    pytest.param(partial(BatchSubmissionSensor, mapping_s3_uri=URI), "mapping_s3_uri", id="submission"),
    pytest.param(partial(BatchCompletionSensor, runs_s3_uri=URI), "runs_s3_uri", id="completion"),
]


@pytest.fixture
def wait(service: Any, new_task_context: Callable[[], dict[str, Any]]) -> Callable[..., Any]:
    """Run a sensor as a map index of a task; it writes to the one URI."""
    boto3.client("s3").create_bucket(Bucket="results")

    def run(sensor: Any, batch_id: str, map_index: int, run_id: str = "manual__2026-11-20", **arguments: Any) -> None:
        context = new_task_context()
        context["ti"].map_index = map_index
        context["ti"].run_id = run_id
        make = partial(sensor, task_id="wait", batch_id=batch_id, poke_interval=20, **arguments)
        run_sensor(make, "poke", context, service.clock)

    return run


def written_runs() -> set[str]:
    return {record["run_id"] for record in read_table(URI)}


@pytest.mark.parametrize(("sensor", "parameter"), SENSORS)
def test_a_second_map_index_is_refused(sensor: Any, parameter: str, client: Any, wait: Callable[..., Any]) -> None:
    first, second = start_batch(client), start_batch(client)
    wait(sensor, first, 0)
    expected = written_runs()
    with pytest.raises(OmicsParameterError) as caught:
        wait(sensor, second, 1)
    text = str(caught.value)
    assert text.startswith(
        f"{parameter} must differ for each map index: map index 0 of this task has written this object"
    )
    assert "in this DAG run. Put {{ ti.map_index }} into the URI, or delete" in text
    assert text.endswith(f"; got {URI!r}")
    assert written_runs() == expected
    # A retry or a cleared task overwrites its own object, and another DAG run that of the run before.
    wait(sensor, first, 0)
    wait(sensor, second, 1, run_id="manual__2026-11-21")
    assert not written_runs() & expected
    with pytest.raises(OmicsParameterError, match="s3_extra_args must have values of the types that PutObject takes"):
        wait(sensor, second, 1, s3_extra_args={"Metadata": "lab"})
    # The metadata of the user stays.
    wait(sensor, second, 1, run_id="manual__2026-11-21", s3_extra_args={"Metadata": {"lab": "north"}})
    found = boto3.client("s3").head_object(Bucket="results", Key="of-all.jsonl")["Metadata"]
    assert found.pop("airflow-task-digest")
    assert found == {"lab": "north", "airflow-map-index": "1"}


def test_a_task_that_is_not_mapped_needs_only_put_object(service: Any, client: Any, wait: Callable[..., Any]) -> None:
    sensor = partial(BatchSubmissionSensor, mapping_s3_uri=URI)
    wait(sensor, start_batch(client), -1)
    batch_id = start_batch(client)
    wait(sensor, batch_id, -1)
    assert written_runs() == {run["runId"] for run in client.list_runs_in_batch(batchId=batch_id)["runs"]}
    assert boto3.client("s3").head_object(Bucket="results", Key="of-all.jsonl")["Metadata"] == {}


def test_another_map_index_that_writes_at_the_same_time_is_seen(
    service: Any, client: Any, wait: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sensor = partial(BatchSubmissionSensor, mapping_s3_uri=URI)
    wait(sensor, start_batch(client), 0, run_id="manual__2026-11-19")
    rest = BatchSubmissionSensor.aws_hook_class.rest
    others = [start_batch(client)]

    def let_another_write(hook: Any, seconds: float) -> None:
        if others:
            wait(sensor, others.pop(), 0)
        rest(hook, seconds)

    monkeypatch.setattr(BatchSubmissionSensor.aws_hook_class, "rest", let_another_write)
    with pytest.raises(OmicsParameterError, match="map index 0 of this task has written this object"):
        wait(sensor, start_batch(client), 1)
    assert not others
