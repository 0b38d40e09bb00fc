"""The package's own errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_omics_cache._compat import AirflowException, AirflowFailException
from airflow_provider_omics_cache.redaction import without_passwords

if TYPE_CHECKING:
    from airflow_provider_omics_cache.xcoms import PreflightFinding

_UNREACHABLE_CODES = frozenset({"EndpointConnectionError", "ConnectTimeoutError", "ProxyConnectionError", "SSLError"})
_NO_ANSWER_CODES = _UNREACHABLE_CODES | {
    "ConnectionClosedError",
    "ConnectionError",
    "HTTPClientError",
    "IncompleteReadError",
    "LostAnswerError",
    "MetadataRetrievalError",
    "MissingConnectionError",
    "ReadTimeoutError",
    "ResponseParserError",
    "ResponseStreamingError",
    "TimeoutError",
}
#: Error codes that mean "try again later". AWS services, including STS, use them with different HTTP statuses.
_PASSING_CODES = frozenset(
    {
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestTimeout",
        "RequestTimeoutException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)


class OmicsError(AirflowException):
    """Base class of the package's errors. Its texts do not show the passwords of URLs.

    :param message: what is wrong, and what to do.
    :param batch_id: id of the batch that the error is about.
    :param run_cache_id: id of the run cache that the error is about.
    :param run_group_id: id of the run group that the error is about.
    :param run_id: id of the single run that the error is about.
    :param status: status that the service reported.
    :param reason: the service's own reason.
    """

    def __init__(
        self,
        message: str,
        *,
        batch_id: str | None = None,
        run_cache_id: str | None = None,
        run_group_id: str | None = None,
        run_id: str | None = None,
        status: str | None = None,
        reason: str | None = None,
    ) -> None:
        super().__init__(without_passwords(message))
        self.batch_id = batch_id
        self.run_cache_id = run_cache_id
        self.run_group_id = run_group_id
        self.run_id = run_id
        self.status = status
        self.reason = without_passwords(reason) if reason else reason


class OmicsParameterError(OmicsError, AirflowFailException):
    """A parameter breaks a rule. The task is not retried.

    :param parameter: name of the parameter.
    :param rule: the rule, in words that follow the name of the parameter: "must be ...".
    :param value: the value that was given.
    """

    def __init__(self, parameter: str, rule: str, value: Any) -> None:
        shown = without_passwords(repr(value))
        if len(shown) > 200:
            shown = f"{shown[:200]}... ({len(shown)} characters)"
        is_in_rule = rule.startswith(f"has the unknown key {shown}")
        super().__init__(f"{parameter} {rule}" if is_in_rule else f"{parameter} {rule}; got {shown}")
        self.parameter = parameter
        self.rule = rule
        self.value = shown

    def __reduce__(self) -> tuple[Any, ...]:
        return (_restore, (type(self), self.args, self.__dict__))


class MissingConnectionError(OmicsError):
    """Airflow does not find a connection that must exist. No call was made.

    The task can be retried: Airflow also reports a connection as missing while a secrets backend does not answer.

    :param conn_id: id of the connection.
    :param parameter: name of the parameter with the id. Default: ``aws_conn_id``.
    """

    def __init__(self, conn_id: str, *, parameter: str = "aws_conn_id") -> None:
        super().__init__(
            f"{parameter} must be the id of an existing Airflow connection; got {conn_id!r}. Correct the id or create "
            "the connection. To use boto3's own credentials instead, set [omics_cache] allow_missing_connection = True"
        )
        self.conn_id = conn_id
        self.parameter = parameter

    def __reduce__(self) -> tuple[Any, ...]:
        return (_restore, (type(self), self.args, self.__dict__))


class OmicsVersionError(OmicsError, AirflowFailException):
    """The installed botocore is too old for the operation or one of its members."""


class OmicsApiError(OmicsError):
    """A call to AWS failed. botocore's error, without the passwords of URLs, is the ``__cause__``.

    :param code: the service's error code, or the class name of botocore's error when no answer came.
    :param http_status: HTTP status of the answer, None when no answer came.
    :param operation: name of the API operation.
    :param request_id: AWS request id of the answer.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        http_status: int | None = None,
        operation: str = "",
        request_id: str | None = None,
        **details: Any,
    ) -> None:
        super().__init__(message, **details)
        self.code = code
        self.http_status = http_status
        self.operation = operation
        self.request_id = request_id

    @property
    def is_passing(self) -> bool:
        """Whether the same call may succeed later: it was throttled, the service failed, or the connection was lost."""
        status = self.http_status
        if status is not None and (status in {408, 429} or status >= 500):
            return True
        return self.code in _NO_ANSWER_CODES or self.code in _PASSING_CODES

    @property
    def is_unreachable(self) -> bool:
        """Whether the endpoint could not be reached. On the first call of a task, the URL may be misspelt."""
        return self.code in _UNREACHABLE_CODES

    @property
    def is_denied(self) -> bool:
        """Whether the caller does not have the permission. The code of a HEAD request to S3 is only the HTTP status."""
        return self.code in {"AccessDenied", "AccessDeniedException", "403"}

    @property
    def is_not_found(self) -> bool:
        """Whether the service does not know the resource."""
        return self.code == "ResourceNotFoundException"

    def with_text(self, message: str, *, batch_id: str | None = None, **details: Any) -> OmicsApiError:
        """Return a copy of this error with another message. The copy is an OmicsApiError, so the task is retried.

        Raise the copy ``from`` botocore's error.

        :param message: what is wrong, and what to do.
        :param batch_id: id of the batch that the error is about. Default: as in this error.
        :param details: other attributes of :class:`OmicsError`.
        """
        return OmicsApiError(
            message,
            code=self.code,
            http_status=self.http_status,
            operation=self.operation,
            request_id=self.request_id,
            reason=self.reason,
            batch_id=batch_id or self.batch_id,
            **details,
        )


class OmicsRequestError(OmicsApiError, AirflowFailException):
    """AWS or botocore refused the request as invalid. The same request cannot succeed: the task is not retried."""


class PageTokenError(OmicsApiError):
    """A list cannot be continued: the service refused the token of a page, or repeats its pages. List again."""

    @classmethod
    def of(cls, error: OmicsApiError) -> PageTokenError:
        """Return this error for a refused request.

        Raise it ``from`` botocore's error.

        :param error: the refusal.
        """
        return cls(
            f"{error}. The token of the page may have expired.",
            code=error.code,
            http_status=error.http_status,
            operation=error.operation,
            request_id=error.request_id,
            reason=error.reason,
        )


class OmicsTimeLimitError(OmicsError):
    """The time limit for the calls of a task is over."""


class RunCacheError(OmicsError, AirflowFailException):
    """The run cache differs from what was asked for, or could not be created. The task is not retried."""


class RunGroupError(OmicsError, AirflowFailException):
    """The run group differs from what was asked for, or could not be created. The task is not retried."""


class BatchError(OmicsError, AirflowFailException):
    """The task cannot succeed, because of the state of the batch. The task is not retried."""


class BatchNotFoundError(BatchError):
    """The service does not know the batch: it is in another account or Region, or it was deleted."""


class BatchFailedError(BatchError):
    """The batch as a whole failed."""


class BatchCancelledError(BatchError):
    """The batch was cancelled."""


class BatchDeletedError(BatchError):
    """The runs of the batch were deleted."""


class BatchConflictError(BatchError):
    """The status of a batch, or the settings that it was started with, do not allow what the task asks for."""


class TooManyFailedSubmissionsError(BatchError):
    """More runs failed to be submitted than ``max_failed_submissions`` allows."""


class TooManyFailedRunsError(BatchError):
    """More runs did not complete than ``max_failed_runs`` allows."""


class CohortError(OmicsError, AirflowFailException):
    """The cohort has not succeeded. The task is not retried."""


class TooManyFailedSamplesError(CohortError):
    """More samples of a cohort have no completed run than ``max_failed`` allows."""


class IncompleteListingError(OmicsError):
    """The service did not list every run of a batch that has nothing left to submit."""


class UnknownOutcomeError(OmicsError):
    """The service does not report how many runs of a processed batch completed, or its counts and listing differ."""


class BatchTimeoutError(OmicsError):
    """The batch had not ended at the operator's ``timeout``. A retry waits for the same batch."""


class BatchSilenceError(OmicsError):
    """The service did not answer about the batch for longer than ``max_silence``."""


class RunError(OmicsError, AirflowFailException):
    """The task cannot succeed, because of the state of the single run. The task is not retried."""


class RunNotFoundError(RunError):
    """The service does not know the run: it is in another account or Region, or it was deleted."""


class RunFailedError(RunError):
    """The run failed."""


class RunCancelledError(RunError):
    """The run was cancelled."""


class RunDeletedError(RunError):
    """The run was deleted."""


class RunConflictError(RunError):
    """The status of a run, or the settings that it was started with, do not allow what the task asks for."""


class RunTimeoutError(OmicsError):
    """The run had not ended at the operator's ``timeout``. A retry waits for the same run."""


class RunSilenceError(OmicsError):
    """The service did not answer about the run for longer than ``max_silence``."""


class PreflightError(OmicsError, AirflowFailException):
    """The preflight found errors. Nothing was written or started. The task is not retried.

    :param findings: all findings (:class:`~airflow_provider_omics_cache.xcoms.PreflightFinding`), including warnings.
    """

    def __init__(self, message: str, *, findings: Sequence[PreflightFinding] = (), **details: Any) -> None:
        super().__init__(message, **details)
        self.findings = list(findings)


class TriggerEventError(OmicsError):
    """The event of a trigger has a form that this version of the package does not understand."""


def _restore(cls: type[OmicsError], args: tuple[Any, ...], state: dict[str, Any]) -> OmicsError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error
