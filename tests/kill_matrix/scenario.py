"""The tasks of one kill: the batches that they find, the place where each is held, and the moment of the kill."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import boto3
from botocore.config import Config

from tests.kill_matrix.cells import PHASES, Kill
from tests.kill_matrix.gateway import Call, Gate
from tests.kill_matrix.servers import BUCKET, Servers

#: Runs of the batch of each phase.
RUNS = {"starting": 3, "staging": 150, "deferred": 3, "rescheduled": 3, "listing": 250, "cancelling": 4, "deleting": 5}
#: A state in which a task waits outside of every worker.
WAITING_STATES = {"deferred": "deferred", "rescheduled": "up_for_reschedule"}
#: Service seconds that the runs of a batch take that is to be cancelled.
VERY_LONG = 1_000_000.0
BYSTANDER = "bystander"


def service_client(servers: Servers, name: str) -> Any:
    """Return a boto3 client that asks the service itself, not through the gateway.

    :param servers: the servers.
    :param name: ``omics`` or ``s3``.
    """
    return boto3.session.Session().client(
        name,
        endpoint_url=servers.service_url,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        config=Config(inject_host_prefix=False, proxies={}),
    )


@dataclass
class Batches:
    """Batches that are there before the tasks, and what the service said about them then.

    :param ids: id of the batch by kill and phase; that of the bystander by its name alone.
    :param mappings: run ids by runSettingId of each batch, by its id.
    """

    ids: dict[tuple[str, str], str] = field(default_factory=dict)
    mappings: dict[str, dict[str, str]] = field(default_factory=dict)


def prepare(servers: Servers, kills: dict[Kill, tuple[str, ...]]) -> Batches:
    """Start the batches that the tasks find, and wait until they are as the tasks must find them.

    :param servers: the servers.
    :param kills: the kills and their phases.
    """
    omics = service_client(servers, "omics")
    batches = Batches()
    settings = servers.control.settings
    settings.creating_seconds, settings.pending_seconds, settings.submission_rate = 1.0, 1.0, 100.0
    settings.run_pending_seconds = settings.run_starting_seconds = settings.run_stopping_seconds = 1.0
    settings.run_running_seconds = 3.0
    servers.control.clock.speed = 0
    wanted = [(kill.name, phase) for kill, phases in kills.items() for phase in phases]
    ended = [cell for cell in wanted if cell[1] in ("listing", "deleting")]
    batches.ids[BYSTANDER, BYSTANDER] = start_batch(omics, BYSTANDER, 6)
    for kill, phase in ended:
        batches.ids[kill, phase] = start_batch(omics, f"{phase}-{kill}", RUNS[phase])
    settings.run_running_seconds = VERY_LONG
    for kill, phase in wanted:
        if phase == "cancelling":
            batches.ids[kill, phase] = start_batch(omics, f"{phase}-{kill}", RUNS[phase])
    settings.run_running_seconds = 3.0
    servers.control.clock.advance(30)
    for (_, phase), batch_id in batches.ids.items():
        status = omics.get_batch(batchId=batch_id)["status"]
        assert status == ("INPROGRESS" if phase == "cancelling" else "PROCESSED"), (phase, status)
        batches.mappings[batch_id] = mapping_of(omics, batch_id)
    return batches


def start_batch(omics: Any, name: str, runs: int) -> str:
    """Start a batch, and return its id.

    :param omics: client.
    :param name: its name.
    :param runs: number of its runs.
    """
    settings = [{"runSettingId": f"sample-{number}"} for number in range(runs)]
    inline: dict[str, Any] = {"inlineSettings": settings}
    if runs > 100:
        inline = {"s3UriSettings": _put_settings(omics, name, settings)}
    answer = omics.start_run_batch(
        batchName=name,
        requestId=name,
        defaultRunSetting={
            "workflowId": "1234567",
            "roleArn": "arn:aws:iam::123456789012:role/omics",
            "outputUri": f"s3://{BUCKET}/outputs/",
        },
        batchRunSettings=inline,
    )
    return str(answer["id"])


def _put_settings(omics: Any, name: str, settings: list[dict[str, str]]) -> str:
    s3 = boto3.session.Session().client(
        "s3",
        endpoint_url=omics.meta.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )
    s3.put_object(Bucket=BUCKET, Key=f"prepared/{name}.json", Body=json.dumps(settings).encode())
    return f"s3://{BUCKET}/prepared/{name}.json"


def mapping_of(omics: Any, batch_id: str) -> dict[str, str]:
    """Return the run ids of a batch by runSettingId, as the service has them.

    :param omics: client.
    :param batch_id: id of the batch.
    """
    pages = omics.get_paginator("list_runs_in_batch").paginate(batchId=batch_id)
    return {row["runSettingId"]: row["runId"] for page in pages for row in page["runs"]}


def gate_of(phase: str, kill: Kill, batch_id: str | None) -> Gate | None:
    """Return the gate at which the task of a phase is held, None for a task that waits outside of every worker.

    :param phase: the phase.
    :param kill: the kill.
    :param batch_id: id of the batch that the task finds, if it finds one.
    """
    matches: dict[str, Callable[[Call], bool]] = {
        "creating_cache": lambda call: (
            call.method == "POST" and call.target == "/runCache" and f'"{kill.name}"'.encode() in call.body
        ),
        "starting": lambda call: (
            call.method == "POST" and call.target == "/runBatch" and f'"starting-{kill.name}-'.encode() in call.body
        ),
        "staging": lambda call: (
            call.method == "PUT" and call.target.startswith(f"/{BUCKET}/staging/{kill.name}/settings/")
        ),
        "listing": lambda call: (
            call.target.startswith(f"/runBatch/{batch_id}/run?") and "startingToken=" in call.target
        ),
        "cancelling": lambda call: call.target == "/runBatch/cancel" and f'"{batch_id}"'.encode() in call.body,
        "deleting": lambda call: call.target == "/runBatch/delete" and f'"{batch_id}"'.encode() in call.body,
    }
    if phase in WAITING_STATES:
        return None
    return Gate(matches[phase], before_effect=phase == "staging")


def task_state(servers: Servers, phase: str, kill: Kill) -> tuple[str | None, int]:
    """Return state and try of the task of a phase.

    :param servers: the servers.
    :param phase: the phase.
    :param kill: the kill.
    """
    rows = servers.rows(
        "SELECT state, try_number FROM task_instance WHERE dag_id = %s AND run_id = %s", phase, kill.name
    )
    return (rows[0]["state"], rows[0]["try_number"]) if rows else (None, 0)


def is_waiting(servers: Servers, phase: str, kill: Kill) -> bool:
    """Whether the task of a phase waits outside of every worker, and a triggerer has it if it is deferred.

    :param servers: the servers.
    :param phase: the phase.
    :param kill: the kill.
    """
    if task_state(servers, phase, kill)[0] != WAITING_STATES[phase]:
        return False
    if phase != "deferred":
        return True
    held = servers.rows(
        "SELECT 1 FROM task_instance i JOIN trigger t ON t.id = i.trigger_id "
        "WHERE i.dag_id = %s AND i.run_id = %s AND t.triggerer_id IS NOT NULL",
        phase,
        kill.name,
    )
    return bool(held)


def dag_states(servers: Servers, kill: Kill) -> dict[str, str]:
    """Return the state of each DAG run of a kill, by phase.

    :param servers: the servers.
    :param kill: the kill.
    """
    rows = servers.rows("SELECT dag_id, state FROM dag_run WHERE run_id = %s", kill.name)
    return {row["dag_id"]: row["state"] for row in rows if row["dag_id"] in PHASES}


def catch_up(servers: Servers) -> None:
    """Let service time, which stood still, be the time of this machine again."""
    clock = servers.control.clock
    clock.speed = 1
    behind = time.time() - clock.now().timestamp()
    if behind > 0:
        clock.advance(behind)
