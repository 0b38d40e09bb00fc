"""Start another batch: for the runs that were not submitted, or for a whole DAG run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from airflow_provider_omics_cache.exceptions import OmicsParameterError
from airflow_provider_omics_cache.healthomics.states import SubmissionStatus
from airflow_provider_omics_cache.tables import MAX_TABLE_BYTES, BrokenRows, Row, read_rows, shown

#: Reasons of a failed submission that can pass: the same submission can succeed later.
RETRYABLE_SUBMISSION_FAILURES = frozenset(
    {
        "ConflictException",
        "InternalServerException",
        "RequestTimeoutException",
        "ServiceQuotaExceededException",
        "ThrottlingException",
    }
)

#: Template for ``rerun_key`` of StartRunBatchOperator. It renders to the value of the Airflow variable
#: ``omics_rerun_key_<dag_id>_<run_id>`` if there is one, else to the DAG param ``rerun_key``, else to an empty string.
#: The name of the variable has a ``-`` in place of each ``:`` and ``+`` of the run id, because secrets backends such as
#: AWS Secrets Manager do not take these characters.
RERUN_KEY = (
    "{{ var.value.get('omics_rerun_key_' ~ ti.dag_id ~ '_' ~ run_id.replace(':', '-').replace('+', '-'),"
    " params.get('rerun_key', '')) }}"
)

#: A record with one of these statuses and no run id never had a run.
_NEVER_A_RUN = frozenset({SubmissionStatus.FAILED, SubmissionStatus.CANCEL_SUCCESS})

_CONFIRM = "pass batch= (the sensor's XCom) to confirm that {} was never submitted"


def failed_run_settings(
    run_settings: Any,
    listing: Any,
    *,
    batch: Mapping[str, Any] | None = None,
    reasons: Iterable[str] | None = None,
    conn_id: str | None = None,
    allow: Iterable[str] = (),
    max_bytes: int = MAX_TABLE_BYTES,
) -> list[dict[str, Any]]:
    """Return the run settings of a batch that were not submitted.

    A setting that has a run id is never returned, even if its run failed or was cancelled or deleted. A run that is not
    listed, or is listed without a submission status, counts as not submitted only if the numbers in ``batch`` confirm
    it; otherwise the function raises an error.

    :param run_settings: all run settings of the batch: an iterable of dicts, or the URI or path of a JSON file with an
        array of them.
    :param listing: the *full* listing of the batch, as BatchSubmissionSensor writes it to ``mapping_s3_uri``: an
        iterable of its records, or its URI or path (see :func:`~airflow_provider_omics_cache.tables.read_table`). Do
        not pass the XCom ``failed_submissions``: it contains at most 1,000 runs.
    :param batch: XCom ``batch`` of BatchSubmissionSensor. Its numbers of runs are compared with ``run_settings`` and
        ``listing``. Default: no comparison.
    :param reasons: return only settings whose submission failed for one of these reasons, for example
        :data:`RETRYABLE_SUBMISSION_FAILURES`. Default: return all settings that were not submitted.
    :param conn_id: Airflow connection for reading the files. Default: ``aws_default`` for S3.
    :param allow: schemes that a str can have besides ``s3``, for example ``("file", "gs")``, as for
        :func:`~airflow_provider_omics_cache.tables.read_table`. Default: no other scheme.
    :param max_bytes: maximum size of each file in bytes. A larger file is refused before it is read. Default: 256 MB
        (268,435,456).
    :return: the settings that were not submitted, unchanged, in the order of ``run_settings``.
    :raises OmicsParameterError: ``run_settings`` and ``listing`` do not fit each other or the numbers in ``batch``; it
        is not certain whether a run was submitted; or a parameter, a file or a row is not valid. The error names the
        rows.
    :raises MissingConnectionError: Airflow does not find the connection.
    :raises OmicsApiError: S3 refused or did not answer the call.
    """
    if isinstance(reasons, str):
        raise OmicsParameterError("reasons", "must be a list of submission failure reasons", reasons)
    if isinstance(listing, Mapping):
        raise OmicsParameterError(
            "listing", "must be the full listing (see mapping_s3_uri), not the mapping", type(listing).__name__
        )
    read = partial(read_rows, conn_id=conn_id, allow=allow, max_bytes=max_bytes)
    settings = _by_id(read("run_settings", run_settings), parameter="run_settings", member="runSettingId")
    records = _by_id(read("listing", listing, least=0), parameter="listing", member="run_setting_id")
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
            broken.add("must be a non-empty string", shown(run_setting_id), member=member, index=place)
        elif run_setting_id in found:
            value = f"{shown(run_setting_id)} as in {found[run_setting_id][0]}"
            broken.add("must be unique", value, member=member, index=place)
        else:
            found[run_setting_id] = (place, row)
    broken.raise_if_any()
    return found


def _is_confirmed(batch: Mapping[str, Any] | None, records: Mapping[str, Row], settings: Mapping[str, Row]) -> bool:
    """Return whether the numbers in ``batch`` confirm that the listing has every run that was submitted.

    :param batch: XCom ``batch`` of the sensor, or None.
    :param records: records of the listing, by runSettingId.
    :param settings: run settings, by runSettingId.
    :raises OmicsParameterError: the numbers in ``batch`` differ from those of settings and listing.
    """
    if batch is None:
        return False
    submitted = sum(1 for run_setting_id in records if _has_run(records, run_setting_id))
    numbers = {"total_runs": len(settings), "submitted": submitted, "failed": len(settings) - submitted}
    known = {name: batch.get(name) for name in numbers} if isinstance(batch, Mapping) else batch
    if known != numbers:
        raise OmicsParameterError(
            "batch",
            f"must match run_settings and listing, which have {numbers}",
            known,
        )
    return True


def _check_listing(records: Mapping[str, Row], settings: Mapping[str, Row], *, is_confirmed: bool) -> None:
    broken = BrokenRows("listing")
    for run_setting_id, (place, record) in records.items():
        status = record.get("status")
        for member in ("status", "reason"):
            if not isinstance(record.get(member), str | None):
                broken.add("must be a string or null", shown(record[member]), member=member, index=place)
                status = None
        if run_setting_id not in settings:
            broken.add(
                "must be the runSettingId of one of run_settings",
                shown(run_setting_id),
                member="run_setting_id",
                index=place,
            )
        elif record.get("run_id") or status in _NEVER_A_RUN:
            continue
        elif status:
            broken.add(
                f"must not be empty if the status is {shown(status)}, because a run may exist: list the batch again",
                None,
                member="run_id",
                index=place,
            )
        elif not is_confirmed:
            broken.add(f"is missing: {_CONFIRM.format('this run')}", status, member="status", index=place)
    unlisted = [run_setting_id for run_setting_id in settings if run_setting_id not in records]
    if unlisted and not is_confirmed:
        rule = f"must have all {len(settings):,} run settings: {_CONFIRM.format('a missing run')}"
        broken.add(rule, _first(unlisted))
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
