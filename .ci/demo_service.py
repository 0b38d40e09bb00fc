"""The local HealthOmics with what the example DAGs need."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from airflow_provider_omics_cache.local import LocalHealthOmicsServer, serve


@contextmanager
def demo_service(port: int = 0) -> Iterator[LocalHealthOmicsServer]:
    """Serve the local HealthOmics while the context lasts; the user's own AWS settings stay out of it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    with serve(port=port, speed=1) as service:
        service.create_bucket("omics-quickstart")
        yield service
