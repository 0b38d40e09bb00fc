"""``make demo-ui``: leave Airflow's UI and the local HealthOmics up, with every example DAG, until Ctrl-C.

Airflow's own home is a temporary directory; whatever is started is stopped, and nothing stays behind. An argument is
another folder of DAGs.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from airflow_processes import ROOT, AirflowProcesses, free_port, stop_when_told
from demo_service import demo_service

from airflow_provider_omics_cache.local import LocalHealthOmicsServer

EXAMPLE_DAGS = ROOT / "example_dags"
AIRFLOW_PORT = 8080
SERVICE_PORT = 8765
FIRST_DAG = "omics_quickstart"
#: It has a schedule, and would run by itself.
PAUSED_DAG = "omics_housekeeping"


@contextmanager
def demo_ui(dags: Path) -> Iterator[tuple[AirflowProcesses, LocalHealthOmicsServer]]:
    """Run Airflow with the DAGs of a folder on the local HealthOmics while the context lasts."""
    with (
        tempfile.TemporaryDirectory(prefix="omics-demo-ui-", ignore_cleanup_errors=True) as home,
        demo_service(free_port(SERVICE_PORT)) as service,
    ):
        environment = {
            "AIRFLOW_CONN_AWS_DEFAULT": service.airflow_connection,
            "AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE": "True",
            # A new DAG file is there within 10 s. By default Airflow looks for one every 5 minutes.
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "1",
            "AIRFLOW__OMICS_CACHE__MAX_GET_RUN_PER_SECOND": "1000",  # nobody shares the local service's quota
        }
        airflow = AirflowProcesses(Path(home), dags, environment, port=free_port(AIRFLOW_PORT), paused=True)
        with airflow:
            yield airflow, service


def main() -> int:
    """Show the demo until the process is told to stop."""
    stop_when_told()
    dags = Path(sys.argv[1]) if len(sys.argv) > 1 else EXAMPLE_DAGS
    print("Airflow starts; this takes half a minute.", flush=True)
    with demo_ui(dags) as (airflow, service):
        dag_ids = airflow.wait_for_files(dags)
        for dag_id in dag_ids:
            if dag_id != PAUSED_DAG:
                airflow.unpause(dag_id)
        aws = (
            f"AWS_ENDPOINT_URL={service.url} AWS_DISABLE_HOST_PREFIX_INJECTION=true "
            f"AWS_DEFAULT_REGION={service.region_name} AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test"
        )
        faults = f"{service.url}/local-healthomics/faults"
        print(
            f"""
Airflow's UI:           {airflow.url} (no login needed)
the local HealthOmics:  {service.url}
Airflow's log:          {airflow.log}

A browser shows what the local HealthOmics holds. A DAG file that is added to {dags} is there after 10 seconds, paused.

Trigger a DAG in the UI, {FIRST_DAG} first; there are {", ".join(dag_ids)}.
omics_cancel_on_failure cancels its batch, because samples of its samplesheet fail.
{PAUSED_DAG} runs once a day by itself, and is paused: unpause it to see that.

Any AWS client can read what the service holds:

  {aws} aws omics list-batch

Let the next run of a sample fail, or its next submission, and see what omics_cohort makes of it:

  curl {faults}/fail_task -d '{{"args": ["Report"], "kwargs": {{"run_name": "HG00007", "reason": "SERVICE_ERROR"}}}}'
  curl {faults}/fail_submission -d '{{"args": ["HG00042"], "kwargs": {{"reason": "ThrottlingException", "times": 1}}}}'

Ctrl-C stops everything.
""",
            flush=True,
        )
        airflow.wait_for_end()
    print("Airflow has ended by itself.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
