"""Read run settings once: compare their parameters with the workflow's template, and pick inputs to look at.

The settings are read one by one. Only the inputs of a limited number of runs are kept in memory.
"""

from __future__ import annotations

import codecs
import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import IO, Any

from airflow_provider_omics_cache.healthomics.findings import error
from airflow_provider_omics_cache.hooks.s3 import bucket_and_key
from airflow_provider_omics_cache.xcoms import PreflightFinding

Template = Mapping[str, Mapping[str, Any]]

#: Maximum number of parameters that the findings list, and of runs for each of them.
_MOST_SHOWN = 20
#: Maximum number of output buckets that are checked.
_MOST_BUCKETS = 20
_CHUNK_BYTES = 64 * 1024
#: Maximum number of characters of one setting in a file. A valid one is shorter: its parameters have at most 256,000
#: bytes.
_LONGEST_SETTING = 8 * 1024**2
#: Maximum number of values of one run that are searched for ``s3://``. Its parameters have at most 256,000 bytes.
_MOST_VALUES = 256_000
_SPACES = re.compile(r"[ \t\r\n]*")
#: Characters that end a number.
_AFTER_A_NUMBER = frozenset(" \t\r\n,]")


@dataclass
class _Runs:
    """The runs that a finding is about: the first ones, and their number."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, run: str) -> None:
        self.count += 1
        if len(self.first) < _MOST_SHOWN:
            self.first.append(run)

    def shown(self) -> str:
        more = f" and {self.count - len(self.first):,} more" if self.count > len(self.first) else ""
        return ", ".join(self.first) + more


@dataclass(frozen=True)
class _Names:
    """The names of a template.

    :param known: all names.
    :param required: the required names that the default parameters do not have.
    """

    known: frozenset[str]
    required: frozenset[str]


class ParameterCheck:
    """Compares the parameters of runs with the parameter template of their workflow.

    :param title: the workflow, for the findings: "workflow 1234567".
    :param answer: GetWorkflow's or GetWorkflowVersion's answer.
    :param default_run_setting: the settings that all runs share.
    """

    def __init__(self, title: str, answer: Mapping[str, Any], default_run_setting: Mapping[str, Any]) -> None:
        self._title = title
        self._templates: dict[str | None, Template | None] = {None: answer.get("parameterTemplate") or None}
        self._templates.update(answer.get("profileParameterTemplates") or {})
        self._defaults = _parameters_of(default_run_setting)
        self._profile = _profile_of(default_run_setting)
        self._names: dict[str | None, _Names | None] = {}
        self._missing: dict[str, _Runs] = {}
        self._unknown: dict[str, _Runs] = {}
        self._unknown_defaults: dict[str, str | None] = {}
        self._not_shown = 0
        self._count = 0

    def add(self, run: str, setting: Mapping[str, Any]) -> None:
        """Check one run.

        :param run: name of the run in the findings.
        :param setting: its setting.
        """
        self._count += 1
        profile = _profile_of(setting) if "engineSettings" in setting else self._profile
        if profile not in self._templates:
            profile = None
        names = self._names[profile] if profile in self._names else self._read_names(profile)
        if names is None:
            return
        given = _parameters_of(setting).keys()
        if missing := names.required - given:
            self._note(self._missing, missing, run)
        if unknown := given - names.known:
            self._note(self._unknown, unknown, run)

    def _read_names(self, profile: str | None) -> _Names | None:
        template = self._templates[profile]
        names = None
        if template is not None:
            required = {name for name, about in template.items() if not (about or {}).get("optional")}
            names = _Names(frozenset(template), frozenset(required - self._defaults.keys()))
            for name in self._defaults.keys() - template.keys():
                self._unknown_defaults.setdefault(name, profile)
        self._names[profile] = names
        return names

    def _note(self, found: dict[str, _Runs], names: set[str] | frozenset[str], run: str) -> None:
        for name in sorted(names):
            if name in found or len(found) < _MOST_SHOWN:
                found.setdefault(name, _Runs()).add(run)
            else:
                self._not_shown += 1

    def findings(self) -> Iterator[PreflightFinding]:
        """Yield an error for each parameter that is missing or that the template does not have."""
        for name, runs in self._missing.items():
            text = f"is required by {self._title}, but it is missing in {self._which(runs)}"
            yield error("parameters", name, text)
        for name in islice(sorted(self._unknown_defaults), _MOST_SHOWN):
            profile = self._unknown_defaults[name]
            yield error("parameters", name, f"{self._is_unknown(name, profile)}; it is in default_run_setting")
        for name, runs in self._unknown.items():
            yield error("parameters", name, f"{self._is_unknown(name, None)}; it is in {self._which(runs)}")
        hidden = self._not_shown + max(0, len(self._unknown_defaults) - _MOST_SHOWN)
        if hidden:
            text = f"{hidden:,} more missing or unknown parameters of {self._title} are not listed"
            yield error("parameters", "more parameters", text)

    def _which(self, runs: _Runs) -> str:
        if self._count == 1:
            return runs.shown()
        return f"{runs.count:,} of {self._count:,} runs: {runs.shown()}"

    def _is_unknown(self, name: str, profile: str | None) -> str:
        template = self._templates.get(profile) or self._templates[None] or {}
        nearest = difflib.get_close_matches(name, list(template), n=1, cutoff=0.5)
        hint = f" (did you mean {nearest[0]!r}?)" if nearest else ""
        return f"is not in the parameter template of {self._title}{hint}"


class InputSample:
    """Chooses ``s3://`` values of the parameters of some runs that are spread over the batch.

    :param default_run_setting: the settings that all runs share. Its values are chosen first.
    :param size: maximum number of values.
    """

    def __init__(self, default_run_setting: Mapping[str, Any], size: int) -> None:
        self._shared = list(islice(_s3_values(_parameters_of(default_run_setting)), size))
        self._size = size
        self._kept: list[tuple[str, list[str]]] = []
        self._step = 1
        self._count = 0

    def add(self, run: str, setting: Mapping[str, Any]) -> None:
        """Add one run.

        :param run: name of the run in the findings.
        :param setting: its setting.
        """
        if self._size and self._count % self._step == 0:
            values = list(islice(_s3_values(_parameters_of(setting)), self._size))
            self._kept.append((run, values))
            if len(self._kept) > 2 * self._size:
                self._kept = self._kept[::2]
                self._step *= 2
        self._count += 1

    def values(self) -> dict[str, str]:
        """Return the chosen values, each with the first run that has it.

        One value of each run is chosen in turn. The parameter changes from run to run.
        """
        picked = dict.fromkeys(self._shared, "default_run_setting")
        kept = [(run, values) for run, values in self._kept if values]
        spread = min(len(kept), max(1, self._size - len(picked)))
        chosen = [kept[position * len(kept) // spread] for position in range(spread)]
        for turn in range(max((len(values) for _, values in chosen), default=0)):
            for position, (run, values) in enumerate(chosen):
                if len(picked) >= self._size:
                    return picked
                if turn < len(values):
                    picked.setdefault(values[(turn + position) % len(values)], run)
        return picked


class OutputBuckets:
    """The buckets of the outputs, with their expected owners.

    :param default_run_setting: the settings that all runs share.
    """

    def __init__(self, default_run_setting: Mapping[str, Any]) -> None:
        self._default = default_run_setting
        self._found: dict[tuple[str, str | None], str] = {}
        self._last: tuple[Any, Any] | None = None

    def add(self, setting: Mapping[str, Any]) -> None:
        """Add one run.

        :param setting: its setting.
        """
        uri = setting.get("outputUri") or self._default.get("outputUri")
        owner = setting.get("outputBucketOwnerId") or self._default.get("outputBucketOwnerId")
        if (uri, owner) == self._last or not isinstance(uri, str):
            return
        self._last = (uri, owner)
        key = bucket_and_key(uri)[0], str(owner) if owner else None
        if len(self._found) < _MOST_BUCKETS:
            self._found.setdefault(key, uri)

    def uris(self) -> dict[str, str | None]:
        """Return one URI for each bucket, at most 20, with the expected owner of the bucket."""
        return {uri: owner for (_, owner), uri in self._found.items()}


def read_settings(file: IO[bytes]) -> Iterator[Any]:
    """Read a JSON array entry by entry. One entry is in memory at a time.

    :param file: the file, in UTF-8.
    :raises ValueError: the file is not a JSON array, or an entry has more than 8 million characters.
    """
    text = _Text(file)
    if text.next_character() != "[":
        raise ValueError("the file must begin with [")
    text.skip(1)
    is_first = True
    while True:
        character = text.next_character()
        if character == "]" and is_first:
            break
        yield text.next_value()
        is_first = False
        character = text.next_character()
        if character == "]":
            break
        if character != ",":
            raise ValueError(
                f"a comma or ] must follow each setting, but {character!r} follows"
                if character
                else "the array is not closed"
            )
        text.skip(1)
    text.skip(1)
    if text.next_character():
        raise ValueError("the file must end after the array, but more text follows")


class _Text:
    """The part of a file that is in memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._decoder = json.JSONDecoder()
        self._text = ""
        self._at = 0
        self._has_ended = False

    def skip(self, characters: int) -> None:
        self._at += characters

    def next_character(self) -> str:
        """Return the next character that is not a space; an empty text at the end."""
        while True:
            found = _SPACES.match(self._text, self._at)
            self._at = found.end() if found else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read(_CHUNK_BYTES):
                return ""

    def next_value(self) -> Any:
        size = _CHUNK_BYTES
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as problem:
                reason = problem.msg
            except RecursionError:
                raise ValueError("a setting is nested too deeply") from None
            else:
                # A number may continue in the part that is not read yet.
                is_whole = not isinstance(value, int | float) or self._text[end : end + 1] in _AFTER_A_NUMBER
                if is_whole or not self._read(size):
                    self._at = end
                    return value
                continue
            if len(self._text) - self._at > _LONGEST_SETTING:
                raise ValueError(f"a setting is not valid JSON, or has more than {_LONGEST_SETTING:,} characters")
            if not self._read(size):
                raise ValueError(f"a setting is not valid JSON ({reason})")
            size *= 2

    def _read(self, size: int) -> bool:
        if self._has_ended:
            return False
        data = self._file.read(size)
        self._has_ended = not data
        self._text = self._text[self._at :] + self._decode(data, self._has_ended)
        self._at = 0
        return not self._has_ended


def name_of(setting: Any, index: int) -> str:
    """Return the name of a run in the findings: its runSettingId or, without one, its position.

    :param setting: its setting.
    :param index: its position.
    """
    run_setting_id = setting.get("runSettingId") if isinstance(setting, Mapping) else None
    return run_setting_id[:128] if isinstance(run_setting_id, str) and run_setting_id else f"[{index}]"


def _parameters_of(setting: Mapping[str, Any]) -> Mapping[str, Any]:
    parameters = setting.get("parameters")
    return parameters if isinstance(parameters, Mapping) else {}


def _profile_of(setting: Mapping[str, Any]) -> str | None:
    engine_settings = setting.get("engineSettings")
    profile = engine_settings.get("profile") if isinstance(engine_settings, Mapping) else None
    return None if profile is None else str(profile)


def _s3_values(value: Any) -> Iterator[str]:
    """Yield each text in a value that begins with ``s3://``, at any depth."""
    waiting = [value]
    # The limit also ends the search in a value that contains itself.
    for _ in range(_MOST_VALUES):
        if not waiting:
            return
        each = waiting.pop()
        if isinstance(each, str):
            if each.startswith("s3://"):
                yield each
        elif isinstance(each, Mapping):
            waiting.extend(reversed(list(each.values())))
        elif isinstance(each, Sequence) and not isinstance(each, (bytes, bytearray)):
            waiting.extend(reversed(each))
