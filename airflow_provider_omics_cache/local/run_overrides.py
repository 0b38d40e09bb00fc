"""The per-run settings of a batch, kept small: a batch has up to 100,000 of them."""

from __future__ import annotations

import functools
import json
import zlib
from collections.abc import Iterable
from itertools import islice
from typing import Any

from airflow_provider_omics_cache.local.protocol import dump_json

# Settings that are packed together.
_BLOCK = 100


class RunOverrides:
    """Run settings in their given order.

    ``longest`` is the size in bytes of the largest of them.

    :param settings: the run settings.
    """

    def __init__(self, settings: Iterable[dict[str, Any]]) -> None:
        self.ids: list[str] = []
        self.longest = 0
        self._blocks: list[bytes] = []
        remaining = iter(settings)
        while block := list(islice(remaining, _BLOCK)):
            self.ids += [setting["runSettingId"] for setting in block]
            lines = [
                dump_json({name: value for name, value in setting.items() if name != "runSettingId"})
                for setting in block
            ]
            self.longest = max(self.longest, *map(len, lines))
            self._blocks.append(zlib.compress(b"\n".join(lines), 1))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return what run number ``index`` sets beside its runSettingId."""
        block, place = divmod(index, _BLOCK)
        settings: dict[str, Any] = json.loads(_lines(self._blocks[block])[place])
        return settings

    def index_of(self, run_setting_id: str) -> int | None:
        """Return the number of the run with this id."""
        try:
            return self.ids.index(run_setting_id)
        except ValueError:
            return None


@functools.lru_cache(maxsize=4)
def _lines(block: bytes) -> list[bytes]:
    return zlib.decompress(block).split(b"\n")
