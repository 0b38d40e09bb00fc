"""Convert botocore's errors to the package's errors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    ParamValidationError,
)
from botocore.exceptions import ConnectionError as NoConnectionError
from botocore.parsers import ResponseParserError

from airflow_provider_omics_cache.exceptions import OmicsApiError, OmicsRequestError
from airflow_provider_omics_cache.redaction import printable

T = TypeVar("T")

_REQUEST_ERROR_CODES = frozenset({"ValidationException", "ParamValidationError"})
_LONGEST_SHOWN_VALUE = 200
#: Members of requests whose values no error shows.
_NOT_SHOWN = frozenset({"requestId", "sessionPolicy"})
_CHECK_REGION = (
    ". Check the Region (region_name, or the connection's): not every Region has the service. Check also endpoint_url "
    "and the network."
)


def api_error(
    error: Exception,
    operation: str,
    region: str | None = None,
    endpoint_url: str | None = None,
    members: Mapping[str, Any] | None = None,
) -> OmicsApiError:
    """Return the package's error for a failed AWS call; raise it ``from printable(error)``.

    :param error: botocore's error.
    :param operation: name of the API operation.
    :param region: AWS Region of the client.
    :param endpoint_url: endpoint of the client. The error names it if no answer came.
    :param members: members of the request. If the request was refused, the error shows the members that it is about.
    """
    code, text, http_status, request_id = type(error).__name__, str(error), None, None
    values = ""
    if isinstance(error, ClientError):
        operation = error.operation_name
        answer, metadata = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
        code, text = answer.get("Code", code), answer.get("Message", "")
        http_status, request_id = metadata.get("HTTPStatusCode"), metadata.get("RequestId")
        if code == "ValidationException":
            values = _values_of(text, members or {})
    elif isinstance(error, ParamValidationError):
        text = without_payloads(error.kwargs["report"])
        values = _values_of(text, members or {})
    elif endpoint_url and isinstance(error, NoConnectionError | HTTPClientError):
        text = f"{text} (endpoint {endpoint_url}, Region {region})"
    message = f"{operation} failed: {code}: {text}{values}"
    if endpoint_url and isinstance(error, EndpointConnectionError | ConnectTimeoutError):
        message += _CHECK_REGION
    if request_id:
        message += f" (request id {request_id})"
    error_class = OmicsRequestError if code in _REQUEST_ERROR_CODES else OmicsApiError
    return error_class(
        message, code=code, http_status=http_status, operation=operation, request_id=request_id, reason=text
    )


@contextmanager
def as_api_error(operation: str) -> Iterator[None]:
    """Convert an error that botocore raises inside the ``with`` block to the package's error.

    If an endpoint or a proxy is not a URL, botocore raises a ValueError that shows the value.

    :param operation: name of the API operation.
    """
    try:
        yield
    except (BotoCoreError, ClientError, ResponseParserError, ValueError) as error:
        raise api_error(error, operation) from printable(error)


def if_found(call: Callable[[], T]) -> T | None:
    """Make a call, and return its result. Return None if the resource is not found.

    :param call: the call.
    """
    try:
        return call()
    except OmicsApiError as error:
        if not error.is_not_found:
            raise
        return None


def _values_of(text: str, members: Mapping[str, Any]) -> str:
    """Show the members that a refusal names. Show all members if it neither names a member nor quotes a value."""
    named = [name for name in members if name in text]
    if not named and re.search(r"""(?<!\w)(["']).+?\1""", text):
        return ""
    shown = [
        f"{name} was {str(members[name])[:_LONGEST_SHOWN_VALUE]!r}"
        for name in named or members
        if isinstance(members[name], str | int) and name not in _NOT_SHOWN and str(members[name]) not in text
    ]
    return f" ({', '.join(shown)})" if shown else ""


def without_session_policy(error: ClientError, members: Mapping[str, Any]) -> ClientError:
    """Remove the session policy from an error. When the service refuses a policy, its message repeats the policy.

    :param error: botocore's error.
    :param members: members of the request.
    """
    answer = error.response.get("Error", {})
    text = answer.get("Message", "")
    policy = members.get("sessionPolicy") or (members.get("defaultRunSetting") or {}).get("sessionPolicy")
    if "sessionPolicy" not in text and not (policy and str(policy) in text):
        return error
    shown = "the service refused sessionPolicy (its message repeats the policy and is not shown)"
    response: Any = {**error.response, "Error": {**answer, "Message": shown}}
    return ClientError(response, error.operation_name)


def without_payloads(report: str) -> str:
    """Remove long, structured and confidential values from botocore's report on a request."""

    def shown(found: re.Match[str]) -> str:
        name, value, rest = found["name"], found["value"], found["rest"]
        if name.endswith("sessionPolicy") or len(value) > _LONGEST_SHOWN_VALUE or value[:1] in "[{(":
            value = "(not shown)"
        return f"{name}, value: {value}{rest}"

    return re.sub(r"(?P<name>\S+), value: (?P<value>.*?)(?P<rest>, type: <class)", shown, report, flags=re.S)
