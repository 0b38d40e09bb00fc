from __future__ import annotations

import boto3

from airflow_provider_omics_cache.local import LocalHealthOmics


def test_a_client_made_inside_reaches_the_local_service(local_healthomics: LocalHealthOmics) -> None:
    boto3.client("s3").create_bucket(Bucket="caches")
    omics = boto3.client("omics")

    created = omics.create_run_cache(cacheS3Location="s3://caches/cohort")

    assert omics.get_run_cache(id=created["id"])["cacheS3Uri"].startswith("s3://caches/cohort/")
    assert local_healthomics.calls == {"CreateRunCache": 1, "GetRunCache": 1}
