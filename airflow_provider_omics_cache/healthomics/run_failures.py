"""The table of what each failure reason of a run means for a new run of the same sample.

The codes are those of GetRun's ``failureReason`` in AWS's `Run failure reasons
<https://docs.aws.amazon.com/omics/latest/dev/workflows-run-errors.html>`__. ALL_PROFILES_INSTANCE_RESERVATION_FAILED is
from the guide's page on advanced resource configuration. AWS adds codes, so a run may have a code that is not listed
here. To support a new code, add a row to :data:`RUN_FAILURES`.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple


class NewRun(Enum):
    """What AWS's description of a failure reason says about a new run with the same settings."""

    #: The cause is on AWS's side and can pass. The description asks only for a new run.
    CAN_SUCCEED = auto()
    #: The description does not say whether a new run can succeed. Or the cause can pass, but is not on AWS's side.
    UNCERTAIN = auto()
    #: The description names something that must be corrected before a new run.
    NEEDS_CORRECTION = auto()


class RunFailure(NamedTuple):
    """What a failure reason means.

    :param new_run: whether a new run with the same settings can succeed.
    :param remedy: what to do before a new run.
    """

    new_run: NewRun
    remedy: str


_CAN_SUCCEED, _UNCERTAIN, _NEEDS_CORRECTION = NewRun.CAN_SUCCEED, NewRun.UNCERTAIN, NewRun.NEEDS_CORRECTION

# fmt: off
#: What each failure reason means for a new run.
RUN_FAILURES: dict[str, RunFailure] = {
    "ALL_PROFILES_INSTANCE_RESERVATION_FAILED": RunFailure(
        _CAN_SUCCEED, "wait: no resource profile of the task had capacity"),
    "ASSUME_ROLE_FAILED": RunFailure(
        _NEEDS_CORRECTION, "add HealthOmics to the trust policy of the role"),
    "CANNOT_START_CONTAINER_ERROR": RunFailure(
        _NEEDS_CORRECTION, "check the image of the task"),
    "CANNOT_START_CONTAINER_SIZE_ERROR": RunFailure(
        _NEEDS_CORRECTION, "make the image of the task smaller"),
    "ECR_PERMISSION_ERROR": RunFailure(
        _NEEDS_CORRECTION, "check that the image exists and that HealthOmics can read its repository"),
    "EXPORT_FAILED": RunFailure(
        _NEEDS_CORRECTION, "check that the output bucket exists and that the role can write to it"),
    "FILE_SYSTEM_OUT_OF_SPACE": RunFailure(
        _NEEDS_CORRECTION, "increase storageCapacity, or use dynamic storage"),
    "IMAGE_VERIFICATION_FAILURE": RunFailure(
        _NEEDS_CORRECTION, "push the image of the task again"),
    "IMPORT_FAILED": RunFailure(
        _NEEDS_CORRECTION, "check that the inputs exist and that the role can read them"),
    "INACTIVE_OMICS_STORAGE_RESOURCE": RunFailure(
        _NEEDS_CORRECTION, "activate the read set"),
    "INPUT_URI_NOT_FOUND": RunFailure(
        _NEEDS_CORRECTION, "check that the inputs exist and that the role can read them"),
    "INSTANCE_RESERVATION_FAILED": RunFailure(
        _CAN_SUCCEED, "wait: there was no capacity"),
    "INVALID_ECR_IMAGE_URI": RunFailure(
        _NEEDS_CORRECTION, "correct the URI of the image in the workflow"),
    "INVALID_TASK_RESOURCE_VALUE": RunFailure(
        _NEEDS_CORRECTION, "correct the CPUs, GPUs or memory of the task in the workflow"),
    "INVALID_URI_INPUT": RunFailure(
        _NEEDS_CORRECTION, "correct the URI in the parameters"),
    "MODIFIED_INPUT_RESOURCE": RunFailure(
        _UNCERTAIN, "check which version of the input the new run must use: it changed during the run"),
    "OUT_OF_MEMORY_ERROR": RunFailure(
        _NEEDS_CORRECTION, "increase the memory of the task in the workflow"),
    "RUN_TASK_FAILED": RunFailure(
        _UNCERTAIN, "read the log of the task that failed"),
    "RUN_TIMED_OUT": RunFailure(
        _UNCERTAIN, "check the maximum duration of runs; the run saved nothing in its cache"),
    "SERVICE_ERROR": RunFailure(
        _CAN_SUCCEED, "start it: the error can pass"),
    "TASK_TIMED_OUT": RunFailure(
        _UNCERTAIN, "check the time limit of the task in the workflow"),
    "UNSUPPORTED_GPU_INSTANCE_TYPE": RunFailure(
        _NEEDS_CORRECTION, "use a type of GPU that the Region has"),
    "UNSUPPORTED_INPUT_SIZE": RunFailure(
        _NEEDS_CORRECTION, "use smaller inputs"),
    "WORKFLOW_RUN_FAILED": RunFailure(
        _UNCERTAIN, "read the log of the workflow engine"),
    "WORKFLOW_VER_VALIDATION_FAILED": RunFailure(
        _NEEDS_CORRECTION, "use a version of Nextflow that HealthOmics supports"),
}
# fmt: on


def reasons_of(new_run: NewRun) -> frozenset[str]:
    """Return the failure reasons with a given meaning.

    :param new_run: the meaning.
    """
    return frozenset(reason for reason, failure in RUN_FAILURES.items() if failure.new_run == new_run)


def remedy_of(reason: str) -> str | None:
    """Return what to do before a new run. None if the failure reason is not in the table.

    :param reason: the failure reason.
    """
    failure = RUN_FAILURES.get(reason)
    return failure.remedy if failure else None
