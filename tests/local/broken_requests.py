"""Requests that break one rule of the model each, made from the model itself."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import botocore.session
from botocore.model import OperationModel, Shape

from airflow_provider_omics_cache.local.protocol import Request

MODEL = botocore.session.Session().get_service_model("omics")
OPERATIONS = sorted(
    {
        "CreateRunCache",
        "GetRunCache",
        "ListRunCaches",
        "UpdateRunCache",
        "DeleteRunCache",
        "StartRunBatch",
        "GetBatch",
        "ListBatch",
        "ListRunsInBatch",
        "CancelRunBatch",
        "DeleteRunBatch",
        "DeleteBatch",
        "StartRun",
        "GetRun",
        "ListRuns",
        "CancelRun",
        "DeleteRun",
        "ListRunTasks",
        "GetRunTask",
        "CreateRunGroup",
        "GetRunGroup",
        "ListRunGroups",
        "UpdateRunGroup",
        "DeleteRunGroup",
        "GetWorkflow",
        "TagResource",
        "UntagResource",
        "ListTagsForResource",
    }
    & set(MODEL.operation_names)
)

BAD_TEXT = {
    r"[\p{L}||\p{M}||\p{Z}||\p{S}||\p{N}||\p{P}]+": "a\u0007b",
    r"[\p{L}\p{M}\p{Z}\p{S}\p{N}\p{P}\t\n\r]+": "a\u0007b",
    "[0-9]+": "12a",
    "[0-9]{12}": "12345678901",
    "arn:.+": "nra:x",
    "s3://([a-z0-9][a-z0-9-.]{1,61}[a-z0-9])(/(.{0,1024}))?": "http://caches/x",
    r"[A-Za-z0-9][A-Za-z0-9\-\._]*": "-x",
}
GOOD_TEXT = {
    "[0-9]+": "1",
    "[0-9]{12}": "123456789012",
    "arn:.+": "arn:x",
    "s3://([a-z0-9][a-z0-9-.]{1,61}[a-z0-9])(/(.{0,1024}))?": "s3://caches/x",
}
WRONG_TYPES: dict[str, Any] = {
    "string": 7,
    "integer": "seven",
    "structure": "text",
    "list": {"a": "b"},
    "map": ["a"],
}


@dataclass(frozen=True)
class BrokenRequest:
    operation: str
    rule: str
    path: str
    parameters: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.operation}-{self.path}-{self.rule}"


def broken_requests(operation: str, valid: dict[str, Any]) -> Iterator[BrokenRequest]:
    """Every way to break one rule of the operation's input, starting from a valid request."""
    model = MODEL.operation_model(operation)
    if model.input_shape is None:
        return
    for keys, path, rule, value in _broken(model.input_shape, [], "", "body"):
        parameters = copy.deepcopy(valid)
        _put(parameters, keys, value)
        yield BrokenRequest(operation, rule, path, parameters)


def wire(operation: str, parameters: dict[str, Any]) -> Request:
    """Write a request without any check."""
    model: OperationModel = MODEL.operation_model(operation)
    labels, query, body = {}, [], {}
    assert model.input_shape is not None
    for name, value in parameters.items():
        shape = model.input_shape.members[name]
        location = shape.serialization.get("location")
        wire_name = shape.serialization.get("name", name)
        if location == "uri":
            labels[wire_name] = quote(str(value), safe="")
        elif location == "querystring":
            query += [(wire_name, item) for item in (value if isinstance(value, list) else [value])]
        else:
            body[wire_name] = value
    path = model.http["requestUri"].format(**labels)
    has_body = any("location" not in shape.serialization for shape in model.input_shape.members.values())
    return Request(model.http["method"], path, urlencode(query), json.dumps(body).encode() if has_body else b"")


_ABSENT = object()


def _put(parameters: dict[str, Any], keys: list[Any], value: Any) -> None:
    place: Any = parameters
    for key, following in itertools.pairwise(keys):
        place = place[key] if isinstance(place, list) else place.setdefault(key, [{}] if following == 0 else {})
    if value is _ABSENT:
        place.pop(keys[-1], None)
    else:
        place[keys[-1]] = value


def _broken(shape: Any, keys: list[Any], path: str, location: str) -> Iterator[tuple[list[Any], str, str, Any]]:
    if shape.metadata.get("document"):
        return
    if path and location == "body":
        yield keys, path, "type", WRONG_TYPES[shape.type_name]
    if path and location == "querystring" and shape.type_name == "integer":
        yield keys, path, "type", "seven"
    if shape.type_name == "structure":
        yield from _broken_structure(shape, keys, path)
    elif shape.type_name in ("list", "map"):
        yield from _broken_collection(shape, keys, path, location)
    elif shape.type_name == "integer":
        for bound, step in (("min", -1), ("max", 1)):
            if bound in shape.metadata:
                yield keys, path, bound, shape.metadata[bound] + step
    elif shape.type_name == "string":
        yield from _broken_string(shape, keys, path, location)


def _broken_structure(shape: Any, keys: list[Any], path: str) -> Iterator[tuple[list[Any], str, str, Any]]:
    for name, member in shape.members.items():
        member_path = f"{path}.{name}" if path else name
        member_location = member.serialization.get("location", "body")
        if name in shape.required_members and member_location != "uri":
            yield [*keys, name], member_path, "required", _ABSENT
        yield from _broken(member, [*keys, name], member_path, member_location)
    if shape.metadata.get("union"):
        yield keys, path, "union of none", {}
        yield keys, path, "union of all", {name: example(member) for name, member in shape.members.items()}


def _broken_collection(
    shape: Any, keys: list[Any], path: str, location: str
) -> Iterator[tuple[list[Any], str, str, Any]]:
    is_list = shape.type_name == "list"
    if shape.metadata.get("min") and location == "body":
        yield keys, path, "min", [] if is_list else {}
    if "max" in shape.metadata:
        number = shape.metadata["max"] + 1
        if is_list:
            yield keys, path, "max", [example(shape.member) for _ in range(number)]
        else:
            yield keys, path, "max", {f"key-{index}": example(shape.value) for index in range(number)}
    if is_list and shape.member.type_name == "structure":
        yield from _broken(shape.member, [*keys, 0], f"{path}.1.member", "body")
    elif is_list:
        for _, _, rule, value in _broken(shape.member, [], f"{path}.1.member", location):
            yield keys, f"{path}.1.member", f"member {rule}", [value]
    else:
        for _, _, rule, value in _broken_string(shape.key, [], "", "body"):
            yield keys, f"{path}.key", f"key {rule}", {value: example(shape.value)}
        for _, _, rule, value in _broken(shape.value, [], f"{path}.a.member", "body"):
            yield keys, f"{path}.a.member", f"value {rule}", {"a": value}


def _broken_string(shape: Any, keys: list[Any], path: str, location: str) -> Iterator[tuple[list[Any], str, str, Any]]:
    metadata = shape.metadata
    if metadata.get("enum"):
        yield keys, path, "enum", "NO_SUCH_MEMBER"
    if metadata.get("pattern"):
        yield keys, path, "pattern", BAD_TEXT.get(metadata["pattern"], "a\u0007b")
    if metadata.get("min") and location != "uri":
        yield keys, path, "min", ""
    if "max" in metadata:
        good = GOOD_TEXT.get(metadata.get("pattern"), "x")
        yield keys, path, "max", good + good[-1] * metadata["max"]


def example(shape: Shape) -> Any:
    """A valid value of a shape."""
    if shape.type_name == "structure":
        members: Any = shape
        return {name: example(members.members[name]) for name in members.required_members}
    if shape.type_name == "list":
        collection: Any = shape
        return [example(collection.member)]
    if shape.type_name == "string":
        return shape.metadata.get("enum", [None])[0] or GOOD_TEXT.get(shape.metadata.get("pattern", ""), "x")
    return {"integer": 1, "map": {}}[shape.type_name]
