"""What Airflow discovers through the ``apache_airflow_provider`` entry point; imports nothing."""

from __future__ import annotations

from typing import Any

_INTEGRATION = "AWS HealthOmics"

#: Section of ``airflow.cfg``.
SECTION = "omics_cache"

#: Settings of that section, with their defaults.
OPTIONS: dict[str, dict[str, Any]] = {
    "token_namespace": {
        "description": (
            "Part of every request token and batch name. Give each Airflow environment that "
            "shares an AWS account and Region its own, so that DAGs of the same name in two "
            "environments do not take each other's batches for their own.\n"
        ),
        "version_added": "0.1.0",
        "type": "string",
        "example": "production",
        "default": "",
    },
    "max_get_batch_per_second": {
        "description": (
            "How many GetBatch calls a second all deferred tasks of one triggerer make at most in one "
            "Region. HealthOmics allows 10 a second for a whole account and Region: divide what you "
            "want to spend by the number of triggerers.\n"
        ),
        "version_added": "0.1.0",
        "type": "float",
        "example": "8",
        "default": "4",
    },
    "max_get_run_per_second": {
        "description": (
            "How many GetRun calls a second a task makes at most when it asks for runs one by one. "
            "HealthOmics allows 10 a second for a whole account and Region by default.\n"
        ),
        "version_added": "0.1.0",
        "type": "float",
        "example": "8",
        "default": "5",
    },
}


def get_provider_info() -> dict[str, Any]:
    """Describe the provider in the form of Airflow's ``provider_info.schema.json``."""
    return {
        "package-name": "airflow-provider-omics-cache",
        "name": "AWS HealthOmics run caches and batches",
        "description": "Run caches and batch runs of AWS HealthOmics, with a local HealthOmics for tests.",
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "external-doc-url": "https://docs.aws.amazon.com/omics/latest/dev/",
                "tags": ["aws"],
            }
        ],
        "hooks": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": ["airflow_provider_omics_cache.hooks.omics"],
            }
        ],
        "operators": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": [
                    "airflow_provider_omics_cache.operators.run_cache",
                    "airflow_provider_omics_cache.operators.run_batch",
                ],
            }
        ],
        "sensors": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": ["airflow_provider_omics_cache.sensors.run_batch"],
            }
        ],
        "triggers": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": ["airflow_provider_omics_cache.triggers.run_batch"],
            }
        ],
        "extra-links": [
            "airflow_provider_omics_cache.links.omics.OmicsRunLink",
            "airflow_provider_omics_cache.links.omics.OmicsBatchLink",
            "airflow_provider_omics_cache.links.omics.OmicsRunCacheS3Link",
            "airflow_provider_omics_cache.links.omics.OmicsLogGroupLink",
        ],
        "config": {
            SECTION: {
                "description": "Settings of the AWS HealthOmics provider.",
                "options": OPTIONS,
            }
        },
    }
