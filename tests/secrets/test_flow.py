"""Run a whole DAG with planted secrets, and search everything that Airflow has written for them."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest

from airflow_provider_omics_cache.local import LocalHealthOmicsServer, serve
from tests.conftest import HAS_AIOBOTOCORE, HAS_BATCHES, HAS_SESSION_POLICIES, needs_session_policies

ROOT = Path(__file__).parents[2]
#: Runs the DAG, and writes which patterns Airflow's masker has got. ``dag.test()`` of Airflow 3.0 shows the local
#: variables of each function of a traceback. Logs of tasks never do.
RUN_THE_FLOW = """
import json
import pytest
import secrets_flow
from tests import quick_dag_runs

quick_dag_runs.install(pytest.MonkeyPatch())

try:
    import structlog
except ImportError:
    pass  # Airflow 2
else:
    if not structlog.is_configured():
        console = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        structlog.configure(processors=[*structlog.get_config()["processors"][:-1], console])
secrets_flow.omics_secrets().test()
try:
    from airflow.sdk._shared.secrets_masker import _secrets_masker
except ImportError:
    try:
        from airflow.sdk.execution_time.secrets_masker import _secrets_masker  # Airflow 3.0
    except ImportError:
        from airflow.utils.log.secrets_masker import _secrets_masker  # Airflow 2
open("masks.json", "w").write(json.dumps(sorted(_secrets_masker().patterns)))
"""


@dataclass
class Secrets:
    """Values that must be nowhere to be found. Each one begins with the same words."""

    prefix: str
    policy: str

    def named(self, name: str) -> str:
        return f"{self.prefix}-{name}"


@dataclass
class Flow:
    """What a run of the DAG has left behind."""

    secrets: Secrets
    service: LocalHealthOmicsServer
    output: str
    masks: list[str]
    database: Path


def connection(server: LocalHealthOmicsServer, secrets: Secrets, endpoint_url: str, **extra: Any) -> str:
    made = json.loads(server.airflow_connection)
    made["password"] = secrets.named("secret-key")
    made["extra"] |= {"endpoint_url": endpoint_url, "aws_session_token": secrets.named("token"), **extra}
    return json.dumps(made)


def closed_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flow]:
    home = tmp_path_factory.mktemp("airflow")
    prefix = f"planted-{uuid4().hex}"
    statement = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{prefix}-policy/*"}
    secrets = Secrets(prefix, json.dumps({"Version": "2012-10-17", "Statement": [statement]}, indent=1))
    closed = f"127.0.0.1:{closed_port()}"
    proxy = f"http://proxy-user:{secrets.named('proxy')}@{closed}"
    with serve(port=0) as server:
        server.create_bucket("omics-secrets")
        server.clock.tick = 60
        server.settings.run_running_seconds = 900
        # Each call lets a minute pass: the first look of the submission sensor is too early.
        server.settings.submission_rate = 0.3
        server.faults.error("DeleteRunCache", code="AccessDeniedException", status=403, times=None)

        def with_password(address: str) -> str:
            return f"http://user:{secrets.named('endpoint')}@{address}"

        fast = {"inject_host_prefix": False, "retries": {"total_max_attempts": 1}}
        connections = {
            "aws_default": connection(server, secrets, server.url),
            "endpoint_with_password": connection(server, secrets, with_password(server.url.partition("://")[2])),
            "closed_endpoint": connection(server, secrets, with_password(closed), config_kwargs=fast),
            "closed_proxy": connection(server, secrets, server.url, config_kwargs={**fast, "proxies": {"http": proxy}}),
            "invalid_endpoint": connection(server, secrets, with_password("no_host!"), config_kwargs=fast),
        }
        environment = {
            **os.environ,
            **{f"AIRFLOW_CONN_{name.upper()}": value for name, value in connections.items()},
            "AIRFLOW_VAR_OMICS_SESSION_POLICY": secrets.policy,
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "tests" / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG",
            "OMICS_TEST_DEFERRABLE": "1" if HAS_AIOBOTOCORE else "0",
            "OMICS_TEST_PROXY": proxy,
            "OMICS_TEST_SESSION_POLICY": "1" if HAS_SESSION_POLICIES else "0",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "dags")]),
            "NO_PROXY": "",
        }

        def run(*command: str) -> str:
            done = subprocess.run(
                [sys.executable, *command], env=environment, cwd=home, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
            return done.stdout + done.stderr

        shared = environment["AIRFLOW_HOME"] = os.environ["AIRFLOW_HOME"]
        run("-m", "airflow", "db", "migrate")
        shutil.copy(Path(shared) / "airflow.db", home)
        environment["AIRFLOW_HOME"] = str(home)
        output = run("-c", RUN_THE_FLOW)
        output += "".join(path.read_text() for path in home.rglob("*.log"))
        yield Flow(secrets, server, output, json.loads((home / "masks.json").read_text()), home / "airflow.db")


def rendered_fields(flow: Flow, task_id: str) -> str:
    query = "select rendered_fields from rendered_task_instance_fields where task_id = ?"
    with closing(sqlite3.connect(flow.database)) as database:
        return str(database.execute(query, [task_id]).fetchone()[0])


def states(flow: Flow) -> dict[str, str]:
    with closing(sqlite3.connect(flow.database)) as database:
        return dict(database.execute("select task_id, state from task_instance").fetchall())


def records(output: str) -> list[str]:
    """Split the output into records, of one or more lines."""
    return re.split(r"(?m)^(?=(?:\x1b\[\d+m)?\[?\d{4}-\d\d-\d\dT)", output)


def is_of_another_package(record: str) -> bool:
    """Whether botocore or the amazon provider made a record. Airflow masks it in the log files of tasks."""
    names = r"\[(?:botocore|aiobotocore|urllib3|airflow\.providers\.amazon)\.[\w.]+\] loc="
    files = r"\{(?:auth|endpoint|regions|parsers|hooks|httpsession|connection_wrapper|connectionpool)\.py:"
    return re.search(f"{names}|{files}", record) is not None


def test_the_flow_has_done_what_is_searched_for(flow: Flow) -> None:
    found = states(flow)
    failed = {task_id for task_id in found if "_at_" in task_id} | {"unreachable_submission", "not_rendered", "denied"}
    if HAS_BATCHES:
        failed |= {"unknown_member"}
        failed |= {"password_for_the_trigger"} if HAS_AIOBOTOCORE else set()
        succeeded = {"cache", "start", "submission", "completion", "start_other", "cancel", "delete", "start_mapped"}
    else:
        succeeded = {"cache"}
    assert {task_id: found[task_id] for task_id in succeeded} == dict.fromkeys(succeeded, "success")
    assert {task_id: found[task_id] for task_id in failed} == dict.fromkeys(failed, "failed")
    for failure in ("EndpointConnectionError", "ProxyConnectionError", "Invalid endpoint", "AccessDeniedException"):
        assert failure in flow.output
    assert "Traceback" in flow.output
    if HAS_AIOBOTOCORE:
        assert "aiobotocore" in flow.output, "a sensor was deferred"


@needs_session_policies
def test_the_service_gets_the_whole_policy(flow: Flow) -> None:
    omics = boto3.client("omics", **flow.service.client_kwargs)
    started = [omics.get_batch(batchId=batch["id"]) for batch in omics.list_batch()["items"]]
    # One batch was deleted. A task whose trigger would hold a password has started none.
    expected = {"start_other", "start_mapped"} | (set() if HAS_AIOBOTOCORE else {"password_for_the_trigger"})
    assert {batch["name"].rpartition("-")[0] for batch in started} == {f"omics_secrets.{task}" for task in expected}
    for batch in started:
        assert batch["defaultRunSetting"]["sessionPolicy"] == flow.secrets.policy


def test_no_secret_is_in_the_database(flow: Flow) -> None:
    content = b"".join(path.read_bytes() for path in flow.database.parent.glob("airflow.db*"))
    assert b"start_other" in content
    assert content.count(flow.secrets.prefix.encode()) == 0


@needs_session_policies
@pytest.mark.parametrize("task_id", ["start", "start_other", "start_mapped"])
def test_rendered_fields_show_the_settings_without_the_policy(flow: Flow, task_id: str) -> None:
    rendered = rendered_fields(flow, task_id)
    assert "1234567" in rendered
    assert "sessionPolicy" in rendered
    assert "***" in rendered


def test_no_secret_is_in_the_logs_of_the_package_and_of_airflow(flow: Flow) -> None:
    """Search them at DEBUG and before Airflow has masked anything."""
    for record in records(flow.output):
        # Airflow's own message by which a task registers a secret.
        if "MaskSecret(" not in record and not is_of_another_package(record):
            assert flow.secrets.prefix not in record


def test_airflow_masks_the_secrets_in_the_logs_of_other_packages(flow: Flow) -> None:
    logged = "".join(record for record in records(flow.output) if is_of_another_package(record))
    assert flow.secrets.prefix in logged
    masked = re.sub("|".join(flow.masks), "***", logged)
    assert [line for line in masked.splitlines() if flow.secrets.prefix in line] == []
