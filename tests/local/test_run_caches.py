from __future__ import annotations

import re
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from airflow_provider_omics_cache.local import LocalHealthOmics
from tests.conftest import needs_batches
from tests.local.conftest import DEFAULT_RUN_SETTING, code_of, other_account, run_settings

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"


@pytest.mark.parametrize(
    ("location", "prefix"),
    [
        ("s3://caches", "s3://caches/"),
        ("s3://caches/", "s3://caches/"),
        ("s3://caches/cohort", "s3://caches/cohort/"),
        ("s3://caches/cohort/", "s3://caches/cohort/"),
    ],
)
def test_the_uri_is_the_location_one_slash_and_the_uuid(omics: Any, location: str, prefix: str) -> None:
    created = omics.create_run_cache(cacheS3Location=location)

    uri = omics.get_run_cache(id=created["id"])["cacheS3Uri"]

    assert re.fullmatch(re.escape(prefix) + UUID + "/", uri)


def test_a_new_cache_is_active_and_keeps_what_was_given(omics: Any) -> None:
    created = omics.create_run_cache(
        cacheS3Location="s3://caches/x",
        cacheBehavior="CACHE_ALWAYS",
        name="cohort",
        description="for the cohort",
        cacheBucketOwnerId="123456789012",
        tags={"team": "genomics"},
    )

    found = omics.get_run_cache(id=created["id"])

    assert created["status"] == found["status"] == "ACTIVE"
    assert found["arn"] == created["arn"] == f"arn:aws:omics:us-east-1:123456789012:runCache/{created['id']}"
    assert found["cacheBehavior"] == "CACHE_ALWAYS"
    assert found["name"] == "cohort"
    assert found["description"] == "for the cohort"
    assert found["cacheBucketOwnerId"] == "123456789012"
    assert found["tags"] == {"team": "genomics"}


def test_what_was_not_given_is_absent_and_the_behavior_has_its_default(omics: Any) -> None:
    created = omics.create_run_cache(cacheS3Location="s3://caches")

    found = omics.get_run_cache(id=created["id"])

    assert found["cacheBehavior"] == "CACHE_ON_FAILURE"
    assert not {"name", "description", "cacheBucketOwnerId"} & found.keys()


@pytest.mark.parametrize(
    "location", ["s3://missing/x", "s3://Caches/x", "http://caches/x", "caches", "s3://", "s3://caches-"]
)
def test_a_location_that_cannot_be_used_is_refused(omics: Any, location: str) -> None:
    with pytest.raises(ClientError) as error:
        omics.create_run_cache(cacheS3Location=location)

    assert code_of(error) == ("ValidationException", 400)
    assert omics.list_run_caches()["items"] == []


def test_a_bucket_of_another_owner_or_region_is_refused(omics: Any) -> None:
    boto3.client("s3", region_name="eu-west-1").create_bucket(
        Bucket="elsewhere", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    other_account("s3").create_bucket(Bucket="theirs")
    for request in (
        {"cacheS3Location": "s3://elsewhere"},
        {"cacheS3Location": "s3://caches", "cacheBucketOwnerId": "210987654321"},
        {"cacheS3Location": "s3://theirs"},
    ):
        with pytest.raises(ClientError) as error:
            omics.create_run_cache(**request)
        assert code_of(error) == ("ValidationException", 400)
    assert omics.create_run_cache(cacheS3Location="s3://theirs", cacheBucketOwnerId="210987654321")["id"]


def test_update_changes_what_is_given(omics: Any) -> None:
    cache_id = omics.create_run_cache(cacheS3Location="s3://caches", name="old", description="kept")["id"]

    omics.update_run_cache(id=cache_id, name="new", cacheBehavior="CACHE_ALWAYS")

    found = omics.get_run_cache(id=cache_id)
    assert (found["name"], found["description"], found["cacheBehavior"]) == ("new", "kept", "CACHE_ALWAYS")


def test_a_deleted_cache_is_gone(omics: Any) -> None:
    cache_id = omics.create_run_cache(cacheS3Location="s3://caches")["id"]

    omics.delete_run_cache(id=cache_id)

    for call in (omics.get_run_cache, omics.update_run_cache, omics.delete_run_cache):
        with pytest.raises(ClientError) as error:
            call(id=cache_id)
        assert code_of(error) == ("ResourceNotFoundException", 404)
    assert omics.list_run_caches()["items"] == []


def test_a_deleted_cache_can_be_shown(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.settings.show_deleted_run_caches = True
    cache_id = omics.create_run_cache(cacheS3Location="s3://caches")["id"]

    omics.delete_run_cache(id=cache_id)

    assert omics.get_run_cache(id=cache_id)["status"] == "DELETED"
    assert [item["status"] for item in omics.list_run_caches()["items"]] == ["DELETED"]


@needs_batches
def test_a_cache_in_use_is_not_deleted(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    cache_id = omics.create_run_cache(cacheS3Location="s3://caches")["id"]
    omics.start_run_batch(
        defaultRunSetting={**DEFAULT_RUN_SETTING, "cacheId": cache_id},
        batchRunSettings={"inlineSettings": run_settings(1)},
    )
    local_healthomics.clock.advance(10)

    with pytest.raises(ClientError) as error:
        omics.delete_run_cache(id=cache_id)

    assert code_of(error) == ("ConflictException", 409)
    local_healthomics.clock.advance(60)
    omics.delete_run_cache(id=cache_id)


@pytest.mark.parametrize("order", ["newest_first", "oldest_first"])
def test_caches_are_listed_in_pages(omics: Any, local_healthomics: LocalHealthOmics, order: Any) -> None:
    local_healthomics.settings.run_cache_order = order
    ids = [omics.create_run_cache(cacheS3Location="s3://caches", name="same")["id"] for _ in range(5)]
    omics.delete_run_cache(id=ids.pop(1))
    ids = ids[::-1] if order == "newest_first" else ids

    pages = list(omics.get_paginator("list_run_caches").paginate(PaginationConfig={"PageSize": 2}))

    assert [[item["id"] for item in page["items"]] for page in pages] == [ids[:2], ids[2:]]
    assert "nextToken" not in pages[-1]


def test_a_token_of_another_list_is_refused(omics: Any) -> None:
    for _ in range(2):
        omics.create_run_cache(cacheS3Location="s3://caches")
    token = omics.list_run_caches(maxResults=1)["nextToken"]
    assert len(token) <= 128

    for call, other in ((omics.list_runs, token), (omics.list_run_caches, "made-up"), (omics.list_run_caches, "é")):
        with pytest.raises(ClientError) as error:
            call(startingToken=other)
        assert code_of(error) == ("ValidationException", 400)


def test_the_number_of_caches_is_limited(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    assert local_healthomics.settings.max_run_caches == 1_000
    local_healthomics.settings.max_run_caches = 2
    first = omics.create_run_cache(cacheS3Location="s3://caches")["id"]
    omics.create_run_cache(cacheS3Location="s3://caches")

    with pytest.raises(ClientError) as error:
        omics.create_run_cache(cacheS3Location="s3://caches")

    assert code_of(error) == ("ServiceQuotaExceededException", 402)
    omics.delete_run_cache(id=first)
    omics.create_run_cache(cacheS3Location="s3://caches")


def test_a_cache_can_be_found_late(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.settings.run_cache_visible_after = 5
    cache_id = omics.create_run_cache(cacheS3Location="s3://caches")["id"]

    with pytest.raises(ClientError) as error:
        omics.get_run_cache(id=cache_id)
    assert code_of(error) == ("ResourceNotFoundException", 404)
    assert omics.list_run_caches()["items"] == []

    local_healthomics.clock.advance(5)
    assert omics.get_run_cache(id=cache_id)["status"] == "ACTIVE"


def test_an_id_has_one_spelling(omics: Any) -> None:
    cache_id = omics.create_run_cache(cacheS3Location="s3://caches")["id"]

    with pytest.raises(ClientError) as error:
        omics.get_run_cache(id=f"0{cache_id}")

    assert code_of(error) == ("ResourceNotFoundException", 404)
