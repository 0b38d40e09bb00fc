"""Checking, counting and writing the run settings of a batch, in one pass: pure functions.

What a setting may hold comes from a description of botocore's model, as plain data (see
:meth:`~airflow_provider_omics_cache.hooks.omics.OmicsCacheHook.describe_shape`). Nothing here raises for bad
input: what is wrong is collected, and the caller raises.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import IO, Any

import botocore

from airflow_provider_omics_cache.exceptions import OmicsParameterError

#: Most settings that StartRunBatch takes inline; more have to come from a file in S3.
MAX_INLINE_SETTINGS = 100
#: Most runs of a batch.
MAX_RUN_SETTINGS = 100_000
#: Most bytes of a run's parameters, merged with the default ones, as JSON.
MAX_PARAMETERS_BYTES = 256_000
#: Most bytes that S3 takes in one PutObject.
MAX_FILE_BYTES = 5 * 1024**3

_OFFENDERS_SHOWN = 20
#: Settings that are written at once: each can be as large as its parameters.
_CHUNK = 50
_NEVER_SHOWN = frozenset({"parameters", "engineSettings", "runTags", "sessionPolicy"})

Shape = Mapping[str, Any]

# The same form as idempotency.canonical_json, one setting at a time.
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode
# Stands between the settings that are written at once.
_SEPARATOR = "\x1e"
_WRITTEN_SEPARATOR = _encode(_SEPARATOR)


@dataclass
class _BrokenRule:
    count: int = 0
    offenders: list[tuple[Any, Any]] = field(default_factory=list)


class BrokenRules:
    """What is wrong with a parameter: for each rule the first offenders, and how many there are.

    :param parameter: name of the parameter.
    """

    #: What the entries of the parameter are called.
    entries = "settings"

    def __init__(self, parameter: str) -> None:
        self._parameter = parameter
        self._rules: dict[tuple[str, str], _BrokenRule] = {}

    def __bool__(self) -> bool:
        return bool(self._rules)

    def add(self, rule: str, value: Any, *, member: str = "", index: Any = None) -> None:
        """Note an offender.

        :param rule: what the value has to be.
        :param value: what it is.
        :param member: path of the member inside the parameter, or inside one of its entries.
        :param index: which entry of the parameter it is.
        """
        broken = self._rules.setdefault((member, rule), _BrokenRule())
        broken.count += 1
        if len(broken.offenders) < _OFFENDERS_SHOWN:
            broken.offenders.append((index, value))

    def summary(self) -> tuple[str, str, Any]:
        """Give the first offender as parameter, rule and value; the rule tells of all the others."""
        (member, _), first = next(iter(self._rules.items()))
        index, value = first.offenders[0]
        rules = []
        for (other_member, rule), broken in self._rules.items():
            text = rule if other_member == member else f"{other_member} {rule}".lstrip()
            if broken.count > 1:
                shown = ", ".join(f"{self.place(index)} {value!r}" for index, value in broken.offenders)
                which = f"the first {len(broken.offenders)}: " if broken.count > len(broken.offenders) else ""
                text += f" ({broken.count:,} {self.entries} break this rule; {which}{shown})"
            elif broken is not first:
                index_shown, value_shown = broken.offenders[0]
                text += f" (got {value_shown!r}{'' if index_shown is None else f' at {self.place(index_shown)}'})"
            rules.append(text)
        return self.path(member, index), "; also ".join(rules), value

    def raise_if_any(self) -> None:
        """Raise the errors that were added.

        :raises OmicsParameterError: there is one.
        """
        if self:
            raise OmicsParameterError(*self.summary())

    def place(self, index: Any) -> str:
        """Name an entry of the parameter."""
        return f"[{index}]"

    def path(self, member: str, index: Any) -> str:
        """Name a member of an entry, or of the parameter itself."""
        path = self._parameter if index is None else f"{self._parameter}{self.place(index)}"
        return f"{path}.{member}" if member else path


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What the pass over the run settings found.

    :param count: number of settings.
    :param digest: 64 hexadecimal digits that stand for the settings, whatever their order.
    :param sha256: SHA-256 of the written JSON array, as hexadecimal digits.
    :param size: bytes of the written JSON array.
    :param broken: what is wrong with the settings; nothing else of this object can be used then.
    """

    count: int
    digest: str
    sha256: str
    size: int
    broken: BrokenRules


def unknown_rule(shape: str) -> str:
    """Return the error for a key that a shape does not have.

    :param shape: name of the shape.
    """
    return (
        f"has a key that botocore {botocore.__version__} does not know in {shape}: check its spelling; for a new key, "
        "upgrade boto3 (and aiobotocore with it)"
    )


def check_member(
    parameter: str, value: Any, *, shape: Shape, unknown_rule: str = "is not a known member"
) -> BrokenRules:
    """Check a parameter against the description of its shape.

    :param parameter: name of the parameter, for the error.
    :param value: what was given.
    :param shape: description of the shape.
    :param unknown_rule: what to say about a member that the shape does not have.
    """
    broken = BrokenRules(parameter)
    for member, rule, shown in _check(value, shape, "", unknown_rule):
        broken.add(rule, shown, member=member)
    if not broken:
        for member, reason in _not_json(value):
            broken.add("has to be JSON", reason, member=member)
    return broken


def check_run_settings(
    settings: Any,
    *,
    shape: Shape,
    default_run_setting: Mapping[str, Any],
    file: IO[bytes],
    unknown_rule: str = "is not a known member",
) -> RunSettings:
    """Check and count the run settings, and write them to a file as the JSON array that the service reads.

    Memory stays flat: at no time more than about a megabyte of JSON is held.

    :param settings: the run settings.
    :param shape: description of botocore's ``InlineSetting``.
    :param default_run_setting: what the service merges each setting with.
    :param file: where to write, in canonical JSON.
    :param unknown_rule: what to say about a member that the shape does not have.
    """
    broken = BrokenRules("run_settings")
    if isinstance(settings, str) and settings.lstrip()[:1] in {"[", "{"}:
        broken.add(
            "has to be a list of dicts or an s3:// URI: pass the XCom itself (task.output) or set "
            "render_template_as_native_obj=True",
            f"str of {len(settings):,} characters",
        )
    elif not isinstance(settings, Sequence) or isinstance(settings, (str, bytes, bytearray)):
        broken.add("has to be a list of dicts or an s3:// URI", _shown("run_settings", settings))
    elif not settings:
        broken.add("has to hold at least one setting", settings)
    elif len(settings) > MAX_RUN_SETTINGS:
        broken.add(f"can hold at most {MAX_RUN_SETTINGS:,} settings", f"{len(settings):,} settings")
    if broken:
        return RunSettings(count=0, digest="", sha256="", size=0, broken=broken)

    quick_checks = {name: _quick_check(member) for name, member in shape["members"].items()}
    required = frozenset(shape["required"])
    default_parameters = default_run_setting.get("parameters") or {}
    spare_bytes = MAX_PARAMETERS_BYTES - len(_encode(default_parameters))
    has_output_uri = bool(default_run_setting.get("outputUri"))

    seen: set[str] = set()
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
                broken.add("has to be a dict", type(setting).__name__, index=index)
                continue
            for name, value in setting.items():
                fits = quick_checks.get(name)
                if fits is None or not fits(value):
                    for member, rule, shown in _check_named(name, value, shape, "", unknown_rule):
                        broken.add(rule, shown, member=member, index=index)
            if not required <= setting.keys():
                for name in sorted(required - setting.keys()):
                    broken.add("is required", None, member=name, index=index)
            if not has_output_uri and not setting.get("outputUri"):
                broken.add("has to be given here or in default_run_setting", None, member="outputUri", index=index)
            run_setting_id = setting.get("runSettingId")
            if isinstance(run_setting_id, str):
                if run_setting_id in seen:
                    broken.add("has to be unique", run_setting_id, member="runSettingId", index=index)
                seen.add(run_setting_id)
        try:
            texts = _encode_each(chunk)
        except (TypeError, ValueError, RecursionError):
            texts = []
            for index, setting in enumerate(chunk, count):
                for member, reason in _not_json(setting):
                    broken.add("has to be JSON", reason, member=member, index=index)
        for index, text in enumerate(texts, count):
            if len(text) > spare_bytes:
                merged_bytes = _merged_bytes(default_parameters, chunk[index - count])
                if merged_bytes > MAX_PARAMETERS_BYTES:
                    broken.add(
                        f"can have at most {MAX_PARAMETERS_BYTES:,} bytes, merged with the default parameters",
                        f"{merged_bytes:,} bytes",
                        member="parameters",
                        index=index,
                    )
            digests += from_bytes(sha256(text.encode("ascii")).digest(), "big")
        write(("," if count else "") + ",".join(texts))
        count += len(chunk)
    write("]")
    return RunSettings(
        count=count, digest=f"{digests % 2**256:064x}", sha256=content.hexdigest(), size=size, broken=broken
    )


def _encode_each(settings: Sequence[Any]) -> list[str]:
    """Write each setting as canonical JSON, by one call of the encoder: a call for each takes twice as long.

    :raises TypeError: one is not JSON.
    :raises ValueError: one is not JSON, or has half a surrogate pair.
    """
    parts: list[Any] = [_SEPARATOR] * (2 * len(settings) - 1)
    parts[::2] = settings
    text = _encode(parts)
    if "\\ud" in text:
        _check_unicode(settings)
    texts = text[1:-1].split(f",{_WRITTEN_SEPARATOR},")
    # There are more where a list inside a setting holds the separator, too.
    return texts if len(texts) == len(settings) else [_encode(setting) for setting in settings]


def _quick_check(shape: Shape) -> Callable[[Any], bool]:
    """Make a test that is true only for values that fit the shape, to spare most settings the full check."""
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
    """Give member, rule and value of everything in which the value does not fit the shape."""
    kind = shape["type"]
    name = path.rpartition(".")[2]
    if kind == "document":
        if name == "parameters" and not isinstance(value, dict):
            yield path, "has to be a dict", type(value).__name__
    elif kind == "string":
        if not isinstance(value, str):
            yield path, "has to be a string", _shown(name, value)
        else:
            yield from _check_limits(len(value), shape, path, " characters", _shown(name, value))
    elif kind in ("integer", "long"):
        if not isinstance(value, int) or isinstance(value, bool):
            yield path, "has to be an integer", _shown(name, value)
        else:
            yield from _check_limits(value, shape, path, "", value)
    elif kind == "boolean":
        if not isinstance(value, bool):
            yield path, "has to be a boolean", _shown(name, value)
    elif kind == "list":
        if not isinstance(value, (list, tuple)):
            yield path, "has to be a list", type(value).__name__
        else:
            yield from _check_limits(len(value), shape, path, " entries", f"{len(value)} entries")
            for entry in value:
                yield from _check(entry, shape["member"], path, unknown_rule)
    elif kind == "map":
        if not isinstance(value, dict):
            yield path, "has to be a dict", type(value).__name__
        else:
            yield from _check_limits(len(value), shape, path, " entries", f"{len(value)} entries")
            for key, entry in value.items():
                for _, rule, shown in _check(key, shape["key"], "", unknown_rule):
                    yield path, f"has a key that {rule}", shown
                for _, rule, shown in _check(entry, shape["value"], "", unknown_rule):
                    yield path, f"has a value that {rule}", shown
    elif kind == "structure":
        if not isinstance(value, dict):
            yield path, "has to be a dict", type(value).__name__
        else:
            for member, entry in value.items():
                yield from _check_named(member, entry, shape, path, unknown_rule)
            for member in sorted(set(shape["required"]) - value.keys()):
                yield _join(path, member), "is required", None


def _check_named(
    name: Any, value: Any, structure: Shape, path: str, unknown_rule: str
) -> Iterator[tuple[str, str, Any]]:
    member = structure["members"].get(name)
    if member is None:
        yield path, unknown_rule, name
    else:
        yield from _check(value, member, _join(path, name), unknown_rule)


def _check_limits(number: int, shape: Shape, path: str, unit: str, shown: Any) -> Iterator[tuple[str, str, Any]]:
    low, high = shape.get("min"), shape.get("max")
    if low is not None and number < low:
        yield path, f"has to have at least {low:,}{unit}" if unit else f"has to be at least {low:,}", shown
    if high is not None and number > high:
        yield path, f"can have at most {high:,}{unit}" if unit else f"can be at most {high:,}", shown


def _join(path: str, member: str) -> str:
    return f"{path}.{member}" if path else member


def _shown(name: str, value: Any) -> Any:
    """Give what an error may show of a value: no payloads, no session policy."""
    if name in _NEVER_SHOWN or not isinstance(value, (str, int, float, type(None))):
        return type(value).__name__
    if isinstance(value, str) and len(value) > 150:
        return f"{value[:100]}... ({len(value):,} characters)"
    return value


def _not_json(value: Any) -> Iterator[tuple[str, str]]:
    """Give the members that are not JSON, and why."""
    members = value.items() if isinstance(value, dict) else [("", value)]
    for name, member in members:
        try:
            _encode({name: member})
            _check_unicode({name: member})
        except RecursionError:
            yield str(name), "nested too deeply"
        except UnicodeEncodeError:
            yield str(name), "half a surrogate pair"
        except (TypeError, ValueError) as error:
            yield str(name), str(error)


def _check_unicode(value: Any) -> None:
    """Refuse half a surrogate pair, which JSON parsers other than Python's do not read.

    :raises UnicodeEncodeError: the value has one.
    """
    json.dumps(value, ensure_ascii=False).encode()


def _merged_bytes(default_parameters: Mapping[str, Any], setting: Any) -> int:
    parameters = setting.get("parameters") if isinstance(setting, dict) else None
    merged = {**default_parameters, **parameters} if isinstance(parameters, dict) else default_parameters
    text = json.dumps(merged, separators=(",", ":"), ensure_ascii=False)
    return len(text.encode())
