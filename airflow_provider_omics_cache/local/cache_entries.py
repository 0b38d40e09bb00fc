"""The entries of one run cache: what each run exported, and what a later run finds."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Sequence
from typing import Any, Protocol

from airflow_provider_omics_cache.local.course import TOLERANCE, TaskDefinition
from airflow_provider_omics_cache.local.protocol import derived_uuid, dump_json

#: Task ids are the run's id times this number, plus the number of the task.
TASKS_PER_RUN = 1_000
_MEMBERS = ("workflowId", "workflowVersionName", "workflowOwnerId", "parameters", "engineSettings")


def key_of(setting: dict[str, Any], tasks: Sequence[TaskDefinition]) -> int:
    """Return a number that is the same for all runs that can use each other's entries.

    :param setting: effective settings of the run, as the members of StartRun.
    :param tasks: the tasks of its workflow.
    """
    compared = [[setting.get(name) for name in _MEMBERS], [task.name for task in tasks]]
    text = json.dumps(compared, sort_keys=True).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big")


class Store(Protocol):
    """Where the objects of the entries are."""

    def write(self, uri: str, content: bytes) -> None:
        """Write an object.

        :raises LookupError: the bucket does not exist.
        """

    def exists(self, uri: str) -> bool:
        """Return whether an object exists."""


class CacheEntries:
    """The entries of one run cache. The entries of a run are kept as a few numbers: there may be 100,000 runs.

    :param store: where the objects of the entries are.
    :param uri: ``cacheS3Uri`` of the run cache.
    :param arn: ARN of the run cache.
    """

    def __init__(self, store: Store, uri: str, arn: str) -> None:
        #: Returns the S3 URI of the entry of a task, from the id of its run and its number, from 0.
        self.uri_of_entry = self._uri_of_entry
        self._store = store
        self._uri = uri
        self._arn = arn
        self._latest: dict[int, int] = {}  # place of the latest export by key
        # Of each export: when it ended, id of the run, its tasks, the export before it with the same key, and whether
        # its entries are objects in S3.
        self._ends = array("d")
        self._runs = array("Q")
        self._first = array("H")
        self._end = array("H")
        self._before = array("l")
        self._written = array("B")
        self._objects = 0

    def any(self) -> bool:
        """Return whether there are entries."""
        return bool(self._latest)

    def add(self, key: int, run_number: int, tasks: range, *, at: float, max_objects: float, task_arn: str) -> None:
        """Add the entries of a run that has ended.

        :param key: as :func:`key_of` returns it.
        :param run_number: id of the run.
        :param tasks: numbers of the tasks, from 0.
        :param at: when the run ended.
        :param max_objects: maximum number of entries of the run cache that are written to S3.
        :param task_arn: ARN of a task, without its id.
        """
        if not tasks:
            return
        written = self._objects + len(tasks) <= max_objects
        if written:
            try:
                for task in tasks:
                    self._write(run_number, task, task_arn)
            except LookupError:
                return  # the bucket does not exist any more
            self._objects += len(tasks)
        self._ends.append(at)
        self._runs.append(run_number)
        self._first.append(tasks.start)
        self._end.append(tasks.stop)
        self._before.append(self._latest.get(key, -1))
        self._written.append(written)
        self._latest[key] = len(self._ends) - 1

    def find(self, key: int, tasks: int, *, at: float) -> tuple[int, ...]:
        """Return the ids of the runs that have exported what a run finds for its first tasks.

        :param key: as :func:`key_of` returns it.
        :param tasks: number of its tasks.
        :param at: when it looks.
        """
        runs: list[int] = []
        while len(runs) < tasks:
            run = self._find_task(key, len(runs), at)
            if run is None:
                break
            # The runs of a batch keep these numbers in memory. Equal numbers share one object.
            runs.append(runs[-1] if runs and runs[-1] == run else run)
        return tuple(runs)

    def _find_task(self, key: int, task: int, at: float) -> int | None:
        place = self._latest.get(key, -1)
        while place >= 0:
            if self._ends[place] <= at + TOLERANCE and self._first[place] <= task < self._end[place]:
                run_number = self._runs[place]
                if not self._written[place] or self._store.exists(self._manifest(run_number, task)):
                    return run_number
            place = self._before[place]
        return None

    def _uri_of_entry(self, run_number: int, task: int) -> str:
        task_id = run_number * TASKS_PER_RUN + task + 1
        return f"{self._uri}{run_number}/{task_id}/{derived_uuid(f'{self._uri}{task_id}')}/"

    def _manifest(self, run_number: int, task: int) -> str:
        uri = self._uri_of_entry(run_number, task)
        return f"{uri}{uri.split('/')[-2]}.json"

    def _write(self, run_number: int, task: int, task_arn: str) -> None:
        uri = self._uri_of_entry(run_number, task)
        content = {
            "arn": f"{self._arn}/cacheEntry/{uri.split('/')[-2]}",
            "s3uri": uri,
            "taskArn": f"{task_arn}{run_number * TASKS_PER_RUN + task + 1}",
            "workDir": f"/mnt/workflow/{run_number}/task-{task + 1}",
            "files": [],
            "otherOutputs": {},
            "version": "1.0",
        }
        self._store.write(self._manifest(run_number, task), dump_json(content))
