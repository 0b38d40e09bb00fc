from __future__ import annotations

from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from airflow_provider_omics_cache.local import LocalHealthOmics
from tests.local.conftest import code_of, other_account


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


@pytest.mark.parametrize("identifier", [5, None, "", "x", "1" * 19])
@pytest.mark.parametrize("kind", ["workflow", "run_group"])
@pytest.mark.parametrize("action", ["register", "delete"])
def test_an_id_that_no_request_can_name_is_refused(
    local_healthomics: LocalHealthOmics, action: str, kind: str, identifier: Any
) -> None:
    with pytest.raises(ValueError, match=f"^{kind}_id must be"):
        getattr(local_healthomics, f"{action}_{kind}")(identifier)


@pytest.mark.parametrize("template", [5, ["reads"], {"reads": "x"}])
def test_a_template_holds_the_properties_of_each_parameter(local_healthomics: LocalHealthOmics, template: Any) -> None:
    with pytest.raises(ValueError, match=r"^parameter_template must be"):
        local_healthomics.register_workflow("1", parameter_template=template)


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


def test_a_token_of_a_page_must_be_whole_and_of_the_same_region(
    omics: Any, local_healthomics: LocalHealthOmics
) -> None:
    local_healthomics.settings.check_cache_bucket = False
    irish, theirs = boto3.client("omics", region_name="eu-west-1"), other_account("omics")
    for client in (omics, irish, theirs):
        for _ in range(3):
            client.create_run_cache(cacheS3Location="s3://caches")
    token = omics.list_run_caches(maxResults=1)["nextToken"]
    assert len(token) <= 128
    assert len(omics.list_run_caches(startingToken=token)["items"]) == 2

    wrong = [token[:-1], token[1:], f"{token}=", f"{token}x", f"{token} ", token.replace("=", ""), token.swapcase()]
    for client, given in [*((omics, text) for text in wrong if text != token), (irish, token), (theirs, token)]:
        with pytest.raises(ClientError) as error:
            client.list_run_caches(startingToken=given)
        assert code_of(error) == ("ValidationException", 400)


def test_a_region_without_healthomics_is_refused(local_healthomics: LocalHealthOmics) -> None:
    with pytest.raises(ClientError) as error:
        boto3.client("omics", region_name="eu-west-3").list_run_caches()

    assert code_of(error) == ("AccessDeniedException", 403)
