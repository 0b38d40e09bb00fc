"""Check that a bucket exists, and that its Region and owner are right."""

from __future__ import annotations

from typing import Any, NamedTuple

from botocore.exceptions import ClientError

from airflow_provider_omics_cache.hooks.errors import as_api_error


class BucketLook(NamedTuple):
    """Result of :func:`look_at_bucket`.

    :param rule: the rule that the bucket breaks, as a text that follows the name of a parameter. None without an error.
    :param is_denied: whether access was denied, so that the owner is not known.
    """

    rule: str | None = None
    is_denied: bool = False


def look_at_bucket(s3: Any, bucket: str, *, region: str, owner: str | None = None) -> BucketLook:
    """Check a bucket with HeadBucket.

    :param s3: the S3 client.
    :param bucket: name of the bucket.
    :param region: the Region that the bucket must be in.
    :param owner: account that must own the bucket. Default: any account.
    :raises OmicsApiError: S3 refused the call for another reason, or did not answer.
    """
    expected = {"ExpectedBucketOwner": owner} if owner else {}
    status, bucket_region = _head_bucket(s3, Bucket=bucket, **expected)
    if status == 404:
        return BucketLook("must be in a bucket that exists")
    if bucket_region not in {None, region}:
        return BucketLook(f"must be in a bucket in {region}, but the bucket is in {bucket_region}")
    if status != 403:
        return BucketLook()
    if owner and _head_bucket(s3, Bucket=bucket)[0] == 200:
        return BucketLook(f"must be in a bucket of account {owner}")
    return BucketLook(is_denied=True)


def _head_bucket(s3: Any, **members: Any) -> tuple[int, str | None]:
    """Return the HTTP status, and the bucket's Region as far as S3 reports it."""
    with as_api_error("HeadBucket"):
        try:
            metadata = s3.head_bucket(**members)["ResponseMetadata"]
        except ClientError as error:
            metadata = error.response["ResponseMetadata"]
            if metadata["HTTPStatusCode"] not in {301, 403, 404}:
                raise
    return metadata["HTTPStatusCode"], metadata.get("HTTPHeaders", {}).get("x-amz-bucket-region")
