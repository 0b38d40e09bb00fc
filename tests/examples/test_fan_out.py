from __future__ import annotations

from typing import TYPE_CHECKING

from fan_out import omics_fan_out

from tests.examples.cohorts import put_samplesheet, states_of

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics


def test_more_runs_than_airflow_maps_are_handled_in_groups(cohort_service: LocalHealthOmics) -> None:
    put_samplesheet(f"HG{number:04}" for number in range(1_202))
    cohort_service.faults.fail_submission("HG0007")
    cohort_service.faults.fail_run("HG0008")
    dag_run = omics_fan_out().test()
    assert dag_run.state == "success"
    assert states_of(dag_run)["find_outputs"] == ["success"] * 3
    assert cohort_service.calls["GetRun"] == 1_202  # one of them by the sensor, to tell why the run failed
    assert dag_run.get_task_instance("count_outputs").xcom_pull("count_outputs") == 1_201
