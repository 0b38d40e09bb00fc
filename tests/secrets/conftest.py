from __future__ import annotations

import pytest

from airflow_provider_omics_cache import timing
from tests.clocks import NoWaiting

try:
    from airflow.sdk._shared.secrets_masker import _secrets_masker
except ImportError:
    try:
        from airflow.sdk.execution_time.secrets_masker import _secrets_masker  # Airflow 3.0
    except ImportError:
        from airflow.utils.log.secrets_masker import _secrets_masker  # Airflow 2


@pytest.fixture(autouse=True)
def _new_masker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test profit from what Airflow's masker has learnt in another one."""
    monkeypatch.setattr(_secrets_masker(), "patterns", set())
    monkeypatch.setattr(_secrets_masker(), "replacer", None)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a call without an answer be repeated without waiting."""
    monkeypatch.setattr(timing, "_source", NoWaiting())
