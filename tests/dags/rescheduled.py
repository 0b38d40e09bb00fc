"""A rescheduled task that waits for a batch without any answer. It needs no service."""

from __future__ import annotations

from airflow_provider_omics_cache.sensors.run_batch import BatchSubmissionSensor

try:
    from airflow.sdk import dag
except ImportError:  # Airflow 2
    from airflow.decorators import dag


@dag(schedule=None)
def omics_rescheduled():
    arguments = {
        "mode": "reschedule",
        "deferrable": False,
        "poke_interval": 0,
        "max_silence": 700,
        "aws_conn_id": None,
        "region_name": "us-east-1",
    }
    BatchSubmissionSensor(task_id="alone", batch_id="1234567", **arguments)
    BatchSubmissionSensor.partial(task_id="mapped", **arguments).expand(batch_id=["1234567"])


omics_rescheduled()
