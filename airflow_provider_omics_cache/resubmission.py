"""Start another batch: for the runs that were not submitted, for the runs that failed, or for a whole DAG run."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from airflow_provider_omics_cache.exceptions import OmicsParameterError
from airflow_provider_omics_cache.healthomics.next_steps import (
    RESUMABLE_STATUSES,
    Decision,
    NextStep,
    Retries,
    decide,
)
from airflow_provider_omics_cache.healthomics.run_failures import NewRun, reasons_of
from airflow_provider_omics_cache.healthomics.states import RunStatus, SubmissionStatus
from airflow_provider_omics_cache.tables import MAX_TABLE_BYTES, BrokenRows, Place, Row, iterate_rows, read_rows, shown

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

#: Failure reasons of a run whose cause is on AWS's side and can pass: a new run can succeed without a correction.
RESUMABLE_RUN_FAILURES = reasons_of(NewRun.CAN_SUCCEED)

#: Template for ``rerun_key`` of StartRunBatchOperator. It renders to the value of the Airflow variable
#: ``omics_rerun_key_<dag_id>_<run_id>`` if there is one, else to the DAG param ``rerun_key``, else to an empty string.
#: The name of the variable has a ``-`` in place of each ``:`` and ``+`` of the run id, because secrets backends such as
#: AWS Secrets Manager do not take these characters.
RERUN_KEY = (
    "{{ var.value.get('omics_rerun_key_' ~ ti.dag_id ~ '_' ~ run_id.replace(':', '-').replace('+', '-'),"
    " params.get('rerun_key', '')) }}"
)

#: Members of a record at ``runs_s3_uri`` that decide what comes next.
_TEXTS = ("run_id", "status", "failure_reason")

#: A record with one of these statuses and no run id never had a run.
_NEVER_A_RUN = frozenset({SubmissionStatus.FAILED, SubmissionStatus.CANCEL_SUCCESS})

_LIST_AGAIN = "wait until every run has ended, and list the batch again"
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


class SampleStep(NamedTuple):
    """What comes next for a sample.

    :param run_setting_id: runSettingId of the sample.
    :param step: what comes next.
    :param reason: AWS's reason for the failure or, without one, the status of the run. For UNKNOWN: a text that says
        what is not certain. For COMPLETED: None.
    """

    run_setting_id: str
    step: NextStep
    reason: str | None


def resumable_run_settings(
    run_settings: Any,
    runs: Any,
    *,
    reasons: Iterable[str] = RESUMABLE_RUN_FAILURES,
    statuses: Iterable[str] = (RunStatus.FAILED,),
    default_run_setting: Mapping[str, Any] | None = None,
    allow_without_cache: bool = False,
    conn_id: str | None = None,
    allow: Iterable[str] = (),
    max_bytes: int = MAX_TABLE_BYTES,
) -> list[dict[str, Any]]:
    """Return the run settings of a batch whose runs failed and can continue from the run cache.

    A setting is never returned if its run completed or was never submitted. If it is not certain how a run ended, the
    function raises an error.

    :param run_settings: all run settings of the batch, as for :func:`failed_run_settings`.
    :param runs: the records of all runs of the batch, as BatchCompletionSensor writes them to ``runs_s3_uri``: an
        iterable of its records, or its URI or path. Do not pass the XCom ``failed_runs``: it contains at most 1,000
        runs.
    :param reasons: failure reasons after which a FAILED run is resumed. Add other reasons to the default if you have
        corrected the cause, for example ``RESUMABLE_RUN_FAILURES | {"RUN_TASK_FAILED"}``. Default:
        :data:`RESUMABLE_RUN_FAILURES`.
    :param statuses: statuses of the runs that are resumed: FAILED, CANCELLED or both. ``reasons`` do not apply to
        CANCELLED runs. Default: FAILED.
    :param default_run_setting: ``default_run_setting`` of the batch's StartRunBatchOperator, or ``defaultRunSetting``
        of GetBatch's answer. It must have the ``cacheId`` of the run cache, unless ``allow_without_cache`` is True.
        Default: None.
    :param allow_without_cache: whether to return settings even if the batch has no run cache. The new runs then compute
        every task again, and you pay for every task again. Default: False.
    :param conn_id: Airflow connection for reading the files. Default: ``aws_default`` for S3.
    :param allow: schemes that a str can have besides ``s3``, for example ``("file", "gs")``, as for
        :func:`~airflow_provider_omics_cache.tables.read_table`. Default: no other scheme.
    :param max_bytes: maximum size of each file in bytes. A larger file is refused before it is read. Default: 256 MB
        (268,435,456).
    :return: the settings to resume, unchanged, in the order of ``run_settings``.
    :raises OmicsParameterError: the batch has no run cache, ``run_settings`` and ``runs`` do not have the same samples,
        it is not certain how a run ended, or a parameter, a file or a row is not valid. The error names the rows.
    :raises MissingConnectionError: Airflow does not find the connection.
    :raises OmicsApiError: S3 refused or did not answer the call.
    """
    if not allow_without_cache:
        _check_cache(default_run_setting)
    retries = _retries(reasons, statuses, ())
    read = partial(iterate_rows, conn_id=conn_id, allow=allow, max_bytes=max_bytes)
    broken = BrokenRows("runs", runs)
    resumable = []
    for run_setting_id, setting, decision in _decisions(read, run_settings, runs, retries):
        if decision.step == NextStep.UNKNOWN:
            broken.add(f"must show how each run ended, but {decision.reason}: {_LIST_AGAIN}", shown(run_setting_id))
        elif decision.step == NextStep.RESUME:
            resumable.append(dict(setting))
    broken.raise_if_any()
    return resumable


def next_steps(
    run_settings: Any,
    runs: Any,
    *,
    reasons: Iterable[str] = RESUMABLE_RUN_FAILURES,
    statuses: Iterable[str] = (RunStatus.FAILED,),
    submission_reasons: Iterable[str] = RETRYABLE_SUBMISSION_FAILURES,
    conn_id: str | None = None,
    allow: Iterable[str] = (),
    max_bytes: int = MAX_TABLE_BYTES,
) -> Iterator[SampleStep]:
    """Return what comes next for each sample of a batch, in the order of ``run_settings``.

    Each sample has exactly one next step. With the same reasons, the samples to submit again are those that
    :func:`failed_run_settings` returns, and the samples to resume are those that :func:`resumable_run_settings`
    returns. Samples are read one by one. An iterable, for example a generator over JSON Lines, is not kept in memory.

    An error in a row of ``run_settings`` is raised only after the last sample. Therefore start no run before the
    iterator has ended.

    :param run_settings: all run settings of the batch, as for :func:`failed_run_settings`.
    :param runs: the records of all runs of the batch, as for :func:`resumable_run_settings`.
    :param reasons: failure reasons after which a FAILED run is resumed. Without a run cache, pass an empty list: then
        no FAILED run is resumed. Default: :data:`RESUMABLE_RUN_FAILURES`.
    :param statuses: statuses of the runs that are resumed: FAILED, CANCELLED or both. Default: FAILED.
    :param submission_reasons: reasons of failed submissions after which a sample is submitted again. A sample that was
        not submitted and has no reason, for example because the batch was cancelled, is given up. Default:
        :data:`RETRYABLE_SUBMISSION_FAILURES`.
    :param conn_id: Airflow connection for reading the files. Default: ``aws_default`` for S3.
    :param allow: schemes that a str can have besides ``s3``, as for
        :func:`~airflow_provider_omics_cache.tables.read_table`. Default: no other scheme.
    :param max_bytes: maximum size of each file in bytes. A larger file is refused before it is read. Default: 256 MB
        (268,435,456).
    :return: an iterator of one :class:`SampleStep` for each setting.
    :raises OmicsParameterError: ``runs`` has a sample that ``run_settings`` does not have, or a parameter, a file or a
        row is not valid. The error names the rows.
    :raises MissingConnectionError: Airflow does not find the connection.
    :raises OmicsApiError: S3 refused or did not answer the call.
    """
    retries = _retries(reasons, statuses, submission_reasons)
    read = partial(iterate_rows, conn_id=conn_id, allow=allow, max_bytes=max_bytes)
    decisions = _decisions(read, run_settings, runs, retries)
    return (SampleStep(run_setting_id, *decision) for run_setting_id, _, decision in decisions)


def _check_cache(default_run_setting: Any) -> None:
    if not isinstance(default_run_setting, Mapping):
        raise OmicsParameterError(
            "default_run_setting",
            "must be the default run setting of the batch, with the cacheId of its run cache. Without a run cache set "
            "allow_without_cache=True",
            None if default_run_setting is None else type(default_run_setting).__name__,
        )
    cache_id = default_run_setting.get("cacheId")
    if cache_id in {None, "", "None"}:
        raise OmicsParameterError(
            "default_run_setting.cacheId",
            "must be the id of a run cache. Without one the new runs compute every task again, and you pay for every "
            "task again. Set allow_without_cache=True to accept that",
            cache_id,
        )


def _retries(reasons: Any, statuses: Any, submission_reasons: Any) -> Retries:
    resumed = _strings("statuses", statuses)
    if not resumed <= RESUMABLE_STATUSES:
        raise OmicsParameterError("statuses", "must be FAILED, CANCELLED or both", sorted(resumed))
    return Retries(
        submissions=_strings("submission_reasons", submission_reasons),
        runs=_strings("reasons", reasons),
        statuses=resumed,
    )


def _strings(parameter: str, values: Any) -> frozenset[str]:
    given: list[Any] = list(values) if isinstance(values, Iterable) and not isinstance(values, (str, bytes)) else [None]
    if not all(isinstance(value, str) and value for value in given):
        raise OmicsParameterError(parameter, "must be a list of non-empty strings", values)
    return frozenset(map(str, given))


def _decisions(
    read: Callable[..., Iterator[Row]], run_settings: Any, runs: Any, retries: Retries
) -> Iterator[tuple[str, Mapping[str, Any], Decision]]:
    """Yield the id, the setting and the decision of each sample.

    The records are read first, and only the decisions about them are kept. Then the samples are read one by one.

    :param read: reads the rows of a parameter.
    :param run_settings: all run settings of the batch.
    :param runs: the records of its runs.
    :param retries: which samples get a new run.
    :raises OmicsParameterError: a row is not valid, or ``runs`` has a sample that ``run_settings`` does not have.
    """
    decisions = _decisions_by_id(read("runs", runs, least=0), BrokenRows("runs", runs), retries)
    broken = BrokenRows("run_settings", run_settings)
    without_record = decide(None, retries)
    used: set[str] = set()
    for place, setting in read("run_settings", run_settings):
        run_setting_id = _id_of(place, setting, "runSettingId", used, broken)
        if run_setting_id is not None:
            used.add(run_setting_id)
            yield run_setting_id, setting, decisions.pop(run_setting_id, without_record)
    broken.raise_if_any()
    unmatched = BrokenRows("runs", runs)
    for run_setting_id in decisions:
        rule = "must be the runSettingId of one of run_settings"
        unmatched.add(rule, shown(run_setting_id), member="run_setting_id")
    unmatched.raise_if_any()


def _decisions_by_id(records: Iterable[Row], broken: BrokenRows, retries: Retries) -> dict[str, Decision]:
    decisions: dict[str, Decision] = {}
    kept: dict[Decision, Decision] = {}
    for place, record in records:
        run_setting_id = _id_of(place, record, "run_setting_id", decisions, broken)
        wrong = [name for name in _TEXTS if not isinstance(record.get(name), str | None)]
        for name in wrong:
            broken.add("must be a string or null", shown(record[name]), member=name, index=place)
        if run_setting_id is not None and not wrong:
            decision = decide(record, retries)
            decisions[run_setting_id] = kept.setdefault(decision, decision)
    broken.raise_if_any()
    return decisions


def _id_of(place: Place, row: Mapping[str, Any], member: str, used: Container[str], broken: BrokenRows) -> str | None:
    """Return the runSettingId of a row; None if it is not valid."""
    run_setting_id = row.get(member)
    if not isinstance(run_setting_id, str) or not run_setting_id:
        broken.add("must be a non-empty string", shown(run_setting_id), member=member, index=place)
        return None
    if run_setting_id in used:
        broken.add("must be unique", shown(run_setting_id), member=member, index=place)
        return None
    return run_setting_id


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
        rule = f"must have a record of each of the {len(settings):,} run settings: {_CONFIRM.format('a missing run')}"
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
