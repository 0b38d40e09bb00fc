"""Derive where the outputs of the runs of a batch are: pure functions.

HealthOmics writes the outputs of a run below its ``outputUri``, to a folder with the id of the run. AWS's pages differ:
some have a second folder with the uuid of the run. `GetRun
<https://docs.aws.amazon.com/omics/latest/api/API_GetRun.html>`__ returns the location, but only of one run per call.
The answers about a few runs show which layout the service uses. With this layout, the locations of the other runs are
derived if the ``outputUri`` of each run is known.

GetBatch shows the ``outputUri`` of the default setting. It does not show the run settings, which can have their own
``outputUri``. A tag of the batch has a digest of these own URIs. If a task has URIs with the same digest, it knows the
``outputUri`` of each run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from airflow_provider_omics_cache.healthomics.identity import digest
from airflow_provider_omics_cache.healthomics.states import RunStatus

#: Tag of a batch, and metadata key of a file of run settings. The value is the digest of the ``outputUri`` of each
#: setting that has its own.
OWN_OUTPUT_URIS = "omics-cache-own-output-uris"
#: Number of completed runs of a batch for which GetRun is called before locations are derived.
SAMPLE_SIZE = 20
#: Value of ``output_source``, and of ``include_outputs``, for locations that GetRun has returned.
EXACT = "exact"
#: Value of ``output_source`` for locations that were derived.
DERIVED = "derived"

#: Number of runs whose locations must have the same layout before locations of other runs are derived.
_LEAST_EVIDENCE = 2
#: The service may return the location with a slash at its end.
_LAYOUTS = (
    "{output_uri}/{run_id}",
    "{output_uri}/{run_id}/",
    "{output_uri}/{run_id}/{run_uuid}",
    "{output_uri}/{run_id}/{run_uuid}/",
)


def spread(number: int, most: int) -> list[int]:
    """Choose positions that are spread evenly over a list, from its first to its last.

    :param number: length of the list.
    :param most: maximum number of positions, at least 2.
    """
    if number <= most:
        return list(range(number))
    return [index * (number - 1) // (most - 1) for index in range(most)]


def own_output_uris(run_settings: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the ``outputUri`` of each run setting that has its own, by runSettingId.

    :param run_settings: the settings of the runs, as :func:`~.settings.check_run_settings` has accepted them.
    """
    return {setting["runSettingId"]: setting["outputUri"] for setting in run_settings if setting.get("outputUri")}


@dataclass(frozen=True)
class OutputUris:
    """The ``outputUri`` of each run of a batch.

    :param default: ``outputUri`` of the default setting, None if it has none.
    :param own: ``outputUri`` by runSettingId, of the settings that have their own.
    """

    default: str | None
    own: Mapping[str, str]

    @classmethod
    def of_batch(cls, batch: Mapping[str, Any], own: Mapping[str, str]) -> OutputUris | None:
        """Return the ``outputUri`` of each run. None if the digest of ``own`` is not the value of the batch's tag.

        :param batch: GetBatch's answer.
        :param own: ``outputUri`` by runSettingId, of the settings that have their own, as far as the task knows.
        """
        if (batch.get("tags") or {}).get(OWN_OUTPUT_URIS) != digest(own):
            return None
        return cls((batch.get("defaultRunSetting") or {}).get("outputUri"), own)

    def of(self, row: Mapping[str, Any]) -> str | None:
        """Return the ``outputUri`` of a run. None if it may have its own, and the entry has no runSettingId.

        :param row: the run's entry of ListRunsInBatch.
        """
        if self.own and not row.get("runSettingId"):
            return None
        return self.own.get(row.get("runSettingId") or "", self.default)


class OutputLocations(NamedTuple):
    """Where the outputs of the runs of a batch are.

    :param layout: how a location consists of ``outputUri``, run id and run uuid.
    :param uris: the ``outputUri`` of each run.
    """

    layout: str
    uris: OutputUris

    def of(self, row: Mapping[str, Any]) -> str | None:
        """Derive the location of the outputs of a run. None if the entry lacks a part of it.

        :param row: the run's entry of ListRunsInBatch.
        """
        return _location(self.layout, self.uris.of(row), row)


class OutputEvidence:
    """Collects GetRun's answers about runs of a batch, and decides whether the other locations can be derived.

    At least two answers must show a location. Each answer about a completed run must show one. All of these locations
    must follow from the ``outputUri`` of their run by the same layout.

    :param uris: the ``outputUri`` of each run.
    """

    def __init__(self, uris: OutputUris) -> None:
        self._uris = uris
        self._layouts: list[str] = list(_LAYOUTS)
        self._shown = 0

    def add(self, row: Mapping[str, Any], run: Mapping[str, Any]) -> None:
        """Add a run.

        :param row: the run's entry of ListRunsInBatch.
        :param run: GetRun's answer about this run.
        """
        location = run.get("runOutputUri")
        if not location:
            if run.get("status") == RunStatus.COMPLETED:
                self._layouts = []
            return
        self._shown += 1
        expected = self._uris.of(row)
        is_expected = run.get("outputUri") in {None, expected}
        self._layouts = [
            layout for layout in self._layouts if is_expected and _location(layout, expected, row) == location
        ]

    def locations(self) -> OutputLocations | None:
        """Return where the outputs of the other runs are. None if GetRun must be called for each of them."""
        if not self._layouts or self._shown < _LEAST_EVIDENCE:
            return None
        return OutputLocations(self._layouts[0], self._uris)


def _location(layout: str, output_uri: str | None, row: Mapping[str, Any]) -> str | None:
    run_id, run_uuid = row.get("runId"), row.get("runInternalUuid")
    if not output_uri or not run_id or ("{run_uuid}" in layout and not run_uuid):
        return None
    return layout.format(output_uri=output_uri.rstrip("/"), run_id=run_id, run_uuid=run_uuid)
