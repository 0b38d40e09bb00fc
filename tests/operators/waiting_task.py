"""StartRunBatchOperator that waits for the end of its runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow_provider_omics_cache.operators.run_batch import StartRunBatchOperator

Context = dict[str, Any]
Later = Callable[[float, Callable[[], object]], None]
Run = Callable[..., str]


def waiting_task(**parameters: Any) -> StartRunBatchOperator:
    """Make a task that starts four runs and looks at them every 20 seconds."""
    given = {
        "default_run_setting": {
            "workflowId": "1234567",
            "roleArn": "arn:aws:iam::123456789012:role/omics",
            "outputUri": "s3://results/out",
        },
        "run_settings": [{"runSettingId": f"sample-{n}"} for n in range(4)],
        "wait_for_completion": True,
        **({"waiter_delay": 20} if parameters.get("wait_for_completion", True) else {}),
        **parameters,
    }
    return StartRunBatchOperator(task_id="start_batch", **given)
