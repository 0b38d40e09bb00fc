"""What a failed AWS call tells: the package's errors made out of botocore's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, ParamValidationError
from botocore.exceptions import ConnectionError as NoConnectionError

from airflow_provider_omics_cache.exceptions import OmicsApiError, OmicsParameterError, OmicsRequestError

_REQUEST_ERROR_CODES = frozenset({"ValidationException", "ParamValidationError"})
_LONGEST_SHOWN_VALUE = 200
_MAX_TAGS = 50


def check_id(parameter: str, value: Any) -> str:
    """Return the id of a HealthOmics resource as a string.

    :param parameter: name of the parameter, for the error.
    :param value: the id: 1 to 18 digits, as a string or an integer.
    :raises OmicsParameterError: the value is no id.
    """
    text = str(value)
    if not re.fullmatch("[0-9]{1,18}", text):
        raise OmicsParameterError(parameter, "has to be an id of 1 to 18 digits", value)
    return text


def check_request_id(value: Any) -> str | None:
    """Return an idempotency token as a string, None for one that is not given.

    :param value: the token: 1 to 128 characters.
    :raises OmicsParameterError: the value is no token.
    """
    if value is None or value == "":
        return None
    text = str(value)
    if text == "None" or len(text) > 128:
        raise OmicsParameterError("request_id", "has to be a token of 1 to 128 characters", value)
    return text


def check_tags(
    parameter: str, tags: Mapping[str, str], *, there: Mapping[str, str] | None = None, reserved: int = 0
) -> None:
    """Check how many tags a resource would have, and that none of them is AWS's own.

    :param parameter: name of the parameter, for the error.
    :param tags: what was given.
    :param there: tags that these are merged over.
    :param reserved: how many more tags the resource will get.
    :raises OmicsParameterError: the service would refuse the tags.
    """
    foreign = sorted(key for key in tags if key.lower().startswith("aws:"))
    if foreign:
        raise OmicsParameterError(parameter, "cannot have keys that start with aws:", foreign)
    count = len({key for key in there or () if not key.lower().startswith("aws:")} | tags.keys())
    if count > _MAX_TAGS - reserved:
        merged = ", merged with those that are there" if there else ""
        raise OmicsParameterError(
            parameter, f"can have at most {_MAX_TAGS - reserved} entries{merged}", f"{count} entries"
        )


def api_error(
    error: Exception,
    operation: str,
    region: str | None = None,
    endpoint_url: str | None = None,
    members: Mapping[str, Any] | None = None,
) -> OmicsApiError:
    """Translate a failed AWS call into the package's error; raise the result ``from error``.

    :param error: botocore's error.
    :param operation: name of the API operation.
    :param region: AWS Region of the client.
    :param endpoint_url: endpoint of the client; named when no answer came.
    :param members: what was sent; a refusal is told with the values it is about.
    """
    code, text, http_status, request_id = type(error).__name__, str(error), None, None
    if isinstance(error, ClientError):
        operation = error.operation_name
        answer, metadata = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
        code, text = answer.get("Code", code), answer.get("Message", "")
        http_status, request_id = metadata.get("HTTPStatusCode"), metadata.get("RequestId")
        if code == "ValidationException":
            text += _values_of(text, members or {})
    elif isinstance(error, ParamValidationError):
        text = without_payloads(error.kwargs["report"])
        text += _values_of(text, members or {})
    elif endpoint_url and isinstance(error, NoConnectionError | HTTPClientError):
        text = f"{text} (endpoint {endpoint_url}, Region {region})"
    message = f"{operation} failed: {code}: {text}"
    if request_id:
        message += f" (request id {request_id})"
    error_class = OmicsRequestError if code in _REQUEST_ERROR_CODES else OmicsApiError
    return error_class(
        message, code=code, http_status=http_status, operation=operation, request_id=request_id, reason=text
    )


@contextmanager
def as_api_error(operation: str) -> Iterator[None]:
    """Translate what botocore raises inside.

    :param operation: name of the API operation.
    """
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise api_error(error, operation) from error


def _values_of(text: str, members: Mapping[str, Any]) -> str:
    """Show the values of the members that a refusal names, or of all if it names none and quotes nothing."""
    named = [name for name in members if name in text]
    if not named and re.search(r"""(?<!\w)(["']).+?\1""", text):
        return ""
    shown = [
        f"{name} was {str(members[name])[:_LONGEST_SHOWN_VALUE]!r}"
        for name in named or members
        if isinstance(members[name], str | int) and name != "requestId" and str(members[name]) not in text
    ]
    return f" ({', '.join(shown)})" if shown else ""


def without_session_policy(error: ClientError) -> ClientError:
    """Take a session policy, which the service repeats when it refuses one, out of an error."""
    answer = error.response.get("Error", {})
    text = answer.get("Message", "")
    if "sessionPolicy" not in text:
        return error
    shown = "sessionPolicy is refused; the text is not shown, since it holds the policy"
    response: Any = {**error.response, "Error": {**answer, "Message": shown}}
    return ClientError(response, error.operation_name)


def without_payloads(report: str) -> str:
    """Take long, structured and confidential values out of botocore's report on a request."""

    def shown(found: re.Match[str]) -> str:
        name, value, rest = found["name"], found["value"], found["rest"]
        if name.endswith("sessionPolicy") or len(value) > _LONGEST_SHOWN_VALUE or value[:1] in "[{(":
            value = "(not shown)"
        return f"{name}, value: {value}{rest}"

    return re.sub(r"(?P<name>\S+), value: (?P<value>.*?)(?P<rest>, type: <class)", shown, report, flags=re.S)
