"""The usual way to wait: a trigger of the amazon provider's kind, with a waiter and a client of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
from airflow.providers.amazon.aws.triggers.base import AwsBaseWaiterTrigger


class PlainHook(AwsBaseHook):
    """Make HealthOmics clients, and waiters from the file beside this one."""

    waiter_path = Path(__file__).with_name("waiters.json")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["client_type"] = "omics"
        super().__init__(*args, **kwargs)


class PlainTrigger(AwsBaseWaiterTrigger):
    """Wait until every run of a batch is submitted.

    :param batch_id: the batch.
    :param poke_interval: seconds between two attempts.
    """

    aws_hook_class = PlainHook

    def __init__(self, *, batch_id: str, poke_interval: int, aws_conn_id: str | None = "aws_default") -> None:
        super().__init__(
            serialized_fields={"batch_id": batch_id},
            waiter_name="batch_submitted",
            waiter_args={"batchId": batch_id},
            failure_message="The batch failed",
            status_message="The batch is",
            status_queries=["status"],
            return_value=batch_id,
            waiter_delay=poke_interval,
            waiter_max_attempts=10_000,
            aws_conn_id=aws_conn_id,
        )
