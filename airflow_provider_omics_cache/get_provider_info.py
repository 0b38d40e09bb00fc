"""Provider metadata for Airflow's ``apache_airflow_provider`` entry point. Imports no other module of the package."""

from __future__ import annotations

from typing import Any

_INTEGRATION = "AWS HealthOmics"

#: Section of ``airflow.cfg``.
SECTION = "omics_cache"

#: Settings of that section, with their defaults.
OPTIONS: dict[str, dict[str, Any]] = {
    "token_namespace": {
        "description": (
            "Part of the names and the request tokens of batches and single runs. Airflow environments that share "
            "an AWS account and Region must each set a different value. Otherwise two DAGs of the same name in two "
            "environments can reattach to each other's batches and runs.\n"
        ),
        "version_added": "0.1.0",
        "type": "string",
        "example": "production",
        "default": "",
    },
    "tag_with_task": {
        "description": (
            "Whether StartRunBatchOperator and StartRunOperator tag the batch or run with the DAG id, the run id, the "
            "task id and the map index, so that the batches and runs of a DAG run can be found in AWS.\n"
        ),
        "version_added": "0.1.0",
        "type": "boolean",
        "example": "False",
        "default": "True",
    },
    "max_get_batch_per_second": {
        "description": (
            "Maximum number of GetBatch calls per second that one triggerer makes in one Region, for "
            "all its deferred tasks together. HealthOmics allows 10 calls per second for each account "
            "and Region: divide the share that Airflow can use by the number of triggerers.\n"
        ),
        "version_added": "0.1.0",
        "type": "float",
        "example": "8",
        "default": "4",
    },
    "max_get_run_per_second": {
        "description": (
            "Maximum number of GetRun calls per second that one process (a task, or a triggerer for all its deferred "
            "tasks together) makes in one Region. HealthOmics allows 10 calls per second for each account and Region "
            "by default.\n"
        ),
        "version_added": "0.1.0",
        "type": "float",
        "example": "8",
        "default": "5",
    },
    "allow_missing_connection": {
        "description": (
            "Whether a task works with boto3's own credentials if Airflow does not find the connection that it names, "
            "as in the amazon provider. Otherwise the task fails. The default connection, aws_default, may be missing "
            "in any case.\n"
        ),
        "version_added": "0.1.0",
        "type": "boolean",
        "example": "True",
        "default": "False",
    },
}


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata, in the form of Airflow's ``provider_info.schema.json``."""
    return {
        "package-name": "airflow-provider-omics-cache",
        "name": "AWS HealthOmics run caches and batches",
        "description": "Run caches and run batches of AWS HealthOmics, with a local HealthOmics for tests.",
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
                    "airflow_provider_omics_cache.operators.run",
                    "airflow_provider_omics_cache.operators.run_group",
                    "airflow_provider_omics_cache.operators.preflight",
                ],
            }
        ],
        "sensors": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": [
                    "airflow_provider_omics_cache.sensors.run_batch",
                    "airflow_provider_omics_cache.sensors.run",
                ],
            }
        ],
        "triggers": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": [
                    "airflow_provider_omics_cache.triggers.run_batch",
                    "airflow_provider_omics_cache.triggers.run",
                ],
            }
        ],
        "extra-links": [
            "airflow_provider_omics_cache.links.omics.OmicsRunLink",
            "airflow_provider_omics_cache.links.omics.OmicsBatchLink",
            "airflow_provider_omics_cache.links.omics.OmicsRunGroupLink",
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
