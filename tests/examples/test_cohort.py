from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_omics_cache.tables import read_table
from tests.examples.cohorts import all_of, put_role_of_runs, put_samplesheet

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics
    from airflow_provider_omics_cache.testing.dag_run import LocalDags

DAG = Path(__file__).parents[2] / "example_dags" / "cohort.py"


def test_a_record_of_each_sample(cohort_service: LocalHealthOmics, local_healthomics_dag_run: LocalDags) -> None:
    put_role_of_runs()
    put_samplesheet(["HG001", "HG002", "HG003"])
    cohort_service.faults.fail_submission("HG002", reason="ThrottlingException", times=1)
    dag_run = local_healthomics_dag_run(DAG).run()
    assert dag_run.errors == {}
    assert dag_run.states["report"] == "success"
    records = read_table(dag_run.xcom("cohort.results"))
    assert [(record["run_setting_id"], record["status"], record["round"]) for record in records] == [
        ("HG001", "COMPLETED", 1),
        ("HG002", "COMPLETED", 2),
        ("HG003", "COMPLETED", 1),
    ]
    assert len(all_of("list_runs")) == 3
