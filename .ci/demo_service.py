"""The local HealthOmics with what the example DAGs need."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager

import boto3

from airflow_provider_omics_cache.local import LocalHealthOmicsServer, serve

BUCKET = "omics-quickstart"
#: The workflow that the examples run if no Airflow variable names another one.
WORKFLOW_ID = "1234567"
#: Name and trust policy of the role of the runs, which omics_preflight looks at.
ROLE = "omics"
TRUST_POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "omics.amazonaws.com"}, "Action": "sts:AssumeRole"},
    ],
}
SAMPLES = 2_000
#: Samplesheets of omics_mapped_batches, and the number of samples in each.
TISSUES = ("lung", "liver", "skin")
TISSUE_SAMPLES = 200
#: Samples of the samplesheet of omics_cancel_on_failure that fail: more than the 5 % that it allows.
FAILING_SAMPLES = slice(0, 300, 2)
#: Runs a second, so that nobody has to wait long for the samples' submission; AWS's own rate is much smaller.
SUBMISSION_RATE = 50


@contextmanager
def demo_service(port: int = 0) -> Iterator[LocalHealthOmicsServer]:
    """Serve the local HealthOmics while the context lasts; the user's own AWS settings stay out of it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    with serve(port=port, speed=1) as service:
        service.settings.submission_rate = SUBMISSION_RATE
        service.register_workflow(WORKFLOW_ID)
        service.create_bucket(BUCKET)
        iam = boto3.client("iam", **service.client_kwargs)
        iam.create_role(RoleName=ROLE, AssumeRolePolicyDocument=json.dumps(TRUST_POLICY))
        s3 = boto3.client("s3", **service.client_kwargs)
        s3.put_object(Bucket=BUCKET, Key="samplesheet.csv", Body=samplesheet("HG").encode())
        s3.put_object(Bucket=BUCKET, Key="failing.csv", Body=samplesheet("NA").encode())
        for tissue in TISSUES:
            s3.put_object(Bucket=BUCKET, Key=f"{tissue}.csv", Body=samplesheet(tissue, TISSUE_SAMPLES).encode())
        for sample in sample_names("NA")[FAILING_SAMPLES]:
            service.faults.fail_submission(sample, reason="ValidationException", message="The demo lets it fail")
        yield service


def sample_names(cohort: str, number: int = SAMPLES) -> list[str]:
    """Return the names of the samples of a cohort."""
    return [f"{cohort}{sample:05}" for sample in range(1, number + 1)]


def samplesheet(cohort: str, number: int = SAMPLES) -> str:
    """Make a samplesheet that the examples read.

    :param cohort: beginning of the names of the samples.
    :param number: number of samples.
    """
    samples = sample_names(cohort, number)
    reads = f"s3://{BUCKET}/reads"
    return "\n".join(["sample,fastq_1,fastq_2", *(f"{s},{reads}/{s}_1.fq.gz,{reads}/{s}_2.fq.gz" for s in samples)])
