"""What the documentation shows is cut out of files that run; nothing shown may be missing or a stale copy."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import boto3
import pytest

from airflow_provider_omics_cache.get_provider_info import OPTIONS, SECTION, get_provider_info
from airflow_provider_omics_cache.healthomics.completion import join
from airflow_provider_omics_cache.healthomics.submission import Submissions
from tests.conftest import needs_batches

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
INCLUDE = re.compile(r"^\.\. literalinclude:: (?P<path>\S+)\n(?P<options>(?:   .*\n)*)", re.MULTILINE)

#: Words of hard sentences, and the em dash. "Words" in CONTRIBUTING.md is the rule.
HARD_WORDS = re.compile(r"—|\b(?:be it|mend(?:ed|s)?|shall|tells?|the former|the latter|told|whoever)\b", re.IGNORECASE)

INCLUDES = [
    pytest.param(page, found["path"], found["options"], id=f"{page.relative_to(DOCS)}:{number}")
    for page in sorted(DOCS.rglob("*.rst"))
    for number, found in enumerate(INCLUDE.finditer(page.read_text()), start=1)
]


def is_base(found: type) -> bool:
    """Whether the package itself has subclasses of a class, besides the tasks of task groups."""
    package = found.__module__.partition(".")[0]
    modules = [subclass.__module__ for subclass in found.__subclasses__()]
    return any(name.startswith(f"{package}.") and ".task_groups." not in name for name in modules)


def public_classes() -> Iterator[Any]:
    """Yield each operator and sensor, bases left out, with its page."""
    for kind in ("operators", "sensors"):
        for path in get_provider_info()[kind][0]["python-modules"]:
            for name, found in vars(importlib.import_module(path)).items():
                match = re.fullmatch(r"(?P<stem>[A-Z]\w+)(Operator|Sensor)", name)
                if match and found.__module__ == path and not is_base(found):
                    stem = re.sub(r"(?<!^)(?=[A-Z])", "_", match["stem"]).lower()
                    yield pytest.param(found, DOCS / kind / f"{stem}.rst", id=name)


CLASSES = list(public_classes())
SECTIONS = ["Parameters", "XCom", "Failures", "IAM"]


def policy_actions(page: Path, part: int = 0) -> set[str]:
    """Return the actions that the IAM policy of a page allows, the first one if it has several."""
    policy = re.findall(r"^\.\. code-block:: json\n\n((?:(?:   .*)?\n)+)", page.read_text(), re.MULTILINE)[part]
    listed = [statement["Action"] for statement in json.loads(policy)["Statement"]]
    return {action for one in listed for action in ([one] if isinstance(one, str) else one)}


@pytest.mark.parametrize(("page", "path", "options"), INCLUDES)
def test_included_code_exists(page: Path, path: str, options: str) -> None:
    text = (page.parent / path).resolve().read_text()
    marks = re.findall(r":(start-after|start-at|end-before|end-at): (.+)", options)
    assert marks, "the whole file is included: name the part"
    position = 0
    for _, mark in marks:
        position = text.find(mark.strip(), position)
        assert position >= 0, mark


def test_python_code_is_never_typed_into_a_page() -> None:
    for page in sorted(DOCS.rglob("*.rst")):
        assert not re.search(r"code-block:: (python|pycon)", page.read_text()), page


def test_pages_use_plain_words() -> None:
    for page in (ROOT / "README.md", *sorted(DOCS.rglob("*.rst"))):
        assert not HARD_WORDS.findall(page.read_text()), page


def test_every_marker_has_both_ends() -> None:
    for path in sorted((ROOT / "example_dags").glob("*.py")):
        text = path.read_text()
        assert re.findall(r"\[START (\w+)\]", text) == re.findall(r"\[END (\w+)\]", text), path


def test_every_example_is_shown_whole() -> None:
    pages = "".join(page.read_text() for page in sorted(DOCS.rglob("*.rst")))
    for path in sorted((ROOT / "example_dags").glob("*.py")):
        shown = f"   :start-after: [START {path.stem}]\n   :end-before: [END {path.stem}]\n"
        assert f"{path.name}\n   :language: python\n{shown}" in pages, path


def test_every_picture_is_there_shown_and_small() -> None:
    pages = [ROOT / "README.md", *DOCS.rglob("*.rst")]
    shown = {found for page in pages for found in re.findall(r"_static/screenshots/(\w+)\.png", page.read_text())}
    pictures = {picture.stem: picture.stat().st_size for picture in (DOCS / "_static" / "screenshots").glob("*.png")}
    assert pictures.keys() == shown
    assert all(size < 200_000 for size in pictures.values()), pictures


def test_the_diagram_has_a_title_and_the_colours_of_the_theme() -> None:
    root = ElementTree.parse(DOCS / "_static" / "concepts.svg").getroot()
    title, description = root[0], root[1]
    assert root.get("role") == "img"
    assert root.get("aria-labelledby", "").split() == [title.get("id"), description.get("id")]
    assert title.text
    assert description.text
    colours = {part.get(name) for part in root.iter() for name in ("fill", "stroke")} - {None, "none"}
    assert all(colour and colour.startswith("var(--color-") for colour in colours), colours


def test_every_page_is_reachable_from_the_index() -> None:
    listed = set(re.findall(r"^   ([\w/]+)$", (DOCS / "index.rst").read_text(), re.MULTILINE))
    pages = {
        page.relative_to(DOCS).with_suffix("").as_posix() for suffix in ("*.rst", "*.md") for page in DOCS.rglob(suffix)
    }
    assert pages - {"index"} == listed


def test_the_dag_that_shows_what_is_installed() -> None:
    found = runpy.run_path(str(ROOT / "tests" / "dags" / "installed_versions.py"))
    task = found["installed_versions"]().get_task("show_versions")
    versions = task.python_callable()
    assert versions["boto3"] == boto3.__version__
    assert all(re.match(r"\d|not installed$", version) for version in versions.values()), versions


def test_every_option_is_described() -> None:
    parts = re.split(r"^(\w+)\n-+\n", (DOCS / "configuration.rst").read_text(), flags=re.MULTILINE)[1:]
    described = dict(zip(parts[::2], parts[1::2], strict=True))
    assert described.keys() == OPTIONS.keys()
    for name, option in OPTIONS.items():
        text, _, fields = described[name].partition(":Type: ")
        default = f"``{option['default']}``" if option["default"] else "empty"
        variable = f"``AIRFLOW__{SECTION}__{name}``".upper()
        expected = f"{option['type']}\n:Default: {default}\n:Environment variable: {variable}\n:Read by: the "
        assert text.strip(), name
        assert fields.startswith(expected), name


@pytest.mark.parametrize(("found", "page"), CLASSES)
def test_every_operator_and_sensor_has_its_page(found: type, page: Path) -> None:
    text = page.read_text()
    assert text.splitlines()[0] == found.__name__
    # Airflow calls the methods; a page describes the class, and the docstring its parameters.
    assert f".. autoclass:: {found.__module__}.{found.__name__}\n   :no-members:\n" in text
    assert re.findall(r"^(\w+)\n-+$", text, re.MULTILINE)[-len(SECTIONS) :] == SECTIONS
    assert ".. literalinclude:: ../../example_dags/" in text
    assert policy_actions(page)


@pytest.mark.parametrize(("found", "page"), CLASSES)
def test_every_parameter_is_described(found: type, page: Path) -> None:
    parameters = set(inspect.signature(found.__init__).parameters) - {"self", "kwargs"}
    described = set(re.findall(r":param (\w+):", found.__doc__ or ""))
    assert parameters <= described


def test_the_whole_policy_is_what_the_pages_ask_for() -> None:
    pages = [DOCS / "task_groups" / "cohort.rst", *(case.values[1] for case in CLASSES)]
    wanted = {action for page in pages for action in policy_actions(page)}
    assert policy_actions(DOCS / "iam.rst") == wanted


def test_the_policy_for_the_readme_is_a_part_of_the_whole_policy() -> None:
    actions = policy_actions(DOCS / "iam.rst", 1)
    assert actions < policy_actions(DOCS / "iam.rst")
    assert not any(word in action for action in actions for word in ("Cancel", "Delete", "Update"))


def code_texts() -> Iterator[str]:
    """Yield each text of the package's code, with ``...`` in place of values."""
    for path in sorted((ROOT / "airflow_provider_omics_cache").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in node.values)


def test_error_texts_are_those_of_the_code() -> None:
    section = (DOCS / "operations.rst").read_text().partition(".. _error-texts:")[2].partition("\n.. _")[0]
    cells = re.findall(r"^   \* - (``.+?)\n     - ", section, re.MULTILINE | re.DOTALL)
    shown = [text for cell in cells for text in re.findall(r"``(.+?)``", cell)]
    known = list(code_texts())
    assert len(shown) > 20
    assert [text for text in shown if not any(text in one for one in known)] == []


def test_lines_of_files_in_s3_have_the_members_of_the_code() -> None:
    mapping, runs, settings = re.findall(
        r"^\.\. code-block:: text\n\n((?:   .*\n)+)", (DOCS / "s3_files.rst").read_text(), re.MULTILINE
    )
    members = list(json.loads(Submissions.line({})))
    assert [list(json.loads(line)) for line in mapping.splitlines()] == [members] * 3
    row = {"runSettingId": "HG001", "submissionStatus": "FAILED"}
    members = list(join(row, None, None, batch_id="1000001"))
    assert [list(json.loads(line)) for line in runs.splitlines()] == [members] * 3
    assert [setting["runSettingId"] for setting in json.loads(settings)] == ["HG001", "HG002"]


@needs_batches
def test_policies_name_actions_that_exist() -> None:
    operations = set(boto3.client("omics", region_name="us-east-1").meta.service_model.operation_names)
    named = {action.partition(":")[2] for action in policy_actions(DOCS / "iam.rst") if action.startswith("omics:")}
    assert named <= operations
