"""There is only one run group, even if answers are late or incomplete and the task is retried many times."""

from __future__ import annotations

import random
from typing import Any

import boto3
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from airflow_provider_omics_cache._compat import AirflowFailException
from airflow_provider_omics_cache.exceptions import OmicsError
from airflow_provider_omics_cache.healthomics.run_groups import differences, ensure_run_group
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from tests.altered_answers import alter_run_groups
from tests.sensor_modes import use_service_time_in_tasks

OPERATIONS = ("GetRunGroup", "ListRunGroups")
MEMBERS = ("name", "arn", "creationTime", "tags", "maxRuns")

#: A group that GetRunGroup does not find for five minutes counts as deleted.
lags = st.sampled_from([0, 0, 20, 200])
answers = st.fixed_dictionaries(
    {
        "lags": st.fixed_dictionaries(dict.fromkeys(OPERATIONS, lags)),
        "absent_rate": st.sampled_from([0.0, 0.0, 0.3]),
        "seed": st.integers(0, 1_000),
    }
)
steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["try", "crash"]), st.sampled_from([5, 6])),
        st.tuples(st.just("pause"), st.sampled_from([10, 600, 6_000])),
        st.tuples(st.sampled_from(["delete", "forget"]), st.just(0)),
    ),
    min_size=2,
    max_size=10,
)


class Trial:
    """A task that is tried several times, and another client to which the service shows everything at once."""

    def __init__(self, local: Any) -> None:
        self.local = local
        self.answers = {"lags": dict.fromkeys(OPERATIONS, 0), "absent_rate": 0.0}
        self.chance = random.Random(0)
        self.omics = boto3.client("omics")
        self.hook = OmicsCacheHook()
        self.dies = False
        for operation in OPERATIONS:
            alter_run_groups(self.hook.conn, self._shown(operation), operation)
        self.hook.conn.meta.events.register("after-call.omics.CreateRunGroup", self._die)

    def _shown(self, operation: str) -> Any:
        def change(answer: dict[str, Any]) -> bool:
            age = (self.local.clock.now() - answer["creationTime"]).total_seconds()
            for member in MEMBERS:
                if self.chance.random() < self.answers["absent_rate"]:
                    answer.pop(member, None)
            return bool(age >= self.answers["lags"][operation])

        return change

    def _die(self, **_: Any) -> None:
        if self.dies:
            raise KeyboardInterrupt

    def existing(self) -> list[str]:
        return [item["id"] for item in self.omics.list_run_groups()["items"]]

    def attempt(self, max_runs: int, *, dies: bool = False) -> str | None:
        """Make one try. Return the id of its group, None if it fails with an error that is retried."""
        self.dies = dies
        try:
            return str(ensure_run_group(self.hook, name="cohort", max_runs=max_runs).run_group["id"])
        except KeyboardInterrupt:
            return None
        except OmicsError as error:
            note(f"{max_runs}: {error}")
            if isinstance(error, AirflowFailException):
                raise
            return None


@pytest.fixture
def trial(local_healthomics: Any, monkeypatch: pytest.MonkeyPatch) -> Trial:
    use_service_time_in_tasks(monkeypatch, local_healthomics)
    local_healthomics.settings.token_seconds = 10_000_000
    return Trial(local_healthomics)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answers=answers, error=st.sampled_from(["ConflictException", "ValidationException", None]), steps=steps)
def test_tries_never_leave_two_groups(
    trial: Trial, answers: dict[str, Any], error: str | None, steps: list[tuple[str, int]]
) -> None:
    trial.local.reset()
    trial.answers, trial.chance = answers, random.Random(answers["seed"])
    trial.local.settings.changed_request_error = error
    for step, value in steps:
        if step == "pause":
            trial.local.clock.advance(value)
        elif step == "forget":
            # The service shows a group long before it forgets the token of its creation.
            trial.local.clock.advance(1_000)
            trial.local.forget_tokens()
        elif step == "delete":
            for run_group_id in trial.existing():
                trial.omics.delete_run_group(id=run_group_id)
        else:
            found = trial.attempt(value, dies=step == "crash")
            existing = trial.existing()
            assert len(existing) <= 1
            assert found is None or [found] == existing
    trial.local.clock.advance(5_000)
    found = trial.attempt(5)
    assert [found] == trial.existing()


@given(
    found=st.fixed_dictionaries({}, optional={"maxRuns": st.integers(1, 3), "maxCpus": st.integers(1, 3)}),
    wanted=st.dictionaries(st.sampled_from(["max_runs", "max_cpus"]), st.none() | st.integers(1, 3)),
)
def test_only_what_is_given_is_compared(found: dict[str, int], wanted: dict[str, int | None]) -> None:
    members = {"max_runs": "maxRuns", "max_cpus": "maxCpus"}
    expected = {
        parameter: (found.get(members[parameter]), value)
        for parameter, value in wanted.items()
        if value is not None and value != found.get(members[parameter])
    }
    assert differences(found, wanted) == expected
