"""Detect damaged answers, so that they are not taken for empty ones.

botocore ignores a JSON body that it cannot parse, and its synchronous client accepts a body that is shorter than its
``Content-Length``. A damaged answer then looks like an answer without members.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from botocore.exceptions import HTTPClientError

if TYPE_CHECKING:
    from botocore.session import Session


class LostAnswerError(HTTPClientError):
    """An answer arrived incomplete or damaged. The call may have taken effect."""

    fmt = "the answer is incomplete: {reason}"


class AlwaysThere(NamedTuple):
    """The members that every successful answer of an operation has.

    :param members: members of the answer.
    :param of_each: members of each entry of the first member. The first member is then a list.
    """

    members: tuple[str, ...]
    of_each: tuple[str, ...] = ()


#: The members that are always present, by operation. botocore's model of the service does not mark them as required.
#: Operations that are not in the table may answer without a body.
ALWAYS_THERE: Mapping[str, AlwaysThere] = {
    "CreateRunCache": AlwaysThere(("id",)),
    "GetRunCache": AlwaysThere(("id", "status")),
    "ListRunCaches": AlwaysThere(("items",), ("id", "status")),
    "StartRunBatch": AlwaysThere(("id",)),
    "GetBatch": AlwaysThere(("id", "status")),
    "ListBatch": AlwaysThere(("items",), ("id",)),
    "ListRunsInBatch": AlwaysThere(("runs",), ("runSettingId",)),
    "GetRun": AlwaysThere(("id", "status")),
    "ListRuns": AlwaysThere(("items",), ("id", "status")),
    "StartRun": AlwaysThere(("id",)),
    "ListRunTasks": AlwaysThere(("items",), ("taskId", "status")),
    "GetRunTask": AlwaysThere(("taskId", "status")),
    "CreateRunGroup": AlwaysThere(("id",)),
    "GetRunGroup": AlwaysThere(("id",)),
    "ListRunGroups": AlwaysThere(("items",), ("id",)),
    "GetWorkflow": AlwaysThere(("id", "status")),
    "GetWorkflowVersion": AlwaysThere(("workflowId", "status")),
    "ListWorkflows": AlwaysThere(("items",), ("id",)),
    "GetConfiguration": AlwaysThere(("name", "status")),
    "ListTagsForResource": AlwaysThere(("tags",)),
    # Operations of S3 and STS
    "GetObject": AlwaysThere(("ETag",)),
    "HeadObject": AlwaysThere(("ETag",)),
    "PutObject": AlwaysThere(("ETag",)),
    "GetCallerIdentity": AlwaysThere(("Account",)),
}
_NOTHING = AlwaysThere(())


def notice_lost_answers(session: Session) -> None:
    """Make the clients of a session raise :class:`LostAnswerError` for a damaged answer of HealthOmics, or of STS.

    :param session: session of botocore or aiobotocore.
    """
    session.register("before-parse.omics", _check_body)
    session.register("response-received.omics", _check_answer)
    session.register("response-received.sts.GetCallerIdentity", _check_answer)


def check_members(operation: str, answer: Mapping[str, Any]) -> None:
    """Check that a successful answer has what the answers of its operation always have.

    :param operation: name of the API operation.
    :param answer: botocore's answer.
    :raises LostAnswerError: a member is absent.
    """
    always = ALWAYS_THERE.get(operation, _NOTHING)
    for member in always.members:
        if answer.get(member) is None:
            raise LostAnswerError(reason=f"it has no {member}")
    for member in always.of_each:
        for entry in answer[always.members[0]]:
            if entry.get(member) is None:
                raise LostAnswerError(reason=f"an entry of {always.members[0]} has no {member}")


def check_error(answer: Mapping[str, Any]) -> None:
    """Check that the answer of a failed call has an error code. S3's answers to HEAD requests have none.

    :param answer: botocore's answer. It needs no code if its HTTP status is 408, 429 or 5xx: the call may succeed
        later.
    :raises LostAnswerError: the error code is absent.
    """
    code = str(answer.get("Error", {}).get("Code") or "")
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    # botocore uses the HTTP status, or "Unknown", where it cannot read the code.
    if not _may_pass(status) and (not code or code.isdecimal() or code == "Unknown"):
        raise LostAnswerError(reason=f"it has no error code (HTTP status {status})")


def _check_body(**event: Any) -> None:
    """Check a body before botocore parses it."""
    answer = event["response_dict"]
    status, body = answer["status_code"], answer["body"]
    if _may_pass(status) or not isinstance(body, bytes):
        return
    announced = answer["headers"].get("content-length") or ""
    if announced.isdecimal() and len(body) < int(announced):
        raise LostAnswerError(reason=f"{len(body)} of {announced} bytes arrived (HTTP status {status})")
    if status < 300 and body.strip() and not body.lstrip().startswith(b"{"):
        raise LostAnswerError(reason=f"its body is not a JSON object (HTTP status {status}, {len(body)} bytes)")


def _check_answer(**event: Any) -> None:
    """Check an answer that botocore has parsed."""
    answer = event["parsed_response"]
    if answer is None:
        return
    if event["response_dict"]["status_code"] < 300:
        check_members(event["event_name"].rpartition(".")[2], answer)
    else:
        check_error(answer)


def _may_pass(status: int) -> bool:
    return status in {408, 429} or status >= 500
