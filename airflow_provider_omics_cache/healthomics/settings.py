"""Check, count and write the run settings of a batch in one pass, without calls to AWS.

The members that a setting can have come from botocore's model, as plain data (see
:meth:`~airflow_provider_omics_cache.hooks.omics.OmicsCacheHook.describe_shape`). These functions do not raise for bad
input: they collect the errors in a :class:`BrokenRules`, and the caller raises.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import IO, Any

import botocore

from airflow_provider_omics_cache.exceptions import OmicsParameterError

#: Maximum number of settings that StartRunBatch takes inline; a larger batch needs a settings file in S3.
MAX_INLINE_SETTINGS = 100
#: Maximum number of runs of a batch.
MAX_RUN_SETTINGS = 100_000
#: Maximum size, in bytes of JSON, of a run's parameters merged with the default parameters.
MAX_PARAMETERS_BYTES = 256_000
#: Maximum size, in bytes, of one PutObject to S3.
MAX_FILE_BYTES = 5 * 1024**3

_OFFENDERS_SHOWN = 20
_RULES_SHOWN = 20
#: Minimum similarity (difflib's ratio, 0 to 1) of an unknown key to a member that an error suggests.
_SIMILARITY = 0.7
#: Number of settings that are encoded and written together. Each can be as large as its parameters.
_CHUNK = 50
_NEVER_SHOWN = frozenset({"parameters", "engineSettings", "runTags", "sessionPolicy"})
_JSON_RULE = "must contain only JSON values"
_TABLE_ROW_RULE = "must be a run setting, not a row of a table: make run settings with run_settings_from_table"

Shape = Mapping[str, Any]

# Writes the same form as identity.canonical_json.
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode
# Separates the settings that are encoded together.
_SEPARATOR = "\x1e"
_WRITTEN_SEPARATOR = _encode(_SEPARATOR)


@dataclass
class _BrokenRule:
    count: int = 0
    offenders: list[tuple[Any, Any]] = field(default_factory=list)


class BrokenRules:
    """The errors of one parameter: for each broken rule the first offenders and the number of offenders.

    The object is true if there is an error.

    :param parameter: name of the parameter.
    """

    #: Noun for the entries of the parameter in error texts.
    entries = "settings"

    def __init__(self, parameter: str) -> None:
        self._parameter = parameter
        self._rules: dict[tuple[str, str], _BrokenRule] = {}

    def __bool__(self) -> bool:
        return bool(self._rules)

    def add(self, rule: str, value: Any, *, member: str = "", index: Any = None) -> None:
        """Add an offender.

        :param rule: the rule that the value breaks, in words that follow the name of the parameter: "must be ...".
        :param value: the value.
        :param member: path of the member inside the parameter, or inside one of its entries. Default: the parameter
            (or the entry) itself.
        :param index: position of the entry. Default: the error is not about one entry.
        """
        broken = self._rules.setdefault((member, rule), _BrokenRule())
        broken.count += 1
        if len(broken.offenders) < _OFFENDERS_SHOWN:
            broken.offenders.append((index, value))

    def summary(self) -> tuple[str, str, Any]:
        """Return parameter, rule and value of the first offender; the text of the rule lists the other offenders.

        The text lists at most 20 rules, and at most 20 offenders of each rule with their total number.
        """
        (member, _), first = next(iter(self._rules.items()))
        index, value = first.offenders[0]
        rules = []
        for (other_member, rule), broken in islice(self._rules.items(), _RULES_SHOWN):
            text = rule if other_member == member else f"{other_member} {rule}".lstrip()
            if broken.count > 1:
                shown = ", ".join(
                    repr(value_shown) if index_shown is None else f"{self.place(index_shown)} {value_shown!r}"
                    for index_shown, value_shown in broken.offenders
                )
                entries = self.entries if broken.offenders[0][0] is not None else "values"
                which = f"; the first {len(broken.offenders)}" if broken.count > len(broken.offenders) else ""
                text += f" ({broken.count:,} {entries} have this error{which}: {shown})"
            elif broken is not first:
                index_shown, value_shown = broken.offenders[0]
                text += f" (got {value_shown!r}{'' if index_shown is None else f' at {self.place(index_shown)}'})"
            rules.append(text)
        if len(self._rules) > _RULES_SHOWN:
            rules.append(f"{len(self._rules) - _RULES_SHOWN:,} more errors")
        return self.path(member, index), "; also ".join(rules), value

    def raise_if_any(self) -> None:
        """Raise the errors that were added.

        :raises OmicsParameterError: there is an error.
        """
        if self:
            raise OmicsParameterError(*self.summary())

    def place(self, index: Any) -> str:
        """Return the name of an entry in an error.

        :param index: position of the entry.
        """
        return f"[{index}]"

    def path(self, member: str, index: Any) -> str:
        """Return the name of a member in an error.

        :param member: path of the member, empty for the entry (or the parameter) itself.
        :param index: position of the entry, None for a member of the parameter itself.
        """
        path = self._parameter if index is None else f"{self._parameter}{self.place(index)}"
        return f"{path}.{member}" if member else path


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Result of :func:`check_run_settings`.

    :param count: number of settings.
    :param digest: digest of the settings, 64 hexadecimal digits. It does not depend on their order.
    :param sha256: SHA-256 of the written JSON array, 64 hexadecimal digits.
    :param size: size of the written JSON array, in bytes.
    :param own_output_uris: ``outputUri`` of the settings that have their own, by runSettingId.
    :param broken: errors of the settings. If there are any, the other members are not valid.
    """

    count: int
    digest: str
    sha256: str
    size: int
    own_output_uris: dict[str, str]
    broken: BrokenRules


def check_cache_behavior(where: str, setting: Mapping[str, Any]) -> None:
    """Check that a setting with ``cacheBehavior`` has the ``cacheId`` that it needs.

    :param where: name of the parameter with the setting.
    :param setting: the default run setting of a batch.
    :raises OmicsParameterError: the setting has ``cacheBehavior`` and no ``cacheId``.
    """
    behavior = setting.get("cacheBehavior")
    if behavior is not None and setting.get("cacheId") is None:
        rule = "has no effect without cacheId: set cacheId, or remove cacheBehavior"
        raise OmicsParameterError(f"{where}.cacheBehavior", rule, behavior)


def unknown_key_rule(shape: str) -> str:
    """Return the error for a key that a shape does not have.

    :param shape: name of the shape.
    """
    return (
        f"has a key that botocore {botocore.__version__} does not know in {shape}: check its spelling; for a new key, "
        "upgrade boto3 (and aiobotocore with it)"
    )


def check_member(parameter: str, value: Any, *, shape: Shape, unknown_rule: str = "has an unknown key") -> BrokenRules:
    """Check a parameter against the description of its shape.

    :param parameter: name of the parameter, for the error.
    :param value: value of the parameter.
    :param shape: description of the shape.
    :param unknown_rule: error for a key that is not a member of the shape and resembles none of its members. For a key
        that resembles one, the error suggests that member. Default: "has an unknown key".
    :return: the errors.
    """
    broken = BrokenRules(parameter)
    for member, rule, shown in _check(value, shape, "", unknown_rule):
        broken.add(rule, shown, member=member)
    if not broken:
        for member, reason in _not_json(value):
            broken.add(_JSON_RULE, reason, member=member)
    return broken


def check_run_settings(
    settings: Any,
    *,
    shape: Shape,
    default_run_setting: Mapping[str, Any],
    file: IO[bytes],
    unknown_rule: str = "has an unknown key",
) -> RunSettings:
    """Check and count the run settings, and write them to a file as the JSON array that the service reads.

    It keeps about one megabyte of JSON in memory, however many settings there are.

    :param settings: the run settings.
    :param shape: description of botocore's ``InlineSetting``.
    :param default_run_setting: the default setting, which the service merges with each setting.
    :param file: binary file to which the settings are written, as canonical JSON.
    :param unknown_rule: error for a key that is not a member of the shape and resembles none of its members. For a key
        that resembles one, the error suggests that member. Default: "has an unknown key".
    :return: number, digests and size of the settings, and their errors.
    """
    broken = BrokenRules("run_settings")
    if isinstance(settings, str) and settings.lstrip()[:1] in {"[", "{"}:
        broken.add(
            "must be a list of dicts or an s3:// URI: pass the XCom itself (task.output) or set "
            "render_template_as_native_obj=True",
            f"str of {len(settings):,} characters",
        )
    elif settings is None or settings == "None":
        broken.add(
            "must be a list of dicts or an s3:// URI. None usually means that the upstream task returned None or was "
            "skipped. To skip this task, raise AirflowSkipException in the upstream task",
            settings,
        )
    elif not isinstance(settings, Sequence) or isinstance(settings, (str, bytes, bytearray)):
        broken.add("must be a list of dicts or an s3:// URI", _shown("run_settings", settings))
    elif not settings:
        broken.add("must have at least one setting", settings)
    elif len(settings) > MAX_RUN_SETTINGS:
        broken.add(f"must have at most {MAX_RUN_SETTINGS:,} settings", f"{len(settings):,} settings")
    if broken:
        return RunSettings(count=0, digest="", sha256="", size=0, own_output_uris={}, broken=broken)

    quick_checks = {name: _quick_check(member) for name, member in shape["members"].items()}
    required = frozenset(shape["required"])
    default_parameters = default_run_setting.get("parameters") or {}
    spare_bytes = MAX_PARAMETERS_BYTES - len(_encode(default_parameters))
    has_output_uri = bool(default_run_setting.get("outputUri"))

    first_indexes: dict[str, int] = {}
    own_output_uris: dict[str, str] = {}
    count = size = digests = 0
    sha256, from_bytes = hashlib.sha256, int.from_bytes
    content = sha256()

    def write(text: str) -> None:
        nonlocal size
        data = text.encode("ascii")
        content.update(data)
        size += len(data)
        file.write(data)

    write("[")
    remaining = iter(settings)
    while chunk := list(islice(remaining, _CHUNK)):
        for index, setting in enumerate(chunk, count):
            if not isinstance(setting, dict):
                broken.add("must be a dict", type(setting).__name__, index=index)
                continue
            if not required <= setting.keys() and _is_table_row(setting, shape):
                broken.add(_TABLE_ROW_RULE, f"keys {', '.join(map(str, setting))}"[:150], index=index)
                continue
            for name, value in setting.items():
                fits = quick_checks.get(name)
                if fits is None or not fits(value):
                    for member, rule, shown in _check_named(name, setting, shape, "", unknown_rule):
                        broken.add(rule, shown, member=member, index=index)
            if not required <= setting.keys():
                for name in sorted(required - setting.keys()):
                    broken.add("is required", None, member=name, index=index)
            output_uri = setting.get("outputUri")
            if not has_output_uri and not output_uri:
                broken.add("must be given here or in default_run_setting", None, member="outputUri", index=index)
            run_setting_id = setting.get("runSettingId")
            if isinstance(run_setting_id, str):
                if output_uri:
                    own_output_uris[run_setting_id] = output_uri
                first = first_indexes.setdefault(run_setting_id, index)
                if first != index:
                    shown = f"{_shown('runSettingId', run_setting_id)} as in [{first}]"
                    broken.add("must be unique", shown, member="runSettingId", index=index)
        try:
            texts = _encode_each(chunk)
        except (TypeError, ValueError, RecursionError):
            texts = []
            for index, setting in enumerate(chunk, count):
                for member, reason in _not_json(setting):
                    broken.add(_JSON_RULE, reason, member=member, index=index)
        for index, text in enumerate(texts, count):
            if len(text) > spare_bytes:
                merged_bytes = _merged_bytes(default_parameters, chunk[index - count])
                if merged_bytes > MAX_PARAMETERS_BYTES:
                    broken.add(
                        f"must have at most {MAX_PARAMETERS_BYTES:,} bytes when merged with the default parameters",
                        f"{merged_bytes:,} bytes",
                        member="parameters",
                        index=index,
                    )
            digests += from_bytes(sha256(text.encode("ascii")).digest(), "big")
        write(("," if count else "") + ",".join(texts))
        count += len(chunk)
    write("]")
    return RunSettings(
        count=count,
        digest=f"{digests % 2**256:064x}",
        sha256=content.hexdigest(),
        size=size,
        own_output_uris=own_output_uris,
        broken=broken,
    )


def _encode_each(settings: Sequence[Any]) -> list[str]:
    """Return each setting as canonical JSON. One call encodes all settings: a call for each takes twice as long.

    :raises TypeError: a setting has a value of a type that JSON does not have.
    :raises ValueError: a setting has NaN, an infinite number, a reference to itself or an unpaired surrogate.
    """
    parts: list[Any] = [_SEPARATOR] * (2 * len(settings) - 1)
    parts[::2] = settings
    text = _encode(parts)
    if "\\ud" in text:
        _check_unicode(settings)
    texts = text[1:-1].split(f",{_WRITTEN_SEPARATOR},")
    # The number differs if a list inside a setting contains the separator.
    return texts if len(texts) == len(settings) else [_encode(setting) for setting in settings]


def _quick_check(shape: Shape) -> Callable[[Any], bool]:
    """Return a fast test for values of a shape: if it is true, the value is valid; if not, run the full check."""
    low, high = shape.get("min", 0), shape.get("max", sys.maxsize)
    if shape["type"] == "document":
        return lambda value: type(value) is dict
    if shape["type"] == "string":
        return lambda value: type(value) is str and low <= len(value) <= high
    if shape["type"] in ("integer", "long"):
        return lambda value: type(value) is int and low <= value <= high
    if shape["type"] == "map":
        key_fits, value_fits = _quick_check(shape["key"]), _quick_check(shape["value"])
        return lambda value: (
            type(value) is dict
            and low <= len(value) <= high
            and all(map(key_fits, value))
            and all(map(value_fits, value.values()))
        )
    return lambda value: False


def _check(value: Any, shape: Shape, path: str, unknown_rule: str) -> Iterator[tuple[str, str, Any]]:
    """Yield member, rule and value of each error of a value of the shape."""
    kind = shape["type"]
    name = path.rpartition(".")[2]
    if kind == "document":
        if name == "parameters" and not isinstance(value, dict):
            yield path, "must be a dict", type(value).__name__
    elif kind == "string":
        if not isinstance(value, str) or not _is_within(len(value), shape):
            yield path, _with_limits("must be a string", " of {}", shape, " characters"), _shown(name, value)
    elif kind in ("integer", "long"):
        if not isinstance(value, int) or isinstance(value, bool) or not _is_within(value, shape):
            yield path, _with_limits("must be an integer", " ({})", shape), _shown(name, value)
    elif kind == "boolean":
        if not isinstance(value, bool):
            yield path, "must be a boolean", _shown(name, value)
    elif kind == "list":
        if not isinstance(value, (list, tuple)):
            yield path, "must be a list", type(value).__name__
        else:
            yield from _check_entries(value, shape, path)
            for entry in value:
                yield from _check(entry, shape["member"], path, unknown_rule)
    elif kind == "map":
        if not isinstance(value, dict):
            yield path, "must be a dict", type(value).__name__
        else:
            yield from _check_entries(value, shape, path)
            for key, entry in value.items():
                for _, rule, shown in _check(key, shape["key"], "", unknown_rule):
                    yield path, f"has an invalid key: it {rule}", shown
                for _, rule, shown in _check(entry, shape["value"], "", unknown_rule):
                    yield path, f"has an invalid value: it {rule}", shown
    elif kind == "structure":
        if not isinstance(value, dict):
            yield path, "must be a dict", type(value).__name__
        else:
            for member in value:
                yield from _check_named(member, value, shape, path, unknown_rule)
            for member in sorted(set(shape["required"]) - value.keys()):
                yield _join(path, member), "is required", None


def _check_named(
    name: Any, value: Mapping[Any, Any], structure: Shape, path: str, unknown_rule: str
) -> Iterator[tuple[str, str, Any]]:
    """Yield member, rule and value of each error of one member of a structure.

    :param name: name of the member.
    :param value: value of the structure.
    :param structure: description of the structure.
    :param path: path of the structure, empty for the parameter (or the entry) itself.
    :param unknown_rule: error for a name that resembles no member.
    """
    member = structure["members"].get(name)
    if member is not None:
        yield from _check(value[name], member, _join(path, name), unknown_rule)
        return
    meant = _similar_member(name, value, structure)
    yield path, f"has the unknown key {name!r} (did you mean {meant!r}?)" if meant else unknown_rule, name


def _similar_member(name: Any, value: Mapping[Any, Any], structure: Shape) -> str | None:
    """Return the member that an unknown key probably means, or None.

    Case, underscores and hyphens are ignored. A member that the structure already has is returned only if there is no
    other difference.

    :param name: the unknown key.
    :param value: value of the structure.
    :param structure: description of the structure.
    """
    if not isinstance(name, str):
        return None
    members: dict[str, str] = {member.lower(): member for member in structure["members"]}
    folded = name.replace("_", "").replace("-", "").lower()
    if folded in members:
        return members[folded]
    absent = [key for key, member in members.items() if member not in value]
    return next((members[key] for key in difflib.get_close_matches(folded, absent, n=1, cutoff=_SIMILARITY)), None)


def _is_table_row(setting: Mapping[Any, Any], structure: Shape) -> bool:
    """Whether no key of a setting is or resembles a member, as in the rows of a samplesheet.

    :param setting: the setting.
    :param structure: description of the structure.
    """
    return bool(setting) and not any(
        name in structure["members"] or _similar_member(name, setting, structure) for name in setting
    )


def _check_entries(value: Any, shape: Shape, path: str) -> Iterator[tuple[str, str, Any]]:
    if not _is_within(len(value), shape):
        yield path, _with_limits("must have", " {}", shape, " entries"), f"{len(value)} entries"


def _is_within(number: int, shape: Shape) -> bool:
    return bool(shape.get("min", number) <= number <= shape.get("max", number))


def _with_limits(rule: str, form: str, shape: Shape, unit: str = "") -> str:
    """Return a rule with the limits of a shape: "must be a string of 1 to 128 characters".

    :param rule: the rule without limits.
    :param form: format that adds the limits after the rule.
    :param shape: description of the shape.
    :param unit: unit of the limits, with a space before it. Default: none.
    """
    low, high = shape.get("min"), shape.get("max")
    if low is None and high is None:
        return rule
    if low is None:
        return rule + form.format(f"at most {high:,}{unit}")
    return rule + form.format(f"at least {low:,}{unit}" if high is None else f"{low:,} to {high:,}{unit}")


def _join(path: str, member: str) -> str:
    return f"{path}.{member}" if path else member


def _shown(name: str, value: Any) -> Any:
    """Return what an error can show of a value; parameters, tags and the session policy are never shown."""
    if name in _NEVER_SHOWN or not isinstance(value, (str, int, float, type(None))):
        return type(value).__name__
    if isinstance(value, str) and len(value) > 150:
        return f"{value[:100]}... ({len(value):,} characters)"
    return value


def _not_json(value: Any) -> Iterator[tuple[str, str]]:
    """Yield the name of each member that is not JSON, and the reason."""
    members = value.items() if isinstance(value, dict) else [("", value)]
    for name, member in members:
        try:
            _encode({name: member})
            _check_unicode({name: member})
        except RecursionError:
            yield str(name), "nested too deeply"
        except UnicodeEncodeError:
            yield str(name), "unpaired surrogate"
        except (TypeError, ValueError) as error:
            yield str(name), str(error)


def _check_unicode(value: Any) -> None:
    """Refuse an unpaired surrogate, which only Python's JSON parser accepts.

    :raises UnicodeEncodeError: ``value`` contains an unpaired surrogate.
    """
    json.dumps(value, ensure_ascii=False).encode()


def _merged_bytes(default_parameters: Mapping[str, Any], setting: Any) -> int:
    parameters = setting.get("parameters") if isinstance(setting, dict) else None
    merged = {**default_parameters, **parameters} if isinstance(parameters, dict) else default_parameters
    text = json.dumps(merged, separators=(",", ":"), ensure_ascii=False)
    return len(text.encode())
