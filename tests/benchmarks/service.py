"""The local HealthOmics in a process of its own, as the benchmarks use it."""

from __future__ import annotations

import contextlib
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import boto3
from botocore.config import Config

from airflow_provider_omics_cache.local import LocalHealthOmicsControl
from tests.benchmarks.child import clean_environment

BUCKET = "benchmarks"
REGION = "us-east-1"
DEFAULT_RUN_SETTING = {
    "workflowId": "1234567",
    "roleArn": "arn:aws:iam::123456789012:role/omics",
    "outputUri": f"s3://{BUCKET}/out",
}


class Service:
    """A local HealthOmics that answers over HTTP; its clock stands still at first.

    :param url: its endpoint.
    :param airflow_connection: JSON of an Airflow connection to it.
    """

    def __init__(self, url: str, airflow_connection: str) -> None:
        self.url = url
        self.control = LocalHealthOmicsControl(url)
        self.environment = {"AIRFLOW_CONN_AWS_DEFAULT": airflow_connection}

    @cached_property
    def omics(self) -> Any:
        """A HealthOmics client."""
        return client("omics", self.url)

    def start_batch(self, run_settings: list[dict[str, Any]]) -> str:
        """Start a batch, from S3 if it is large, and give its id."""
        source: dict[str, Any] = {"inlineSettings": run_settings}
        if len(run_settings) > 100:
            client("s3", self.url).put_object(Bucket=BUCKET, Key="settings.json", Body=json.dumps(run_settings))
            source = {"s3UriSettings": f"s3://{BUCKET}/settings.json"}
        answer = self.omics.start_run_batch(defaultRunSetting=DEFAULT_RUN_SETTING, batchRunSettings=source)
        return str(answer["id"])

    def start_run(self, name: str) -> str:
        """Start a single run, and return its id."""
        return str(self.omics.start_run(name=name, requestId=name, **DEFAULT_RUN_SETTING)["id"])

    def start_submitted_batch(self, runs: int) -> str:
        """Start a batch, and let all of its runs be submitted."""
        self.control.settings.submission_rate = float("inf")
        batch_id = self.start_batch(sample_ids(runs))
        self.control.clock.advance(10)
        return batch_id


@contextlib.contextmanager
def service() -> Iterator[Service]:
    """Run a local HealthOmics in a process of its own while the context lasts."""
    command = [
        sys.executable,
        "-m",
        "airflow_provider_omics_cache.local",
        "--speed",
        "0",
        "--bucket",
        BUCKET,
        "--lenient",
    ]
    process = subprocess.Popen(command, env=clean_environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        first, second = process.stdout.readline(), process.stdout.readline()
        if not second:
            raise RuntimeError(f"the local HealthOmics does not start: {shlex.join(command)}")
        yield Service(url=first.split()[-1], airflow_connection=shlex.split(second)[1].partition("=")[2])
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def client(name: str, url: str) -> Any:
    """Make a boto3 client of the service."""
    session: Any = boto3.session.Session()
    return session.client(
        name,
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        config=Config(inject_host_prefix=False, proxies={}),
    )


def sample_ids(number: int) -> list[dict[str, Any]]:
    """Give run settings that are nothing but ids."""
    return [{"runSettingId": f"sample-{index:06}"} for index in range(number)]
