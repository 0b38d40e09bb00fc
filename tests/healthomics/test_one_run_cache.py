"""One cache, however late and incomplete the answers are, and however often a task is retried."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import boto3
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from airflow_provider_omics_cache._compat import AirflowFailException
from airflow_provider_omics_cache.exceptions import OmicsError
from airflow_provider_omics_cache.healthomics.run_caches import ensure_run_cache
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from tests.altered_answers import Change, alter_run_caches
from tests.sensor_modes import use_service_time_in_tasks

LOCATION = "s3://cohort-data/cache"
OPERATIONS = ("GetRunCache", "ListRunCaches")
MEMBERS = ("name", "status", "cacheS3Uri", "arn", "creationTime", "cacheBucketOwnerId", "tags", "cacheBehavior")

absent_members = st.sets(st.sampled_from(MEMBERS), max_size=2)
lags = st.sampled_from([0, 0, 20, 400, 5_000])


@dataclass
class Answers:
    """How late and incomplete the service's answers are."""

    get_lag: int = 0
    list_lag: int = 0
    absent_from_get: set[str] = field(default_factory=set)
    absent_from_list: set[str] = field(default_factory=set)
    absent_rate: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)

    def show(self, answer: dict[str, Any], age: float, lag: int, always_absent: set[str]) -> bool:
        for member in MEMBERS:
            if member in always_absent or self.chance.random() < self.absent_rate:
                answer.pop(member, None)
        return age >= lag


answers = st.builds(
    Answers,
    get_lag=lags,
    list_lag=lags,
    absent_from_get=absent_members,
    absent_from_list=absent_members,
    absent_rate=st.sampled_from([0.0, 0.0, 0.3]),
    seed=st.integers(0, 1_000),
)
service_settings = st.fixed_dictionaries(
    {
        "changed_request_error": st.sampled_from(["ConflictException", "ValidationException", None]),
        "replayed_status": st.sampled_from(["initial", "current"]),
        "show_deleted_run_caches": st.booleans(),
    }
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("try"), st.sampled_from(["one", "other"])),
        st.tuples(st.just("crash"), st.sampled_from(["one", "other"])),
        st.tuples(st.just("pause"), st.sampled_from([10, 600, 6_000])),
        st.tuples(st.just("delete"), st.just(0)),
    ),
    min_size=2,
    max_size=10,
)


class Trial:
    """A task that is tried again and again, and a client of somebody else to whom the service shows everything."""

    def __init__(self, local: Any) -> None:
        self.local = local
        self.answers = Answers()
        self.omics = boto3.client("omics")
        self.hook = OmicsCacheHook()
        self.dies = False
        for operation in OPERATIONS:
            alter_run_caches(self.hook.conn, self._shown(operation), operation)
        self.hook.conn.meta.events.register("after-call.omics.CreateRunCache", self._die)

    def _shown(self, operation: str) -> Change:
        def change(answer: dict[str, Any]) -> bool:
            age = (self.local.clock.now() - answer["creationTime"]).total_seconds()
            if operation == "GetRunCache":
                return self.answers.show(answer, age, self.answers.get_lag, self.answers.absent_from_get)
            return self.answers.show(answer, age, self.answers.list_lag, self.answers.absent_from_list)

        return change

    def _die(self, **_: Any) -> None:
        if self.dies:
            raise KeyboardInterrupt

    def active(self) -> list[str]:
        return [item["id"] for item in self.omics.list_run_caches()["items"] if item["status"] == "ACTIVE"]

    def attempt(self, description: str, *, dies: bool = False) -> str | None:
        """Make one try. Return the id of its cache, None if it fails in a way that a retry may clear up."""
        self.dies = dies
        try:
            found = ensure_run_cache(self.hook, name="cohort", cache_s3_location=LOCATION, description=description)
        except KeyboardInterrupt:
            return None
        except OmicsError as error:
            note(f"{description}: {error}")
            if isinstance(error, AirflowFailException):
                raise
            return None
        return str(found.run_cache["id"])


@pytest.fixture
def trial(local_healthomics: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trial]:
    boto3.client("s3").create_bucket(Bucket="cohort-data")
    use_service_time_in_tasks(monkeypatch, local_healthomics)
    local_healthomics.settings.token_seconds = 10_000_000
    return Trial(local_healthomics)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answers=answers, service=service_settings, steps=steps)
def test_tries_never_leave_two_caches(
    trial: Trial, answers: Answers, service: dict[str, Any], steps: list[tuple[str, Any]]
) -> None:
    trial.local.reset()
    trial.answers = answers
    for name, value in service.items():
        setattr(trial.local.settings, name, value)
    deleted = 0
    for step, value in steps:
        if step == "pause":
            trial.local.clock.advance(value)
        elif step == "delete":
            for run_cache_id in trial.active():
                trial.omics.delete_run_cache(id=run_cache_id)
                deleted += 1
        else:
            found = trial.attempt(value, dies=step == "crash")
            active = trial.active()
            assert len(active) <= 1
            assert trial.local.calls["CreateRunCache"] == 0 or active or deleted
            assert found is None or [found] == active
    trial.answers = Answers()
    trial.local.clock.advance(5_000)
    if active := trial.active():
        assert trial.attempt("one") == active[0]
    elif not deleted:
        assert trial.attempt("one") is not None
    assert len(trial.active()) <= 1
