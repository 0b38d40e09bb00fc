from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_omics_cache.healthomics.identity import (
    TaskIdentity,
    canonical_json,
    digest,
    request_digest,
    run_cache_token,
)

IDENTITY = TaskIdentity(
    token_namespace="",
    dag_id="cohort",
    run_id="manual__2026-11-20",
    task_id="start_batch",
    map_index=-1,
    rerun_key=None,
)
DEFAULT_RUN_SETTING = {"workflowId": "1234567", "roleArn": "arn:aws:iam::123456789012:role/omics"}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=20,
)


def shuffled(value: Any) -> Any:
    """Give the same value with the keys of every dict in the opposite order."""
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(value)}
    if isinstance(value, list):
        return [shuffled(item) for item in value]
    return value


class TestGolden:
    """Values of released versions: a change here makes every batch and cache of a user start again."""

    def test_canonical_json(self) -> None:
        value = {"b": [1, 2.5, None, True], "a": "é🧬"}
        assert canonical_json(value) == '{"a":"\\u00e9\\ud83e\\uddec","b":[1,2.5,null,true]}'
        assert digest(value) == "221475569bcb3907fd728adb205b9facd1ccc7d334a4169d7e5f8404d24ac52e"

    @pytest.mark.parametrize(
        ("location", "owner", "generation", "token"),
        [
            (
                "s3://bucket/cache/",
                None,
                0,
                "run-cache-67bb235f0cc4ffad92e782b07f19ff86f823226d2fda8eee2415115301ca5edf",
            ),
            (
                "s3://bucket/cache",
                "111122223333",
                1,
                "run-cache-7ce723c374f5e53718a1bad030ab8ed7f9cf94e8e5ae802ae9bb720d3f7af624",
            ),
        ],
    )
    def test_run_cache_token(self, location: str, owner: str | None, generation: int, token: str) -> None:
        assert token == run_cache_token(
            name="cohort", location=location, owner=owner, region="us-east-1", generation=generation
        )

    def test_batch_name(self) -> None:
        assert IDENTITY.batch_name("start_batch") == "start_batch-0f41008503ce1b79"

    def test_batch_token(self) -> None:
        token = IDENTITY.batch_token(generation=0)
        assert token == "run-batch-e25f7adbb6571e4791d3178c82cf364fad2592053c402c7a69d8554980be8e9f"

    def test_request_digest(self) -> None:
        assert request_digest(default_run_setting=DEFAULT_RUN_SETTING, settings_digest="0" * 64) == (
            "3de827b3df57ec3e51b1ffd9698c2236431a7f057a6eff390b95cfaaf68b9cc8"
        )


@given(json_values)
def test_canonical_json_is_ascii_json_of_the_value_whatever_the_order_of_keys(value: Any) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert text.isascii()
    assert canonical_json(shuffled(value)) == text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [float("-inf")]])
def test_nan_and_infinity_are_no_json(value: Any) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        canonical_json(value)


@given(st.text(), st.text(), st.none() | st.text(), st.none() | st.text(), st.integers(0, 10))
def test_tokens_fit_the_service(
    name: str, location: str, owner: str | None, region: str | None, generation: int
) -> None:
    token = run_cache_token(name=name, location=location, owner=owner, region=region, generation=generation)
    assert len(token) <= 128
    identity = replace(IDENTITY, dag_id=name, run_id=location, rerun_key=owner)
    assert len(identity.batch_token(generation=generation)) <= 128


@pytest.mark.parametrize(
    ("dag_id", "task_id", "name"),
    [
        ("cohort", "start_batch", "cohort.start_batch"),
        ("d" * 60, "start", "d" * 41 + ".start"),
        ("d" * 60, "t" * 60, "d" * 23 + "." + "t" * 23),
        ("cohort", "t" * 60, "cohort." + "t" * 40),
    ],
)
def test_a_batch_is_named_after_its_dag_and_task(dag_id: str, task_id: str, name: str) -> None:
    identity = replace(IDENTITY, dag_id=dag_id, task_id=task_id)
    assert identity.default_name == name
    batch_name = identity.batch_name(identity.default_name)
    assert (batch_name[:-17], len(batch_name)) == (name, len(name) + 17)


def test_tags_name_the_task() -> None:
    assert IDENTITY.task_tags() == {
        "airflow-dag-id": "cohort",
        "airflow-run-id": "manual__2026-11-20",
        "airflow-task-id": "start_batch",
    }
    odd = replace(IDENTITY, run_id="Jürgen's #7 <" + "x" * 300, map_index=0).task_tags()
    assert odd["airflow-run-id"] == ("Jürgen_s _7 _" + "x" * 300)[:256]
    assert odd["airflow-map-index"] == "0"


@given(st.text(max_size=200))
def test_batch_names_fit_the_service_and_keep_the_hash(prefix: str) -> None:
    name = IDENTITY.batch_name(prefix)
    assert len(name) <= 64
    assert name.endswith("-0f41008503ce1b79")


@pytest.mark.parametrize(
    "change",
    [
        {"token_namespace": "staging"},
        {"dag_id": "other"},
        {"run_id": "manual__2026-11-21"},
        {"task_id": "other"},
        {"map_index": 0},
        {"rerun_key": "again"},
    ],
)
def test_each_part_of_the_identity_makes_another_batch(change: dict[str, Any]) -> None:
    other = replace(IDENTITY, **change)
    assert other.batch_name("start_batch") != IDENTITY.batch_name("start_batch")
    assert other.batch_token(generation=0) != IDENTITY.batch_token(generation=0)


def test_parts_that_run_into_each_other_do_not_collide() -> None:
    one = replace(IDENTITY, dag_id="a", run_id="bc")
    two = replace(IDENTITY, dag_id="ab", run_id="c")
    assert one.batch_name("x") != two.batch_name("x")
    assert one.batch_token(generation=0) != two.batch_token(generation=0)


def test_each_generation_has_its_own_token() -> None:
    assert len({IDENTITY.batch_token(generation=generation) for generation in range(10)}) == 10
