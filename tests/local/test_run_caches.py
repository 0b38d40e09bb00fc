from __future__ import annotations

import re
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from airflow_provider_omics_cache.local import LocalHealthOmics
from tests.conftest import needs_batches
from tests.local.conftest import DEFAULT_RUN_SETTING, run_settings

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"


def code_of(error: pytest.ExceptionInfo[ClientError]) -> tuple[str, int]:
    response = error.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


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


def other_account(service: str) -> Any:
    role = "arn:aws:iam::210987654321:role/other"
    assumed = boto3.client("sts").assume_role(RoleArn=role, RoleSessionName="test")["Credentials"]
    return boto3.client(
        service,
        aws_access_key_id=assumed["AccessKeyId"],
        aws_secret_access_key=assumed["SecretAccessKey"],
        aws_session_token=assumed["SessionToken"],
    )


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


def test_caches_are_listed_in_pages(omics: Any) -> None:
    ids = [omics.create_run_cache(cacheS3Location="s3://caches", name="same")["id"] for _ in range(5)]
    omics.delete_run_cache(id=ids.pop(1))

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


def test_tags_are_added_replaced_and_removed(omics: Any) -> None:
    arn = omics.create_run_cache(cacheS3Location="s3://caches", tags={"a": "1", "b": "2"})["arn"]

    omics.tag_resource(resourceArn=arn, tags={"b": "3", "c d/ü": ""})
    omics.untag_resource(resourceArn=arn, tagKeys=["a", "absent"])

    assert omics.list_tags_for_resource(resourceArn=arn)["tags"] == {"b": "3", "c d/ü": ""}


@pytest.mark.parametrize(
    ("arn", "code"),
    [
        ("arn:aws:omics:us-east-1:123456789012:runCache/999", "ResourceNotFoundException"),
        ("arn:aws:omics:eu-west-1:123456789012:runCache/1", "ResourceNotFoundException"),
        ("arn:aws:s3:::caches", "ValidationException"),
        ("no-arn", "ValidationException"),
    ],
)
def test_tags_need_a_resource(omics: Any, arn: str, code: str) -> None:
    with pytest.raises(ClientError) as error:
        omics.list_tags_for_resource(resourceArn=arn)

    assert code_of(error)[0] == code


def test_no_more_tags_than_a_resource_can_have(omics: Any) -> None:
    arn = omics.create_run_cache(cacheS3Location="s3://caches", tags={"first": "1"})["arn"]

    with pytest.raises(ClientError) as error:
        omics.tag_resource(resourceArn=arn, tags={f"key-{number}": "" for number in range(50)})

    assert code_of(error) == ("ValidationException", 400)
    assert omics.list_tags_for_resource(resourceArn=arn)["tags"] == {"first": "1"}


def test_regions_and_accounts_are_apart(omics: Any) -> None:
    mine = omics.create_run_cache(cacheS3Location="s3://caches")["id"]
    boto3.client("s3", region_name="eu-west-1").create_bucket(
        Bucket="irish", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    irish = boto3.client("omics", region_name="eu-west-1")
    theirs = other_account("omics")
    other_account("s3").create_bucket(Bucket="theirs")

    assert irish.list_run_caches()["items"] == theirs.list_run_caches()["items"] == []
    irish_id = irish.create_run_cache(cacheS3Location="s3://irish")["id"]
    their_arn = theirs.create_run_cache(cacheS3Location="s3://theirs")["arn"]

    assert irish_id != mine
    assert ":210987654321:runCache/" in their_arn
    assert [item["id"] for item in omics.list_run_caches()["items"]] == [mine]


def test_a_region_without_healthomics_is_refused(local_healthomics: LocalHealthOmics) -> None:
    with pytest.raises(ClientError) as error:
        boto3.client("omics", region_name="eu-west-3").list_run_caches()

    assert code_of(error) == ("AccessDeniedException", 403)


def test_a_cache_can_be_found_late(omics: Any, local_healthomics: LocalHealthOmics) -> None:
    local_healthomics.settings.run_cache_visible_after = 5
    cache_id = omics.create_run_cache(cacheS3Location="s3://caches")["id"]

    with pytest.raises(ClientError) as error:
        omics.get_run_cache(id=cache_id)
    assert code_of(error) == ("ResourceNotFoundException", 404)
    assert omics.list_run_caches()["items"] == []

    local_healthomics.clock.advance(5)
    assert omics.get_run_cache(id=cache_id)["status"] == "ACTIVE"


@pytest.mark.parametrize("inject", [True, False])
def test_both_forms_of_the_host_are_served(omics: Any, inject: bool) -> None:
    client = boto3.client("omics", config=Config(inject_host_prefix=inject))

    assert client.list_run_caches()["items"] == []


def test_an_id_has_one_spelling(omics: Any) -> None:
    cache_id = omics.create_run_cache(cacheS3Location="s3://caches")["id"]

    with pytest.raises(ClientError) as error:
        omics.get_run_cache(id=f"0{cache_id}")

    assert code_of(error) == ("ResourceNotFoundException", 404)
