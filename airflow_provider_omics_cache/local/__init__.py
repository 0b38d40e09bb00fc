"""A local HealthOmics for tests and demos: run caches, batches and runs, together with moto's S3, STS and IAM.

``mock_healthomics()`` serves the AWS clients of this process. ``serve()`` and
``python -m airflow_provider_omics_cache.local`` serve clients in any process over HTTP. Time stands still until a test
advances the clock, or runs at a chosen speed. ``local/assumptions.py`` lists what is assumed because AWS does not
document it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local.control import LocalHealthOmicsControl
    from airflow_provider_omics_cache.local.healthomics import LocalHealthOmics
    from airflow_provider_omics_cache.local.inprocess import mock_healthomics, patch_client
    from airflow_provider_omics_cache.local.wsgi import LocalHealthOmicsServer, serve

__all__ = [
    "LocalHealthOmics",
    "LocalHealthOmicsControl",
    "LocalHealthOmicsServer",
    "mock_healthomics",
    "patch_client",
    "serve",
]

_MODULES = {
    "LocalHealthOmics": "healthomics",
    "LocalHealthOmicsControl": "control",
    "LocalHealthOmicsServer": "wsgi",
    "mock_healthomics": "inprocess",
    "patch_client": "inprocess",
    "serve": "wsgi",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    try:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("moto", "flask", "flask_cors", "werkzeug"):
            raise ImportError(
                f"the local HealthOmics needs {error.name}: pip install 'airflow-provider-omics-cache[local]'"
            ) from error
        raise
