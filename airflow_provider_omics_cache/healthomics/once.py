"""Start a batch or a single run once: find the one that an earlier try of the task started, or start a new one.

This module has what batches and single runs have in common. ``start.py`` and ``start_run.py`` have the differences.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from airflow_provider_omics_cache.exceptions import OmicsApiError, OmicsError
from airflow_provider_omics_cache.healthomics.states import End, WhenFound, shown
from airflow_provider_omics_cache.healthomics.tokens import is_token_refused
from airflow_provider_omics_cache.hooks.client import VISIBLE_AFTER

if TYPE_CHECKING:
    from airflow_provider_omics_cache.healthomics.identity import TaskIdentity
    from airflow_provider_omics_cache.hooks.client import Answer
    from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook

#: Tag with the digest of the request that started the batch or run.
DIGEST_TAG = "omics-cache-request-digest"
#: Tag with the generation, which is part of the request token.
GENERATION_TAG = "omics-cache-generation"

#: Maximum number of batches or runs that a try starts. If each of them fails at its start, the task fails.
_MAX_FAILED_STARTS = 3
_UNKNOWN_TIME = datetime.max.replace(tzinfo=UTC)


class StartDecision(Enum):
    """What to do about a batch or run that an earlier try of the same task may have started."""

    START = auto()
    REATTACH = auto()
    REFUSE_OTHER_SETTINGS = auto()
    REFUSE_UNKNOWN_SETTINGS = auto()
    REFUSE_RUNS_STARTED = auto()
    REFUSE_CANCELLED = auto()
    REFUSE_DELETED = auto()


class StatusMeaning(Protocol):
    """What a status means for a task that finds its own batch or run."""

    @property
    def end(self) -> End | None:
        """How the batch or run has ended, None if it is active."""

    @property
    def when_found(self) -> WhenFound:
        """What the task does."""


@dataclass(frozen=True, kw_only=True)
class StartRequest(ABC):
    """What a task asks for.

    :param identity: what the batch or run belongs to.
    :param digest: digest of everything that determines the runs.
    :param tags: tags of the batch or run.
    :param request_id: the user's idempotency token; it replaces the derived one.
    """

    identity: TaskIdentity
    digest: str
    tags: Mapping[str, str]
    request_id: str | None = None

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the batch or run. It ends in a hash of the identity."""

    @abstractmethod
    def token(self, generation: int) -> str:
        """Return the idempotency token.

        :param generation: 0 for the task's first batch or run; it increases when a new one replaces an old one.
        """

    def own_tags(self, generation: int) -> dict[str, str]:
        """Return the tags by which a later try recognises the batch or run.

        :param generation: its generation.
        """
        tags = {DIGEST_TAG: self.digest}
        if not self.request_id:
            tags[GENERATION_TAG] = str(generation)
        return tags


class Found(NamedTuple):
    """Result of the search for what an earlier try started.

    :param answer: GetBatch's or GetRun's answer, None if there is nothing that the task can use.
    :param generation: generation of the batch or run, or the one that the next one gets.
    :param failed_id: id of the newest batch or run if it FAILED before it started.
    :param starts_again: whether ``generation`` is that of the FAILED one. Its token may start it again.
    """

    answer: Answer | None
    generation: int
    failed_id: str | None = None
    starts_again: bool = False


class Started(NamedTuple):
    """The batch or run that a task works with.

    :param answer: GetBatch's or GetRun's answer.
    :param request_id: its idempotency token.
    :param reattached: whether an earlier try had started it.
    """

    answer: Answer
    request_id: str
    reattached: bool


class Decided(NamedTuple):
    """What to do about a batch or run.

    :param answer: the newest answer of GetBatch or GetRun.
    :param decision: the decision.
    :param runs_started: number of runs that a FAILED batch started, at least; 1 for a FAILED run that was started.
    """

    answer: Answer
    decision: StartDecision
    runs_started: int = 0


def decide(
    meaning: StatusMeaning,
    *,
    request_digest: str,
    found_digest: str | None,
    request_etag: str | None = None,
    found_etag: str | None = None,
    runs_started: int = 0,
    is_cancelled: bool = False,
) -> StartDecision:
    """Decide what to do about a batch or run that has the task's own name.

    If its settings must be compared, and its digest tag is missing, it is neither used nor replaced: a missing tag must
    not cause a second batch or run, which would cost twice. If one of the two ETags is not known, they count as equal.

    :param meaning: what its status means.
    :param request_digest: digest of the current request.
    :param found_digest: digest of the request that started it, None if it is not known.
    :param request_etag: ETag of the current request's settings file, None if it is not known.
    :param found_etag: ETag of the settings file of what was found, None if it is not known.
    :param runs_started: number of runs that are known to have been started; used for a FAILED batch or run.
    :param is_cancelled: whether a FAILED batch is known to have been cancelled before it failed.
    """
    if meaning.when_found == WhenFound.REPLACE_IF_UNUSED:
        if runs_started:
            return StartDecision.REFUSE_RUNS_STARTED
        return StartDecision.REFUSE_CANCELLED if is_cancelled else StartDecision.START
    if meaning.when_found == WhenFound.REFUSE:
        return StartDecision.REFUSE_DELETED if meaning.end == End.DELETED else StartDecision.REFUSE_CANCELLED
    if found_digest is None:
        return StartDecision.REFUSE_UNKNOWN_SETTINGS
    if has_same_settings(request_digest, found_digest, request_etag, found_etag):
        return StartDecision.REATTACH
    if meaning.when_found == WhenFound.TAKE_OR_REPLACE:
        return StartDecision.START
    return StartDecision.REFUSE_OTHER_SETTINGS


def has_same_settings(
    request_digest: str, found_digest: str | None, request_etag: str | None = None, found_etag: str | None = None
) -> bool:
    """Return whether a batch or run was started with the settings of the current request.

    If one of the two ETags is not known, the ETags are not compared.

    :param request_digest: digest of the current request.
    :param found_digest: digest of the request that started it, None if it is not known.
    :param request_etag: ETag of the current request's settings file, None if it is not known.
    :param found_etag: ETag of the settings file of what was found, None if it is not known.
    """
    return found_digest == request_digest and (not request_etag or not found_etag or request_etag == found_etag)


def generation_of(tags: Mapping[str, str] | None) -> int:
    """Return the generation of a batch or run, 0 if its tags do not have it.

    :param tags: its tags.
    """
    text = (tags or {}).get(GENERATION_TAG, "0")
    return int(text) if text.isdecimal() else 0


def newest_first(answers: Iterable[Answer]) -> list[Answer]:
    """Sort by creation time, then by id. An answer without a creation time counts as the newest.

    :param answers: answers of GetBatch or GetRun.
    """
    return sorted(
        answers, key=lambda answer: (answer.get("creationTime") or _UNKNOWN_TIME, int(answer["id"])), reverse=True
    )


class StartOnce(ABC):
    """Finds or starts the batch or run of a task.

    :param hook: the hook.
    :param request: what the task asks for.
    """

    #: ``batch`` or ``run``, as messages name it.
    noun: ClassVar[str]
    #: Name of the operation that starts it, and of the one that gets it.
    start_operation: ClassVar[str]
    get_operation: ClassVar[str]
    #: Parameter of the task with the beginning of the name.
    name_parameter: ClassVar[str]
    #: Member of a list's items with the time of creation.
    created_member: ClassVar[str]

    def __init__(self, hook: OmicsCacheHook, request: StartRequest) -> None:
        self.hook = hook
        self.request = request

    @abstractmethod
    def list_named(self) -> Iterable[Answer]:
        """List the batches or runs with the request's name."""

    @abstractmethod
    def get(self, item: Answer) -> Answer | None:
        """Get a batch or run that was listed or started; None if the service does not show it.

        :param item: the item of the list, or the answer to the start.
        """

    def check_owner(self, answer: Answer) -> None:
        """Check that the batch or run belongs to the task. A subclass can override this method, which checks nothing.

        :param answer: the answer of GetBatch or GetRun.
        :raises OmicsError: it belongs to another task.
        """
        return

    @abstractmethod
    def call_start(self, generation: int) -> Answer:
        """Call the operation that starts it.

        :param generation: generation of what is started.
        """

    @abstractmethod
    def meaning_of(self, answer: Answer) -> StatusMeaning:
        """Return what the status of a batch or run means.

        :param answer: the answer that shows it.
        """

    @abstractmethod
    def decide(self, answer: Answer, *, is_newest: bool = True) -> Decided:
        """Decide what to do about a batch or run. First wait until the service shows what the decision needs.

        :param answer: the answer that shows it.
        :param is_newest: whether it is the newest one of its name. The runs of an older one do not matter.
        """

    @abstractmethod
    def refusal(self, found: Decided) -> OmicsError:
        """Return the error for a batch or run that can neither be used nor replaced.

        :param found: the batch or run.
        """

    @abstractmethod
    def error(self, kind: str, text: str, answer: Answer) -> OmicsError:
        """Return an error about a batch or run.

        :param kind: ``conflict``, ``failed`` or ``missing``.
        :param text: text of the error.
        :param answer: the answer that shows the batch or run.
        """

    @abstractmethod
    def may_start_again(self, answer: Answer) -> bool:
        """Return whether the request token of a batch or run that FAILED before it started may start it again.

        :param answer: the answer that shows it.
        """

    @abstractmethod
    def contents(self) -> str:
        """Describe the batch or run for the log."""

    def find(self) -> Found:
        """Find the batch or run that an earlier try of the task started.

        The newest batch or run with the task's name decides. If it is to be replaced, and an older one has the same
        settings, the older one is used. Otherwise a new one is started with the next generation. There is one
        exception: if the newest batch has the same settings and FAILED before it started a run, its own generation is
        used again, because AWS documents that its token starts the same batch again.

        :raises OmicsError: the newest one can neither be used nor replaced.
        :raises OmicsApiError: a call failed.
        """
        used, failed_id, again = [-1], None, None
        for number, answer in enumerate(self._answers()):
            is_newest = number == 0
            found = self.decide(answer, is_newest=is_newest)
            generation = generation_of(found.answer.get("tags"))
            if found.decision == StartDecision.REATTACH:
                return Found(found.answer, generation)
            if is_newest and found.decision != StartDecision.START:
                raise self.refusal(found)
            if is_newest and self._has_failed(found.answer):
                failed_id = found.answer["id"]
                if self.may_start_again(found.answer):
                    again = generation
                    continue
            used.append(generation)
        if again is not None and again >= max(used):
            return Found(None, again, failed_id, starts_again=True)
        return Found(None, max(used) + 1, failed_id)

    def start(self, *, found: Found, on_answer: Callable[[Started], object]) -> Started:
        """Start the batch or run. Two tries that call this at the same time get the same batch or run.

        GetBatch's or GetRun's answer decides, because the start operation repeats an old answer if the token was used
        before. If a batch FAILED before it started a run, and the settings are the same, its token is used once more.
        AWS documents that this token starts the batch again. A new token could start a second batch if another try uses
        the old one at the same time. If the service answers with the FAILED batch, the token of the next generation is
        used. For a run, AWS documents that a used token starts nothing. Therefore a FAILED run is always replaced with
        the next token.

        :param found: what :meth:`find` returned.
        :param on_answer: function that is called as soon as the start operation has answered.
        :raises OmicsError: the batch or run that the service returned can neither be used nor replaced.
        :raises OmicsApiError: a call failed.
        """
        request = self.request
        generation = found.generation
        failed_ids = {found.failed_id}
        failed = 0
        while True:
            try:
                started = self.hook.patiently(partial(self.call_start, generation))
            except OmicsApiError as error:
                earlier = self._find_with_spent_token(error, generation)
                if earlier.answer is not None:
                    return self.reattach(earlier.answer)
                generation = earlier.generation
                failed_ids.add(earlier.failed_id)
                continue
            identifier = started["id"]
            known = {"id": identifier, "arn": started.get("arn"), "uuid": started.get("uuid"), "name": request.name}
            on_answer(Started(known, request.token(generation), reattached=False))
            seen = self._get_existing(known)
            self.check_owner(seen)
            decided = self.decide(seen)
            answer = decided.answer
            if decided.decision == StartDecision.REATTACH:
                self.hook.log.info("Started %s %s (%s) with %s", self.noun, identifier, request.name, self.contents())
                return Started(answer, request.token(generation), reattached=False)
            if decided.decision != StartDecision.START:
                raise self.refusal(decided)
            if self._has_failed(answer) and identifier not in failed_ids:
                self.hook.log.info("%s; starting it again", self.failed_start(identifier))
                failed_ids.add(identifier)
                failed += 1
                if failed == _MAX_FAILED_STARTS:
                    text = (
                        f"{self.failed_start(request.name, times=failed)}, the last time as {self.noun} {identifier}: "
                        f"{reason_of(answer)}"
                    )
                    raise self.error("failed", text, answer)
                if not request.request_id and not self.may_start_again(answer):
                    generation += 1
                continue
            if request.request_id:
                raise self.token_taken(answer)
            generation += 1
            self.hook.log.info(
                "The request token belongs to %s %s, which is %s; starting a new %s with the next token",
                self.noun,
                identifier,
                shown(answer.get("status")),
                self.noun,
            )

    def _has_failed(self, answer: Answer) -> bool:
        return self.meaning_of(answer).when_found == WhenFound.REPLACE_IF_UNUSED

    @abstractmethod
    def failed_start(self, name: str, times: int = 1) -> str:
        """Say that a batch or run failed at its start.

        :param name: its id or name.
        :param times: how often it failed.
        """

    def reattach(self, answer: Answer) -> Started:
        """Use the batch or run of an earlier try.

        :param answer: what :meth:`find` found.
        """
        self.hook.log.info(
            "%s %s (%s) of an earlier try is %s; continuing with it. To start, and pay for, a new %s, set rerun_key.",
            self.noun.capitalize(),
            answer["id"],
            self.request.name,
            shown(answer.get("status")),
            self.noun,
        )
        return Started(answer, self.request.token(generation_of(answer.get("tags"))), reattached=True)

    def with_digest(self, answer: Answer) -> Answer:
        """Get a batch or run again if an answer lacks the digest tag, on which the decision depends.

        :param answer: the answer.
        """
        needs_digest = {WhenFound.TAKE, WhenFound.TAKE_OR_REPLACE}

        def is_decidable(seen: Answer | None) -> bool:
            return (
                seen is None
                or DIGEST_TAG in (seen.get("tags") or {})
                or self.meaning_of(seen).when_found not in needs_digest
            )

        if is_decidable(answer):
            return answer
        self.hook.log.info(
            "%s does not show the tag %s of %s %s; asking again",
            self.get_operation,
            DIGEST_TAG,
            self.noun,
            answer["id"],
        )
        return self.hook.until_seen(partial(self.get, answer), is_decidable) or answer

    def title(self, answer: Answer) -> str:
        """Return the beginning of an error about a batch or run of the task.

        :param answer: the answer that shows it.
        """
        status = shown(answer.get("status"))
        return f"{self.noun.capitalize()} {answer['id']} ({self.request.name}) of this task is {status}"

    def token_taken(self, answer: Answer) -> OmicsError:
        """Return the error for a user's request token that belongs to a batch or run that the task cannot use.

        :param answer: the answer that shows it.
        """
        text = (
            f"request_id {self.request.request_id!r} belongs to {self.noun} {answer['id']}, which is "
            f"{shown(answer.get('status'))}. Set another request_id, or leave it out."
        )
        return self.error("conflict", text, answer)

    def unknown_settings(self, answer: Answer) -> OmicsError:
        """Return the error for a batch or run that does not show its digest.

        :param answer: the answer that shows it.
        """
        text = (
            f"{self.title(answer)}, but {self.get_operation} does not show its tag {DIGEST_TAG}, so its settings "
            "cannot be compared. Clear the task to compare them again. If the tag was removed, cancel the "
            f"{self.noun} if it is active, and set rerun_key to start, and pay for, a new {self.noun}."
        )
        return self.error("conflict", text, answer)

    def other_settings(self, answer: Answer) -> OmicsError:
        """Return the error for an active batch or run with other settings.

        :param answer: the answer that shows it.
        """
        text = (
            f"{self.title(answer)}, and it was started with other settings. Cancel it, or set rerun_key to start a new "
            f"{self.noun}."
        )
        return self.error("conflict", text, answer)

    def _answers(self) -> list[Answer]:
        """Get the batches or runs with the request's name, the newest first. Those without a name are included."""
        name = self.request.name
        items = [
            item for item in self.hook.list_whole(lambda: list(self.list_named())) if item.get("name") in {None, name}
        ]
        times = [item[self.created_member] for item in items if item.get(self.created_member)]
        newest = max(times, default=None)
        answers = []
        for item in items:
            created = item.get(self.created_member)
            answer = self._get_existing(item) if created in {None, newest} else self.get(item)
            if answer is not None and answer.get("name") in {None, name}:
                answers.append({**answer, "creationTime": answer.get("creationTime") or created})
        return newest_first(answers)

    def _find_with_spent_token(self, error: OmicsApiError, generation: int) -> Found:
        """Find the batch or run that was started with a refused token.

        Another try may have been faster, or may have used other tags or another order of the settings.

        :return: the batch or run. If it can be replaced, only the next generation, because the token is used up.
        :raises OmicsApiError: nothing is found. The method does not try another token: the batch or run may not be
            listed yet, and a second one would cost twice.
        """
        if not is_token_refused(self.hook, error):
            raise error

        def is_seen(found: Found) -> bool:
            return found.answer is not None or found.generation > generation

        noun = self.noun
        self.hook.log.info(
            "Looking for a %s of an earlier try, because %s refused the request: %s", noun, self.start_operation, error
        )
        found = self.hook.until_seen(self.find, is_seen)
        if is_seen(found):
            return found
        if found.starts_again and found.generation == generation and not self.request.request_id:
            return Found(None, generation + 1, found.failed_id)
        raise error.with_text(
            f"{error}. The request token may belong to a {noun} that is not listed yet, to a {noun} with another "
            f"{self.name_parameter}, or to a deleted {noun}. The next try looks for it again. If it does not find it: "
            f"set the {self.name_parameter} of the first try, or set "
            f"{'another request_id' if self.request.request_id else 'rerun_key'} to start a new {noun}."
        ) from error.__cause__

    def _get_existing(self, item: Answer) -> Answer:
        """Get a batch or run that is known to exist. Wait until the service shows it."""
        answer = self.hook.until_seen(partial(self.get, item))
        if answer is None:
            raise self.error(
                "missing",
                f"{self.noun.capitalize()} {item['id']} was started, but {self.get_operation} did not find it for "
                f"{sum(VISIBLE_AFTER)} s. The next try of the task looks for it again. If it was deleted, set "
                f"rerun_key to start a new {self.noun}.",
                item,
            )
        return answer


def reason_of(answer: Mapping[str, Any]) -> str:
    """Return the service's reason for a failure, as messages show it.

    :param answer: GetBatch's or GetRun's answer.
    """
    return answer.get("failureReason") or "no reason given"
