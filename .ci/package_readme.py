"""README.md for the package's metadata: a package index does not have the files that its relative links lead to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_PICTURE = re.compile(r"!\[(?P<text>[^\]]*)\]\((?!https?:)(?P<path>[^)]+)\)\n*")
_LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]+)\]\((?!https?:|#)(?P<path>[^)]+)\)")


def for_package_index(text: str, repository: str | None, version: str) -> str:
    """Return the README without relative links.

    :param text: README.md.
    :param repository: URL of the repository on GitHub. Relative links and pictures then get the URL of this version's
        file. If it is None, links become their text and pictures are left out.
    :param version: version of the package, whose tag is ``v`` and the version.
    """
    if repository:
        text = _PICTURE.sub(rf"![\g<text>]({repository}/raw/v{version}/\g<path>)\n\n", text)
        return _LINK.sub(rf"[\g<text>]({repository}/blob/v{version}/\g<path>)", text)
    return _LINK.sub(r"\g<text>", _PICTURE.sub("", text))


class ReadmeHook(MetadataHookInterface):
    """Set the package's ``readme``."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the README to the metadata.

        :param metadata: the table ``project`` of pyproject.toml. ``urls.Repository`` is the repository.
        """
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        repository = metadata.get("urls", {}).get("Repository")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": for_package_index(text, repository, metadata["version"]),
        }
