"""Faulty changes of the modules in ``healthomics/``, each with fast tests that must notice it.

To add a mutant, add an entry to :data:`MUTANTS`. ``old`` must occur once in the module. ``tests`` are pytest's node
ids, without the folder ``tests/``. Each of these tests must fail. ``tests/faults/mutants.py`` has the mutants that the
simulator must notice.
"""

from __future__ import annotations

from dataclasses import dataclass

_HEALTHOMICS = "airflow_provider_omics_cache/healthomics"


@dataclass(frozen=True)
class Mutant:
    """A faulty change of one module.

    :param fault: what the changed module does.
    :param module: name of the module in ``healthomics/``, without ``.py``.
    :param old: text that the change replaces.
    :param new: the text in its place.
    :param tests: node ids of the tests that must fail, without the folder ``tests/``.
    """

    fault: str
    module: str
    old: str
    new: str
    tests: tuple[str, ...]

    @property
    def path(self) -> str:
        """Path of the module in the repository."""
        return f"{_HEALTHOMICS}/{self.module}.py"

    def apply(self, text: str) -> str:
        """Return the text of the module with the fault.

        :param text: text of the module.
        :raises ValueError: ``old`` does not occur exactly once in the text.
        """
        found = text.count(self.old)
        if found != 1:
            raise ValueError(
                f"{self.path} has {found} times, not once, the text of the mutant {self.fault!r}: {self.old}"
            )
        return text.replace(self.old, self.new)


_RUN_CACHES = "healthomics/test_run_caches.py::"
_ROUNDS = "healthomics/test_rounds.py::"
_RUNS_WAIT = "healthomics/test_runs_wait.py::"
_START_RUN = "healthomics/test_start_run.py::"
_START = "healthomics/test_start.py::"
_SUBMISSION = "healthomics/test_submission.py::"
_COMPLETION = "healthomics/test_completion.py::"
_OUTPUTS = "healthomics/test_outputs.py::"
_SETTINGS = "healthomics/test_settings.py::"
_FAILURES = "healthomics/test_failures.py::"
_IDENTITY = "healthomics/test_identity.py::"
_STATES = "healthomics/test_states.py"
_END = "healthomics/test_end.py::"
_NEXT_STEPS = "healthomics/test_next_steps.py::"
_COHORT = "healthomics/test_cohort.py::"

MUTANTS = (
    # rounds: the wait for a batch
    Mutant(
        "rounds that do not find the batch need not be in a row",
        "rounds",
        "        self.recall = _no_silence\n        self.silence = None\n",
        "        self.recall = _no_silence\n        self.silence = Silence(since=now, not_found=self.silence.not_found)"
        " if self.silence else None\n",
        (f"{_ROUNDS}test_rounds_without_the_batch_are_counted_in_a_row",),
    ),
    Mutant(
        "an answer does not end the silence",
        "rounds",
        "        self.recall = _no_silence\n        self.silence = None\n",
        "        self.recall = _no_silence\n",
        (f"{_ROUNDS}test_an_answer_breaks_the_silence",),
    ),
    Mutant(
        "two rounds that do not find the batch are enough",
        "rounds",
        "NOT_FOUND_ROUNDS = 3",
        "NOT_FOUND_ROUNDS = 2",
        (f"{_ROUNDS}test_three_rounds_running_without_the_batch_end_the_wait",),
    ),
    Mutant(
        "a round that does not find the batch ends the silence",
        "rounds",
        "            silence = replace(silence, not_found=silence.not_found + 1)",
        "            silence = Silence(since=now, not_found=silence.not_found + 1)",
        (f"{_ROUNDS}test_rounds_that_did_not_find_the_batch_do_not_end_the_silence",),
    ),
    Mutant(
        "a round without an answer ends the count of rounds that did not find the batch",
        "rounds",
        "            silence = replace(silence, no_answer=silence.no_answer + 1)",
        "            silence = replace(silence, not_found=0, no_answer=silence.no_answer + 1)",
        (f"{_ROUNDS}test_rounds_without_an_answer_do_not_end_the_count_of_rounds_that_did_not_find_the_batch",),
    ),
    Mutant(
        "rounds that do not find the batch are a silence",
        "rounds",
        "if silence.no_answer and now - silence.since",
        "if now - silence.since",
        (f"{_ROUNDS}test_three_rounds_decide_on_a_young_batch_however_long_the_interval_is",),
    ),
    Mutant(
        "the silence of the process before is forgotten",
        "rounds",
        "silence = self.silence or recall() or Silence(since=now)",
        "silence = self.silence or Silence(since=now)",
        (f"{_ROUNDS}test_a_wait_continues_the_silence_of_an_earlier_process",),
    ),
    Mutant(
        "a misspelt endpoint is waited for in the first round",
        "rounds",
        "failure.is_passing and not (first_round and failure.is_unreachable)",
        "failure.is_passing",
        (f"{_ROUNDS}test_an_endpoint_out_of_reach_fails_in_the_very_first_round_only",),
    ),
    Mutant(
        "the wait does not end at its deadline",
        "rounds",
        "if self.deadline is None or now < self.deadline:",
        "if self.deadline is None or now <= self.deadline + 1:",
        (f"{_ROUNDS}test_the_deadline_ends_the_wait_and_says_what_was_known",),
    ),
    Mutant(
        "each round is logged",
        "rounds",
        "if progress.text == self._shown.text or not is_due:",
        "if progress.text == self._shown.text:",
        (f"{_ROUNDS}test_progress_is_logged_once_a_minute_with_rate_and_remaining_time",),
    ),
    # rounds: the wait for active runs
    Mutant(
        "a run that is not found does not end the silence",
        "rounds",
        "        if failure.is_not_found:\n            self._silent_since = None\n",
        "        if failure.is_not_found:\n",
        (f"{_RUNS_WAIT}test_a_run_that_is_not_found_is_an_answer_which_ends_the_silence",),
    ),
    Mutant(
        "a run of another batch, which has the id of a deleted run, is waited for",
        "rounds",
        "if status in ENDED_RUN_STATUSES or batch_id not in {None, self.batch_id}:",
        "if status in ENDED_RUN_STATUSES:",
        (f"{_RUNS_WAIT}test_a_run_id_that_was_given_to_a_run_of_another_batch_is_not_waited_for",),
    ),
    Mutant(
        "counts that may be stale are always believed",
        "rounds",
        "    return now % TRUST_SECONDS >= interval",
        "    return True",
        (f"{_RUNS_WAIT}test_one_round_in_ten_minutes_does_not_believe_the_counts",),
    ),
    # start
    Mutant(
        "batches are judged oldest first",
        "once",
        'int(answer["id"])), reverse=True',
        'int(answer["id"]))',
        (f"{_START}test_the_newest_batch_comes_first_then_the_largest_id",),
    ),
    Mutant(
        "a batch without a time of creation counts as the oldest",
        "once",
        "_UNKNOWN_TIME = datetime.max",
        "_UNKNOWN_TIME = datetime.min",
        (f"{_START}test_the_newest_batch_comes_first_then_the_largest_id",),
    ),
    Mutant(
        "a failed batch is replaced although it has started runs",
        "once",
        "        if runs_started:\n            return",
        "        if runs_started > 1:\n            return",
        (f"{_START}test_a_failed_batch_with_runs_is_never_replaced",),
    ),
    Mutant(
        "a cancelled batch that failed is replaced",
        "once",
        "return StartDecision.REFUSE_CANCELLED if is_cancelled else StartDecision.START",
        "return StartDecision.START",
        (f"{_START}test_a_cancelled_batch_that_failed_is_never_replaced",),
    ),
    Mutant(
        "a missing digest counts as another digest",
        "once",
        "        return StartDecision.REFUSE_UNKNOWN_SETTINGS\n",
        "        return StartDecision.REFUSE_OTHER_SETTINGS\n",
        (f"{_START}test_every_row_of_the_table",),
    ),
    Mutant(
        "an ETag that is not known differs from one that is",
        "once",
        "(not request_etag or not found_etag or request_etag == found_etag)",
        "request_etag == found_etag",
        (f"{_START}test_an_etag_that_is_not_known_matches_every_etag",),
    ),
    Mutant(
        "the failed batch of the user's own request_id is used",
        "once",
        "            if request.request_id:\n                raise self.token_taken",
        "            if request.request_id:\n                return Started(answer, '', reattached=False)\n"
        "                raise self.token_taken",
        ("operators/test_run_batch.py::TestRequestId::test_one_that_stays_with_a_failed_batch",),
    ),
    # start_run, awaited_run, end_run
    Mutant(
        "a run without a workflow can be started",
        "start_run",
        "    if (workflow_id is None) == (run_id is None):",
        "    if workflow_id is not None and run_id is not None:",
        (f"{_START_RUN}test_a_combination_that_cannot_be_started_is_refused",),
    ),
    Mutant(
        "a refusal of the request token is about a resource",
        "start_run",
        "    if code not in _REFUSALS or names_token(text):",
        "    if code not in _REFUSALS:",
        (f"{_START_RUN}test_a_refusal_of_a_resource_is_recognised",),
    ),
    Mutant(
        "a failed run is replaced before its start time can be late",
        "start_run",
        "        seen = answer if is_known(answer) else self.hook.until_seen(look, is_known)",
        "        seen = answer",
        ("operators/test_run.py::TestStartedOnce::test_a_late_start_time_is_waited_for",),
    ),
    Mutant(
        "another uuid is the same run",
        "awaited_run",
        '        if uuid is not None and answer.get("uuid") not in {None, uuid}:',
        "        if False:",
        (f"{_START_RUN}test_another_uuid_shows_that_the_run_is_deleted",),
    ),
    Mutant(
        "a run is not confirmed again after a lost answer",
        "end_run",
        "        if not is_confirmed:",
        "        if False:",
        ("operators/test_run.py::TestCancel::test_no_other_run_is_cancelled",),
    ),
    # tokens
    Mutant(
        "each ValidationException is about the request token",
        "tokens",
        "    return names_token(text) or not any(_is_named(name, text) for name in members)",
        "    return True",
        (f"{_START}test_which_refusals_may_be_about_the_token",),
    ),
    # run_caches
    Mutant(
        "the user's own request_id is looked for again after its refusal",
        "run_caches",
        "            if request_id or not is_token_refused(hook, error):",
        "            if not is_token_refused(hook, error):",
        ("operators/test_run_cache.py::test_no_other_cache_explains_the_refusal_of_the_users_request_id",),
    ),
    Mutant(
        "a cache deeper down is at the location",
        "run_caches",
        'found["location"].rstrip("/") == location.rstrip("/")',
        'found["location"].startswith(location.rstrip("/"))',
        (
            f"{_RUN_CACHES}test_a_cache_deeper_down_is_elsewhere",
            f"{_RUN_CACHES}test_a_cache_is_at_one_location_only",
        ),
    ),
    Mutant(
        "the newest of several caches comes first",
        "resources",
        '(found.get("creationTime") or _NO_TIME, len(found["id"]), found["id"]))',
        '(found.get("creationTime") or _NO_TIME, len(found["id"]), found["id"]), reverse=True)',
        (f"{_RUN_CACHES}test_the_oldest_cache_comes_first_then_the_smallest_id",),
    ),
    Mutant(
        "a cache without an owner fits every owner",
        "run_caches",
        'return (run_cache.get("cacheBucketOwnerId") or account) == (owner or account)',
        'return (run_cache.get("cacheBucketOwnerId") or owner) == (owner or account)',
        (f"{_RUN_CACHES}test_no_owner_is_the_caches_own_account",),
    ),
    Mutant(
        "other tags of a cache are a difference",
        "resources",
        "for key, value in (wanted or {}).items() if has.get(key) != value}",
        "for key, value in (wanted or {}).items()}",
        (f"{_RUN_CACHES}test_only_what_is_given_is_compared",),
    ),
    # submission
    Mutant(
        "a batch is submitted while runs are left to submit",
        "submission",
        "Verdict.DONE if batch.pending == 0 else Verdict.WAIT",
        "Verdict.DONE if not batch.pending else Verdict.WAIT",
        (f"{_SUBMISSION}test_decide",),
    ),
    Mutant(
        "as many failures as are allowed are too many",
        "failures",
        "return failed > allowed(max_failed, total or 0)",
        "return failed >= allowed(max_failed, total or 0)",
        (f"{_SUBMISSION}test_too_many_failures_of_an_active_batch",),
    ),
    Mutant(
        "a listing that repeats a run is complete",
        "submission",
        "        if self.rows > different:\n",
        "        if self.rows < different:\n",
        (
            f"{_SUBMISSION}test_an_incomplete_listing_says_what_it_lacks",
            f"{_SUBMISSION}test_a_repeated_run_is_counted_once",
        ),
    ),
    Mutant(
        "two runs may have the same run id",
        "submission",
        "shared = len(self.run_ids) - self._count_run_ids()",
        "shared = 0",
        (f"{_SUBMISSION}test_an_incomplete_listing_says_what_it_lacks",),
    ),
    Mutant(
        "a run that was cancelled after its submission was not submitted",
        "submission",
        "        elif run_id:\n",
        "        elif run_id and status == SubmissionStatus.SUCCESS:\n",
        (f"{_SUBMISSION}test_a_run_with_a_run_id_was_submitted_whatever_happened_to_it_later",),
    ),
    Mutant(
        "a listing that lacks a run is complete",
        "submission",
        "        if not least <= self.rows <= expected:\n",
        "        if not least - 1 <= self.rows <= expected:\n",
        (f"{_SUBMISSION}test_an_incomplete_listing_says_what_it_lacks",),
    ),
    Mutant(
        "the fingerprint depends on the run ids alone",
        "submission",
        'digest.update(f"{run_setting_id}\\0{self.run_ids[run_setting_id]}\\0".encode())',
        'digest.update(f"{self.run_ids[run_setting_id]}\\0".encode())',
        (f"{_SUBMISSION}test_a_fingerprint_depends_on_which_setting_has_which_run",),
    ),
    # completion
    Mutant(
        "late counts are a verdict",
        "completion",
        "if self.total is None or self.completed is None or self.late:",
        "if self.total is None or self.completed is None:",
        (f"{_COMPLETION}test_late_counts_decide_nothing",),
    ),
    Mutant(
        "runs that were deleted completed",
        "completion",
        "        return max(0, (self.total or 0) - (self.completed or 0))\n",
        "        return max(0, (self.total or 0) - (self.completed or 0) - (self.deleted or 0))\n",
        (f"{_COMPLETION}test_what_is_not_completed_counts_as_failed",),
    ),
    Mutant(
        "a run of another batch is the batch's own run",
        "completion",
        'return run.get("batchId") in {None, batch_id} and',
        "return",
        (f"{_COMPLETION}test_another_run_with_the_id_of_a_deleted_one_is_not_taken_for_it",),
    ),
    Mutant(
        "a run with another uuid is the batch's own run",
        "completion",
        "and (not uuid or not found or uuid == found)",
        "",
        (f"{_COMPLETION}test_another_run_with_the_id_of_a_deleted_one_is_not_taken_for_it",),
    ),
    Mutant(
        "completed runs that are not listed are confirmed",
        "completion",
        "return 0 <= lacking <= deleted_since",
        "return lacking <= max(1, deleted_since)",
        (f"{_COMPLETION}test_listed_runs_confirm_the_counts",),
    ),
    # outputs
    Mutant(
        "locations follow although the runs do not share an outputUri",
        "outputs",
        'is_expected = run.get("outputUri") in {None, expected}',
        'is_expected, expected = True, run.get("outputUri") or expected',
        (f"{_OUTPUTS}test_locations_do_not_follow",),
    ),
    Mutant(
        "locations follow from the layout of the first run",
        "outputs",
        "layout for layout in self._layouts if is_expected",
        "layout for layout in _LAYOUTS if is_expected",
        (f"{_OUTPUTS}test_locations_do_not_follow",),
    ),
    Mutant(
        "the outputUri of a run's own setting is overlooked",
        "outputs",
        'return self.own.get(row.get("runSettingId") or "", self.default)',
        "return self.default",
        (f"{_OUTPUTS}test_with_the_settings_each_run_has_its_own_output_uri",),
    ),
    Mutant(
        "the outputUri of each run is known although the batch does not confirm it",
        "outputs",
        'if (batch.get("tags") or {}).get(OWN_OUTPUT_URIS) != digest(own):',
        "if False:",
        (f"{_OUTPUTS}test_the_tag_of_the_batch_confirms_which_settings_have_their_own_output_uri",),
    ),
    Mutant(
        "locations follow from one run",
        "outputs",
        "_LEAST_EVIDENCE = 2",
        "_LEAST_EVIDENCE = 1",
        (f"{_OUTPUTS}test_locations_do_not_follow",),
    ),
    # states and end
    Mutant(
        "a batch that is being cancelled has been cancelled",
        "states",
        "End.CANCELLED, WhenFound.REFUSE, _WAIT, _WAIT,\n        ToCancel.ALREADY, _WAIT,",
        "End.CANCELLED, WhenFound.REFUSE, _WAIT, _WAIT,\n        ToCancel.ALREADY, _DONE,",
        (f"{_END}test_when_a_wait_is_over",),
    ),
    Mutant(
        "runs of a batch in an unknown status may be deleted",
        "states",
        "ToCancel.CANCEL_BATCH, _WAIT, ToDelete.UNKNOWN, _WAIT)",
        "ToCancel.CANCEL_BATCH, _WAIT, ToDelete.DELETE_BATCH_RUNS, _WAIT)",
        (_STATES,),
    ),
    Mutant(
        "a batch without counts of cancelled runs was cancelled",
        "end",
        'for outcome in ("successful", "failed"))',
        'for outcome in ("successful",))',
        (f"{_END}test_counts_show_whether_runs_were_cancelled",),
    ),
    # settings
    Mutant(
        "a runSettingId may repeat",
        "settings",
        "                if first != index:\n",
        "                if first > index:\n",
        (f"{_SETTINGS}TestBad::test_duplicates_name_the_first_20_and_count_all",),
    ),
    Mutant(
        "parameters are measured without the default parameters",
        "settings",
        "merged = {**default_parameters, **parameters} if isinstance(parameters, dict) else default_parameters",
        "merged = parameters",
        (f"{_SETTINGS}TestBad::test_parameters_are_measured_merged_and_the_runs_own_win",),
    ),
    Mutant(
        "the digest depends on the order of the settings",
        "settings",
        'digests += from_bytes(sha256(text.encode("ascii")).digest(), "big")',
        'digests += (index + 1) * from_bytes(sha256(text.encode("ascii")).digest(), "big")',
        (f"{_SETTINGS}test_the_digest_ignores_order_and_nothing_else",),
    ),
    Mutant(
        "an error shows the session policy",
        "settings",
        '_NEVER_SHOWN = frozenset({"parameters", "engineSettings", "runTags", "sessionPolicy"})',
        '_NEVER_SHOWN = frozenset({"parameters", "engineSettings", "runTags"})',
        (f"{_SETTINGS}TestMember::test_a_session_policy_is_never_shown",),
    ),
    # identity, failures, progress
    Mutant(
        "tasks whose ids run into each other share a batch",
        "identity",
        "digest(['run-batch', *self._parts(), generation])",
        "digest(''.join(map(str, ['run-batch', *self._parts(), generation])))",
        (f"{_IDENTITY}test_parts_that_run_into_each_other_do_not_collide",),
    ),
    Mutant(
        "a new batch has the token of the one that it replaces",
        "identity",
        "digest(['run-batch', *self._parts(), generation])",
        "digest(['run-batch', *self._parts()])",
        (f"{_IDENTITY}test_each_generation_has_its_own_token",),
    ),
    Mutant(
        "a share is rounded up",
        "failures",
        "int(allowance * total)",
        "round(allowance * total)",
        (f"{_FAILURES}test_allowed",),
    ),
    Mutant(
        "a message of the service is shown with a session policy",
        "failures",
        '    if "sessionPolicy" in message:\n',
        '    if "sessionPolicies" in message:\n',
        (f"{_FAILURES}test_a_message_is_one_short_line_without_secrets",),
    ),
    Mutant(
        "a batch that stands still has a rate",
        "progress",
        "progress.done <= since.done",
        "progress.done < since.done",
        ("healthomics/test_progress.py",),
    ),
    # next_steps, cohort
    Mutant(
        "a run that failed for any reason is resumed",
        "next_steps",
        "(status != RunStatus.FAILED or reason in retries.runs)",
        "(status != RunStatus.FAILED or bool(reason))",
        (f"{_NEXT_STEPS}test_what_comes_next",),
    ),
    Mutant(
        "a run that may be active has ended",
        "next_steps",
        "if status not in ENDED_RUN_STATUSES:",
        "if status is None:",
        (f"{_NEXT_STEPS}test_what_is_not_certain_is_unknown",),
    ),
    Mutant(
        "a later run hides one that may be active",
        "next_steps",
        "{NextStep.COMPLETED: 2, NextStep.UNKNOWN: 1}",
        "{NextStep.COMPLETED: 2}",
        (f"{_NEXT_STEPS}test_a_completed_or_active_run_stands_for_its_sample",),
    ),
    Mutant(
        "a sample that a batch does not list gets a new run",
        "cohort",
        '            return cast("RunRecord", {"status": WITHOUT_RUN_ID})\n',
        "            return None\n",
        (f"{_COHORT}test_rounds_of_what_is_left",),
    ),
    Mutant(
        "a later run of a completed sample is not in its history",
        "cohort",
        "found[:chosen] + found[chosen + 1 :]",
        "found[:chosen]",
        (f"{_COHORT}test_a_completed_run_stands_for_its_sample_even_if_a_later_run_failed",),
    ),
)
