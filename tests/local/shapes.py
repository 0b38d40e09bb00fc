"""A check of answers against botocore's output shapes that shares no code with the service."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from botocore.model import Shape
from botocore.validate import ParamValidator

#: Values that came into botocore after 1.42.84. botocore passes on what its model does not know.
NEWER_VALUES = {"BatchStatus": {"CREATING", "RUNS_DELETE_FAILED"}}

_UNICODE = re.compile(r"[^\x00-\x1f\x7f-\x9f]+")


def problems(shape: Shape, value: Any) -> list[str]:
    """What is wrong with a value: unknown members, types, ranges, enums and patterns."""
    found: list[str] = []
    _walk(shape, value, shape.name, found)
    if not found:
        report = ParamValidator().validate(value, shape)
        found += [report.generate_report()] if report.has_errors() else []
    return found


def _walk(shape: Any, value: Any, path: str, found: list[str]) -> None:
    if shape.metadata.get("document"):
        return
    if shape.type_name == "structure":
        found += [f"{path}.{name} is unknown" for name in value if name not in shape.members]
        for name in value.keys() & shape.members.keys():
            _walk(shape.members[name], value[name], f"{path}.{name}", found)
    elif shape.type_name == "list":
        for item in value:
            _walk(shape.member, item, f"{path}[]", found)
    elif shape.type_name == "map":
        for key, item in value.items():
            _walk(shape.key, key, f"{path}.key", found)
            _walk(shape.value, item, f"{path}.value", found)
    elif shape.type_name == "timestamp":
        if not (isinstance(value, str) and value.endswith("Z") and datetime.fromisoformat(value).tzinfo):
            found.append(f"{path}: {value!r} is no ISO 8601 time in UTC")
    elif shape.type_name == "string":
        _walk_string(shape, value, path, found)
    elif shape.type_name == "integer" and type(value) is not int:
        found.append(f"{path}: {value!r} is no integer")


def _walk_string(shape: Any, value: Any, path: str, found: list[str]) -> None:
    if not isinstance(value, str):
        found.append(f"{path}: {value!r} is no string")
        return
    metadata = shape.metadata
    if not metadata.get("min", 0) <= len(value) <= metadata.get("max", len(value)):
        found.append(f"{path}: {value!r} has a wrong length")
    if value not in {*metadata.get("enum", [value]), *NEWER_VALUES.get(shape.name, ())}:
        found.append(f"{path}: {value!r} is not in the enum")
    pattern = metadata.get("pattern")
    if pattern is not None:
        compiled = _UNICODE if r"\p{" in pattern else re.compile(pattern)
        if compiled.fullmatch(value) is None:
            found.append(f"{path}: {value!r} does not match {pattern}")
