from __future__ import annotations

from typing import Any

import pytest

from tests.triggers.loops import CountedClients, use_quiet_time


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> CountedClients:
    """The clients that the poller makes, counted."""
    return CountedClients(monkeypatch)


@pytest.fixture
def service(local_healthomics: Any, clients: CountedClients, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The local HealthOmics, whose clock is that of the poller and its triggers."""
    use_quiet_time(monkeypatch, local_healthomics, clients)
    return local_healthomics
