from airflow_provider_omics_cache.local.pytest_plugin import (
    local_healthomics as local_healthomics,  # not the tests' own
)
