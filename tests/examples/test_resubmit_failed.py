"""The samples whose submission failed are submitted again, and no other sample."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_omics_cache.tables import read_table
from tests.examples.cohorts import all_of, put_role_of_runs, put_samplesheet

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics
    from airflow_provider_omics_cache.testing.dag_run import LocalDags

DAG = Path(__file__).parents[2] / "example_dags" / "resubmit_failed.py"


def test_only_a_failed_submission_that_can_pass_is_submitted_again(
    cohort_service: LocalHealthOmics, local_healthomics_dag_run: LocalDags
) -> None:
    put_role_of_runs()
    put_samplesheet(["HG001", "HG002", "HG003", "HG004"])
    cohort_service.faults.fail_submission("HG002", reason="ThrottlingException", times=1)
    cohort_service.faults.fail_submission("HG003", reason="ServiceQuotaExceededException", times=1)
    cohort_service.faults.fail_run("HG004", reason="SERVICE_ERROR")

    dag_run = local_healthomics_dag_run(DAG).run({"max_failed": "2"})

    assert dag_run.errors == {}
    assert dag_run.state == "success"
    records = read_table(dag_run.xcom("cohort.results"))
    assert [
        (record["run_setting_id"], record["status"], record["round"], record["sample_name"]) for record in records
    ] == [
        ("HG001", "COMPLETED", "1", "HG001"),
        ("HG002", "COMPLETED", "2", "HG002"),
        ("HG003", "NOT_SUBMITTED", "1", "HG003"),
        ("HG004", "FAILED", "1", "HG004"),
    ]
    assert len(all_of("list_runs")) == 3
