"""The wire protocol (restJson1): requests, answers and errors, and the JSON, ids and pages inside them.

Requests are routed, read and validated from botocore's model of HealthOmics.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import json
import re
import secrets
import unicodedata
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any
from urllib.parse import parse_qsl, unquote

import botocore
from botocore.loaders import create_loader
from botocore.model import OperationModel, ServiceModel, Shape, StructureShape

STATUS_OF_CODE = {
    "ValidationException": 400,
    "ServiceQuotaExceededException": 402,
    "AccessDeniedException": 403,
    "ResourceNotFoundException": 404,
    "UnknownOperationException": 404,
    "RequestTimeoutException": 408,
    "ConflictException": 409,
    "ThrottlingException": 429,
    "InternalServerException": 500,
}


class ServiceError(Exception):
    """A request is answered with an error.

    :param code: error code of the service.
    :param message: error message.
    :param status: HTTP status. Default: the status that the service uses for ``code``, or 400 for an unknown code.
    """

    def __init__(self, code: str, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = STATUS_OF_CODE.get(code, 400) if status is None else status


class ConnectionDropped(Exception):
    """The connection must be closed without an answer."""


def validation_error(message: str) -> ServiceError:
    """Return the error for a request that is not valid."""
    return ServiceError("ValidationException", message)


def not_found(kind: str, identifier: str) -> ServiceError:
    """Return the error for a resource that does not exist."""
    return ServiceError("ResourceNotFoundException", f"{kind} {shorten(identifier)} does not exist")


def conflict(message: str) -> ServiceError:
    """Return the error for a request that the state of a resource does not allow."""
    return ServiceError("ConflictException", message)


def has_reserved_key(tags: Iterable[str]) -> bool:
    """Return whether the key of a tag is reserved for AWS."""
    return any(key.lower().startswith("aws:") for key in tags)


def shorten(text: str, limit: int = 64) -> str:
    """Shorten a text of the caller for an error message."""
    return text if len(text) <= limit else f"{text[:limit]}..."


@dataclass(frozen=True)
class Request:
    """The parts of an HTTP request that the service reads.

    :param method: HTTP method.
    :param path: percent-encoded path.
    :param query: query string without the question mark.
    :param body: request body.
    """

    method: str
    path: str
    query: str = ""
    body: bytes = b""


@dataclass(frozen=True)
class Response:
    """An HTTP response."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


#: The newer members of each structure of a request, each with a version of botocore that has it. Other members are as
#: old as the operation, or older than the oldest supported version.
NEWER_MEMBERS = {
    "StartRunRequest": {
        "workflowVersionName": "1.38.46",
        "networkingMode": "1.42.78",
        "configurationName": "1.42.78",
        "engineSettings": "1.43.18",
        "scratchStorageMode": "1.43.35",
        "sessionPolicy": "1.43.90",
        "outputUriPrefixMode": "1.43.123",
    },
    "DefaultRunSetting": {
        "networkingMode": "1.42.97",
        "configurationName": "1.42.97",
        "engineSettings": "1.43.25",
        "scratchStorageMode": "1.43.35",
        "sessionPolicy": "1.43.90",
    },
    "InlineSetting": {"engineSettings": "1.43.25"},
    "CreateWorkflowRequest": {
        "storageType": "1.38.46",
        "definitionRepository": "1.40.0",
        "parameterTemplatePath": "1.40.0",
        "readmeMarkdown": "1.40.0",
        "readmePath": "1.40.0",
        "readmeUri": "1.40.0",
        "workflowBucketOwnerId": "1.40.0",
        "containerRegistryMap": "1.42.74",
        "containerRegistryMapUri": "1.42.74",
    },
    "UpdateWorkflowRequest": {"storageType": "1.38.46", "storageCapacity": "1.38.46", "readmeMarkdown": "1.40.0"},
    "CreateWorkflowVersionRequest": {
        "definitionRepository": "1.40.0",
        "parameterTemplatePath": "1.40.0",
        "readmeMarkdown": "1.40.0",
        "readmePath": "1.40.0",
        "readmeUri": "1.40.0",
        "containerRegistryMap": "1.42.74",
        "containerRegistryMapUri": "1.42.74",
    },
    "UpdateWorkflowVersionRequest": {"readmeMarkdown": "1.40.0"},
    "VpcConfig": {"vpcOwnerAccountId": "1.43.112"},
    "RegistryMapping": {"credentialArn": "1.43.114"},
}

_LABEL = re.compile(r"\{(\w+)\}")


class Protocol:
    """Translates between HTTP messages and the parameters and answers of the operations.

    :param operations: names of the operations to serve. Operations that the installed botocore does not know are
        not served.
    """

    def __init__(self, operations: Iterable[str]) -> None:
        self._model = ServiceModel(create_loader().load_service_model("omics", "service-2"), "omics")
        known = set(self._model.operation_names)
        self._absent = sorted(set(operations) - known)
        self._operations = {name: self._model.operation_model(name) for name in operations if name in known}
        routes = sorted(self._operations.values(), key=lambda model: model.http["requestUri"].count("{"))
        self._routes = [(model.http["method"], _path_pattern(model.http["requestUri"]), model.name) for model in routes]

    @property
    def operations(self) -> frozenset[str]:
        """Names of the operations that are served."""
        return frozenset(self._operations)

    def absent(self) -> list[str]:
        """Return the operations and members that the installed botocore does not know."""
        known = set(self._model.shape_names)
        shapes: dict[str, Any] = {name: self._model.shape_for(name) for name in NEWER_MEMBERS if name in known}
        return self._absent + [
            f"{name}.{member} (botocore>={version})"
            for name, shape in shapes.items()
            for member, version in NEWER_MEMBERS[name].items()
            if member not in shape.members
        ]

    @property
    def roots(self) -> frozenset[str]:
        """First parts of the paths of the operations, such as ``runCache``."""
        return frozenset(model.http["requestUri"].split("/")[1] for model in self._operations.values())

    def route(self, request: Request) -> str:
        """Return the name of the requested operation."""
        for method, pattern, name in self._routes:
            if method == request.method and pattern.fullmatch(request.path):
                return name
        raise ServiceError(
            "UnknownOperationException",
            f"The local HealthOmics has no operation for {request.method} {shorten(request.path)}",
        )

    def read(self, name: str, request: Request) -> dict[str, Any]:
        """Return the validated parameters of a request."""
        model = self._operations[name]
        shape = model.input_shape
        if shape is None:
            return {}
        given = self._given(model, shape, request)
        errors: list[str] = []
        parameters: dict[str, Any] = _checked_structure(shape, given, "", errors)
        _raise_if_any(errors)
        return parameters

    def check_setting(self, value: Any, path: str) -> dict[str, Any]:
        """Return one run setting of a settings file, validated like an inline setting."""
        errors: list[str] = []
        setting: dict[str, Any] = _checked(self._setting_shape, value, path, errors)
        _raise_if_any(errors)
        return setting

    @functools.cached_property
    def _setting_shape(self) -> Shape:
        return self._model.shape_for("InlineSetting")

    def answer(self, name: str, output: Mapping[str, Any]) -> Response:
        """Return the response to a successful request."""
        model = self._operations[name]
        status = int(model.http.get("responseCode", 200))
        body = b""
        if model.output_shape is not None and model.output_shape.members:
            body = json.dumps(_known(model.output_shape, output), default=_timestamp, separators=(",", ":")).encode()
        return Response(status, body, _headers(body))

    def _given(self, model: OperationModel, shape: StructureShape, request: Request) -> dict[str, Any]:
        given: dict[str, Any] = {}
        labels = _labels(model.http["requestUri"], request.path)
        query: dict[str, list[str]] = {}
        for key, value in parse_qsl(request.query, keep_blank_values=True):
            query.setdefault(key, []).append(value)
        in_body = {}
        for member, member_shape in shape.members.items():
            location = member_shape.serialization.get("location")
            wire_name = member_shape.serialization.get("name", member)
            if location == "uri":
                given[member] = labels[wire_name]
            elif location == "querystring":
                if wire_name in query:
                    given[member] = _from_query(member_shape, query[wire_name])
            else:
                in_body[member] = wire_name
        if in_body:
            body = _read_json(request.body)
            _refuse_unknown(shape, body, in_body.values(), "")
            given.update({m: body[w] for m, w in in_body.items() if w in body})
        return given


#: Members of answers that came into botocore after the oldest supported version.
_NEWER_MEMBERS_OF_ANSWERS = frozenset(
    {
        "uuid",
        "imageDetails",
        "storageType",
        "readmePath",
        "profiles",
        "profileParameterTemplates",
        "outputUriPrefixMode",
    }
)


def _known(shape: Any, output: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an answer, or an item of its list, without newer members that the installed botocore does not know."""
    unknown = _NEWER_MEMBERS_OF_ANSWERS.intersection(output).difference(shape.members)
    known = {name: value for name, value in output.items() if name not in unknown} if unknown else output
    if "items" in known and "items" in shape.members:
        item_shape = shape.members["items"].member
        return {**known, "items": [_known(item_shape, item) for item in known["items"]]}
    return known


def error_answer(error: ServiceError) -> Response:
    """Return the response to a failed request."""
    body = json.dumps({"message": error.message}).encode()
    return Response(error.status, body, {**_headers(body), "x-amzn-ErrorType": error.code})


def _headers(body: bytes) -> dict[str, str]:
    headers = {"x-amzn-RequestId": str(uuid.uuid4())}
    if body:
        headers["Content-Type"] = "application/json"
    return headers


def _timestamp(value: Any) -> str:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.") + f"{value.microsecond // 1000:03d}Z"
    raise TypeError(f"{type(value).__name__} cannot be part of an answer")


@functools.cache
def _path_pattern(uri: str) -> re.Pattern[str]:
    # An ARN contains slashes, which some servers decode before they pass the path on.
    return re.compile(_LABEL.sub(lambda m: f"(?P<{m[1]}>.+)" if m[1].endswith("Arn") else f"(?P<{m[1]}>[^/]+)", uri))


def _labels(uri: str, path: str) -> dict[str, str]:
    match = _path_pattern(uri).fullmatch(path)
    return {} if match is None else {name: unquote(value) for name, value in match.groupdict().items()}


def _from_query(shape: Shape, values: list[str]) -> Any:
    if shape.type_name == "list":
        return values
    value = values[0]
    if shape.type_name in ("integer", "long") and re.fullmatch(r"-?[0-9]{1,18}", value):
        return int(value)
    return value


def _read_json(body: bytes) -> dict[str, Any]:
    if not body:
        return {}
    try:
        content = load_json(body)
    except ValueError as error:
        raise validation_error(f"The request body is not valid JSON: {shorten(str(error))}") from None
    if not isinstance(content, dict):
        raise validation_error("The request body is not a JSON object")
    return content


# Validation of values against the shapes of botocore's model

#: Maximum depth of lists and objects in a JSON document such as ``parameters``.
DEEPEST_DOCUMENT = 100
_SHOWN_ERRORS = 20
_HIDDEN_MEMBERS = frozenset({"sessionPolicy"})
_UNICODE_CLASS = re.compile(r"\[((?:\\p\{[LMZSNP]\}|\|\||\\[tnr])+)\]\+")
_ESCAPES = {r"\t": "\t", r"\n": "\n", r"\r": "\r"}


def _raise_if_any(errors: list[str]) -> None:
    if errors:
        noun = "error" if len(errors) == 1 else "errors"
        shown = "; ".join(errors[:_SHOWN_ERRORS])
        raise validation_error(f"{len(errors)} validation {noun} detected: {shown}")


def _checked(shape: Shape, value: Any, path: str, errors: list[str]) -> Any:
    if shape.metadata.get("document"):
        if _is_nested_deeper(value, DEEPEST_DOCUMENT):
            return _fail(errors, value, path, f"Member must be nested at most {DEEPEST_DOCUMENT} deep")
        return value
    checker = _CHECKERS.get(shape.type_name)
    if checker is None:
        return value
    return checker(shape, value, path, errors)


def _refuse_unknown(shape: Shape, value: dict[str, Any], members: Collection[str], path: str) -> None:
    """Refuse members that only a newer botocore knows. The service must not ignore them."""
    for name in value:
        if name not in members and value[name] is not None:
            version = NEWER_MEMBERS.get(shape.name, {}).get(name)
            newer = f"botocore>={version}" if version else "a newer botocore"
            member = shorten(_join(path, name))
            raise validation_error(
                f"The model of the API in botocore {botocore.__version__} has no member {member!r}. "
                f"To use it, install {newer} in the environment of the local HealthOmics"
            )


def _is_nested_deeper(value: Any, limit: int) -> bool:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(limit):
        if not level:
            return False
        members = [member for item in level for member in (item.values() if isinstance(item, dict) else item)]
        level = [member for member in members if isinstance(member, dict | list)]
    return bool(level)


def _checked_structure(shape: Any, value: Any, path: str, errors: list[str]) -> Any:
    if not isinstance(value, dict):
        return _fail(errors, value, path, "Member must be a structure")
    _refuse_unknown(shape, value, shape.members, path)
    given = {name: value[name] for name in shape.members if value.get(name) is not None}
    for name in shape.required_members:
        if name not in given:
            _fail(errors, None, _join(path, name), "Member must not be null")
    if shape.metadata.get("union") and len(given) != 1:
        names = ", ".join(shape.members)
        _fail(errors, sorted(given), path, f"Member must have exactly one of: [{names}]")
    return {name: _checked(shape.members[name], item, _join(path, name), errors) for name, item in given.items()}


def _checked_list(shape: Any, value: Any, path: str, errors: list[str]) -> Any:
    if not isinstance(value, list):
        return _fail(errors, value, path, "Member must be a list")
    _check_length(shape, value, path, errors)
    if len(value) > shape.metadata.get("max", len(value)):
        return value
    checked = []
    for number, item in enumerate(value, start=1):
        item_path = f"{path}.{number}.member"
        if item is None:
            _fail(errors, None, item_path, "Member must not be null")
        else:
            checked.append(_checked(shape.member, item, item_path, errors))
    return checked


def _checked_map(shape: Any, value: Any, path: str, errors: list[str]) -> Any:
    if not isinstance(value, dict):
        return _fail(errors, value, path, "Member must be a map")
    _check_length(shape, value, path, errors)
    checked = {}
    for key, item in value.items():
        _checked(shape.key, key, f"{path}.key", errors)
        item_path = f"{path}.{shorten(key)}.member"
        if item is None:
            _fail(errors, None, item_path, "Member must not be null")
        else:
            checked[key] = _checked(shape.value, item, item_path, errors)
    return checked


def _checked_string(shape: Any, value: Any, path: str, errors: list[str]) -> Any:
    if not isinstance(value, str):
        return _fail(errors, value, path, "Member must be a string")
    _check_length(shape, value, path, errors)
    enum = shape.metadata.get("enum")
    if enum and value not in enum:
        _fail(errors, value, path, f"Member must satisfy enum value set: [{', '.join(enum)}]")
    pattern = shape.metadata.get("pattern")
    if pattern and not matcher(pattern)(value):
        _fail(errors, value, path, f"Member must satisfy regular expression pattern: {pattern}")
    return value


def _checked_integer(shape: Any, value: Any, path: str, errors: list[str]) -> Any:
    if isinstance(value, bool) or not isinstance(value, int):
        return _fail(errors, value, path, "Member must be an integer")
    for bound, wrong, words in (
        ("min", value.__lt__, "greater than or equal to"),
        ("max", value.__gt__, "less than or equal to"),
    ):
        limit = shape.metadata.get(bound)
        if limit is not None and wrong(limit):
            _fail(errors, value, path, f"Member must have value {words} {limit}")
    return value


def _checked_boolean(shape: Any, value: Any, path: str, errors: list[str]) -> Any:
    if not isinstance(value, bool):
        return _fail(errors, value, path, "Member must be a boolean")
    return value


def _checked_blob(_: Any, value: Any, path: str, errors: list[str]) -> Any:
    try:
        base64.b64decode(value, validate=True)
    except (TypeError, ValueError):
        return _fail(errors, value, path, "Member must be a blob in base64")
    return value


_CHECKERS: dict[str, Callable[[Any, Any, str, list[str]], Any]] = {
    "structure": _checked_structure,
    "list": _checked_list,
    "map": _checked_map,
    "string": _checked_string,
    "integer": _checked_integer,
    "long": _checked_integer,
    "boolean": _checked_boolean,
    "blob": _checked_blob,
}


def _check_length(shape: Shape, value: Any, path: str, errors: list[str]) -> None:
    at_least, at_most = shape.metadata.get("min"), shape.metadata.get("max")
    if at_least is not None and len(value) < at_least:
        _fail(errors, value, path, f"Member must have length greater than or equal to {at_least}")
    if at_most is not None and len(value) > at_most:
        _fail(errors, value, path, f"Member must have length less than or equal to {at_most}")


def _fail(errors: list[str], value: Any, path: str, constraint: str) -> Any:
    if value is None:
        shown = "null"
    elif path.rpartition(".")[2] in _HIDDEN_MEMBERS:
        shown = "'***'"
    else:
        shown = f"'{shorten(_as_text(value))}'"
    errors.append(f"Value {shown} at '{path}' failed to satisfy constraint: {constraint}")
    return None


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value)
    except RecursionError:
        return type(value).__name__


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


@functools.cache
def matcher(pattern: str) -> Callable[[str], bool]:
    """Return a function that returns whether a text matches a pattern of the model.

    Python's ``re`` does not support all of these patterns.
    """
    unicode_class = _UNICODE_CLASS.fullmatch(pattern)
    if unicode_class is None:
        compiled = re.compile(pattern)
        return lambda value: compiled.fullmatch(value) is not None
    tokens = re.findall(r"\\p\{([LMZSNP])\}|(\\[tnr])", unicode_class[1])
    categories = {category for category, _ in tokens if category}
    extra = {_ESCAPES[escape] for _, escape in tokens if escape}

    def matches(value: str) -> bool:
        if value.isascii() and value.isprintable():
            return bool(value)
        return bool(value) and all(
            unicodedata.category(character)[0] in categories or character in extra for character in value
        )

    return matches


# JSON

_compact = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def _not_json(constant: str) -> Any:
    raise ValueError(constant)


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(text)
    return number


_DECODER = json.JSONDecoder(parse_constant=_not_json, parse_float=_finite)
_ARRAY_START = re.compile(r"[ \t\n\r]*\[[ \t\n\r]*")
_ARRAY_COMMA = re.compile(r"[ \t\n\r]*,[ \t\n\r]*")
_ARRAY_END = re.compile(r"[ \t\n\r]*\][ \t\n\r]*\Z")


def load_json(body: bytes) -> Any:
    """Return the value of a JSON text.

    :raises ValueError: the text is not JSON, is nested too deeply, or contains a number that is too large.
    """
    try:
        return _DECODER.decode(body.decode("utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def load_json_array(text: str) -> Iterator[Any]:
    """Yield the entries of a JSON array, one after the other.

    :raises ValueError: as :func:`load_json`, or the text is not an array.
    """
    delimiter = _ARRAY_START.match(text)
    if delimiter is None:
        raise ValueError("not an array")
    end = delimiter.end()
    if _ARRAY_END.match(text, end):
        return
    while delimiter:
        try:
            entry, end = _DECODER.raw_decode(text, delimiter.end())
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
        yield entry
        delimiter = _ARRAY_COMMA.match(text, end)
    if not _ARRAY_END.match(text, end):
        raise ValueError("not one array")


def dump_json(value: Any) -> bytes:
    """Return compact UTF-8 JSON, the form that size limits apply to."""
    return _compact(value).encode("utf-8", "surrogatepass")


# Ids

_ID = re.compile(r"[1-9][0-9]{0,17}")


def number_of(identifier: str) -> int:
    """Return an id as a number; -1 if it is not in the form that the service uses."""
    return int(identifier) if _ID.fullmatch(identifier) else -1


def new_uuid() -> str:
    """Return a new uuid: 8-4-4-4-12 hexadecimal digits, without the version bits of RFC 4122."""
    return _as_uuid(secrets.token_hex(16))


def derived_uuid(name: str) -> str:
    """Return the uuid that is derived from a name."""
    return _as_uuid(hashlib.md5(name.encode(), usedforsecurity=False).hexdigest())


def _as_uuid(digits: str) -> str:
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


# Pages of the list operations

_DEFAULT_PAGE_SIZE = 100


def start_of_page(operation: str, parameters: dict[str, Any]) -> int:
    """Return the position after which the requested page starts; 0 for the first page."""
    token = parameters.get("startingToken")
    if token is None:
        return 0
    try:
        digest, _, position = base64.urlsafe_b64decode(token.encode("ascii")).decode("ascii").partition(".")
        if digest == _list_digest(operation, parameters) and position.isdecimal():
            return int(position)
    except (ValueError, binascii.Error):
        pass
    raise _wrong_page_token()


def seal_page_token(token: str, owner: str) -> str:
    """Return a token of a page that only the account and Region of ``owner`` can use."""
    return f"{token}.{_seal(token, owner)}"


def open_page_token(sealed: str, owner: str) -> str:
    """Return the token that was given to :func:`seal_page_token`.

    :raises ServiceError: the token was changed, or belongs to another account or Region.
    """
    token, _, seal = sealed.rpartition(".")
    if seal != _seal(token, owner):
        raise _wrong_page_token()
    return token


def _seal(token: str, owner: str) -> str:
    return hashlib.sha256(f"{owner} {token}".encode()).hexdigest()[:16]


def _wrong_page_token() -> ServiceError:
    return validation_error("The startingToken does not belong to this list and these filters")


def page(
    operation: str,
    parameters: dict[str, Any],
    rows: Iterable[tuple[int, Any]],
    *,
    size: str,
    key: str,
) -> dict[str, Any]:
    """Return the answer with one page.

    :param operation: name of the list operation.
    :param parameters: parameters of the request.
    :param rows: rows that follow :func:`start_of_page`, each with its position.
    :param size: name of the parameter for the page size.
    :param key: name of the list in the answer.
    """
    limit = parameters.get(size, _DEFAULT_PAGE_SIZE)
    iterator: Iterator[tuple[int, Any]] = iter(rows)
    taken = list(islice(iterator, limit))
    answer: dict[str, Any] = {key: [row for _, row in taken]}
    if len(taken) == limit and next(iterator, None) is not None:
        text = f"{_list_digest(operation, parameters)}.{taken[-1][0]}"
        answer["nextToken"] = base64.urlsafe_b64encode(text.encode()).decode()
    return answer


def _list_digest(operation: str, parameters: dict[str, Any]) -> str:
    filters = {
        name: value for name, value in parameters.items() if name not in ("startingToken", "maxItems", "maxResults")
    }
    text = json.dumps([operation, filters], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
