"""What the documentation shows is cut out of files that run; nothing shown may be missing or a stale copy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
INCLUDE = re.compile(r"^\.\. literalinclude:: (?P<path>\S+)\n(?P<options>(?:   .*\n)*)", re.MULTILINE)

INCLUDES = [
    pytest.param(page, found["path"], found["options"], id=f"{page.relative_to(DOCS)}:{number}")
    for page in sorted(DOCS.rglob("*.rst"))
    for number, found in enumerate(INCLUDE.finditer(page.read_text()), start=1)
]


@pytest.mark.parametrize(("page", "path", "options"), INCLUDES)
def test_included_code_exists(page: Path, path: str, options: str) -> None:
    text = (page.parent / path).resolve().read_text()
    marks = re.findall(r":(start-after|start-at|end-before|end-at): (.+)", options)
    positions = [text.find(mark.strip()) for _, mark in marks]
    assert positions, "the whole file is included: name the part"
    assert -1 not in positions, marks
    assert positions == sorted(positions)


def test_python_code_is_never_typed_into_a_page() -> None:
    for page in sorted(DOCS.rglob("*.rst")):
        assert not re.search(r"code-block:: (python|pycon)", page.read_text()), page


def test_every_marker_has_both_ends() -> None:
    for path in sorted((ROOT / "example_dags").glob("*.py")):
        text = path.read_text()
        assert re.findall(r"\[START (\w+)\]", text) == re.findall(r"\[END (\w+)\]", text), path


def test_readme_shows_the_quickstart_as_it_is() -> None:
    (shown,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    source = (ROOT / "example_dags" / "quickstart.py").read_text()
    assert shown == source.split("# [START quickstart]\n")[1].split("# [END quickstart]\n")[0]


def test_every_page_is_reachable_from_the_index() -> None:
    listed = set(re.findall(r"^   ([\w/]+)$", (DOCS / "index.rst").read_text(), re.MULTILINE))
    pages = {
        page.relative_to(DOCS).with_suffix("").as_posix() for suffix in ("*.rst", "*.md") for page in DOCS.rglob(suffix)
    }
    assert pages - {"index"} == listed
