from __future__ import annotations

from typing import TYPE_CHECKING

import boto3
import pytest
from retire_run_cache import omics_retire_run_cache

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics


@pytest.fixture
def service(local_healthomics: LocalHealthOmics) -> LocalHealthOmics:
    boto3.client("s3").create_bucket(Bucket="omics-quickstart")
    local_healthomics.settings.show_deleted_run_caches = True
    return local_healthomics


def create_run_cache(name: str, folder: str = "cache") -> str:
    answer = boto3.client("omics").create_run_cache(cacheS3Location=f"s3://omics-quickstart/{folder}", name=name)
    return str(answer["id"])


def test_marks_and_deletes_the_one_cache(service: LocalHealthOmics) -> None:
    other, retired = create_run_cache("cohort"), create_run_cache("quickstart")
    assert omics_retire_run_cache().test().state == "success"
    omics = boto3.client("omics")
    found = omics.get_run_cache(id=retired)
    assert (found["status"], found["tags"]) == ("DELETED", {"retired": "true"})
    assert found["description"].startswith("Retired")
    assert omics.get_run_cache(id=other)["status"] == "ACTIVE"
    assert omics.get_run_cache(id=other)["tags"] == {}


def test_of_several_caches_the_location_decides(service: LocalHealthOmics) -> None:
    other, retired = create_run_cache("quickstart", "old"), create_run_cache("quickstart", "new")
    assert omics_retire_run_cache().test().state == "failed"
    assert service.calls["UpdateRunCache"] == service.calls["DeleteRunCache"] == 0
    location = {"cache_s3_location": "s3://omics-quickstart/new/"}
    assert omics_retire_run_cache().test(run_conf=location).state == "success"
    omics = boto3.client("omics")
    assert omics.get_run_cache(id=retired)["status"] == "DELETED"
    assert omics.get_run_cache(id=other)["status"] == "ACTIVE"


def test_has_nothing_to_do_without_the_cache(service: LocalHealthOmics) -> None:
    create_run_cache("cohort")
    dag_run = omics_retire_run_cache().test()
    assert {str(ti.state) for ti in dag_run.get_task_instances()} == {"skipped"}
    assert service.calls["UpdateRunCache"] == service.calls["DeleteRunCache"] == 0
