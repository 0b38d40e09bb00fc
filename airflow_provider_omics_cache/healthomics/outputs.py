"""Derive where the outputs of the runs of a batch are: pure functions.

HealthOmics writes the outputs of a run below its ``outputUri``, to a folder with the id of the run. AWS's pages differ:
some have a second folder with the uuid of the run. `GetRun
<https://docs.aws.amazon.com/omics/latest/api/API_GetRun.html>`__ returns the location, but only of one run per call.
The answers about a few runs show which layout the service uses. The locations of the other runs are derived from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

#: Number of completed runs of a batch for which GetRun is called before locations are derived.
SAMPLE_SIZE = 20
#: Value of ``output_source``, and of ``include_outputs``, for locations that GetRun has returned.
EXACT = "exact"
#: Value of ``output_source`` for locations that were derived.
DERIVED = "derived"

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


@dataclass(frozen=True)
class OutputUris:
    """The ``outputUri`` of each run of a batch, as the settings of the batch say.

    :param default: ``outputUri`` of the default setting, None if it has none.
    :param own: ``outputUri`` by runSettingId, of the settings that have one.
    """

    default: str | None
    own: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_settings(
        cls, default_run_setting: Mapping[str, Any], run_settings: Iterable[Mapping[str, Any]]
    ) -> OutputUris:
        """Collect the URIs of the settings of a batch.

        :param default_run_setting: the default setting.
        :param run_settings: the settings of the runs.
        """
        own = {setting["runSettingId"]: setting["outputUri"] for setting in run_settings if setting.get("outputUri")}
        return cls(default_run_setting.get("outputUri"), own)

    def of(self, row: Mapping[str, Any]) -> str | None:
        """Return the ``outputUri`` of a run.

        :param row: the run's entry of ListRunsInBatch.
        """
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

    All locations that were added must follow from the ``outputUri`` of their run by the same layout. If the task does
    not have the settings of the batch, all answers must also show the same ``outputUri``, because other runs may have
    their own.

    :param uris: the ``outputUri`` of each run, None if the task does not have the settings of the batch.
    """

    def __init__(self, uris: OutputUris | None) -> None:
        self._uris = uris
        self._layouts: list[str] | None = None

    def add(self, row: Mapping[str, Any], run: Mapping[str, Any]) -> None:
        """Add a run.

        :param row: the run's entry of ListRunsInBatch.
        :param run: GetRun's answer about this run. An answer without ``runOutputUri`` is ignored.
        """
        location, output_uri = run.get("runOutputUri"), run.get("outputUri")
        if not location:
            return
        if self._uris is None:
            self._uris = OutputUris(output_uri)
        expected = self._uris.of(row)
        possible = _LAYOUTS if self._layouts is None else self._layouts
        is_expected = output_uri in {None, expected}
        self._layouts = [layout for layout in possible if is_expected and _location(layout, expected, row) == location]

    def locations(self) -> OutputLocations | None:
        """Return where the outputs of the other runs are. None if GetRun must be called for each of them."""
        if self._uris is None or not self._layouts:
            return None
        return OutputLocations(self._layouts[0], self._uris)


def _location(layout: str, output_uri: str | None, row: Mapping[str, Any]) -> str | None:
    run_id, run_uuid = row.get("runId"), row.get("runInternalUuid")
    if not output_uri or not run_id or ("{run_uuid}" in layout and not run_uuid):
        return None
    return layout.format(output_uri=output_uri.rstrip("/"), run_id=run_id, run_uuid=run_uuid)
