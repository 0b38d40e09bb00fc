"""The per-run settings of a batch, kept small: a batch has up to 100,000 of them."""

from __future__ import annotations

import json
from array import array
from typing import Any

from airflow_provider_omics_cache.local.protocol import dump_json


class RunOverrides:
    """Run settings in their given order.

    ``longest`` is the size in bytes of the largest of them.

    :param settings: the run settings.
    """

    def __init__(self, settings: list[dict[str, Any]]) -> None:
        self.ids: list[str] = [setting["runSettingId"] for setting in settings]
        self.longest = 0
        content = bytearray()
        self._ends = array("Q", [0])
        for setting in settings:
            rest = {name: value for name, value in setting.items() if name != "runSettingId"}
            if rest:
                encoded = dump_json(rest)
                self.longest = max(self.longest, len(encoded))
                content += encoded
            self._ends.append(len(content))
        self._content = bytes(content)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return what run number ``index`` sets beside its runSettingId."""
        content = self._content[self._ends[index] : self._ends[index + 1]]
        settings: dict[str, Any] = json.loads(content) if content else {}
        return settings

    def index_of(self, run_setting_id: str) -> int | None:
        """Return the number of the run with this id."""
        try:
            return self.ids.index(run_setting_id)
        except ValueError:
            return None
