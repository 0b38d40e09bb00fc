"""Pass the silence of a rescheduled task, the rounds since its last answer, to its next process."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_omics_cache import timing
from airflow_provider_omics_cache._compat import keep_until_next_start, kept_values, reschedule_count
from airflow_provider_omics_cache.healthomics.rounds import Silence

if TYPE_CHECKING:
    from airflow.sdk import Context

#: Key of the task state (Airflow 3.3), beginning of the XCom's key (Airflow 3.0 to 3.2) and event of the audit log
#: (Airflow 2) that hold the silence.
KEY = "omics_cache_silence"

log = logging.getLogger(__name__)


def keep_silence(context: Context, place: Mapping[str, str], silence: Silence) -> bool:
    """Store the silence for the next process of a rescheduled task. Return whether it is stored.

    :param context: Airflow's context of the task.
    :param place: what the silence is about: ``{"batch_id": ...}`` or ``{"run_id": ...}``.
    :param silence: the silence.
    """
    value = {**_place(context, place), "reschedules": reschedule_count(context), **silence.to_json()}
    try:
        return keep_until_next_start(context, KEY, value)
    except Exception as error:
        log.warning("%s: Airflow did not store the time of the first round without an answer: %s", _title(place), error)
        return False


def kept_silence(context: Context, place: Mapping[str, str]) -> Silence | None:
    """Return the silence that the process before this one stored, None if it stored none.

    A value from an older process is out of date and ignored. It may exist, because a process without a silence does not
    delete it.

    :param context: Airflow's context of the task.
    :param place: what the silence is about: ``{"batch_id": ...}`` or ``{"run_id": ...}``.
    """
    try:
        reschedules = reschedule_count(context)
        values = kept_values(context, KEY) if reschedules else []
    except Exception as error:
        log.warning("%s: Airflow did not return what the last process stored: %s", _title(place), error)
        return None
    expected = {**_place(context, place), "reschedules": reschedules - 1}
    for value in values:
        try:
            silence = Silence.from_json(value)
            if silence.since > timing.time():
                raise ValueError(f"since is {silence.since!r}, a time in the future")
        except ValueError as error:
            log.warning("%s: the value under %s is ignored: %s", _title(place), KEY, error)
            continue
        if all(value.get(name) == member for name, member in expected.items()):
            return silence
        log.info("%s: the value of an earlier process under %s is ignored", _title(place), KEY)
    return None


def _place(context: Context, place: Mapping[str, str]) -> dict[str, Any]:
    return {**place, "try_number": context["ti"].try_number}


def _title(place: Mapping[str, str]) -> str:
    return ", ".join(f"{name.removesuffix('_id').capitalize()} {value}" for name, value in place.items())
