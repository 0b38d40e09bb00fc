"""Every error that the package raises."""

from __future__ import annotations

from typing import Any

from airflow_provider_omics_cache._compat import AirflowException, AirflowFailException


class OmicsError(AirflowException):
    """Root of the package's errors.

    :param message: what went wrong, for people.
    :param batch_id: the batch it is about.
    :param run_cache_id: the run cache it is about.
    :param status: the state that the service reported.
    :param reason: the service's own reason.
    """

    def __init__(
        self,
        message: str,
        *,
        batch_id: str | None = None,
        run_cache_id: str | None = None,
        status: str | None = None,
        reason: str | None = None,
    ) -> None:
        super().__init__(message)
        self.batch_id = batch_id
        self.run_cache_id = run_cache_id
        self.status = status
        self.reason = reason


class OmicsParameterError(OmicsError, AirflowFailException):
    """A parameter breaks a rule; a retry cannot mend it.

    :param parameter: name of the parameter.
    :param rule: what the parameter has to be.
    :param value: what was given.
    """

    def __init__(self, parameter: str, rule: str, value: Any) -> None:
        shown = repr(value)
        if len(shown) > 200:
            shown = f"{shown[:200]}... ({len(shown)} characters)"
        super().__init__(f"{parameter} {rule}; got {shown}")
        self.parameter = parameter
        self.rule = rule
        self.value = shown

    def __reduce__(self) -> tuple[Any, ...]:
        return (_restore, (type(self), self.args, self.__dict__))


class OmicsVersionError(OmicsError, AirflowFailException):
    """The installed botocore is too old for what was asked."""


class OmicsApiError(OmicsError):
    """A call to AWS failed. botocore's error is the ``__cause__``.

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

    def with_text(self, message: str, *, batch_id: str | None = None) -> OmicsApiError:
        """Tell the same failure in other words, as one that a retry may mend; raise it ``from`` botocore's error.

        :param message: what went wrong, for people.
        :param batch_id: the batch it is about.
        """
        return OmicsApiError(
            message,
            code=self.code,
            http_status=self.http_status,
            operation=self.operation,
            request_id=self.request_id,
            reason=self.reason,
            batch_id=batch_id or self.batch_id,
        )


class OmicsRequestError(OmicsApiError, AirflowFailException):
    """AWS (or botocore) refused the request itself; a retry of the same request cannot mend it."""


class RunCacheError(OmicsError, AirflowFailException):
    """The run cache is not, and cannot be made, what was asked for."""


class BatchError(OmicsError, AirflowFailException):
    """A fact about the batch that no retry can mend."""


class BatchNotFoundError(BatchError):
    """The service does not know the batch: another account or Region, or somebody deleted it."""


class BatchFailedError(BatchError):
    """The batch as a whole failed."""


class BatchCancelledError(BatchError):
    """Somebody cancelled the batch."""


class BatchDeletedError(BatchError):
    """Somebody deleted the batch's runs."""


class BatchConflictError(BatchError):
    """The state of a batch, or the settings that it was started with, rule out what was asked for."""


class TooManyFailedSubmissionsError(BatchError):
    """More runs could not be submitted than ``max_failed_submissions`` allows."""


class TooManyFailedRunsError(BatchError):
    """More runs did not complete than ``max_failed_runs`` allows."""


class IncompleteListingError(OmicsError):
    """The service did not list every run of a batch that has nothing left to submit."""


class UnknownOutcomeError(OmicsError):
    """The service does not tell how many runs of a processed batch have completed."""


class BatchTimeoutError(OmicsError):
    """The batch was not over at the operator's ``timeout``; a retry goes on waiting for it."""


class BatchSilenceError(OmicsError):
    """No answer about the batch came for longer than ``max_silence``."""


class TriggerEventError(OmicsError):
    """A trigger's event is not of the form that this version of the package understands."""


def _restore(cls: type[OmicsError], args: tuple[Any, ...], state: dict[str, Any]) -> OmicsError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error
