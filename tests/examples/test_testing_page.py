# [START testing]
import boto3
from quickstart import omics_quickstart


def test_every_sample_is_submitted_once(local_healthomics):
    local_healthomics.clock.tick = 30  # seconds of the service's time that each call takes
    boto3.client("s3").create_bucket(Bucket="omics-quickstart")

    dag_run = omics_quickstart().test()

    assert dag_run.state == "success"
    assert local_healthomics.calls["StartRunBatch"] == 1
    assert len(boto3.client("omics").list_runs()["items"]) == 5
    # [END testing]
