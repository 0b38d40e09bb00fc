"""The service's errors, as it names them."""

from __future__ import annotations

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
    """An answer that is an error.

    :param code: the service's name of the error.
    :param message: text for people.
    :param status: HTTP status. Default: the one that the service has for ``code``, or 400.
    """

    def __init__(self, code: str, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = STATUS_OF_CODE.get(code, 400) if status is None else status


class ConnectionDropped(Exception):
    """The connection is closed without an answer."""


def validation_error(message: str) -> ServiceError:
    """A request breaks a rule."""
    return ServiceError("ValidationException", message)


def not_found(kind: str, identifier: str) -> ServiceError:
    """What a request names does not exist."""
    return ServiceError("ResourceNotFoundException", f"{kind} {shorten(identifier)} does not exist")


def conflict(message: str) -> ServiceError:
    """The state of a resource does not allow the request."""
    return ServiceError("ConflictException", message)


def shorten(text: str, limit: int = 64) -> str:
    """Cut what a caller sent before it is echoed."""
    return text if len(text) <= limit else f"{text[:limit]}..."
