from __future__ import annotations

import pytest

from airflow_provider_omics_cache.local.assumptions import DOCUMENTED_RATE_LIMITS, Settings
from airflow_provider_omics_cache.local.healthomics import OPERATIONS


def test_every_operation_can_be_limited() -> None:
    assert OPERATIONS.keys() >= DOCUMENTED_RATE_LIMITS.keys() - {"StartRun"}
    Settings().rate_limits = dict.fromkeys(OPERATIONS, 1.5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("creating_seconds", -1),
        ("creating_seconds", "1"),
        ("max_run_caches", 1.5),
        ("list_unsubmitted_runs", 1),
        ("replayed_status", "later"),
        ("rate_limits", {"GetBatch": 0}),
        ("rate_limits", {"Getbatch": 1}),
        ("rate_limits", {5: 1}),
        ("wrong_state_error", None),
        ("wrong_state_error", "Foo"),
        ("changed_request_error", "conflict"),
        ("changed_request_error", []),
    ],
)
def test_a_setting_takes_no_other_value(name: str, value: object) -> None:
    settings = Settings()
    before = settings.as_dict()

    with pytest.raises(ValueError, match=name):
        setattr(settings, name, value)

    assert settings.as_dict() == before


def test_a_setting_that_does_not_exist_is_told() -> None:
    with pytest.raises(AttributeError, match="submission_rat"):
        Settings().submission_rat = 5  # type: ignore[attr-defined]


def test_every_setting_is_described() -> None:
    for name in Settings().as_dict():
        assert f":param {name}:" in (Settings.__doc__ or "")
