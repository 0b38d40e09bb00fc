"""What is run under faults: one scenario for each operator, sensor and helper.

To add a scenario, write a function that takes a :class:`~tests.faults.world.World`, runs tasks with ``world.run``, and
lets ``world.oracle`` judge their results (the ``check`` of a :class:`~tests.faults.world.Task`). Register it with
:func:`scenario`, with the operations that it calls and the choices that its seed makes. If a result needs a new
judgement, add it to ``oracle.py`` and name it in ``INVARIANTS``. Faults need no change: each kind applies to the
operations of the scenario.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from airflow_provider_omics_cache.local.batches import start_run_batch
from airflow_provider_omics_cache.local.runs import start_run
from airflow_provider_omics_cache.local.single_run import SingleRun
from airflow_provider_omics_cache.operators.run import CancelRunOperator, DeleteRunOperator, StartRunOperator
from airflow_provider_omics_cache.operators.run_batch import (
    CancelRunBatchOperator,
    DeleteRunBatchOperator,
    StartRunBatchOperator,
)
from airflow_provider_omics_cache.operators.run_cache import (
    CreateRunCacheOperator,
    DeleteRunCacheOperator,
    UpdateRunCacheOperator,
)
from airflow_provider_omics_cache.operators.run_group import CreateRunGroupOperator, DeleteRunGroupOperator
from airflow_provider_omics_cache.resubmission import failed_run_settings
from airflow_provider_omics_cache.sensors.run import RunCompletionSensor
from airflow_provider_omics_cache.sensors.run_batch import BatchCompletionSensor, BatchSubmissionSensor
from airflow_provider_omics_cache.task_groups.cohort import RunCache
from tests.faults.cohorts import GROUP, CohortDagRun
from tests.faults.fail_fast import FailFast
from tests.faults.schedule import Schedule, draw
from tests.faults.world import LONGEST_SILENCE, POLICY, Outcome, Task, World
from tests.sensor_modes import STORES

BUCKET = "cohort"
CACHE = {"name": "cohort", "cache_s3_location": f"s3://{BUCKET}/cache"}
DEFAULT = {
    "workflowId": "1234567",
    "roleArn": "arn:aws:iam::123456789012:role/omics",
    "outputUri": f"s3://{BUCKET}/out",
}
#: Values of the choices that every scenario has.
CHOICES: dict[str, tuple[Any, ...]] = {
    "runs": (1, 3, 5, 9),
    "page_size": (None, 2, 2, 3),
    "timeout": (120.0, 600.0, 3600.0, 86_400.0),
    "max_silence": (600.0, 3600.0),
    "retry_delay": (0.0, 60.0, 300.0),
    "attempts": (1, 3),
    "listing_order": ("input", "shuffled"),
    "list_unsubmitted_runs": (False, True),
    "cancelled_before_submission": ("hidden", "listed"),
    "replayed_status": ("initial", "current"),
    "changed_request_error": ("ConflictException", "ValidationException"),
    "wrong_state_error": ("ConflictException", "ValidationException"),
    "counts_before_submitting": (True, False),
    "submission_rate": (20.0, 20.0, 0.5, 0.005),
    "run_running_seconds": (20.0, 20.0, 400.0, 2_000.0),
    "interval": (20.0, 60.0),
}
_SETTINGS = (
    "listing_order",
    "list_unsubmitted_runs",
    "cancelled_before_submission",
    "replayed_status",
    "changed_request_error",
    "wrong_state_error",
    "counts_before_submitting",
    "submission_rate",
    "run_running_seconds",
)
#: How many settings have their own ``outputUri``, where records of the runs are written.
_OWN_OUTPUT_URIS = {"own_output_uris": (0, 0, 1, 3)}
SENSOR = {"mode": ("poke", "reschedule", "deferrable"), "store": (*STORES, None)}
OPERATOR = {"mode": ("sync", "deferrable")}


@dataclass(frozen=True)
class Scenario:
    """A scenario.

    :param run: runs its tasks.
    :param operations: the operations that its tasks call.
    :param without: kinds of faults that make no sense in it.
    :param choices: values of the choices that only this scenario has.
    """

    run: Callable[[World], None]
    operations: tuple[str, ...]
    without: tuple[str, ...] = ()
    choices: tuple[tuple[str, tuple[Any, ...]], ...] = ()

    def draw(self, seed: int, profile: str) -> Schedule:
        """Draw a schedule."""
        choices = {**CHOICES, **dict(self.choices)}
        return draw(
            seed,
            scenario=self.run.__name__,
            profile=profile,
            operations=self.operations,
            without=self.without,
            choices=choices,
        )


#: Every scenario, by name.
SCENARIOS: dict[str, Scenario] = {}

_BATCH_ONLY = (
    "cancelled_by_other",
    "stopping_fails",
    "fail_batch",
    "fail_submission",
    "fail_run",
    "fail_cancel",
    "fail_delete",
    "batch_visible_after",
)
_CACHE_ONLY = ("run_cache_visible_after",)


def scenario(
    *operations: str, without: tuple[str, ...] = (), **choices: tuple[Any, ...]
) -> Callable[[Callable[[World], None]], Callable[[World], None]]:
    """Register a scenario under the name of the function."""

    def register(run: Callable[[World], None]) -> Callable[[World], None]:
        SCENARIOS[run.__name__] = Scenario(run, operations, without, tuple(choices.items()))
        return run

    return register


def prepare(world: World) -> None:
    """Set the service up as the schedule says."""
    for name in _SETTINGS:
        setattr(world.local.settings, name, world.choices[name])
    world.local.settings.failed_batch_token = "replays" if world.seed % 2 else "starts_again"
    world.local.settings.reuse_run_ids = True
    # The oracle asks about deleted batches.
    setattr(world.oracle.region, "free_removed_batches", lambda: None)  # noqa: B010
    world.create_bucket(BUCKET)


def _botocore(world: World) -> dict[str, Any]:
    return {"retries": {"total_max_attempts": world.choices["attempts"]}}


def _settings(world: World) -> list[dict[str, Any]]:
    """Return the settings of the runs. A few may have their own ``outputUri``, but not those of the first run."""
    own = range(1, 1 + world.choices.get("own_output_uris", 0))
    return [
        {
            "runSettingId": f"sample-{n}",
            "parameters": {"n": n},
            **({"outputUri": f"s3://{BUCKET}/own/{n}/"} if n in own else {}),
        }
        for n in range(world.choices["runs"])
    ]


def _limits(world: World) -> dict[str, float]:
    return {"timeout": world.choices["timeout"], "max_silence": world.choices["max_silence"]}


def _records(world: World) -> dict[str, Any]:
    """Return the arguments of a task that may write a record of each run."""
    if not world.choices["records"]:
        return {}
    include_outputs = (False, True, "exact")[world.seed % 3]
    return {"runs_s3_uri": f"s3://{BUCKET}/runs.jsonl", "include_outputs": include_outputs}


def _ends(world: World) -> dict[str, float]:
    return {"seconds": world.choices["timeout"], "silence": world.choices["max_silence"]}


def _judge(world: World, counted: str, given: dict[str, Any], **task: Any) -> FailFast | None:
    """Return the judge of a task with ``fail_fast``, None for another task.

    :param counted: what counts as a failure, ``submissions`` or ``runs``.
    :param given: arguments of the task.
    :param task: the other arguments of the judge.
    """
    if not given.get("fail_fast"):
        return None
    return FailFast(world.oracle, counted, world.choices["max_failed"], world.choices["timeout"], **task)


def _batch(world: World, *, name: str = "given") -> str:
    """Start a batch that no task of the scenario has started."""
    region = world.oracle.region
    world.oracle.now  # noqa: B018 - brings the service's time up to the present
    answer = start_run_batch(
        region,
        world.local._context,
        {
            "requestId": name,
            "batchName": name,
            "defaultRunSetting": DEFAULT,
            "batchRunSettings": {"inlineSettings": _settings(world)},
        },
    )
    world.oracle.request_of[int(answer["id"])] = f"given {name}"
    return str(answer["id"])


# Run caches


def _create_cache(world: World, request: str = "cache", **arguments: Any) -> Outcome:
    wanted = {"name": "cohort", "location": CACHE["cache_s3_location"], "deleted": False}

    def check(result: Any, xcoms: dict[str, Any]) -> None:
        world.oracle.is_cache(result, **wanted)

    make = partial(CreateRunCacheOperator, task_id=request, **CACHE, **arguments, botocore_config=_botocore(world))
    return world.run(Task(request, make, check=check))


#: Only the request token protects from what is hidden for longer than the package waits for it.
_MOST_HIDDEN = {"most_hidden": (400.0, 8_000.0)}
_CACHE_CALLS = ("CreateRunCache", "GetRunCache", "ListRunCaches")


@scenario(*_CACHE_CALLS, without=_BATCH_ONLY, **_MOST_HIDDEN)
def create_run_cache(world: World) -> None:
    """Create a run cache, twice."""
    _create_cache(world)
    world.clock.advance(world.random.choice((0, 100, 4_000)))
    _create_cache(world, "again")


@scenario(*_CACHE_CALLS, "UpdateRunCache", "TagResource", without=_BATCH_ONLY)
def update_run_cache(world: World) -> None:
    """Create a run cache and change it."""
    created = _create_cache(world)
    if not created.is_success:
        return

    def check(result: Any, xcoms: dict[str, Any]) -> None:
        world.oracle.is_cache(result, behavior="CACHE_ALWAYS", description="new", tags={"team": "a"}, deleted=False)

    make = partial(
        UpdateRunCacheOperator,
        task_id="update",
        run_cache_id=created.result,
        cache_behavior="CACHE_ALWAYS",
        description="new",
        tags={"team": "a"},
        botocore_config=_botocore(world),
    )
    world.run(Task("update", make, check=check))


@scenario(*_CACHE_CALLS, "DeleteRunCache", without=_BATCH_ONLY)
def delete_run_cache(world: World) -> None:
    """Create a run cache, delete it, and create it again."""
    created = _create_cache(world)
    if not created.is_success:
        return

    def check(result: Any, xcoms: dict[str, Any]) -> None:
        world.oracle.is_cache(result, deleted=True)

    make = partial(
        DeleteRunCacheOperator, task_id="delete", run_cache_id=created.result, botocore_config=_botocore(world)
    )
    if world.run(Task("delete", make, check=check)).is_success:
        _create_cache(world, "again")


# Run groups


def _create_group(world: World, request: str = "group", max_runs: int = 5) -> Outcome:
    def check(result: Any, xcoms: dict[str, Any]) -> None:
        world.oracle.is_group(result, maxRuns=max_runs)

    make = partial(
        CreateRunGroupOperator,
        task_id=request,
        name="cohort",
        max_runs=max_runs,
        if_exists="update",
        botocore_config=_botocore(world),
    )
    return world.run(Task(request, make, check=check))


_GROUP_CALLS = ("CreateRunGroup", "GetRunGroup", "ListRunGroups", "UpdateRunGroup")


@scenario(*_GROUP_CALLS, without=(*_BATCH_ONLY, *_CACHE_ONLY))
def create_run_group(world: World) -> None:
    """Create a run group, twice, with other limits."""
    _create_group(world)
    world.clock.advance(world.random.choice((0, 100, 4_000)))
    _create_group(world, "again", max_runs=6)


@scenario(*_GROUP_CALLS, "DeleteRunGroup", without=(*_BATCH_ONLY, *_CACHE_ONLY))
def delete_run_group(world: World) -> None:
    """Create a run group, delete it, and create it again."""
    created = _create_group(world)
    if not created.is_success:
        return

    def check(result: Any, xcoms: dict[str, Any]) -> None:
        world.oracle.is_group(result, deleted=True)

    make = partial(
        DeleteRunGroupOperator, task_id="delete", run_group_id=created.result, botocore_config=_botocore(world)
    )
    if world.run(Task("delete", make, check=check)).is_success:
        _create_group(world, "again")


# Start


def _start(world: World, *, request: str = "start", mode: str = "sync", change: Any = None, **given: Any) -> Outcome:
    """Run StartRunBatchOperator. ``change`` changes the arguments of each try."""
    arguments: dict[str, Any] = {
        "default_run_setting": {**DEFAULT, **({"sessionPolicy": POLICY} if world.choices.get("policy") else {})},
        "run_settings": _settings(world),
        "botocore_config": _botocore(world),
        **given,
    }
    waits = arguments.get("wait_for_completion", False)
    if waits:
        arguments = {"waiter_delay": world.choices["interval"], **_limits(world), **arguments}

    def make(**mode: Any) -> StartRunBatchOperator:
        if change:
            change(arguments)
        return StartRunBatchOperator(task_id=request.split("/")[0], **arguments, **mode)

    def check(result: Any, xcoms: dict[str, Any]) -> None:
        owner = world.oracle.request_of.get(int(result))
        if owner != request or xcoms["batch"]["id"] != result:
            world.oracle.found("wrong-batch", f"batch {result} of {owner} was returned for {request}")
        if waits:
            written = world.oracle.object_at(given["runs_s3_uri"]) if "runs_s3_uri" in given else None
            world.oracle.is_completed(result, xcoms["run_counts"], written)

    limits = {"seconds": 4 * 3600.0 + world.choices["timeout"], "silence": LONGEST_SILENCE} if waits else {}
    cancels, uri = given.get("cancel_on_failure", False), given.get("runs_s3_uri")
    judge = _judge(world, "runs", given, request=request, cancels=cancels, uri=uri)
    return world.run(
        Task(request.split("/")[0], make, mode=mode, request=request, check=check, fail_fast=judge, **limits)
    )


_START_CALLS = ("StartRunBatch", "ListBatch", "GetBatch", "ListRunsInBatch")
_DURING_START = ("fail_run", "fail_cancel", "fail_delete")


@scenario(
    *_START_CALLS, without=(*_CACHE_ONLY, *_DURING_START), change=(False, True), policy=(False, True), **_MOST_HIDDEN
)
def start_batch(world: World) -> None:
    """Start a batch, and run the task again when it is cleared, with other tags and another order of the settings."""

    def change(arguments: dict[str, Any]) -> None:
        if world.choices["change"]:
            arguments["run_settings"] = arguments["run_settings"][::-1]
            arguments["tags"] = {"try": str(world.random.randrange(1000))}

    _start(world, change=change)
    world.clock.advance(world.random.choice((0, 5, 100, 4_000)))
    _start(world, change=change)


@scenario(*_START_CALLS, "s3.HeadObject", without=(*_CACHE_ONLY, *_DURING_START), **_MOST_HIDDEN)
def start_batch_of_a_file(world: World) -> None:
    """Start a batch whose settings somebody else has written to S3."""
    uri = f"s3://{BUCKET}/settings.json"
    world.put_object(uri, json.dumps(_settings(world)))
    _start(world, run_settings=uri)
    world.clock.advance(world.random.choice((0, 5, 100)))
    _start(world, run_settings=uri)


@scenario(
    *_START_CALLS,
    "s3.HeadObject",
    "s3.PutObject",
    without=(*_CACHE_ONLY, *_DURING_START),
    runs=(101,),
    page_size=(None, 40),
    submission_rate=(20.0, 1000.0),
)
def start_staged_batch(world: World) -> None:
    """Start a batch whose settings the task writes to S3."""
    _start(world, settings_s3_prefix=f"s3://{BUCKET}/staged")
    _start(world, settings_s3_prefix=f"s3://{BUCKET}/staged")


@scenario(
    *_START_CALLS,
    "ListRuns",
    "GetRun",
    "s3.PutObject",
    without=(*_CACHE_ONLY, "fail_cancel", "fail_delete"),
    **OPERATOR,
    max_failed=(0, 1, "50%", "100%"),
    records=(False, True),
    cancel_on_timeout=(False, False, True),
    **_OWN_OUTPUT_URIS,
)
def start_batch_and_wait(world: World) -> None:
    """Start a batch and wait for its runs in the same task."""
    records = _records(world)
    _start(
        world,
        mode=world.choices["mode"],
        wait_for_completion=True,
        max_failed_runs=world.choices["max_failed"],
        cancel_on_timeout=world.choices["cancel_on_timeout"],
        **records,
    )


# Sensors


def _submission(world: World, batch_id: str, **given: Any) -> Outcome:
    arguments = {
        "batch_id": batch_id,
        "poke_interval": world.choices["interval"],
        "botocore_config": _botocore(world),
        "max_failed_submissions": "100%",
        **_limits(world),
        **given,
    }

    def make(**mode: Any) -> BatchSubmissionSensor:
        return BatchSubmissionSensor(task_id="submission", **arguments, **mode)

    def check(result: Any, xcoms: dict[str, Any]) -> None:
        written = world.oracle.object_at(result) if isinstance(result, str) else None
        world.oracle.is_submitted(batch_id, result, written)

    judge = _judge(world, "submissions", given, batch_id=batch_id, uri=given.get("mapping_s3_uri"))
    return world.run(
        Task(
            "submission",
            make,
            world.choices["mode"],
            batch_id=batch_id,
            **_ends(world),
            check=check,
            fail_fast=judge,
        )
    )


_AFTER_START = (*_CACHE_ONLY, "fail_delete")


@scenario(
    "GetBatch", "ListRunsInBatch", "s3.PutObject", without=(*_AFTER_START, "fail_run"), **SENSOR, written=(False, True)
)
def submission_sensor(world: World) -> None:
    """Wait for the submission of a batch."""
    written = {"mapping_s3_uri": f"s3://{BUCKET}/mapping.jsonl"} if world.choices["written"] else {}
    _submission(world, _batch(world), **written)


@scenario(
    "GetBatch",
    "ListRunsInBatch",
    "ListRuns",
    "GetRun",
    "s3.PutObject",
    without=_AFTER_START,
    **SENSOR,
    max_failed=(0, 1, "50%", "100%"),
    records=(False, True),
    **_OWN_OUTPUT_URIS,
)
def completion_sensor(world: World) -> None:
    """Wait for the end of the runs of a batch."""
    _completion(world, _batch(world))


def _completion(world: World, batch_id: str, **given: Any) -> Outcome:
    records = _records(world)
    arguments = {
        "batch_id": batch_id,
        "poke_interval": world.choices["interval"],
        "botocore_config": _botocore(world),
        "max_failed_runs": world.choices["max_failed"],
        **_limits(world),
        **records,
        **given,
    }

    def make(**mode: Any) -> BatchCompletionSensor:
        return BatchCompletionSensor(task_id="completion", **arguments, **mode)

    def check(result: Any, xcoms: dict[str, Any]) -> None:
        written = world.oracle.object_at(records["runs_s3_uri"]) if records else None
        world.oracle.is_completed(batch_id, xcoms["run_counts"], written)

    judge = _judge(world, "runs", given, batch_id=batch_id, uri=records.get("runs_s3_uri"))
    return world.run(
        Task(
            "completion",
            make,
            world.choices["mode"],
            batch_id=batch_id,
            **_ends(world),
            check=check,
            fail_fast=judge,
        )
    )


# Waits that end early

#: Runs fail one after the other, while others are active.
_FAILURES: dict[str, tuple[Any, ...]] = {
    "runs": (3, 5, 9, 12),
    "failing_submissions": (0, 1, 2, 4),
    "failing_runs": (0, 1, 2, 4),
    "max_failed": (0, 1, 2, "20%", "50%"),
    "submission_rate": (20.0, 0.2, 0.05, 0.02),
    "run_running_seconds": (5.0, 20.0, 200.0),
}


def _let_fail(world: World) -> None:
    """Let submissions and runs fail, as many as the choices say."""
    names = [setting["runSettingId"] for setting in _settings(world)]
    for name in world.random.sample(names, min(len(names), world.choices["failing_submissions"])):
        world.local.faults.fail_submission(name)
    for name in world.random.sample(names, min(len(names), world.choices["failing_runs"])):
        world.local.faults.fail_run(name)


@scenario(
    "GetBatch",
    "ListRunsInBatch",
    "s3.PutObject",
    without=(*_AFTER_START, "fail_run"),
    **SENSOR,
    **{**_FAILURES, "failing_submissions": (1, 2, 4), "failing_runs": (0,)},
    written=(False, True),
)
def submission_sensor_with_fail_fast(world: World) -> None:
    """Wait for the submission of a batch until too many submissions have failed."""
    _let_fail(world)
    written = {"mapping_s3_uri": f"s3://{BUCKET}/mapping.jsonl"} if world.choices["written"] else {}
    _submission(world, _batch(world), fail_fast=True, max_failed_submissions=world.choices["max_failed"], **written)


@scenario(
    "GetBatch",
    "ListRunsInBatch",
    "ListRuns",
    "GetRun",
    "s3.PutObject",
    without=_AFTER_START,
    **SENSOR,
    **_FAILURES,
    records=(False, True),
)
def completion_sensor_with_fail_fast(world: World) -> None:
    """Wait for the runs of a batch until too many of them have failed."""
    _let_fail(world)
    _completion(world, _batch(world), fail_fast=True)


@scenario(
    *_START_CALLS,
    "CancelRunBatch",
    "ListRuns",
    "GetRun",
    "CancelRun",
    "s3.PutObject",
    without=(*_CACHE_ONLY, "fail_delete"),
    **OPERATOR,
    **_FAILURES,
    records=(False, True),
    cancel_on_failure=(False, True, True),
    others=(False, False, True),
    again=(False, True),
)
def start_batch_with_fail_fast(world: World) -> None:
    """Start a batch, wait until too many runs have failed, and run the task again when it is cleared."""
    _let_fail(world)
    if world.choices["others"]:
        _batch(world, name="another")
    records = {"runs_s3_uri": f"s3://{BUCKET}/runs.jsonl"} if world.choices["records"] else {}

    def start_and_wait() -> None:
        _start(
            world,
            mode=world.choices["mode"],
            wait_for_completion=True,
            max_failed_runs=world.choices["max_failed"],
            fail_fast=True,
            cancel_on_failure=world.choices["cancel_on_failure"],
            **records,
        )

    start_and_wait()
    if world.choices["again"]:
        world.clock.advance(world.random.choice((0, 5, 100, 4_000)))
        start_and_wait()


# The end of a batch


@scenario(
    "GetBatch",
    "CancelRunBatch",
    "ListRuns",
    "ListRunsInBatch",
    "GetRun",
    "CancelRun",
    without=(*_AFTER_START, "fail_submission"),
    **OPERATOR,
    teardown=(False, True),
    age=(0, 2, 5, 12),
    run_running_seconds=(400.0, 40_000.0),
)
def cancel_batch(world: World) -> None:
    """Cancel a batch, also as a teardown."""
    batch_id = _batch(world)
    world.clock.advance(world.choices["age"])

    def make(**mode: Any) -> CancelRunBatchOperator:
        operator = CancelRunBatchOperator(
            task_id="cancel",
            batch_id=batch_id,
            waiter_delay=world.choices["interval"],
            botocore_config=_botocore(world),
            **_limits(world),
            **mode,
        )
        operator.is_teardown = world.choices["teardown"]
        return operator

    def check(result: Any, xcoms: dict[str, Any]) -> None:
        world.oracle.is_cancelled(batch_id)

    world.run(Task("cancel", make, world.choices["mode"], batch_id=batch_id, **_ends(world), check=check))


@scenario(
    "GetBatch",
    "DeleteRunBatch",
    "DeleteBatch",
    "ListRuns",
    "ListRunsInBatch",
    "GetRun",
    "DeleteRun",
    "s3.HeadObject",
    "s3.PutObject",
    without=_CACHE_ONLY,
    **OPERATOR,
    batch_too=(False, True),
    run_running_seconds=(20.0,),
    age=(0, 1, 100),
    cancelled=(False, True),
)
def delete_batch(world: World) -> None:
    """Delete the runs of a batch that has ended, and the batch."""
    batch_id = _batch(world)
    world.clock.advance(8)
    batch = world.oracle.batch(batch_id)
    if world.choices["cancelled"] and batch.failed_at is None:
        batch.cancel(world.oracle.now, world.local.faults.cancel_fails)
    while world.oracle.status(batch_id) not in ("PROCESSED", "CANCELLED", "FAILED"):
        world.clock.advance(1)
    world.clock.advance(world.choices["age"])
    uri = f"s3://{BUCKET}/saved.jsonl" if world.choices["batch_too"] else None

    def make(**mode: Any) -> DeleteRunBatchOperator:
        return DeleteRunBatchOperator(
            task_id="delete",
            batch_id=batch_id,
            delete_batch=world.choices["batch_too"],
            save_mapping_s3_uri=uri,
            waiter_delay=world.choices["interval"],
            botocore_config=_botocore(world),
            **_limits(world),
            **mode,
        )

    def check(result: Any, xcoms: dict[str, Any]) -> None:
        world.oracle.is_deleted(batch_id, batch_too=world.choices["batch_too"])

    world.run(
        Task(
            "delete",
            make,
            world.choices["mode"],
            batch_id=batch_id,
            mapping_uri=uri,
            **_ends(world),
            check=check,
        )
    )


# Single runs

_RUN_GIVEN = {
    "workflow_id": DEFAULT["workflowId"],
    "role_arn": DEFAULT["roleArn"],
    "output_uri": DEFAULT["outputUri"],
    "parameters": {"sample": "HG001"},
}
_SINGLE_RUN: dict[str, tuple[Any, ...]] = {
    "runs": (1,),
    "run_fails": (None, None, None, "at_end"),
    "run_cancelled_after": (None, None, None, 3.5, 40.0),
}
_RUN_CALLS = ("StartRun", "ListRuns", "GetRun")
_NO_BATCH = (*_BATCH_ONLY, *_CACHE_ONLY)


def _start_run(
    world: World, *, request: str = "start", mode: str = "sync", change: Any = None, **given: Any
) -> Outcome:
    """Run StartRunOperator. ``change`` changes the arguments of each try."""
    policy = {"session_policy": POLICY} if world.choices.get("policy") else {}
    arguments: dict[str, Any] = {**_RUN_GIVEN, **policy, "botocore_config": _botocore(world), **given}
    waits = arguments.get("wait_for_completion", False)
    if waits:
        arguments = {"waiter_delay": world.choices["interval"], **_limits(world), **arguments}

    def make(**mode: Any) -> StartRunOperator:
        if change:
            change(arguments)
        return StartRunOperator(task_id="start", **arguments, **mode)

    def check(result: Any, xcoms: dict[str, Any]) -> None:
        world.oracle.single_runs.is_own(result, request, xcoms["run"])
        if waits:
            run = next(one.run for one in world.oracle.single_runs.started if str(one.run.number) == result)
            world.oracle.single_runs.is_completed(run, xcoms["run"])

    limits = {"seconds": 4 * 3600.0 + world.choices["timeout"], "silence": LONGEST_SILENCE} if waits else {}
    return world.run(Task("start", make, mode=mode, request=request, check=check, **limits))


def _given_run(world: World) -> SingleRun:
    """Start a run that no task of the scenario has started."""
    oracle = world.oracle
    oracle.now  # noqa: B018 - brings the service's time up to the present
    before = oracle.single_runs.uuids()
    members = {name: DEFAULT[name] for name in ("workflowId", "roleArn", "outputUri")}
    start_run(oracle.region, world.local._context, {"requestId": "given", "name": "given", **members})
    oracle.single_runs.note(before, "given run")
    return oracle.single_runs.started[-1].run


#: A run can also fail before it is RUNNING: each run of a task, or only the first one.
_STARTED_RUN = {
    **_SINGLE_RUN,
    "run_fails": (None, None, None, "at_end", "each_early", "first_early"),
    "changed_request_error": ("ConflictException", "ValidationException", None),
}


@scenario(
    *_RUN_CALLS,
    without=_NO_BATCH,
    **_STARTED_RUN,
    change=(None, "tags", "parameters", "rerun_key"),
    request_id=(None, None, "own", "given"),
    policy=(False, True),
)
def start_single_run(world: World) -> None:
    """Start a single run, and run the task again when it is cleared, also with other tags, parameters or keys.

    The user's ``request_id`` may be the one of somebody else's run.
    """
    changed, request_id = world.choices["change"], world.choices["request_id"]
    given = {} if request_id is None else {"request_id": request_id}
    if request_id == "given":
        _given_run(world)

    def change(arguments: dict[str, Any]) -> None:
        if changed == "tags":
            arguments["tags"] = {"try": str(world.random.randrange(1000))}

    again: dict[str, Any] = {"parameters": {"sample": "HG002"}} if changed == "parameters" else {}
    if changed == "rerun_key":
        again = {"request": "start/again", "rerun_key": "again"}
    for arguments in ({}, again, {}):
        _start_run(world, change=change, **given, **arguments)
        world.clock.advance(world.random.choice((0, 5, 100, 4_000)))


@scenario(
    *_RUN_CALLS, "CancelRun", without=_NO_BATCH, **_STARTED_RUN, **OPERATOR, cancel_on_timeout=(False, False, True)
)
def start_single_run_and_wait(world: World) -> None:
    """Start a single run and wait for its end in the same task."""
    _start_run(
        world,
        mode=world.choices["mode"],
        wait_for_completion=True,
        cancel_on_timeout=world.choices["cancel_on_timeout"],
    )


@scenario("GetRun", without=_NO_BATCH, **_SINGLE_RUN, **SENSOR)
def run_completion_sensor(world: World) -> None:
    """Wait for the end of a single run."""
    run = _given_run(world)

    def make(**mode: Any) -> RunCompletionSensor:
        return RunCompletionSensor(
            task_id="completion",
            run_id=str(run.number),
            run_uuid=run.uuid,
            poke_interval=world.choices["interval"],
            botocore_config=_botocore(world),
            **_limits(world),
            **mode,
        )

    def check(result: Any, xcoms: dict[str, Any]) -> None:
        world.oracle.single_runs.is_completed(run, xcoms["run"])

    world.run(Task("completion", make, world.choices["mode"], run_uuid=run.uuid, **_ends(world), check=check))


@scenario(
    "GetRun",
    "CancelRun",
    without=_NO_BATCH,
    **{**_SINGLE_RUN, "run_running_seconds": (20.0, 400.0, 40_000.0)},
    **OPERATOR,
    teardown=(False, True),
    age=(0, 2, 5, 12, 100),
)
def cancel_single_run(world: World) -> None:
    """Cancel a single run, also as a teardown."""
    run = _given_run(world)
    world.clock.advance(world.choices["age"])

    def make(**mode: Any) -> CancelRunOperator:
        operator = CancelRunOperator(
            task_id="cancel",
            run_id=str(run.number),
            run_uuid=run.uuid,
            waiter_delay=world.choices["interval"],
            botocore_config=_botocore(world),
            **_limits(world),
            **mode,
        )
        operator.is_teardown = world.choices["teardown"]
        return operator

    def check(result: Any, xcoms: dict[str, Any]) -> None:
        world.oracle.single_runs.is_cancelled(run)

    world.run(Task("cancel", make, world.choices["mode"], run_uuid=run.uuid, **_ends(world), check=check))


@scenario("GetRun", "DeleteRun", without=_NO_BATCH, **_SINGLE_RUN, age=(0, 40, 100, 1_000))
def delete_single_run(world: World) -> None:
    """Delete a single run, twice."""
    run = _given_run(world)
    world.clock.advance(world.choices["age"])

    def make(**mode: Any) -> DeleteRunOperator:
        return DeleteRunOperator(
            task_id="delete",
            run_id=str(run.number),
            run_uuid=run.uuid,
            max_silence=world.choices["max_silence"],
            botocore_config=_botocore(world),
            **mode,
        )

    def check(result: Any, xcoms: dict[str, Any]) -> None:
        world.oracle.single_runs.is_deleted(run)

    for _ in range(2):
        world.run(Task("delete", make, run_uuid=run.uuid, check=check))


# Several tasks


def _again(world: World, batch_id: str, waited: Outcome) -> list[dict[str, Any]]:
    """Select what was not submitted, from what the sensor has written and pushed."""
    content = world.oracle.object_at(f"s3://{BUCKET}/mapping.jsonl") or b""
    records = [json.loads(line) for line in content.splitlines()]
    try:
        again = failed_run_settings(_settings(world), records, batch=waited.xcoms["batch"])
    except Exception as error:
        world.oracle.failed(error, batch_id, None, world.wire.applied)
        return []
    world.oracle.select_again(batch_id, [setting["runSettingId"] for setting in again])
    return again


@scenario(
    *_CACHE_CALLS,
    *_START_CALLS,
    "ListRuns",
    "GetRun",
    "s3.PutObject",
    without=("fail_cancel", "fail_delete"),
    **SENSOR,
    max_failed=("100%",),
    records=(True,),
    **_OWN_OUTPUT_URIS,
)
def cohort(world: World) -> None:
    """Create a run cache, start a batch, wait for it, and submit again what was not submitted."""
    cache = _create_cache(world)
    if not cache.is_success:
        return
    started = _start(world, default_run_setting={**DEFAULT, "cacheId": cache.result})
    if not started.is_success:
        return
    waited = _submission(world, started.result, mapping_s3_uri=f"s3://{BUCKET}/mapping.jsonl")
    if not waited.is_success:
        return
    _completion(world, started.result)
    again = _again(world, started.result, waited)
    if again:
        _start(world, request="start/again", run_settings=again, rerun_key="again")


@scenario("GetBatch", "ListRunsInBatch", "s3.PutObject", without=(*_AFTER_START, "fail_run"), **SENSOR)
def resubmission(world: World) -> None:
    """Wait for a batch with failed submissions, and select what was not submitted."""
    batch_id = _batch(world)
    waited = _submission(world, batch_id, mapping_s3_uri=f"s3://{BUCKET}/mapping.jsonl")
    if waited.is_success:
        _again(world, batch_id, waited)


# A task group


def _cohort(world: World) -> CohortDagRun:
    """Make a DAG run of a cohort in which submissions and runs fail for reasons that can pass."""
    settings = _settings(world)
    samples = [setting["runSettingId"] for setting in settings]
    world.local.register_workflow(DEFAULT["workflowId"], tasks=[{"name": "align"}, {"name": "call"}])
    for sample in samples[: world.choices["throttled"]]:
        world.local.faults.fail_submission(sample, reason="ThrottlingException", times=1)
    for sample in samples[::-1][: world.choices["broken"]]:
        world.local.faults.fail_task("call", run_name=sample, reason="SERVICE_ERROR")
    return CohortDagRun(
        world,
        samples,
        run_settings=settings,
        default_run_setting=DEFAULT,
        run_cache=RunCache(name=CACHE["name"], cache_s3_location=CACHE["cache_s3_location"]),
        staging_s3_prefix=f"s3://{BUCKET}/airflow",
        preflight=False,
        max_failed=world.choices["max_failed"],
        cancel_on_failure=world.choices["cancel_on_failure"],
        rerun_key="",
        deferrable=world.choices["mode"] == "deferrable",
        poke_interval=world.choices["interval"],
        timeout=world.choices["timeout"],
        botocore_config=_botocore(world),
    )


_COHORT_CALLS = (
    *_CACHE_CALLS,
    *_START_CALLS,
    "ListRuns",
    "GetRun",
    "s3.HeadObject",
    "s3.GetObject",
    "s3.PutObject",
)
_COHORT: dict[str, Any] = {
    **OPERATOR,
    "max_failed": (0, 1, 100),
    "cancel_on_failure": (False, True),
    "throttled": (0, 1, 2),
    "broken": (0, 1, 2),
    "timeout": (600.0, 3600.0, 86_400.0),
    "run_running_seconds": (20.0, 400.0),
    "submission_rate": (20.0, 0.5),
}


@scenario(*_COHORT_CALLS, without=("fail_delete",), **_COHORT, clears=(1, 2, 3))
def cleared_cohort(world: World) -> None:
    """Run a cohort whose DAG run is cleared in the middle, in any task of any round."""
    dag_run = _cohort(world)
    for _ in range(world.choices["clears"]):
        dag_run.run(until=world.random.choice(dag_run.task_ids))
        world.clock.advance(world.random.choice((0, 5, 100, 4_000)))
    dag_run.run()


@scenario(*_COHORT_CALLS, without=("fail_delete",), **_COHORT, kills=(1, 2, 3))
def killed_cohort(world: World) -> None:
    """Run a cohort whose worker or triggerer is killed a few times, also while tasks are tried again."""
    for _ in range(world.choices["kills"]):
        operation = world.random.choice(_COHORT_CALLS)
        most = 3 if operation in ("StartRunBatch", "CreateRunCache") else 20
        world.wire.kill(operation, world.random.randint(1, most))
    _cohort(world).run()


@scenario(
    *_COHORT_CALLS,
    without=("fail_delete", "cancelled_by_other"),
    **{**_COHORT, "run_running_seconds": (400.0, 4_000.0), "timeout": (86_400.0,)},
    cancelled_round=(1, 2, 2),
    cancelled_after=(3.5, 8.0, 40.0, 300.0),
    cleared=(False, True),
)
def cancelled_cohort(world: World) -> None:
    """Run a cohort of which somebody cancels a batch. It may be cleared afterwards."""
    dag_run = _cohort(world)
    start = f"{GROUP}.round_{world.choices['cancelled_round']}.start_batch"
    dag_run.run(after={start: partial(world.cancel_newest_batch, world.choices["cancelled_after"])})
    if world.choices["cleared"]:
        dag_run.run()
