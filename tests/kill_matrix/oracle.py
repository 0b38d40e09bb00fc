"""The check after a kill. It reads the service, S3 and Airflow's database, and shares no code with the package."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from tests.kill_matrix.cells import Kill
from tests.kill_matrix.scenario import BYSTANDER, RUNS, Batches, mapping_of, service_client
from tests.kill_matrix.servers import BUCKET, Servers

#: Phases whose tasks start a batch.
STARTING_PHASES = ("starting", "staging", "deferred")


class Oracle:
    """The check.

    :param servers: the servers.
    :param batches: the batches that were there before the tasks.
    """

    def __init__(self, servers: Servers, batches: Batches) -> None:
        self._servers = servers
        self._batches = batches
        self._omics = service_client(servers, "omics")
        self._s3 = service_client(servers, "s3")

    def violations(self, phase: str, kill: Kill) -> list[str]:
        """Return what is wrong after the task of a phase has succeeded.

        :param phase: the phase.
        :param kill: the kill.
        """
        checks: dict[str, Callable[[Kill], list[str]]] = {
            "creating_cache": self._one_cache,
            "starting": lambda kill: self._one_batch("starting", kill),
            "staging": lambda kill: self._one_batch("staging", kill) + self._one_settings_file(kill),
            "deferred": lambda kill: self._one_batch("deferred", kill),
            "rescheduled": self._mapping_in_xcom,
            "listing": self._mapping_in_s3,
            "cancelling": self._no_living_run,
            "deleting": self._only_this_batch_deleted,
        }
        return checks[phase](kill)

    def bystander_violations(self) -> list[str]:
        """Return what happened to the batch that no task has to do with."""
        batch_id = self._batches.ids[BYSTANDER, BYSTANDER]
        before = self._batches.mappings[batch_id]
        try:
            after = mapping_of(self._omics, batch_id)
            runs = {run: self._omics.get_run(id=run)["status"] for run in before.values()}
        except ClientError as error:
            return [f"the bystander's batch or a run of it is gone: {error}"]
        if after != before or set(runs.values()) != {"COMPLETED"}:
            return [f"the bystander's batch has changed: {after}, {runs}"]
        return []

    def strangers(self) -> list[str]:
        """Return the batches that neither the matrix nor a task was to start."""
        known = set(self._batches.ids.values())
        of_tasks = tuple(f"{phase}-" for phase in STARTING_PHASES)
        strange = [
            f"{batch['name']} ({batch['id']})"
            for batch in self._list("list_batch", "items")
            if batch["id"] not in known and not batch["name"].startswith(of_tasks)
        ]
        return [f"batches that nobody asked for: {', '.join(strange)}"] if strange else []

    def _list(self, operation: str, member: str, **arguments: Any) -> list[dict[str, Any]]:
        pages = self._omics.get_paginator(operation).paginate(**arguments)
        return [item for page in pages for item in page[member]]

    def _xcom(self, phase: str, kill: Kill, key: str = "return_value") -> Any:
        rows = self._servers.rows(
            "SELECT value FROM xcom WHERE dag_id = %s AND run_id = %s AND key = %s", phase, kill.name, key
        )
        if not rows:
            return None
        value = rows[0]["value"]
        return json.loads(value) if isinstance(value, str) and value[:1] in '{["' else value

    def _records(self, phase: str, kill: Kill, name: str) -> list[dict[str, Any]]:
        body = self._s3.get_object(Bucket=BUCKET, Key=f"{phase}/{kill.name}/{name}")["Body"].read()
        return [json.loads(line) for line in body.splitlines()]

    def _wrong_mapping(self, batch_id: str, found: dict[str, str], runs: int, where: str) -> list[str]:
        truth = mapping_of(self._omics, batch_id)
        wanted = {f"sample-{number}" for number in range(runs)}
        if truth.keys() != wanted:
            return [f"batch {batch_id} has {len(truth)} of {runs} runs"]
        if found != truth:
            wrong = sorted(name for name in wanted | found.keys() if found.get(name) != truth.get(name))
            return [f"the mapping in {where} is wrong for {len(wrong)} of {runs} runs, as for {wrong[0]}"]
        return []

    def _one_cache(self, kill: Kill) -> list[str]:
        caches = [cache["id"] for cache in self._list("list_run_caches", "items") if cache.get("name") == kill.name]
        returned = self._xcom("creating_cache", kill)
        if len(caches) != 1:
            return [f"there are {len(caches)} caches: {', '.join(caches)}"]
        return [] if returned == caches[0] else [f"the task returned {returned!r}, and the cache is {caches[0]}"]

    def _one_batch(self, phase: str, kill: Kill) -> list[str]:
        named = [
            batch for batch in self._list("list_batch", "items") if batch["name"].startswith(f"{phase}-{kill.name}-")
        ]
        if len(named) != 1:
            return [f"there are {len(named)} batches: {', '.join(batch['id'] for batch in named)}"]
        batch_id = named[0]["id"]
        returned = self._xcom(phase, kill)
        violations = [] if returned == batch_id else [f"the task returned {returned!r}, and the batch is {batch_id}"]
        runs = self._list("list_runs", "items", batchId=batch_id)
        if len(runs) != RUNS[phase] or {run["status"] for run in runs} != {"COMPLETED"}:
            violations.append(f"batch {batch_id} has {len(runs)} runs, of {RUNS[phase]} that must be COMPLETED")
        records = self._records(phase, kill, "runs.jsonl")
        found = {record["run_setting_id"]: record["run_id"] for record in records}
        if len(records) != len(found):
            violations.append("runs.jsonl names a run setting twice")
        return violations + self._wrong_mapping(batch_id, found, RUNS[phase], "runs.jsonl")

    def _one_settings_file(self, kill: Kill) -> list[str]:
        prefix = f"staging/{kill.name}/settings/"
        keys = [item["Key"] for item in self._s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])]
        if len(keys) != 1:
            return [f"there are {len(keys)} settings files"]
        settings = json.loads(self._s3.get_object(Bucket=BUCKET, Key=keys[0])["Body"].read())
        return [] if len(settings) == RUNS["staging"] else [f"the settings file has {len(settings)} settings"]

    def _mapping_in_xcom(self, kill: Kill) -> list[str]:
        batch_id = self._batches.ids[kill.name, "rescheduled"]
        return self._wrong_mapping(batch_id, self._xcom("rescheduled", kill) or {}, RUNS["rescheduled"], "the XCom")

    def _mapping_in_s3(self, kill: Kill) -> list[str]:
        batch_id = self._batches.ids[kill.name, "listing"]
        records = self._records("listing", kill, "mapping.jsonl")
        found = {record["run_setting_id"]: record["run_id"] for record in records}
        violations = self._wrong_mapping(batch_id, found, RUNS["listing"], "mapping.jsonl")
        if len(records) != len(found):
            violations.append("mapping.jsonl names a run setting twice")
        uri = self._xcom("listing", kill)
        if uri != f"s3://{BUCKET}/listing/{kill.name}/mapping.jsonl":
            violations.append(f"the task returned {uri!r}")
        return violations

    def _no_living_run(self, kill: Kill) -> list[str]:
        batch_id = self._batches.ids[kill.name, "cancelling"]
        runs = {run["id"]: run["status"] for run in self._list("list_runs", "items", batchId=batch_id)}
        wrong = {run: status for run, status in runs.items() if status != "CANCELLED"}
        if len(runs) != RUNS["cancelling"] or wrong:
            return [f"batch {batch_id} has {len(runs)} runs of {RUNS['cancelling']}; not CANCELLED are {wrong}"]
        return []

    def _only_this_batch_deleted(self, kill: Kill) -> list[str]:
        batch_id = self._batches.ids[kill.name, "deleting"]
        before = self._batches.mappings[batch_id]
        violations = []
        records = self._records("deleting", kill, "mapping.jsonl")
        if {record["run_setting_id"]: record["run_id"] for record in records} != before:
            violations.append("the saved mapping is not that of the batch before its deletion")
        if batch_id in {batch["id"] for batch in self._list("list_batch", "items")}:
            violations.append(f"batch {batch_id} is not deleted")
        if left := sorted(set(before.values()) & {run["id"] for run in self._list("list_runs", "items")}):
            violations.append(f"runs {left} are not deleted")
        return violations


def leftovers(servers: Servers, phase: str, kill: Kill) -> list[str]:
    """Return what Airflow has not put away after the DAG run of a phase has ended.

    :param servers: the servers.
    :param phase: the phase.
    :param kill: the kill.
    """
    tasks = servers.rows(
        "SELECT state, trigger_id FROM task_instance WHERE dag_id = %s AND run_id = %s "
        "AND (state IS NULL OR state NOT IN ('success', 'failed') OR trigger_id IS NOT NULL)",
        phase,
        kill.name,
    )
    return [
        f"the task is {task['state']}, with trigger {task['trigger_id']}, in a DAG run that has ended" for task in tasks
    ]
