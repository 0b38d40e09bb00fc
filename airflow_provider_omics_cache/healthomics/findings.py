"""The decisions of the preflight about AWS's answers: pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from airflow_provider_omics_cache.exceptions import OmicsError, PreflightError
from airflow_provider_omics_cache.healthomics.states import shown
from airflow_provider_omics_cache.xcoms import PreflightFinding

#: HealthOmics's default quotas. AWS can raise them for an account.
DEFAULT_START_RUN_PER_SECOND = 5.0
DEFAULT_MOST_RUNS = 100_000.0

#: A submission that takes more seconds than this is a warning.
_LONG_SUBMISSION = 300.0
_SERVICE = "omics.amazonaws.com"
_SERVICE_NAME = "HealthOmics"
_ASSUME_ROLE = frozenset({"sts:assumerole", "sts:*", "*"})
#: Storage classes, and tiers of S3 Intelligent-Tiering, whose objects must be restored before a run can read them.
_ARCHIVES = frozenset({"GLACIER", "DEEP_ARCHIVE", "ARCHIVE_ACCESS", "DEEP_ARCHIVE_ACCESS"})


def error(check: str, subject: str, text: str) -> PreflightFinding:
    """Make a finding of the level ``error``: the batch or run would fail.

    :param check: what was checked.
    :param subject: what the finding is about.
    :param text: what is wrong, and what to do.
    """
    return {"level": "error", "check": check, "subject": subject, "text": text}


def warning(check: str, subject: str, text: str) -> PreflightFinding:
    """Make a finding of the level ``warning``: the batch or run may fail, or the check could not be made.

    :param check: what was checked.
    :param subject: what the finding is about.
    :param text: what may be wrong, and what to do.
    """
    return {"level": "warning", "check": check, "subject": subject, "text": text}


def described(finding: PreflightFinding) -> str:
    """Return a finding as one line of a log or of an error.

    :param finding: the finding.
    """
    return f"{finding['check']}: {finding['subject']}: {finding['text']}"


def raise_if_any(findings: Sequence[PreflightFinding]) -> None:
    """Raise an error that lists all findings of the level ``error``.

    :param findings: all findings, including warnings.
    :raises PreflightError: a finding is an error.
    """
    errors = [described(finding) for finding in findings if finding["level"] == "error"]
    if errors:
        count = "1 error" if len(errors) == 1 else f"{len(errors):,} errors"
        text = "\n".join(f"- {line}" for line in errors)
        raise PreflightError(f"The preflight found {count}. Nothing was started:\n{text}", findings=findings)


def not_checked(check: str, subject: str, permission: str, reason: OmicsError | str) -> PreflightFinding:
    """Make the finding for a check that was not made.

    :param check: what should have been checked.
    :param subject: what the finding is about.
    :param permission: the permission that the check needs, such as ``iam:GetRole``.
    :param reason: why it was not made.
    """
    return warning(check, subject, f"was not checked; the check needs {permission}: {reason}")


def check_active(
    check: str, subject: str, status: Any, *, absent: Literal["ACTIVE"] | None = None
) -> Iterator[PreflightFinding]:
    """Yield an error if a resource is not ``ACTIVE``.

    :param check: what was checked.
    :param subject: the resource.
    :param status: its status, None if the service does not show it.
    :param absent: status that is assumed if the service does not show one. Default: None, which counts as
        not ``ACTIVE``.
    """
    if (status or absent) != "ACTIVE":
        yield error(check, subject, f"is {shown(status)}; it must be ACTIVE")


def trusts_healthomics(policy: Any) -> bool:
    """Whether a trust policy lets HealthOmics assume the role. Conditions are not evaluated.

    :param policy: the role's AssumeRolePolicyDocument, as a dict.
    """
    statements = policy.get("Statement") if isinstance(policy, Mapping) else None
    allowed = False
    for statement in _as_list(statements):
        if not isinstance(statement, Mapping) or not _is_about_healthomics(statement):
            continue
        if statement.get("Effect") == "Deny" and not statement.get("Condition"):
            return False
        allowed = allowed or statement.get("Effect") == "Allow"
    return allowed


def check_trust(role_arn: str, policy: Any) -> Iterator[PreflightFinding]:
    """Yield an error if a role does not trust HealthOmics.

    :param role_arn: ARN of the role.
    :param policy: its AssumeRolePolicyDocument, as a dict.
    """
    if not trusts_healthomics(policy):
        text = f"has a trust policy that does not allow sts:AssumeRole for the service {_SERVICE}: allow it there"
        yield error("role", role_arn, text)


def archive_problem(*, storage_class: Any, archive_status: Any = None, is_restored: bool, is_restoring: bool) -> str:
    """Return why a run cannot read an object of this storage class. Return an empty text if it can read the object.

    :param storage_class: HeadObject's ``StorageClass``, None for ``STANDARD``.
    :param archive_status: HeadObject's ``ArchiveStatus``, the archive tier of S3 Intelligent-Tiering.
    :param is_restored: whether a restored copy exists.
    :param is_restoring: whether the object is being restored.
    """
    archive = next((name for name in (archive_status, storage_class) if name in _ARCHIVES), None)
    if archive is None or is_restored:
        return ""
    if is_restoring:
        return f"is archived ({archive}) and is being restored: start the runs when the restore has ended"
    return f"is archived ({archive}); {_SERVICE_NAME} does not restore inputs: restore the object first"


def restore_of(header: Any) -> dict[str, bool]:
    """Convert HeadObject's ``Restore`` to arguments of :func:`archive_problem`.

    :param header: the member, such as ``ongoing-request="false", expiry-date="..."``; None without a restore.
    """
    text = str(header or "")
    return {"is_restored": 'ongoing-request="false"' in text, "is_restoring": 'ongoing-request="true"' in text}


def check_submission_time(count: int, per_second: float) -> Iterator[PreflightFinding]:
    """Yield a warning if the submission of a batch takes longer than five minutes.

    :param count: number of runs.
    :param per_second: StartRun calls per second of the account.
    """
    seconds = count / per_second
    if seconds > _LONG_SUBMISSION:
        text = (
            f"the submission of {count:,} runs takes at least {duration(seconds)} at {per_second:g} StartRun calls per "
            "second. Give the tasks that wait a longer timeout, or ask AWS for a higher quota"
        )
        yield warning("quota", "StartRun rate", text)


def check_runs_kept(count: int, *, kept: int, is_all: bool, cap: float, is_own_cap: bool) -> Iterator[PreflightFinding]:
    """Yield a finding if the kept runs and the runs of a batch are together more than the quota, or may be.

    :param count: number of runs of the batch.
    :param kept: number of kept runs that were listed.
    :param is_all: whether all kept runs were listed.
    :param cap: the quota.
    :param is_own_cap: whether this is the account's own quota. Otherwise it is the service's default.
    """
    runs, quota = f"{count:,} run{'' if count == 1 else 's'}", f"{cap:,.0f} runs in a Region"
    listed = f"{kept:,}" if is_all else f"at least {kept:,}"
    ways = "Delete runs, set retentionMode to REMOVE, or ask AWS for a higher quota"
    if kept + count > cap:
        text = f"HealthOmics keeps {listed} runs. With {runs} of this batch they exceed the quota of {quota}. {ways}"
        if is_own_cap:
            yield error("quota", "runs kept", text)
        else:
            yield warning(
                "quota", "runs kept", f"{text}. This is AWS's default quota. The quota of your account may be higher"
            )
    elif not is_all:
        text = (
            f"HealthOmics keeps {listed} runs. The others were not counted. With the quota of {quota}, {runs} of this "
            f"batch fit if HealthOmics keeps at most {cap - count:,.0f} runs. {ways} if there are more"
        )
        yield warning("quota", "runs kept", text)


def duration(seconds: float) -> str:
    """Return a duration as text, such as ``2 h 5 min``.

    :param seconds: the duration.
    """
    minutes = round(seconds / 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes_left} min"
    return f"{minutes} min" if seconds >= 60 else f"{seconds:.0f} s"


def _is_about_healthomics(statement: Mapping[str, Any]) -> bool:
    principal = statement.get("Principal")
    services = principal.get("Service") if isinstance(principal, Mapping) else principal
    actions = {str(action).lower() for action in _as_list(statement.get("Action"))}
    return bool({_SERVICE, "*"} & set(_as_list(services))) and bool(actions & _ASSUME_ROLE)


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
