"""Faulty changes of the package, which the simulator must notice.

To add a mutant, write a function that makes the change with a monkeypatch, and register it with :func:`mutant`: the
scenario and profile in which it is noticed, the invariant that it breaks, and a seed that shows it, so that the test
need not search.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from airflow_provider_omics_cache import resubmission
from airflow_provider_omics_cache.healthomics import (
    cohort,
    completion,
    end,
    end_run,
    failures,
    once,
    outputs,
    rounds,
    run_caches,
    start,
    start_run,
    states,
    submission,
)
from airflow_provider_omics_cache.healthomics.batch_runs import BatchRuns
from airflow_provider_omics_cache.healthomics.submission import Submissions
from airflow_provider_omics_cache.hooks import answers
from airflow_provider_omics_cache.hooks.client import OmicsClientHook
from airflow_provider_omics_cache.operators import run as run_operators
from airflow_provider_omics_cache.operators import run_batch as operators
from airflow_provider_omics_cache.sensors import run_batch as sensors
from airflow_provider_omics_cache.task_groups import cohort_tasks
from airflow_provider_omics_cache.tasks import ending, mapping, outcome, wait

Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Mutant:
    """A faulty change.

    :param change: makes the change.
    :param scenario: the scenario that notices it.
    :param profile: the profile that notices it.
    :param invariant: the invariant that it breaks.
    :param seed: a seed that shows it.
    """

    change: Callable[[Patch], None]
    scenario: str
    profile: str
    invariant: str
    seed: int


#: Every mutant, by name.
MUTANTS: dict[str, Mutant] = {}


def mutant(
    scenario: str, profile: str, invariant: str, *, seed: int = 0
) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    """Register a mutant under the name of the function."""

    def register(change: Callable[[Patch], None]) -> Callable[[Patch], None]:
        MUTANTS[change.__name__] = Mutant(change, scenario, profile, invariant, seed)
        return change

    return register


# Start


@mutant("start_batch", "honest", "paid-twice", seed=8)
def new_token_for_each_try(patch: Patch) -> None:
    """Use a new request token for each try."""
    patch.setattr(start.BatchRequest, "token", lambda self, generation: str(uuid.uuid4()))


@mutant("start_batch", "honest", "paid-twice", seed=18)
def failed_is_judged_at_once(patch: Patch) -> None:
    """Start a FAILED batch again without waiting for late counts and lists, and without reading them again."""
    counted: dict[str, int] = {}

    def look_once(hook: Any, batch: Any) -> Any:
        if batch["id"] not in counted:
            counted[batch["id"]] = start._count_started_runs(hook, batch)
        return batch, counted[batch["id"]], False

    patch.setattr(start, "_wait_for_started_runs", look_once)


@mutant("start_batch", "honest", "paid-twice", seed=15)
def failed_is_started_again(patch: Patch) -> None:
    """Start a FAILED batch again although it has started runs."""
    patch.setattr(start, "_count_started_runs", lambda hook, batch: 0)


@mutant("start_batch", "honest", "restarted-cancelled", seed=62)
def cancelled_is_started_again(patch: Patch) -> None:
    """Start a batch again that somebody has cancelled."""
    for status in ("STOPPING", "CANCELLED"):
        meaning = states.BATCH_STATUSES[status]._replace(when_found=states.WhenFound.REPLACE_IF_UNUSED)
        patch.setitem(states.BATCH_STATUSES, status, meaning)
    patch.setattr(start, "_count_started_runs", lambda hook, batch: 0)
    patch.setattr(start, "_wait_for_started_runs", lambda hook, batch: (batch, 0, False))


@mutant("start_batch", "honest", "paid-twice")
def digest_is_ignored(patch: Patch) -> None:
    """Let every try have another digest."""
    numbers = itertools.count()
    patch.setattr(operators, "request_digest", lambda **_: f"{next(numbers):064}")


@mutant("start_batch_of_a_file", "honest", "final-failure", seed=6)
def unknown_etag_differs(patch: Patch) -> None:
    """Compare an ETag that is not known with one that is."""
    decide = start.decide_start

    def decide_start(status: str | None, **known: Any) -> Any:
        decision = decide(status, **known)
        is_other = known.get("request_etag") != known.get("found_etag")
        return start.StartDecision.REFUSE_OTHER_SETTINGS if is_other else decision

    patch.setattr(start, "decide_start", decide_start)


# Single runs


@mutant("start_single_run", "honest", "paid-twice", seed=6)
def digest_of_a_run_is_ignored(patch: Patch) -> None:
    """Let every try have another digest."""
    numbers = itertools.count()
    patch.setattr(run_operators, "run_request_digest", lambda members: f"{next(numbers):064}")


@mutant("start_single_run", "honest", "paid-twice", seed=40)
def failed_run_is_started_again(patch: Patch) -> None:
    """Start a FAILED run again although it was RUNNING."""
    patch.setattr(start_run.StartRunOnce, "_wait_for_start_time", lambda self, answer: (answer, 0))


@mutant("start_single_run", "honest", "final-failure")
def early_failure_is_final(patch: Patch) -> None:
    """Fail for good if a run failed before it was RUNNING."""
    patch.setattr(start_run.StartRunOnce, "_wait_for_start_time", lambda self, answer: (answer, 1))


@mutant("start_single_run", "honest", "wrong-batch", seed=1)
def any_run_of_the_token_is_used(patch: Patch) -> None:
    """Use whatever run a request token belongs to."""
    patch.setattr(start_run.StartRunOnce, "check_owner", lambda self, answer: None)
    patch.setattr(start_run, "decide_start_run", lambda *_, **__: once.StartDecision.REATTACH)


# Run caches


@mutant("create_run_cache", "honest", "second-cache", seed=1)
def new_token_for_each_cache(patch: Patch) -> None:
    """Use a new request token for each attempt to create a run cache."""
    patch.setattr(run_caches, "run_cache_token", lambda **_: str(uuid.uuid4()))


# Lists


def _first_page_only(
    self: Any, operation: str, key: str, token: str | None, *, max_silence: float = 0, **given: Any
) -> Any:
    yield from self._call(operation, max_silence=max_silence, startingToken=token, **given).get(key) or ()


@mutant("cancel_batch", "honest", "living-run", seed=275)
def first_page_only(patch: Patch) -> None:
    """Take the first page of each list for the whole list."""
    patch.setattr(OmicsClientHook, "_items", _first_page_only)


@mutant("submission_sensor", "honest", "wrong-mapping", seed=14)
def listing_is_not_checked(patch: Patch) -> None:
    """Take every listing for complete."""
    patch.setattr(submission.Submissions, "missing", lambda *_, **__: None)


@mutant("submission_sensor", "honest", "early-submission", seed=5)
def pending_runs_are_ignored(patch: Patch) -> None:
    """End the wait for the submission while runs are left to submit."""
    patch.setattr(submission.Submissions, "missing", lambda *_, **__: None)
    for status in ("SUBMITTING", "INPROGRESS"):
        meaning = states.BATCH_STATUSES[status]._replace(submission=states.Verdict.DONE)
        patch.setitem(states.BATCH_STATUSES, status, meaning)


@mutant("create_run_cache", "torn", "raw-error", seed=2)
def torn_answers_are_empty(patch: Patch) -> None:
    """Take an answer that is not whole for one without members."""
    patch.setattr(answers, "_may_pass", lambda status: True)
    patch.setattr(answers, "check_members", lambda operation, answer: None)


# The end of runs


@mutant("cancel_batch", "anything", "living-run", seed=63)
def unknown_is_finished(patch: Patch) -> None:
    """Take a status that is not known for the end of the batch."""
    done = states.BATCH_STATUSES["PROCESSED"]
    for module in (states, rounds, completion, submission, end, operators):
        if hasattr(module, "meaning_of"):
            patch.setattr(module, "meaning_of", lambda status: states.BATCH_STATUSES.get(status or "", done))


@mutant("completion_sensor", "honest", "hang", seed=65)
def deadline_is_ignored(patch: Patch) -> None:
    """Wait without end."""
    patch.setattr(rounds.BatchWait, "overdue", lambda self, now: None)
    patch.setattr(wait.BatchWaitTask, "_deadline", lambda self, context: 1e12)


def _no_runs(*_: Any, **__: Any) -> BatchRuns:
    return BatchRuns({}, {}, Submissions())


@mutant("cancel_batch", "honest", "living-run", seed=18)
def cancelled_status_is_trusted(patch: Patch) -> None:
    """Take a CANCELLED batch for one without active runs."""
    patch.setattr(operators, "cancel_active_runs", _no_runs)
    patch.setattr(operators, "count_active", lambda batch: 0)
    patch.setattr(ending.EndRunBatchOperator, "may_list_more", lambda *_: False)


@mutant("delete_batch", "honest", "foreign-run", seed=78)
def run_is_confirmed_once(patch: Patch) -> None:
    """Repeat DeleteRun without looking at the run again."""
    patch.setattr(end, "confirm_again", lambda hook, batch_id, run, **_: run)


@mutant("delete_single_run", "honest", "foreign-run", seed=80)
def single_run_is_confirmed_once(patch: Patch) -> None:
    """Repeat DeleteRun without looking at the single run again."""
    patch.setattr(end_run, "_current", lambda hook, run, **_: run)


@mutant("delete_batch", "honest", "not-deleted", seed=50)
def runs_that_are_left_are_ignored(patch: Patch) -> None:
    """Do not delete the runs that the service could not delete with the batch."""
    patch.setattr(end, "delete_existing_runs", _no_runs)
    patch.setattr(operators, "delete_existing_runs", _no_runs)
    patch.setattr(ending.EndRunBatchOperator, "may_list_more", lambda *_: False)


@mutant("delete_batch", "honest", "unsaved-mapping", seed=79)
def partial_mapping_is_saved(patch: Patch) -> None:
    """Save whatever the lists show, and delete."""
    patch.setattr(mapping.MappingSavingOperator, "_missing", lambda *_: None)
    patch.setattr(mapping, "_is_complete", lambda *_: True)


# Locations of outputs


@mutant("completion_sensor", "honest", "wrong-output", seed=55)
def batch_need_not_confirm_output_uris(patch: Patch) -> None:
    """Take the outputUri of the default setting for that of each run."""
    of_batch = classmethod(lambda cls, batch, own: cls(batch["defaultRunSetting"]["outputUri"], own))
    patch.setattr(outputs.OutputUris, "of_batch", of_batch)


@mutant("cohort", "honest", "wrong-output", seed=4)
def each_batch_is_tagged_as_one_without_own_output_uris(patch: Patch) -> None:
    """Tag each batch as if no setting had its own outputUri."""
    own_tags = start.BatchRequest.own_tags
    nothing = {outputs.OWN_OUTPUT_URIS: outputs.digest({})}
    patch.setattr(start.BatchRequest, "own_tags", lambda self, generation: {**own_tags(self, generation), **nothing})


@mutant("start_batch_and_wait", "honest", "wrong-output", seed=4)
def own_output_uris_are_overlooked(patch: Patch) -> None:
    """Derive locations from the outputUri of the default setting only."""
    patch.setattr(outputs.OutputUris, "of", lambda self, row: self.default)


# Waits that end early


def _change_limit(patch: Patch, by: int) -> None:
    exceeds = failures.exceeds

    def changed(failed: int | None, max_failed: Any, total: int | None) -> bool:
        return exceeds(failed if failed is None else failed - by, max_failed, total)

    for module in (submission, completion):
        patch.setattr(module, "exceeds", changed)


@mutant("completion_sensor_with_fail_fast", "honest", "early-failure", seed=7)
def one_failure_fewer_is_allowed(patch: Patch) -> None:
    """Fail at the limit, instead of above it."""
    _change_limit(patch, -1)


@mutant("submission_sensor_with_fail_fast", "honest", "missed-failure", seed=12)
def one_failure_more_is_allowed(patch: Patch) -> None:
    """Wait although one more submission than allowed has failed."""
    _change_limit(patch, 1)


@mutant("start_batch_with_fail_fast", "honest", "wrong-cancellation", seed=6)
def batch_is_cancelled_at_the_limit(patch: Patch) -> None:
    """Cancel the batch at the limit, instead of above it."""
    _change_limit(patch, -1)


@mutant("start_batch_with_fail_fast", "honest", "false-claim", seed=2)
def batch_is_not_cancelled(patch: Patch) -> None:
    """Say that the batch was cancelled, and do not cancel it."""
    claim = "cancel_on_failure cancelled it. Set a new rerun_key to start a new batch."
    patch.setattr(operators.StartRunBatchOperator, "settle_active_batch", lambda self: claim)


@mutant("completion_sensor_with_fail_fast", "honest", "unpushed-failure", seed=4)
def known_failures_are_not_pushed(patch: Patch) -> None:
    """Push nothing before the wait ends early."""
    push = outcome.RunOutcomeTask._push

    def push_at_the_end(self: Any, *given: Any, failed: int | None = None) -> None:
        if failed is None:
            push(self, *given)

    patch.setattr(outcome.RunOutcomeTask, "_push", push_at_the_end)


@mutant("submission_sensor_with_fail_fast", "honest", "ignored-failure", seed=3)
def failures_at_the_end_are_ignored(patch: Patch) -> None:
    """Succeed with any number of failed submissions when nothing is left to submit."""
    patch.setattr(sensors, "allowed", lambda max_failed, total: total)


# What was failed, and what is shown


@mutant("resubmission", "honest", "resubmitted-run", seed=1)
def every_sample_is_submitted_again(patch: Patch) -> None:
    """Submit samples again that have a run."""
    patch.setattr(resubmission, "_has_run", lambda records, run_setting_id: False)
    patch.setattr(resubmission, "_is_confirmed", lambda *_: True)


@mutant("start_batch", "honest", "secret", seed=4)
def request_is_logged(patch: Patch) -> None:
    """Log the request."""
    call = OmicsClientHook._call_once

    def call_and_log(self: Any, operation: str, members: Any) -> Any:
        self.log.info("Calling %s with %s", operation, members)
        return call(self, operation, members)

    patch.setattr(OmicsClientHook, "_call_once", call_and_log)


@mutant("cohort", "honest", "raw-error")
def errors_are_not_translated(patch: Patch) -> None:
    """Fail with a raw error where an answer is not as expected."""

    def fail(self: Any, counts: Any, outcomes: Any, context: Any) -> None:
        raise KeyError("completedRunCount")

    patch.setattr(outcome.RunOutcomeTask, "_push", fail)


# Cohorts


@mutant("cleared_cohort", "honest", "paid-twice", seed=2)
def every_sample_is_in_the_next_round(patch: Patch) -> None:
    """Start a run of each sample in each round."""
    choose = cohort_tasks.ChooseNextRoundOperator._choose

    def choose_all(self: Any) -> set[str]:
        rows = cohort_tasks.iterate_rows("run_settings", self.settings_s3_uri, conn_id=self._table_conn_id)
        return choose(self) and {setting["runSettingId"] for _, setting in rows}

    patch.setattr(cohort_tasks.ChooseNextRoundOperator, "_choose", choose_all)


@mutant("cancelled_cohort", "honest", "restarted-cancelled", seed=1)
def cohort_continues_after_a_cancellation(patch: Patch) -> None:
    """Start another round although somebody has cancelled the batch."""
    patch.setattr(cohort_tasks.ChooseNextRoundOperator, "_is_cancelled", lambda self: False)


@mutant("killed_cohort", "honest", "wrong-results", seed=2)
def results_are_those_of_the_first_runs(patch: Patch) -> None:
    """Write the first record of each sample."""
    patch.setattr(cohort, "decisive", lambda records: 0)


@mutant("killed_cohort", "honest", "wrong-results", seed=2)
def results_are_without_a_round(patch: Patch) -> None:
    """Leave the second round out."""
    add = cohort_tasks.CohortResultsOperator._add_round

    def add_others(self: Any, found: Any, number: int, *given: Any) -> None:
        if number != 1:
            add(self, found, number, *given)

    patch.setattr(cohort_tasks.CohortResultsOperator, "_add_round", add_others)


@mutant("cleared_cohort", "honest", "paid-twice")
def round_is_started_again(patch: Patch) -> None:
    """Start the batch of a round anew when its task is cleared."""

    patch.setattr(start.BatchRequest, "token", lambda self, generation: str(uuid.uuid4()))
    patch.setattr(start.StartBatchOfCohortOnce, "find", lambda self: once.Found(None, 0))


@mutant("cleared_cohort", "honest", "wrong-results", seed=1_000_018)
def refusal_stands_for_a_missing_object(patch: Patch) -> None:
    """Take S3's 403 for a missing object, although the task that writes the object has succeeded."""
    patch.setattr(cohort_tasks.CohortTask, "_is_there", lambda self, uri, **_: self._exists(uri))
