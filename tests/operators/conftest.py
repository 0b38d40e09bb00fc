from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from tests.operators.batch_states import run_operator
from tests.operators.waiting_task import waiting_task
from tests.sensor_modes import use_service_time

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics
    from tests.operators.waiting_task import Context, Later, Run


@pytest.fixture
def local(local_healthomics: LocalHealthOmics, monkeypatch: pytest.MonkeyPatch) -> LocalHealthOmics:
    """The local HealthOmics, whose clock is everybody's: who waits, lets the service's time pass."""
    use_service_time(monkeypatch, local_healthomics)
    return local_healthomics


@pytest.fixture
def client(local: LocalHealthOmics) -> Any:
    """Somebody else's client."""
    return boto3.client("omics")


@pytest.fixture
def later(local: LocalHealthOmics, monkeypatch: pytest.MonkeyPatch) -> Later:
    """Let something happen when so many seconds of the service's time have passed."""

    def later(seconds: float, action: Callable[[], object]) -> None:
        due = local.clock.elapsed() + seconds
        advance = local.clock.advance

        def advance_and_act(seconds: float) -> None:
            advance(seconds)
            if local.clock.elapsed() >= due:
                monkeypatch.setattr(local.clock, "advance", advance)
                action()

        monkeypatch.setattr(local.clock, "advance", advance_and_act)

    return later


@pytest.fixture
def the_batch(client: Any) -> Callable[[], str]:
    """The id of the only batch there is."""

    def the_batch() -> str:
        (batch,) = client.list_batch()["items"]
        return str(batch["id"])

    return the_batch


@pytest.fixture
def run(local: LocalHealthOmics, new_task_context: Callable[[], Context]) -> Run:
    """Run one try of a task that starts a batch and waits; give what it returned."""

    def run(mode: str = "sync", context: Context | None = None, **parameters: Any) -> str:
        returned: str = run_operator(
            partial(waiting_task, **parameters), mode, context or new_task_context(), local.clock
        )
        return returned

    return run
