# [START rate_limits]
import boto3
import pytest
from botocore.config import Config

from airflow_provider_omics_cache.local.assumptions import DOCUMENTED_RATE_LIMITS


def test_the_eleventh_call_of_a_second_is_throttled(local_healthomics):
    local_healthomics.settings.rate_limits = DOCUMENTED_RATE_LIMITS  # {"GetBatch": 2} is possible, too
    omics = boto3.client("omics", config=Config(retries={"total_max_attempts": 1}))
    for _ in range(10):
        omics.list_run_caches()
    with pytest.raises(omics.exceptions.ThrottlingException):
        omics.list_run_caches()
    local_healthomics.clock.advance(1)
    omics.list_run_caches()
    # [END rate_limits]
