from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_omics_cache.healthomics import resources, run_caches

UUID = "96c57683-74bf-9d6d-ae7e-f09b097db14a"

# Keys may hold almost everything; a folder is never empty.
folders = st.lists(st.text("abc-._ /é{}", min_size=1).filter(lambda text: text.strip("/")), max_size=3)
buckets = st.sampled_from(["bucket", "other-bucket", "b.c"])
uuids = st.uuids().map(str)


@st.composite
def locations(draw: st.DrawFn) -> str:
    path = "/".join(folder.strip("/") for folder in draw(folders))
    return f"s3://{draw(buckets)}" + (f"/{path}" if path else "")


@given(location=locations(), slashes=st.sampled_from(["", "/"]), folder=uuids, end=st.sampled_from(["", "/"]))
def test_a_cache_is_at_the_location_it_was_made_for(location: str, slashes: str, folder: str, end: str) -> None:
    assert run_caches.is_at(f"{location}/{folder}{end}", location + slashes)


@given(location=locations(), other=locations(), folder=uuids)
def test_a_cache_is_at_one_location_only(location: str, other: str, folder: str) -> None:
    assert run_caches.is_at(f"{location}/{folder}/", other) == (location == other)


@given(location=locations(), between=st.text("abc", min_size=1), folder=uuids)
def test_a_cache_deeper_down_is_elsewhere(location: str, between: str, folder: str) -> None:
    assert not run_caches.is_at(f"{location}/{between}/{folder}/", location)
    assert not run_caches.is_at(f"{location}/{folder}/{folder}/", location)


@given(location=locations(), name=st.text("0123456789abcdef-", max_size=40))
def test_only_a_uuid_is_a_caches_folder(location: str, name: str) -> None:
    try:
        is_uuid = str(uuid.UUID(name)) == name
    except ValueError:
        is_uuid = False
    assert run_caches.is_at(f"{location}/{name}/", location) == is_uuid


@pytest.mark.parametrize("uri", [None, "", "s3://bucket/cache", "s3://bucket/cache/", f"s3://bucket/cache{UUID}/"])
def test_without_a_folder_of_its_own_a_cache_is_nowhere(uri: str | None) -> None:
    assert not run_caches.is_at(uri, "s3://bucket/cache")


def cache(**members: Any) -> dict[str, Any]:
    return {"id": "1", "arn": "arn:aws:omics:us-east-1:111122223333:runCache/1", **members}


@pytest.mark.parametrize(
    ("found", "asked", "same"),
    [
        (None, None, True),
        ("111122223333", None, True),
        (None, "111122223333", True),
        ("444455556666", "444455556666", True),
        ("444455556666", None, False),
        (None, "444455556666", False),
        ("444455556666", "111122223333", False),
    ],
)
def test_no_owner_is_the_caches_own_account(found: str | None, asked: str | None, same: bool) -> None:
    run_cache = cache(cacheBucketOwnerId=found) if found else cache()
    assert run_caches.has_owner(run_cache, asked) == same


def test_without_an_arn_only_equal_owners_are_the_same() -> None:
    assert run_caches.has_owner({"id": "1"}, None)
    assert not run_caches.has_owner({"id": "1"}, "111122223333")


def test_the_oldest_cache_comes_first_then_the_smallest_id() -> None:
    early, late = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
    unsorted = [
        cache(id="9"),
        cache(id="100", creationTime=late),
        cache(id="20", creationTime=late),
        cache(id="300", creationTime=early),
    ]
    assert [found["id"] for found in resources.oldest_first(unsorted)] == ["300", "20", "100", "9"]


def test_caches_of_any_id_are_sorted() -> None:
    unsorted = [cache(id="cache-2"), cache(id="10"), cache(id="9")]
    assert [found["id"] for found in resources.oldest_first(unsorted)] == ["9", "10", "cache-2"]


def test_only_what_is_given_is_compared() -> None:
    found = cache(name="cohort", cacheBehavior="CACHE_ALWAYS", description="old", tags={"team": "a", "site": "x"})
    unchanged: dict[str, Any] = {"cache_behavior": None, "description": None, "tags": None}
    assert run_caches.differences(found, **unchanged) == {}
    assert run_caches.differences(found, **unchanged, name="cohort") == {}
    assert run_caches.differences(found, **unchanged, name="other") == {"name": ("cohort", "other")}
    assert run_caches.differences(
        found, cache_behavior="CACHE_ON_FAILURE", description="new", tags={"team": "b", "site": "x", "cost": "1"}
    ) == {
        "cache_behavior": ("CACHE_ALWAYS", "CACHE_ON_FAILURE"),
        "description": ("old", "new"),
        "tags": ({"team": "a", "cost": None}, {"team": "b", "cost": "1"}),
    }


def test_what_an_answer_leaves_out_is_the_default() -> None:
    assert run_caches.differences(cache(), cache_behavior="CACHE_ON_FAILURE", description=None, tags={}) == {}
    assert run_caches.differences(cache(), cache_behavior=None, description="new", tags=None) == {
        "description": (None, "new")
    }
