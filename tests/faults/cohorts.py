"""Runs an OmicsCohortTaskGroup task by task, as Airflow's scheduler does, and judges its results."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from airflow_provider_omics_cache.sensors.run_batch import BatchSubmissionSensor
from airflow_provider_omics_cache.task_groups.cohort import OmicsCohortTaskGroup
from airflow_provider_omics_cache.task_groups.cohort_tasks import (
    CohortCompletionSensor,
    CohortResultsOperator,
    StartCohortBatchOperator,
)
from tests.faults.world import MOST_TRIES, Outcome, Task

try:
    from airflow.sdk import DAG
except ImportError:  # Airflow 2
    from airflow.models.dag import DAG

if TYPE_CHECKING:
    from tests.faults.world import World

GROUP = "cohort"
#: Seconds after which the longest wait of a cancellation has ended.
_WEEK = 7 * 24 * 3600.0
#: Faults with which a listing can have a run whose end is not known.
_UNKNOWN_ENDS = frozenset({"unknown_status", "absent_in_row"})
#: Faults with which a list can be without a batch whose task has failed.
_LATE_LISTS = frozenset({"late", "list_lag", "batch_visible_after"})


class CohortDagRun:
    """A DAG run of a cohort.

    :param world: what it happens in.
    :param samples: runSettingId of each sample.
    :param parameters: parameters of the task group.
    """

    def __init__(self, world: World, samples: list[str], **parameters: Any) -> None:
        self._world = world
        self._samples = samples
        self._max_failed = parameters["max_failed"]
        with DAG("cohort", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
            OmicsCohortTaskGroup(GROUP, **parameters)
        self._tasks = list(_in_order(dag.task_dict))
        self._states: dict[str, str] = {}
        self._xcoms: dict[str, dict[str, Any]] = {}
        world.dag_run = SimpleNamespace(get_task_instance=self._instance)

    @property
    def task_ids(self) -> list[str]:
        """The tasks, in the order in which they run."""
        return [task.task_id for task in self._tasks]

    def run(self, until: str | None = None, after: Mapping[str, Any] | None = None) -> None:
        """Clear the DAG run, and run it.

        :param until: the last task, which is tried once. Default: all tasks run to their end.
        :param after: functions that are called after a task, by its id.
        """
        self._states.clear()
        self._xcoms.clear()
        for task in self._tasks:
            is_last = task.task_id == until
            self._states[task.task_id] = self._state_without(task) or self._state_of(task, 1 if is_last else MOST_TRIES)
            self._world.tell(f"-- {task.task_id} is {self._states[task.task_id]}")
            if is_last:
                return
            if after and task.task_id in after:
                after[task.task_id]()

    def _instance(self, task_id: str, map_index: int) -> Any:
        return SimpleNamespace(state=self._states.get(task_id))

    def _state_without(self, task: Any) -> str | None:
        """Return the state of a task that is not run, because of the tasks before it. None if it is run."""
        if task.trigger_rule != "all_success":
            return None
        states = {self._states[task_id] for task_id in task.upstream_task_ids}
        if states & {"failed", "upstream_failed"}:
            return "upstream_failed"
        return "skipped" if "skipped" in states else None

    def _state_of(self, task: Any, tries: int) -> str:
        outcome = self._world.run(
            Task(task.task_id, lambda **_: self._rendered(task), tries=tries, **self._arguments(task))
        )
        self._xcoms[task.task_id] = outcome.xcoms
        if isinstance(task, CohortResultsOperator) and tries == MOST_TRIES:
            self._judge(outcome)
        if outcome.is_success:
            return "success"
        return "skipped" if type(outcome.error).__name__ == "AirflowSkipException" else "failed"

    def _arguments(self, task: Any) -> dict[str, Any]:
        """Return what the world knows of a task."""
        oracle = self._world.oracle
        if isinstance(task, StartCohortBatchOperator):
            request = _request(task.task_id)

            def check_start(result: Any, xcoms: dict[str, Any]) -> None:
                if oracle.request_of.get(int(result)) != request:
                    owner = oracle.request_of.get(int(result))
                    oracle.found("wrong-batch", f"batch {result} of {owner} was returned for {request}")

            return {"request": request, "check": check_start}
        batch_id = self._rendered(task).__dict__.get("batch_id")
        if batch_id is None:
            return {}
        ends = {"batch_id": batch_id, "seconds": self._world.choices["timeout"]}

        def check_submission(result: Any, xcoms: dict[str, Any]) -> None:
            oracle.is_submitted(batch_id, result, oracle.object_at(result))

        def check_completion(result: Any, xcoms: dict[str, Any]) -> None:
            oracle.is_completed(batch_id, xcoms["run_counts"], oracle.object_at(self._rendered(task).runs_s3_uri))

        def check_cancellation(result: Any, xcoms: dict[str, Any]) -> None:
            oracle.is_cancelled(batch_id)

        if isinstance(task, CohortCompletionSensor):
            return {**ends, "check": check_completion}
        if isinstance(task, BatchSubmissionSensor):
            return {**ends, "check": check_submission}
        if task.is_teardown:
            return {**ends, "seconds": _WEEK, "check": check_cancellation}
        return {"batch_id": batch_id}

    def _rendered(self, task: Any) -> Any:
        """Return a task with its templates rendered, as a new process has it."""
        made = copy.copy(task)
        for name in task.template_fields:
            setattr(made, name, self._value(getattr(task, name)))
        return made

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return value.replace("{{ ti.dag_id }}", "cohort").replace("{{ run_id }}", "run")
        if isinstance(value, dict):
            return {key: self._value(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [self._value(one) for one in value]
        if hasattr(value, "operator") and hasattr(value, "key"):
            return self._xcoms.get(value.operator.task_id, {}).get(value.key)
        return value

    # The results

    def _judge(self, outcome: Outcome) -> None:
        """Check the results, which the task has written before it succeeds or fails for good."""
        oracle = self._world.oracle
        name = type(outcome.error).__name__
        results = self._rendered(self._tasks[-1])
        if name == "CohortError" and oracle.object_at(results.settings_s3_uris[0]) is not None:
            oracle.found("wrong-results", f"the run settings are there: {outcome.error}")
        if not outcome.is_success and name != "TooManyFailedSamplesError":
            return
        records = [json.loads(line) for line in (oracle.object_at(results.results_s3_uri) or b"").splitlines()]
        if [record["run_setting_id"] for record in records] != self._samples:
            oracle.found("wrong-results", f"{len(records)} records of {len(self._samples)} samples")
            return
        for record in records:
            self._judge_record(record)
        failed = sum(record["status"] != "COMPLETED" for record in records)
        if outcome.is_success and failed > self._max_failed:
            oracle.found("ignored-failure", f"the cohort: success with {failed} of {len(records)} samples")
        if not outcome.is_success and failed <= self._max_failed:
            oracle.found("early-failure", f"the cohort: {failed} of {len(records)} samples have failed")

    def _judge_record(self, record: Mapping[str, Any]) -> None:
        oracle, sample = self._world.oracle, record["run_setting_id"]
        runs = [record, *record["history"]] if record["batch_id"] else list(record["history"])
        found = {run["batch_id"] for run in runs}
        batches = [(batch_id, is_certain) for batch_id, settings, is_certain in self._batches() if sample in settings]
        possible = {batch_id for batch_id, _ in batches}
        expected = {batch_id for batch_id, is_certain in batches if is_certain}
        if not expected <= found <= possible or len(runs) != len(found):
            oracle.found("wrong-results", f"{sample}: its runs are in batches {found}, and it was in {possible}")
        statuses = {run["status"] for run in runs}
        if "COMPLETED" in statuses and record["status"] != "COMPLETED":
            oracle.found("wrong-results", f"{sample} has completed, and its record is {record['status']}")
        for run in runs:
            self._judge_run(sample, run)

    def _judge_run(self, sample: str, run: Mapping[str, Any]) -> None:
        oracle, batch_id = self._world.oracle, run["batch_id"]
        if run["status"] == "UNKNOWN":
            state = self._states.get(f"{GROUP}.round_{run['round']}.wait_for_completion")
            if state == "success" and not self._world.wire.applied.keys() & _UNKNOWN_ENDS:
                oracle.found("wrong-results", f"{sample} is UNKNOWN in round {run['round']}, whose end is known")
            return
        run_id = oracle.mapping(batch_id).get(sample)
        status = oracle.run_statuses(batch_id)[sample] if run_id else "NOT_SUBMITTED"
        if (run["run_id"], run["status"]) != (run_id, status):
            shown = f"{run['run_id']} {run['status']}, not {run_id} {status}"
            oracle.found("wrong-results", f"{sample} in batch {batch_id} is {shown}")

    def _batches(self) -> Iterator[tuple[str, set[str], bool]]:
        """Yield the newest batch of each round, its samples, and whether the results must know it.

        The task that starts it has returned it, or a list shows it.
        """
        for task in self._tasks:
            if not isinstance(task, StartCohortBatchOperator):
                continue
            oracle, request = self._world.oracle, _request(task.task_id)
            own = [str(number) for number, owner in oracle.request_of.items() if owner == request]
            settings = json.loads(oracle.object_at(self._rendered(task).run_settings) or b"[]")
            samples = {setting["runSettingId"] for setting in settings}
            returned = self._xcoms.get(task.task_id, {}).get("return_value")
            if returned or own:
                is_certain = bool(returned) or not self._world.wire.applied.keys() & _LATE_LISTS
                yield str(returned or own[-1]), samples, is_certain


def _request(task_id: str) -> str:
    return f"{GROUP}:{task_id}"


def _in_order(tasks: Mapping[str, Any]) -> Iterator[Any]:
    """Yield tasks, each one after those before it."""
    done: set[str] = set()
    while len(done) < len(tasks):
        for task in tasks.values():
            if task.task_id not in done and task.upstream_task_ids <= done:
                done.add(task.task_id)
                yield task
