"""What ``docs/install.rst`` says about Amazon MWAA: the lines of requirements.txt, and what pip replaces."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "install.rst"
#: The packages that the page names together.
TOGETHER = ("boto3", "botocore", "aiobotocore")

_VERSION = r"\d+\.\d+\.\d+"
_BLOCK = re.compile(r"\*\*(?P<images>[^*]+)\*\*[^*]*?\.\. code-block:: text\n\n(?P<lines>(?: {3}.+\n)+)")


@dataclass(frozen=True)
class Case:
    """A requirements.txt for an image.

    :param image: version of Airflow of the image.
    :param requirements: the lines.
    :param replaced: the packages of the image that pip replaces; None if pip must refuse the requirements.
    """

    image: str
    requirements: tuple[str, ...]
    replaced: frozenset[str] | None

    @property
    def keeps_constraints(self) -> bool:
        """Whether MWAA adds Airflow's constraints: it looks for the option in the text, comments included."""
        return not any(re.search(r"-c |--constraint ", line) for line in self.requirements)

    def __str__(self) -> str:
        return f"{self.image}: {', '.join(line for line in self.requirements if not line.startswith('#'))}"


def cases(text: str) -> list[Case]:
    """Return every case that the page describes.

    :param text: text of the page.
    """
    text = text[text.index("Amazon MWAA\n-----------\n") :]
    with_batches, run_caches, replacing = (
        (re.findall(_VERSION, block["images"]), tuple(line.strip() for line in block["lines"].splitlines()))
        for block in _BLOCK.finditer(text)
    )
    versions, replaced = _tables(text)
    found = [Case(image, with_batches[1], frozenset()) for image in with_batches[0]]
    found += [Case(image, run_caches[1], frozenset()) for image in run_caches[0]]
    found += [Case(image, with_batches[1], None) for image in replacing[0]]
    columns = [column.rpartition(" ")[2] for column in replaced[0][1:]]
    for image, *cells in replaced[1:]:
        for boto3, cell in zip(columns, cells, strict=True):
            (aiobotocore,) = (row[2] for row in versions[1:] if row[1] == boto3)
            lines = _with_versions(replacing[1], boto3, aiobotocore)
            if cell != "not needed":
                others = () if cell == "none" else cell.split(", ")
                found.append(Case(image, lines, frozenset({*TOGETHER, *others})))
    return found


def _with_versions(lines: tuple[str, ...], boto3: str, aiobotocore: str) -> tuple[str, ...]:
    versions = {"boto3": boto3, "botocore": boto3, "aiobotocore": aiobotocore}
    names = [line.partition("==")[0] for line in lines]
    return tuple(
        f"{name}=={versions[name]}" if name in versions else line for name, line in zip(names, lines, strict=True)
    )


def _tables(text: str) -> list[list[list[str]]]:
    """Return the rows of each list-table."""
    tables = []
    for table in text.split(".. list-table::")[1:]:
        rows: list[list[str]] = []
        for line in table.splitlines():
            if line.startswith("   * - "):
                rows.append([])
            if line.startswith(("   * - ", "     - ")):
                rows[-1].append(line[7:])
        tables.append(rows)
    return tables
