"""Which runs of a batch may be submitted again: those that were not submitted, and no other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from airflow_provider_omics_cache.exceptions import OmicsParameterError
from airflow_provider_omics_cache.healthomics.states import SubmissionStatus
from airflow_provider_omics_cache.tables import BrokenRows, Row, read_rows, shown

#: Reasons of a failed submission after which the same submission may succeed.
RETRYABLE_SUBMISSION_FAILURES = frozenset(
    {
        "ConflictException",
        "InternalServerException",
        "RequestTimeoutException",
        "ServiceQuotaExceededException",
        "ThrottlingException",
    }
)

#: Without a run id these mean that there has never been a run.
_NEVER_A_RUN = frozenset({SubmissionStatus.FAILED, SubmissionStatus.CANCEL_SUCCESS})


def failed_run_settings(
    run_settings: Any,
    listing: Any,
    *,
    batch: Mapping[str, Any] | None = None,
    reasons: Iterable[str] | None = None,
    conn_id: str | None = None,
) -> list[dict[str, Any]]:
    """Give the run settings that were not submitted: the original ones without those known to have a run.

    A run that has started is never among them, whatever became of it. Rather than guess it raises: a run that is not
    listed, or is listed without an outcome, counts as not submitted only where ``batch`` confirms that the listing has
    every run that was submitted.

    :param run_settings: all run settings of the batch: a list of dicts, or the path or URI of a JSON array of them.
    :param listing: the *full* listing of the batch, as BatchSubmissionSensor writes it to ``mapping_s3_uri``: an
        iterable of its records, or its path or URI (see :func:`~airflow_provider_omics_cache.tables.read_table`). The
        XCom ``failed_submissions`` is none: it ends after 1,000 runs.
    :param batch: XCom ``batch`` of the sensor, to check the numbers against.
    :param reasons: give only runs whose submission failed for one of these reasons, for example
        :data:`RETRYABLE_SUBMISSION_FAILURES`. Default: all that were not submitted.
    :param conn_id: Airflow connection to read files with. Default: the one in the URI, else for S3 ``aws_default``.
    :return: settings of ``run_settings``, unchanged and in their order.
    :raises OmicsParameterError: the numbers do not add up, or something is not what it has to be.
    :raises OmicsApiError: S3 refuses a file.
    """
    if isinstance(reasons, str):
        raise OmicsParameterError("reasons", "must be a list of submission failure reasons", reasons)
    if isinstance(listing, Mapping):
        raise OmicsParameterError(
            "listing", "must be the full listing (see mapping_s3_uri), not the mapping", type(listing).__name__
        )
    settings = _by_id(
        read_rows("run_settings", run_settings, conn_id=conn_id), parameter="run_settings", member="runSettingId"
    )
    records = _by_id(
        read_rows("listing", listing, conn_id=conn_id, least=0), parameter="listing", member="run_setting_id"
    )
    _check_listing(records, settings, is_confirmed=_is_confirmed(batch, records, settings))
    wanted = None if reasons is None else frozenset(reasons)
    return [
        dict(setting)
        for run_setting_id, (_, setting) in settings.items()
        if not _has_run(records, run_setting_id) and (wanted is None or _reason(records, run_setting_id) in wanted)
    ]


def _by_id(rows: Sequence[Row], *, parameter: str, member: str) -> dict[str, Row]:
    broken = BrokenRows(parameter)
    found: dict[str, Row] = {}
    for place, row in rows:
        run_setting_id = row.get(member)
        if not isinstance(run_setting_id, str) or not run_setting_id:
            broken.add("must be text that is not empty", shown(run_setting_id), member=member, index=place)
        elif run_setting_id in found:
            value = f"{shown(run_setting_id)} as in {found[run_setting_id][0]}"
            broken.add("must be unique", value, member=member, index=place)
        else:
            found[run_setting_id] = (place, row)
    broken.raise_if_any()
    return found


def _is_confirmed(batch: Mapping[str, Any] | None, records: Mapping[str, Row], settings: Mapping[str, Row]) -> bool:
    """Tell whether the batch's own numbers say that the listing has all runs that were submitted."""
    if batch is None:
        return False
    submitted = sum(1 for run_setting_id in records if _has_run(records, run_setting_id))
    numbers = {"total_runs": len(settings), "submitted": submitted, "failed": len(settings) - submitted}
    known = {name: batch.get(name) for name in numbers} if isinstance(batch, Mapping) else batch
    if known != numbers:
        raise OmicsParameterError(
            "batch",
            f"must fit the {len(settings):,} run settings and the {submitted:,} listed runs, that is be {numbers}",
            known,
        )
    return True


def _check_listing(records: Mapping[str, Row], settings: Mapping[str, Row], *, is_confirmed: bool) -> None:
    broken = BrokenRows("listing")
    for run_setting_id, (place, record) in records.items():
        status = record.get("status")
        for member in ("status", "reason"):
            if not isinstance(record.get(member), str | None):
                broken.add("must be text or null", shown(record[member]), member=member, index=place)
                status = None
        if run_setting_id not in settings:
            broken.add("must be one of run_settings", shown(run_setting_id), member="run_setting_id", index=place)
        elif record.get("run_id") or status in _NEVER_A_RUN:
            continue
        elif status:
            broken.add(f"must be given where status is {shown(status)}", None, member="run_id", index=place)
        elif not is_confirmed:
            broken.add("must be an outcome unless batch confirms the numbers", status, member="status", index=place)
    unlisted = [run_setting_id for run_setting_id in settings if run_setting_id not in records]
    if unlisted and not is_confirmed:
        broken.add(f"must have all {len(settings):,} run settings unless batch confirms the numbers", _first(unlisted))
    elif unlisted and any("run_arn" not in record for _, record in records.values()):
        broken.add("must be the full listing (see mapping_s3_uri), not the XCom failed_submissions", _first(unlisted))
    broken.raise_if_any()


def _first(unlisted: Sequence[str]) -> str:
    more = ", ..." if len(unlisted) > 20 else ""
    return f"{len(unlisted):,} missing: {', '.join(unlisted[:20])}{more}"


def _has_run(records: Mapping[str, Row], run_setting_id: str) -> bool:
    return run_setting_id in records and bool(records[run_setting_id][1].get("run_id"))


def _reason(records: Mapping[str, Row], run_setting_id: str) -> Any:
    return records[run_setting_id][1].get("reason") if run_setting_id in records else None
