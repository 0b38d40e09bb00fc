# [START hook]
import boto3

from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook


def test_two_of_three_runs_complete(local_healthomics):
    boto3.client("s3").create_bucket(Bucket="lab")
    local_healthomics.register_workflow("1234567", parameter_template={"sample": {}})
    local_healthomics.faults.fail_run("B")
    hook = OmicsCacheHook()
    batch = hook.start_run_batch(
        default_run_setting={
            "workflowId": "1234567",
            "roleArn": "arn:aws:iam::123456789012:role/omics",
            "outputUri": "s3://lab/runs/",
        },
        batch_run_settings={
            "inlineSettings": [{"runSettingId": sample, "parameters": {"sample": sample}} for sample in "ABC"]
        },
    )
    assert hook.get_batch(batch_id=batch["id"])["status"] == "CREATING"

    local_healthomics.clock.advance(60)

    found = hook.get_batch(batch_id=batch["id"])
    assert found["status"] == "PROCESSED"
    assert (found["runSummary"]["completedRunCount"], found["runSummary"]["failedRunCount"]) == (2, 1)
    # [END hook]
