"""The tests must run on the versions that they claim to run on (``TEST_ENVIRONMENT``, given by make)."""

from __future__ import annotations

import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]

ENVIRONMENTS: dict[str, dict[str, str | None]] = {
    "airflow-3.3": {
        "apache-airflow": "3.3.2",
        "apache-airflow-providers-amazon": "9.39.0",
        "apache-airflow-providers-common-compat": "1.23.0",
        "boto3": "1.43.117",
        "botocore": "1.43.117",
        "aiobotocore": "3.10.0",
        "moto": "5.2.5",
    },
    "airflow-3.2": {
        "apache-airflow": "3.2.2",
        "apache-airflow-providers-amazon": "9.29.0",
        "apache-airflow-providers-common-compat": "1.15.0",
        "boto3": "1.43.106",
        "botocore": "1.43.106",
        "aiobotocore": "3.9.2",
        "moto": "5.2.5",
    },
    "airflow-3.1": {
        "apache-airflow": "3.1.8",
        "apache-airflow-providers-amazon": "9.24.0",
        "apache-airflow-providers-common-compat": "1.14.2",
        "boto3": "1.43.46",
        "botocore": "1.43.46",
        "aiobotocore": "3.8.0",
        "moto": "5.2.5",
    },
    "airflow-3.0": {
        "apache-airflow": "3.0.6",
        "apache-airflow-providers-amazon": "9.12.0",
        "apache-airflow-providers-common-compat": "1.7.3",
        "boto3": "1.42.84",
        "botocore": "1.42.84",
        "aiobotocore": "3.4.0",
        "moto": "5.1.15",
    },
    "airflow-2.11": {
        "apache-airflow": "2.11.2",
        "apache-airflow-providers-amazon": "9.22.0",
        "apache-airflow-providers-common-compat": "1.14.0",
        "boto3": "1.42.84",
        "botocore": "1.42.84",
        "aiobotocore": "3.4.0",
        "moto": "5.2.5",
    },
    "minimum": {
        "apache-airflow": "2.11.0",
        "apache-airflow-providers-amazon": "9.8.0",
        "apache-airflow-providers-common-compat": "1.7.0",
        "boto3": "1.37.3",
        "botocore": "1.37.3",
        "aiobotocore": None,
        "moto": "5.1.0",
    },
}

environment = os.environ.get("TEST_ENVIRONMENT", "")
pytestmark = pytest.mark.skipif(not environment, reason="TEST_ENVIRONMENT is not set")


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def test_versions_that_matter() -> None:
    expected = ENVIRONMENTS[environment]
    assert {name: installed(name) for name in expected} == expected


def test_everything_is_as_locked() -> None:
    lines = (ROOT / "requirements" / f"{environment}.txt").read_text().splitlines()
    locked = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert len(locked) > 100
    for requirement in locked:
        if requirement.marker is None or requirement.marker.evaluate():
            assert installed(requirement.name) in requirement.specifier, requirement.name


def test_minimum_runs_on_the_oldest_python() -> None:
    if environment == "minimum":
        assert sys.version_info[:2] == (3, 11)
