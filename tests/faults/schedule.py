"""A schedule is data: what happens to which call. It is drawn from a seed, written as JSON, and shortened as a list.

:data:`KINDS` names every kind of fault: the profiles that have it, the operations that it can happen to, and what its
``amount`` and ``name`` mean. ``wire.py`` and ``world.py`` apply them.

Three profiles exist. ``honest`` is a service that keeps to its documentation: it throttles, fails, loses answers, and
its lists and counts are late. ``torn`` loses parts of answers. ``anything`` has every kind of fault. In all of them,
lists and counts are late by at most :data:`MOST_LAG` seconds, which is less than the 300 seconds for which the package
waits for them. Only what a request token protects may be hidden for longer.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

PROFILES = ("anything", "honest", "torn")
#: Most seconds by which lists and counts are late.
MOST_LAG = 240.0
#: Seconds after which a fault lets the service forget a request token. AWS documents no lifetime. The package repeats a
#: call for as long.
TOKEN_SECONDS = 3600.0

LISTS = ("ListBatch", "ListRunsInBatch", "ListRuns", "ListRunCaches", "ListRunGroups")
GETS = ("GetBatch", "GetRun", "GetRunCache", "GetRunGroup")
S3 = ("s3.HeadObject", "s3.PutObject", "s3.GetObject")
CHANGES = (
    "CreateRunCache",
    "UpdateRunCache",
    "DeleteRunCache",
    "StartRunBatch",
    "CancelRunBatch",
    "DeleteRunBatch",
    "DeleteBatch",
    "CancelRun",
    "DeleteRun",
    "TagResource",
    "CreateRunGroup",
    "UpdateRunGroup",
    "DeleteRunGroup",
    "StartRun",
)
OMICS = (*LISTS, *GETS, *CHANGES)
ANY = (*OMICS, *S3)

#: Members that each answer always has. An answer without one of them is torn.
ALWAYS = {
    "ListBatch": ("items",),
    "ListRuns": ("items",),
    "ListRunCaches": ("items",),
    "ListRunsInBatch": ("runs",),
    "GetBatch": ("id", "status", "tags", "submissionSummary", "runSummary", "totalRuns", "name", "uuid"),
    "GetRun": ("id", "status", "batchId", "uuid"),
    "GetRunCache": ("id", "status", "name", "cacheS3Uri", "tags"),
    "StartRunBatch": ("id", "status"),
    "CreateRunCache": ("id", "status"),
    "ListRunGroups": ("items",),
    "GetRunGroup": ("id",),
    "CreateRunGroup": ("id",),
    "StartRun": ("id",),
}
#: Members that each row of a list always has.
ALWAYS_IN_ROWS = {
    "ListBatch": ("id", "name", "status", "createdAt"),
    "ListRuns": ("id", "status"),
    "ListRunCaches": ("id", "name", "status", "cacheS3Uri"),
    "ListRunsInBatch": ("runId", "runSettingId", "submissionStatus", "runInternalUuid"),
    "ListRunGroups": ("id", "name"),
}


@dataclass(frozen=True)
class Fault:
    """One fault.

    :param kind: name of the kind, see :data:`KINDS`.
    :param operation: the operation that it happens to; empty for a fault that does not belong to a call.
    :param nth: the first call of the operation that it happens to, counted from 1 over the whole schedule.
    :param times: to how many calls in a row it happens.
    :param amount: seconds, a part, or a number, depending on the kind.
    :param name: a member, a setting or a runSettingId, depending on the kind.
    """

    kind: str
    operation: str = ""
    nth: int = 1
    times: int = 1
    amount: float = 0.0
    name: str = ""

    def hits(self, operation: str, number: int) -> bool:
        """Whether it happens to this call of the operation."""
        return self.operation == operation and self.nth <= number < self.nth + self.times

    def to_json(self) -> dict[str, Any]:
        """Return the members that are not the defaults."""
        defaults = {f.name: f.default for f in fields(self)}
        return {name: value for name, value in asdict(self).items() if value != defaults[name]}


@dataclass(frozen=True)
class Schedule:
    """What is run, and what happens meanwhile.

    :param choices: parameters of the tasks and of the service, by name.
    """

    scenario: str
    profile: str
    seed: int
    choices: Mapping[str, Any] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()


Draw = Callable[[random.Random, str, Mapping[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    :param operations: operations that it can happen to; empty for a fault that does not belong to a call.
    :param profiles: profiles that have it.
    :param weight: how often it is drawn, compared with others.
    :param draw: draws ``times``, ``amount`` and ``name``.
    """

    operations: tuple[str, ...]
    profiles: tuple[str, ...]
    weight: float
    draw: Draw


def _times(random: random.Random, operation: str, choices: Mapping[str, Any]) -> dict[str, Any]:
    return {"times": random.choice((1, 1, 1, 2, 3, 5, 12, 60))}


def _once(random: random.Random, operation: str, choices: Mapping[str, Any]) -> dict[str, Any]:
    return {}


def _slow(random: random.Random, operation: str, choices: Mapping[str, Any]) -> dict[str, Any]:
    return {"amount": random.choice((5.0, 20.0, 55.0)), "times": random.choice((1, 2, 5, 40))}


def _cut(random: random.Random, operation: str, choices: Mapping[str, Any]) -> dict[str, Any]:
    return {"amount": random.choice((0.02, 0.3, 0.7, 0.99)), "times": random.choice((1, 1, 2, 3, 8))}


def _member(random: random.Random, operation: str, choices: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": random.choice(ALWAYS[operation]), "times": random.choice((1, 1, 2, 3, 8))}


def _member_of_row(random: random.Random, operation: str, choices: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": random.choice(ALWAYS_IN_ROWS[operation]),
        "amount": float(random.randrange(4)),
        "times": random.choice((1, 1, 2, 3, 8)),
    }


def _lag(random: random.Random, operation: str, choices: Mapping[str, Any]) -> dict[str, Any]:
    most = random.choice((5.0, 20.0, 60.0, 60.0, MOST_LAG))
    return {"amount": round(random.uniform(1, most), 1), "times": 100_000}


def _seconds(*choices: float) -> Draw:
    return lambda random, operation, _: {"amount": random.choice(choices)}


def _hidden(random: random.Random, operation: str, choices: Mapping[str, Any]) -> dict[str, Any]:
    return {"amount": random.choice((2.0, 20.0, 60.0, 200.0, choices.get("most_hidden", 200.0)))}


def _sample(random: random.Random, operation: str, choices: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": f"sample-{random.randrange(choices['runs'])}"}


def _started(random: random.Random, operation: str, choices: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": random.choice(("CREATING", "PENDING", "SUBMITTING", "SUBMITTING")),
        "amount": float(random.randrange(choices["runs"] + 1)),
        "times": random.choice((1, 1, 2, 4)),
    }


_EVERY = PROFILES
_HONEST = ("anything", "honest")
_TORN = ("anything", "torn")
_WILD = ("anything",)

#: Every kind of fault, by name.
KINDS: dict[str, Kind] = {
    # Errors in place of answers. The call has no effect.
    "throttle": Kind(ANY, _HONEST, 4, _times),
    "error_500": Kind(ANY, _HONEST, 3, _times),
    "error_503_html": Kind(ANY, _HONEST, 1, _times),
    "error_408": Kind(OMICS, _HONEST, 1, _times),
    "expired": Kind(ANY, _WILD, 1, lambda r, o, c: {"times": r.choice((1, 2, 3))}),
    "denied": Kind(ANY, _WILD, 1, lambda r, o, c: {"times": r.choice((1, 1, 3))}),
    "head_403": Kind(("s3.HeadObject",), _HONEST, 6, lambda r, o, c: {"times": r.choice((1, 1, 2, 50))}),
    "echo": Kind(("StartRunBatch", "StartRun"), _WILD, 0.5, _once),
    "expired_page": Kind(LISTS, _WILD, 2, _once),
    "not_found": Kind(("GetBatch",), _WILD, 1, lambda r, o, c: {"times": r.choice((1, 1, 2))}),
    "alternate": Kind(("GetBatch",), _WILD, 0.7, lambda r, o, c: {"times": r.choice((10, 100_000))}),
    # Lost and late answers.
    "drop_before": Kind(ANY, _EVERY, 3, _times),
    "drop_after": Kind(ANY, _EVERY, 4, lambda r, o, c: {"times": r.choice((1, 1, 1, 2, 3, 5))}),
    "proxy": Kind(OMICS, _WILD, 0.7, lambda r, o, c: {"times": r.choice((1, 3, 12))}),
    "slow": Kind(ANY, _HONEST, 2, _slow),
    "read_timeout": Kind(ANY, _HONEST, 1, lambda r, o, c: {"times": r.choice((1, 2, 4))}),
    # Torn answers.
    "cut": Kind((*LISTS, *GETS, "StartRunBatch", "CreateRunCache", "CreateRunGroup", "StartRun"), _TORN, 4, _cut),
    "empty": Kind((*LISTS, *GETS, "StartRunBatch", "CreateRunCache", "CreateRunGroup", "StartRun"), _TORN, 4, _cut),
    "html": Kind((*LISTS, *GETS, "StartRunBatch", "CreateRunCache", "CreateRunGroup", "StartRun"), _TORN, 3, _cut),
    "absent": Kind(tuple(ALWAYS), _TORN, 5, _member),
    "absent_in_row": Kind(tuple(ALWAYS_IN_ROWS), _TORN, 4, _member_of_row),
    # Answers that are whole, and not what the caller expects.
    "reorder": Kind(LISTS, _HONEST, 1, lambda r, o, c: {"times": 100_000}),
    "repeat_row": Kind(LISTS, _WILD, 2, _times),
    "same_token": Kind(LISTS, _WILD, 1, lambda r, o, c: {"times": r.choice((1, 2, 100_000))}),
    "token_circle": Kind(LISTS, _WILD, 1, lambda r, o, c: {"times": r.choice((4, 8, 100_000))}),
    "unknown_status": Kind(("GetBatch", "GetRun", "ListRuns", "ListBatch"), _WILD, 2, _times),
    "old_answer": Kind(("GetBatch",), _WILD, 1, _times),
    "list_lag": Kind(LISTS, _HONEST, 4, _lag),
    "late": Kind((), _HONEST, 2, lambda r, o, c: {"amount": r.choice((5.0, 20.0, 60.0, MOST_LAG))}),
    "stale_counts": Kind(("GetBatch",), _HONEST, 3, _lag),
    # Processes.
    "kill_before": Kind(ANY, _EVERY, 3, _once),
    "kill_after": Kind(ANY, _EVERY, 5, _once),
    "twin_before": Kind(ANY, _HONEST, 2, _once),
    "twin_after": Kind(ANY, _HONEST, 2, _once),
    # What happens in the service.
    "forget_tokens": Kind((), _WILD, 1.5, _seconds(TOKEN_SECONDS)),
    "reuse_id": Kind(("DeleteRun", "CancelRun"), _HONEST, 4, _once),
    "batch_visible_after": Kind((), _HONEST, 1.5, _hidden),
    "run_cache_visible_after": Kind((), _HONEST, 2, _hidden),
    "fail_batch": Kind((), _EVERY, 3, _started),
    "fail_submission": Kind((), _EVERY, 1.5, _sample),
    "fail_run": Kind((), _EVERY, 1.5, _sample),
    "fail_cancel": Kind((), _HONEST, 1.5, _sample),
    "fail_delete": Kind((), _HONEST, 2.5, _sample),
    "cancelled_by_other": Kind((), _HONEST, 1.5, _seconds(3.5, 8.0, 40.0, 300.0)),
    "stopping_fails": Kind((), _WILD, 1, _seconds(0.0, 1.0)),
}

#: Kinds of faults that make each other worse. Half of the schedules draw most of their faults from one of these.
THEMES: dict[str, tuple[str, ...]] = {
    "late": (
        "late",
        "late",
        "list_lag",
        "stale_counts",
        "fail_batch",
        "fail_batch",
        "cancelled_by_other",
        "kill_after",
    ),
    "hidden": ("batch_visible_after", "run_cache_visible_after", "list_lag", "drop_after", "kill_after", "twin_after"),
    "processes": ("kill_before", "kill_after", "twin_before", "twin_after", "drop_after", "list_lag"),
    "ended": ("fail_batch", "stopping_fails", "cancelled_by_other", "fail_delete", "fail_cancel", "reuse_id", "late"),
    "torn": ("cut", "empty", "html", "absent", "absent_in_row", "kill_after"),
    "silence": ("throttle", "error_500", "drop_before", "slow", "not_found", "alternate", "read_timeout", "proxy"),
    "forgotten": ("forget_tokens", "forget_tokens", "batch_visible_after", "run_cache_visible_after", "kill_after"),
    "lists": ("expired_page", "same_token", "token_circle", "repeat_row", "reorder", "list_lag", "slow"),
}


def draw(
    seed: int,
    *,
    scenario: str,
    profile: str,
    operations: Iterable[str],
    without: Iterable[str] = (),
    choices: Mapping[str, tuple[Any, ...]],
) -> Schedule:
    """Draw a schedule.

    :param seed: the seed.
    :param scenario: name of the scenario.
    :param profile: name of the profile.
    :param operations: the operations that the scenario calls.
    :param without: kinds of faults that make no sense in the scenario.
    :param choices: the values of each choice.
    """
    generator = random.Random(f"{scenario}/{profile}/{seed}")
    chosen = {name: generator.choice(values) for name, values in choices.items()}
    called = tuple(operations)
    possible = {
        name: tuple(operation for operation in kind.operations if operation in called)
        for name, kind in KINDS.items()
        if profile in kind.profiles and name not in set(without)
    }
    names = [name for name, on in possible.items() if on or not KINDS[name].operations]
    weights = [KINDS[name].weight for name in names]
    count = generator.choice((1, 2, 2, 3, 3, 4, 6))
    themes = [kinds for kinds in THEMES.values() if set(kinds) & set(names)]
    if generator.random() < 0.5:
        theme = [name for name in generator.choice(themes) if name in names]
        drawn = [*generator.choices(theme, k=count), *generator.choices(names, weights)]
    else:
        drawn = generator.choices(names, weights, k=count)
    faults = []
    for name in drawn:
        operation = generator.choice(possible[name]) if possible[name] else ""
        fault = {"nth": 1, **KINDS[name].draw(generator, operation, chosen)}
        if (fault.get("times", 1) < 100_000 or name == "alternate") and operation:
            fault["nth"] = generator.choice((1, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 7, 10))
        faults.append(Fault(name, operation, **fault))
    return Schedule(scenario, profile, seed, chosen, tuple(faults))
