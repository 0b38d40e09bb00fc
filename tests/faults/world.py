"""Runs the tasks of one schedule as Airflow runs them: tries, retries, deferrals, processes that are killed."""

from __future__ import annotations

import asyncio
import functools
import json
import random
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from airflow_provider_omics_cache.local import moto_backend
from airflow_provider_omics_cache.local.batches import start_run_batch
from airflow_provider_omics_cache.local.protocol import Response
from airflow_provider_omics_cache.local.runs import find_run
from tests.conftest import RecordedTaskInstance
from tests.faults.fail_fast import FailFast, Try, batch_of
from tests.faults.oracle import Oracle
from tests.faults.schedule import Fault, Schedule
from tests.faults.wire import PROXY_PASSWORD, EndlessCalls, Killed, Wire
from tests.sensor_modes import (
    AirflowRescheduleException,
    StoreOfReschedules,
    TaskDeferred,
    _first_reschedule_date_of,
)

#: Seconds of service time by which a try may exceed its deadline.
BOUND = 900.0
#: Most seconds of a try without a deadline: its calls are repeated for an hour each.
LONGEST_TRY = 8 * 3600.0
#: Seconds for which a call without an answer is repeated.
LONGEST_SILENCE = 3600.0
MOST_TRIES = 6
#: Turns of a rescheduled or deferred task after which it counts as one that hangs.
MOST_TURNS = 3_000

ACCOUNT = "123456789012"
SECRET_KEY = "planted-secret-access-key"
TOKEN = "planted-session-token"
POLICY = '{"Version": "2012-10-17", "Id": "planted-session-policy"}'
SECRETS = (SECRET_KEY, TOKEN, "planted-session-policy", PROXY_PASSWORD)

_OWN_SETTING = ("batch_visible_after", "run_cache_visible_after")

Make = Callable[..., Any]


@dataclass
class Task:
    """One task of a DAG run.

    :param id: its task id.
    :param make: makes the operator anew for each process; it takes ``deferrable``, and ``mode`` for a sensor.
    :param mode: how the task waits: ``sync``, ``poke``, ``reschedule`` or ``deferrable``.
    :param request: the request whose batches the task may start. A second task with the same request is the same task.
    :param batch_id: id of the batch that the task is about.
    :param run_uuid: uuid of the single run that the task is about.
    :param mapping_uri: where the task saves the mapping before it deletes something.
    :param seconds: seconds after which a try must have ended.
    :param silence: seconds without an answer after which a try must have ended.
    :param check: judges the result of a try that succeeds.
    :param fail_fast: judges a task with ``fail_fast``.
    :param tries: how often the task is tried.
    """

    id: str
    make: Make
    mode: str = "sync"
    request: str | None = None
    batch_id: str | None = None
    run_uuid: str | None = None
    mapping_uri: str | None = None
    seconds: float = LONGEST_TRY
    silence: float = LONGEST_TRY
    check: Callable[[Any, dict[str, Any]], None] = lambda result, xcoms: None
    fail_fast: FailFast | None = None
    tries: int = MOST_TRIES


@dataclass
class Outcome:
    """How a task ended.

    :param result: what its last try returned.
    :param error: what its last try raised; None if it succeeded.
    :param xcoms: what its last try has pushed.
    """

    result: Any
    error: BaseException | None
    xcoms: dict[str, Any]

    @property
    def is_success(self) -> bool:
        """Whether the task succeeded."""
        return self.error is None


class World:
    """What a schedule happens in.

    :param local: the service.
    :param schedule: the schedule.
    :param trace: function that is called with a line for each call, try and log record.
    """

    policy = POLICY

    def __init__(self, local: Any, schedule: Schedule, trace: Callable[[str], object] | None = None) -> None:
        self.local = local
        self._trace = trace
        self.clock = local.clock
        self.seed = schedule.seed
        self.choices: Mapping[str, Any] = schedule.choices
        self.seed = schedule.seed
        self.random = random.Random(schedule.seed)
        self.oracle = Oracle(local, schedule.choices)
        self.wire = Wire(self, schedule.faults)
        #: What a task sees of its DAG run.
        self.dag_run: Any = None
        #: Page tokens that a fault repeats.
        self.tokens: dict[str, list[str]] = {}
        self.logs: list[str] = []
        self._is_dead = False
        self._task: Task | None = None
        #: The current try.
        self._attempt: Try | None = None
        self._has_twin = False
        self._seen_uuid: str | None = None
        self._due: list[tuple[float, Fault]] = []
        self._happens(schedule.faults)

    # Faults that do not belong to a call

    def _happens(self, faults: tuple[Fault, ...]) -> None:
        inject, applied = self.local.faults, self.wire.applied
        for fault in faults:
            if fault.kind in _OWN_SETTING:
                setattr(self.local.settings, fault.kind, fault.amount)
            elif fault.kind == "forget_tokens":
                self.local.settings.token_seconds = fault.amount
            elif fault.kind == "fail_batch":
                started = max(0, int(fault.amount)) if fault.name == "SUBMITTING" else 0
                reason = "There was a transient error in the service. Retry the batch."
                inject.fail_batch(reason, after=fault.name, started_runs=started, times=fault.times)
            elif fault.kind == "fail_submission":
                inject.fail_submission(fault.name)
            elif fault.kind == "fail_run":
                inject.fail_run(fault.name)
            elif fault.kind == "fail_cancel":
                inject.fail_cancel([fault.name])
            elif fault.kind == "fail_delete":
                inject.fail_delete([fault.name])
            elif fault.kind in ("stale_counts", "late"):
                inject.stale_counts(seconds=fault.amount)
            elif fault.kind in ("cancelled_by_other", "stopping_fails"):
                self._due.append((fault.amount, fault))
                continue
            else:
                continue
            applied[fault.kind] += 1

    def passed(self) -> None:
        """Apply the faults that are due by now to the newest batch or run that a task has started."""
        self.oracle.single_runs.passed()
        numbers = self.oracle.request_of
        if not self._due or not numbers:
            return
        batch = self.oracle.batch(max(numbers))
        now = self.clock.elapsed()
        for entry in list(self._due):
            seconds, fault = entry
            if fault.kind == "cancelled_by_other" and now >= batch.created_at + seconds:
                self._due.remove(entry)
                if str(batch.status(now)) in ("PENDING", "SUBMITTING", "INPROGRESS"):
                    batch.cancel(now, self.local.faults.cancel_fails)
                    self.wire.applied[fault.kind] += 1
            elif fault.kind == "stopping_fails" and _is_stopping(batch, now - seconds):
                self._due.remove(entry)
                batch.failed_at, batch.failure_reason = now, "The service failed while it stopped the batch"
                self.wire.applied[fault.kind] += 1

    def cancel_newest_batch(self, seconds: float) -> None:
        """Let somebody cancel the newest batch so many seconds after its creation."""
        self._due.append((seconds, Fault("cancelled_by_other", amount=seconds)))

    def reuse_id_of(self, url: str, *, living: bool) -> None:
        """Delete the run of a call, and give its id to a run of somebody else's batch."""
        run_id = re.search(r"/run/(\d+)", url)
        assert run_id is not None
        region, context = self.oracle.region, self.local._context
        self.oracle.now  # noqa: B018 - brings the service's time up to the present
        seconds = self.local.settings.run_stopping_seconds
        self.oracle.single_runs.free(int(run_id[1]), self.clock.advance, seconds)
        try:
            batch, index, _ = find_run(region, context, run_id[1])
        except Exception:
            pass
        else:
            if str(batch.run_status(index, context.now)) not in ("COMPLETED", "FAILED", "CANCELLED"):
                self.clock.advance(self.local.settings.run_stopping_seconds)
            batch.delete_run(index)
            region.free_runs([int(run_id[1])])
        settings = self.local.settings
        kept = settings.as_dict()
        seconds = 1e6 if living else 0.0
        changes: dict[str, Any] = dict.fromkeys(("creating_seconds", "pending_seconds", "run_pending_seconds"), 0.0)
        changes |= {"run_starting_seconds": 0.0, "run_stopping_seconds": 0.0, "run_running_seconds": seconds}
        for name, value in (changes | {"reuse_run_ids": True, "submission_rate": float("inf")}).items():
            setattr(settings, name, value)
        region.freed_run_numbers.remove(int(run_id[1])) if int(run_id[1]) in region.freed_run_numbers else None
        region.freed_run_numbers.insert(0, int(run_id[1]))
        self.oracle.now  # noqa: B018
        default = {"workflowId": "7", "roleArn": "arn:aws:iam::123456789012:role/x", "outputUri": "s3://other/out"}
        answer = start_run_batch(
            region,
            context,
            {
                "requestId": f"other-{run_id[1]}",
                "batchName": "somebody-else",
                "defaultRunSetting": default,
                "batchRunSettings": {"inlineSettings": [{"runSettingId": "theirs"}]},
            },
        )
        self.oracle.batch(answer["id"])
        for name, value in kept.items():
            setattr(settings, name, value)

    # What lies in S3

    def create_bucket(self, bucket: str) -> None:
        """Create a bucket."""
        moto_backend.moto_client("s3", ACCOUNT).create_bucket(Bucket=bucket)

    def put_object(self, uri: str, content: str) -> None:
        """Write an object."""
        moto_backend.moto_client("s3", ACCOUNT).put_object(**moto_backend._bucket_and_key(uri), Body=content.encode())

    # Calls

    def tell(self, text: str) -> None:
        """Write a line of the trace."""
        if self._trace:
            self._trace(f"{self.clock.elapsed():10.2f} {text}")

    def check_alive(self) -> None:
        """Let nothing of a killed process reach the service."""
        if self._is_dead:
            raise Killed

    def kill(self) -> None:
        """End the process that makes the current call."""
        self._is_dead = True
        raise Killed

    @contextmanager
    def watched(self, operation: str, url: str) -> Iterator[None]:
        """Let the oracle see the state of the service before and after it acts on a call."""
        task, oracle = self._task, self.oracle
        assert task is not None
        seen_uuid, self._seen_uuid = self._seen_uuid, None
        before = set(oracle.region.batches)
        run = oracle.run_of(url) if operation in ("CancelRun", "DeleteRun") else None
        changed_before = run
        single_runs = oracle.single_runs
        runs_before = single_runs.uuids()
        single = single_runs.single(url) if run is None and operation in ("CancelRun", "DeleteRun") else None
        if operation in ("DeleteRunBatch", "DeleteBatch", "DeleteRun") and task.batch_id:
            oracle.deleting(operation, task.batch_id, task.mapping_uri)
        with self._watched_cancellation(operation, run and run[0]):
            yield
        if operation == "StartRun" and task.request:
            single_runs.note(runs_before, task.request)
        elif single is not None or (run is not None and task.run_uuid):
            own = {started.run.uuid for started in single_runs.started if started.request == task.request}
            own |= {task.run_uuid} if task.run_uuid else set()
            # CancelRun and DeleteRun take no uuid: a task can only look at the run in the call before.
            if not own & {single and single.uuid, seen_uuid}:
                oracle.found("foreign-run", f"{operation} of a run of another task by {task.id}")
        elif operation == "StartRunBatch" and task.request:
            oracle.started(before, task.request)
        elif operation in ("CreateRunCache", "CreateRunGroup"):
            oracle.created()
        elif run is not None and task.batch_id and oracle.run_of(url) != changed_before:
            oracle.ended_run(operation, run, task.batch_id)

    @contextmanager
    def _watched_cancellation(self, operation: str, number: int | None) -> Iterator[None]:
        """Let the judge of ``fail_fast`` see which batches a call cancels.

        :param number: the batch of the run that CancelRun is about.
        """
        if operation not in ("CancelRunBatch", "CancelRun") or self._judged is None:
            yield
            return
        judge, attempt = self._judged
        if number is not None:
            judge.check_owner(operation, number)
        active = [
            (batch, judge.failures(batch.number), len(batch._cancelled_runs))
            for batch in self.oracle.region.every_batch()
            if batch.cancelled_at is None
        ]
        yield
        for batch, failed, cancelled_before in active:
            if batch.cancelled_at is not None:
                judge.has_cancelled(attempt, batch.number, failed, cancelled_before)

    @property
    def _judged(self) -> tuple[FailFast, Try] | None:
        """The judge of the current task and its current try, if the task has ``fail_fast``."""
        if self._task is None or self._task.fail_fast is None or self._attempt is None:
            return None
        return self._task.fail_fast, self._attempt

    def asks(self, operation: str) -> None:
        """Let the judge of ``fail_fast`` see a call."""
        if operation == "GetBatch" and self._judged is not None:
            judge, attempt = self._judged
            judge.asked(attempt, self.clock.elapsed())

    def answers(self, operation: str, url: str, body: bytes) -> None:
        """Let the judge of ``fail_fast`` see an answer that no fault has changed."""
        if operation == "GetBatch" and self._judged is not None:
            judge, attempt = self._judged
            if str(judge.number(attempt)) == batch_of(url):
                judge.answered(attempt, json.loads(body), self.clock.elapsed())

    def returns(self, operation: str, response: Response) -> None:
        """Note the run that the task sees in the answer of its last call."""
        if operation == "GetRun" and response.status < 300:
            with suppress(ValueError):
                self._seen_uuid = json.loads(response.body).get("uuid")

    def run_twin(self) -> bool:
        """Run another try of the current task while the first one makes a call. Return whether it was run."""
        if self._has_twin or self._task is None or _is_in_loop():
            return False
        self._has_twin, seen_uuid = True, self._seen_uuid
        try:
            self._try(self._task)
        finally:
            self._has_twin, self._seen_uuid = False, seen_uuid
            self._is_dead = False
        return True

    # Tasks

    def run(self, task: Task) -> Outcome:
        """Run a task until it succeeds, fails for good, or has no tries left."""
        self._task = task
        outcome = Outcome(None, None, {})
        for number in range(task.tries):
            if number:
                self.clock.advance(self.choices.get("retry_delay", 60.0))
            self._is_dead = False
            outcome = self._try(task)
            if outcome.is_success or _is_final(outcome.error):
                break
        self._task = None
        return outcome

    def _try(self, task: Task) -> Outcome:
        ti = RecordedTaskInstance()
        ti.task_id = task.id
        context = {"ti": ti, "task_instance": ti, "run_id": ti.run_id, "dag_run": self.dag_run, "deferrals": []}
        began = self.wire.answered_at = self.clock.elapsed()
        outcome = Outcome(None, None, ti.xcoms)
        outer = self._attempt
        self._attempt = attempt = Try(began, ti.xcoms)
        self.tell(f"-- a try of {task.id} ({task.mode})")
        try:
            outcome.result = self._execute(task, context)
        except Killed as error:
            outcome.error = error
        except EndlessCalls as error:
            outcome.error = error
            self.oracle.found("hang", f"task {task.id} calls the service without end")
        except Exception as error:
            outcome.error = error
            self.oracle.failed(error, task.batch_id, task.request, self.wire.applied, task.run_uuid)
        else:
            task.check(outcome.result, ti.xcoms)
        self._attempt = outer
        if task.fail_fast and not isinstance(outcome.error, (Killed, EndlessCalls)):
            task.fail_fast.ended(attempt, outcome.error, self.wire.applied)
        took = self.clock.elapsed() - began
        self.tell(f"-- {task.id}: {outcome.result if outcome.is_success else repr(outcome.error)}")
        if took > task.seconds + BOUND:
            self.oracle.found("hang", f"a try of task {task.id} took more than {task.seconds:,.0f} s")
        silent = self.clock.elapsed() - self.wire.answered_at
        if silent > task.silence + BOUND:
            self.oracle.found(
                "hang", f"a try of task {task.id} was without an answer for more than {task.silence:,.0f} s"
            )
        self._search_secrets(outcome, context)
        return outcome

    def _execute(self, task: Task, context: dict[str, Any]) -> Any:
        arguments: dict[str, Any] = {"deferrable": True} if task.mode == "deferrable" else {}
        if task.mode in ("poke", "reschedule"):
            arguments["mode"] = task.mode
        ti = context["ti"]
        ti.start_date = self.clock.now()
        context["kept"] = StoreOfReschedules(self.choices.get("store"), context)
        with _first_reschedule_date_of(ti), context["kept"].installed():
            operator = task.make(**arguments)
            step = functools.partial(operator.execute, context)
            for _ in range(MOST_TURNS):
                try:
                    result = step()
                except AirflowRescheduleException:
                    ti.first_reschedule_date = ti.first_reschedule_date or self.clock.now()
                    context["kept"].start_again()
                    self.clock.advance(operator.poke_interval)
                    operator = task.make(**arguments)
                    step = functools.partial(operator.execute, context)
                except TaskDeferred as deferral:
                    context["deferrals"].append(deferral)
                    event = self._fire(deferral.trigger)
                    ti.start_date = self.clock.now()
                    operator = task.make(**arguments)
                    kwargs = {**(deferral.kwargs or {}), "event": event}
                    step = functools.partial(operator.resume_execution, deferral.method_name, kwargs, context)
                else:
                    ti.xcoms["return_value"] = json.loads(json.dumps(result))
                    return result
        raise EndlessCalls

    def _fire(self, trigger: Any) -> dict[str, Any]:
        """Run a trigger to its event. If its process is killed, another one begins anew."""
        path, kwargs = trigger.serialize()
        module, name = path.rsplit(".", 1)
        stored = json.dumps(kwargs)
        for _ in range(MOST_TRIES):
            again = getattr(import_module(module), name)(**json.loads(stored))

            async def first_event(again: Any = again) -> Any:
                return await anext(again.run())

            try:
                event: dict[str, Any] = json.loads(json.dumps(asyncio.run(first_event()).payload, allow_nan=False))
            except Killed:
                self._is_dead = False
            else:
                return event
        raise EndlessCalls

    def _search_secrets(self, outcome: Outcome, context: dict[str, Any]) -> None:
        texts = {"an XCom": json.dumps(outcome.xcoms), "a log": "\n".join(self.logs)}
        error = outcome.error
        while error is not None:
            texts["an error"] = f"{texts.get('an error', '')}{error!s}{error!r}"
            error = error.__cause__ or error.__context__
        for deferral in context["deferrals"]:
            texts["a trigger"] = json.dumps(deferral.trigger.serialize()[1])
        for place, text in texts.items():
            for secret in SECRETS:
                if secret in text:
                    self.oracle.found("secret", f"{secret} in {place}")
        self.logs.clear()


def _is_stopping(batch: Any, at: float) -> bool:
    return batch.cancelled_at is not None and batch.cancelled_at <= at and batch.failed_at is None


def _is_in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _is_final(error: BaseException | None) -> bool:
    names = {cls.__name__ for cls in type(error).__mro__}
    return bool(names & {"AirflowFailException", "AirflowSkipException", "AirflowSensorTimeout", "EndlessCalls"})
