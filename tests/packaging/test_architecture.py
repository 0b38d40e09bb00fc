"""Imports run downward from floor to floor, and the documentation's picture shows them as they are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import architecture_picture
import pytest
from architecture_picture import Box, Code, draw, find_problems, read_code

PACKAGE = "airflow_provider_omics_cache"
#: Files that stand for the same thing in different packages.
NAMES_THAT_REPEAT = {
    "__init__.py",
    "__main__.py",
    "cohort.py",
    "omics.py",
    "preflight.py",
    "run.py",
    "run_batch.py",
    "run_cache.py",
}
FLOORS = (
    (Box("operators", "the top"), Box("sensors", "the top, too")),
    (Box("hooks", "the middle"),),
    (Box("base", "the bottom", ("__init__", "errors")),),
)
LOCAL = {"local/__init__.py": ""}
NewPackage = Callable[[dict[str, str]], Path]


@pytest.fixture
def new_package(tmp_path: Path) -> NewPackage:
    """Write a package with a module on each floor; what is given adds to it or replaces it."""

    def write(files: dict[str, str]) -> Path:
        package = tmp_path / PACKAGE
        floors = dict.fromkeys(("operators/start.py", "sensors/wait.py", "hooks/omics.py", "errors.py"), "")
        for name, text in {"__init__.py": "", **floors, **LOCAL, **files}.items():
            path = package / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return package

    return write


def problems_of(package: Path) -> list[str]:
    return find_problems(read_code(package), FLOORS)


def repeated_names(package: Path) -> list[str]:
    counted = Counter(path.name for path in package.rglob("*.py"))
    return sorted(name for name, count in counted.items() if count > 1 and name not in NAMES_THAT_REPEAT)


@pytest.fixture(scope="module")
def code() -> Code:
    return read_code(architecture_picture.PACKAGE)


def test_the_picture_shows_the_code(code: Code) -> None:
    assert architecture_picture.PICTURE.read_text() == draw(code), "run make architecture, and look at the picture"


def test_no_circle_and_no_upward_arrow(code: Code) -> None:
    assert find_problems(code) == []


def test_file_names_are_unique() -> None:
    assert repeated_names(architecture_picture.PACKAGE) == []


@pytest.mark.parametrize("page", ["docs/architecture.rst", "CONTRIBUTING.md"])
def test_files_that_a_page_names_exist(page: str) -> None:
    root = architecture_picture.ROOT
    named = set(re.findall(r"`([\w/.]+\.(?:py|rst|md))`", (root / page).read_text()))
    assert named
    folders = (root, architecture_picture.PACKAGE)
    gone = [name for name in named if not any((folder / name).is_file() for folder in folders)]
    assert sorted(gone) == []


def test_repeated_file_names_are_found(new_package: NewPackage) -> None:
    package = new_package({"operators/run.py": "", "sensors/run.py": "", "sensors/start.py": ""})
    assert repeated_names(package) == ["start.py"]


def test_downward_arrows_are_allowed(new_package: NewPackage) -> None:
    downward = f"from {PACKAGE}.hooks import omics\nfrom .. import errors\nimport {PACKAGE}.errors\nimport boto3\n"
    package = new_package({"operators/start.py": downward})
    code = read_code(package)
    assert code.imports["operators.start"] == {"hooks.omics", "errors"}
    assert code.callers == {"operators.start"}
    assert problems_of(package) == []


@pytest.mark.parametrize(
    "upward",
    [
        f"import {PACKAGE}.operators.start",
        f"from {PACKAGE}.operators import start",
        f"from {PACKAGE}.operators.start import StartOperator",
        "from ..operators.start import StartOperator",
        f"def call():\n    from {PACKAGE}.operators import start",
        f"try:\n    pass\nexcept ImportError:\n    from {PACKAGE}.operators import start",
        f"if TYPE_CHECKING:\n    pass\nelse:\n    from {PACKAGE}.operators import start",
    ],
)
def test_an_upward_arrow_is_found(new_package: NewPackage, upward: str) -> None:
    package = new_package({"hooks/omics.py": upward})
    assert problems_of(package) == ["hooks.omics imports operators.start: operators/ is above hooks/"]


@pytest.mark.parametrize("condition", ["TYPE_CHECKING", "typing.TYPE_CHECKING"])
def test_imports_for_type_checks_do_not_count(new_package: NewPackage, condition: str) -> None:
    package = new_package({"hooks/omics.py": f"if {condition}:\n    from {PACKAGE}.operators import start"})
    assert problems_of(package) == []


def test_a_sideways_arrow_is_found(new_package: NewPackage) -> None:
    package = new_package({"operators/start.py": f"from {PACKAGE}.sensors import wait"})
    assert problems_of(package) == ["operators.start imports sensors.wait: sensors/ is on the same floor as operators/"]


def test_a_circle_inside_a_package_is_found(new_package: NewPackage) -> None:
    package = new_package(
        {
            "hooks/client.py": "from . import omics",
            "hooks/omics.py": "def late():\n    from .paths import path",
            "hooks/paths.py": f"import {PACKAGE}.hooks.client",
        }
    )
    assert problems_of(package) == ["circle of imports: hooks.client -> hooks.omics -> hooks.paths -> hooks.client"]


def test_local_stands_beside_the_floors(new_package: NewPackage) -> None:
    package = new_package(
        {
            "local/service.py": f"from {PACKAGE}.hooks import omics",
            "errors.py": f"def fake():\n    from {PACKAGE}.local import service",
        }
    )
    assert problems_of(package) == [
        "errors imports local.service: nothing may import local/",
        "local.service imports hooks.omics: local/ may import only healthomics.states",
    ]


def test_an_unknown_package_is_found(
    new_package: NewPackage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = new_package({"mixins/__init__.py": "", "waiting.py": ""})
    missing = "is not in the table of floors: add it to architecture_picture.py"
    assert problems_of(package) == [f"mixins {missing}", f"waiting {missing}"]
    picture = tmp_path / "architecture.svg"
    assert architecture_picture.main(["--package", str(package), "--output", str(picture)]) == 1
    assert f"mixins {missing}\n" in capsys.readouterr().err
    assert not picture.exists()


def test_a_package_that_is_gone_is_found(new_package: NewPackage) -> None:
    package = new_package({})
    (package / "hooks" / "omics.py").unlink()
    assert problems_of(package) == ["hooks is in the table of floors, but not in the package"]


def test_one_arrow_for_each_package_that_is_imported(new_package: NewPackage) -> None:
    down = f"import {PACKAGE}.hooks.omics, {PACKAGE}.errors"
    package = new_package({"operators/start.py": down, "operators/stop.py": down, "hooks/omics.py": "import botocore"})
    picture = draw(read_code(package), FLOORS)
    assert picture == draw(read_code(package), FLOORS)
    texts = [element.text for element in ElementTree.fromstring(picture).iter() if element.text]
    arrows = [text for text in texts if " imports " in text and not text.endswith(".")]
    assert arrows == ["hooks imports AWS SDK", "operators imports base", "operators imports hooks"]
    assert {"start", "stop", "wait", "omics", "errors", "operators/", "base", "local/"} <= set(texts)
