from __future__ import annotations

import json
from typing import TYPE_CHECKING

import boto3
from preflight import omics_preflight

from tests.examples.cohorts import all_of, put_samplesheet, states_of

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics

TRUST = {"Effect": "Allow", "Principal": {"Service": "omics.amazonaws.com"}, "Action": "sts:AssumeRole"}


def test_the_batch_starts_only_if_the_preflight_finds_no_error(cohort_service: LocalHealthOmics) -> None:
    put_samplesheet([f"HG{number:03}" for number in range(3)])
    dag_run = omics_preflight().test()
    assert states_of(dag_run) == {
        "save_settings": ["success"],
        "preflight": ["failed"],
        "start_batch": ["upstream_failed"],
    }
    assert all_of("list_batch") == []
    policy = {"Version": "2012-10-17", "Statement": [TRUST]}
    boto3.client("iam").create_role(RoleName="omics", AssumeRolePolicyDocument=json.dumps(policy))
    assert omics_preflight().test().state == "success"
    assert len(all_of("list_batch")) == 1
