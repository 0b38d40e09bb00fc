"""``make architecture``: check the imports of the package and draw docs/_static/architecture.svg from them.

The picture shows one arrow for each package that imports from another one. Imports inside functions count. Imports
under ``if TYPE_CHECKING:`` do not count, because they do not happen when the package runs. The script exits with an
error when modules import each other in a circle, when an arrow points up or sideways, and when the table below does not
have a package or a module of the top level. It needs Python's standard library only.
"""

from __future__ import annotations

import argparse
import ast
import sys
import textwrap
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "airflow_provider_omics_cache"
PICTURE = ROOT / "docs" / "_static" / "architecture.svg"


@dataclass(frozen=True)
class Box:
    """A package, or modules of the top level that belong together.

    :param name: name of the package, or what the modules are called together.
    :param purpose: what the modules are for, in one line.
    :param modules: the modules of the top level; empty for a package.
    """

    name: str
    purpose: str
    modules: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The name as the picture shows it."""
        return self.name if self.modules else f"{self.name}/"


#: The floors from top to bottom. A module may import from its own box and from the floors below.
FLOORS: tuple[tuple[Box, ...], ...] = (
    (Box("testing", "pytest fixtures that run a DAG on the local HealthOmics"),),
    (Box("task_groups", "a whole cohort as one object in a DAG"),),
    (
        Box("operators", "what a DAG author puts into a DAG: start, change, cancel, delete"),
        Box("sensors", "what a DAG author puts into a DAG: wait for a batch"),
        Box(
            "tables",
            "functions that a DAG author calls in a task",
            (
                "resubmission",
                "run_settings",
                "samplesheets",
                "sheet_groups",
                "sheet_schemas",
                "table_files",
                "table_formats",
                "tables",
            ),
        ),
    ),
    (Box("tasks", "what operators and sensors share: waits, results, outputs to S3"),),
    (
        Box("triggers", "waits of deferred tasks, and the poller that makes their calls"),
        Box("links", "links from a task in Airflow's UI to the AWS console"),
    ),
    (Box("healthomics", "facts about HealthOmics, decisions"),),
    (Box("hooks", "one method per operation of AWS"),),
    (
        Box(
            "base",
            "what every floor may use",
            ("__init__", "_compat", "configuration", "exceptions", "get_provider_info", "redaction", "timing", "xcoms"),
        ),
    ),
)

#: The other side of the wire. It stands beside the floors, and nothing on them may import it.
BESIDE = Box("local", "HealthOmics in memory, the other side of the wire")
#: The only modules of the floors that it may import, so that both sides do not share mistakes.
BESIDE_MAY_IMPORT = frozenset({"healthomics.states"})

#: What the package calls AWS with.
SDK = frozenset({"aiobotocore", "boto3", "botocore"})
OUTSIDE = Box("AWS SDK", "calls AWS HealthOmics and Amazon S3", tuple(sorted(SDK)))


@dataclass
class Code:
    """Who imports whom. Names of modules are relative to the package; its own ``__init__.py`` is ``__init__``.

    :param imports: each module with the modules of the package that it imports.
    :param callers: the modules that import the AWS SDK.
    """

    imports: dict[str, set[str]] = field(default_factory=dict)
    callers: set[str] = field(default_factory=set)


def read_code(package: Path) -> Code:
    """Read the imports of every module of a package.

    :param package: folder of the package.
    """
    code = Code()
    paths = {_module_name(path.relative_to(package)): path for path in sorted(package.rglob("*.py"))}
    for module, path in paths.items():
        code.imports[module] = set()
        is_package = path.name == "__init__.py"
        inside = [package.name, *([] if module == "__init__" else module.split("."))]
        for imported in _imported_names(ast.parse(path.read_text()), inside if is_package else inside[:-1]):
            top, _, rest = imported.partition(".")
            if top in SDK:
                code.callers.add(module)
            elif top == package.name:
                code.imports[module].add(_existing(rest, paths))
        code.imports[module].discard(module)
    return code


def _module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def _imported_names(tree: ast.AST, package: Sequence[str]) -> Iterator[str]:
    """Give the absolute dotted name of everything that is imported, imports for type checks left out."""
    waiting = deque([tree])
    while waiting:
        node = waiting.popleft()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            base += node.module.split(".") if node.module else []
            yield from (".".join([*base, alias.name]) for alias in node.names)
        elif isinstance(node, ast.If) and _is_type_checking(node.test):
            waiting.extend(node.orelse)
        else:
            waiting.extend(ast.iter_child_nodes(node))


def _is_type_checking(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else test.id if isinstance(test, ast.Name) else ""
    return name == "TYPE_CHECKING"


def _existing(name: str, modules: Mapping[str, Path]) -> str:
    """Return the module that a name is, or is in."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name or "__init__"


def find_problems(code: Code, floors: Sequence[Sequence[Box]] = FLOORS) -> list[str]:
    """Return a sentence for each rule that the imports break.

    :param code: the imports.
    :param floors: the floors from top to bottom.
    """
    table = _Table(floors)
    unknown = sorted({_first_part(module) for module in code.imports if table.box_of(module) is None})
    problems = [f"{name} is not in the table of floors: add it to {Path(__file__).name}" for name in unknown]
    there = {_first_part(module) for module in code.imports}
    for box in table.boxes:
        absent = sorted(set(box.modules or [box.name]) - there)
        problems += [f"{name} is in the table of floors, but not in the package" for name in absent]
    problems += [f"circle of imports: {' -> '.join(circle)}" for circle in find_circles(code.imports)]
    for source, targets in sorted(code.imports.items()):
        for target in sorted(targets):
            problem = table.problem_with(source, target)
            if problem:
                problems.append(f"{source} imports {target}: {problem}")
    return problems


def _first_part(module: str) -> str:
    return module.partition(".")[0]


class _Table:
    def __init__(self, floors: Sequence[Sequence[Box]]) -> None:
        self.boxes = [*(box for floor in floors for box in floor), BESIDE]
        self._by_name = {name: box for box in self.boxes for name in box.modules or [box.name]}
        self._floors = {box.name: number for number, floor in enumerate(floors) for box in floor}

    def box_of(self, module: str) -> Box | None:
        return self._by_name.get(_first_part(module))

    def problem_with(self, source: str, target: str) -> str | None:
        """Say what is wrong with an import; None if nothing is."""
        above, below = self.box_of(source), self.box_of(target)
        if above is None or below is None or above == below:
            return None
        if below == BESIDE:
            return f"nothing may import {BESIDE.title}"
        if above == BESIDE:
            allowed = ", ".join(sorted(BESIDE_MAY_IMPORT))
            return None if target in BESIDE_MAY_IMPORT else f"{BESIDE.title} may import only {allowed}"
        difference = self._floors[below.name] - self._floors[above.name]
        if difference > 0:
            return None
        return f"{below.title} is {'above' if difference else 'on the same floor as'} {above.title}"


def find_circles(imports: Mapping[str, set[str]]) -> list[list[str]]:
    """Return circles of imports, each from its first module by name back to it; a module stands in at most one.

    :param imports: each module with those that it imports.
    """
    circles: list[list[str]] = []
    seen: set[str] = set()
    for start in sorted(imports):
        if start in seen:
            continue
        circle = _way_back(start, imports)
        if circle:
            circles.append(circle)
            seen.update(circle)
    return circles


def _way_back(start: str, imports: Mapping[str, set[str]]) -> list[str] | None:
    """Return the shortest way from a module to itself."""
    ways = deque([[start]])
    reached: set[str] = set()
    while ways:
        way = ways.popleft()
        for target in sorted(imports.get(way[-1], ())):
            if target == start:
                return [*way, start]
            if target not in reached:
                reached.add(target)
                ways.append([*way, target])
    return None


# The picture. Lengths are pixels at the width of the documentation's text column.

_WIDTH, _MARGIN = 736, 12
_LANE, _LANES_LEFT = 13, 14
_BESIDE_WIDTH, _BESIDE_GAP = 148, 36
_PADDING, _TITLE_WIDTH = 14, 106
_LINE, _HEAD, _FOOT = 18, 22, 12
_BOX_GAP, _FLOOR_GAP = 8, 22
_CHARACTER, _LETTER = 7.25, 6.3
_CURVE = 8

_PAPER, _FRAME = "#ffffff", "#d5dbe1"
_INK, _MUTED, _ARROW = "#1f2a35", "#566472", "#3a6286"
_BOX_FILL, _BOX_EDGE = "#f3f6f9", "#c5d0da"
_BESIDE_FILL, _BESIDE_EDGE = "#eef6f0", "#a8cbb4"
_SANS = "system-ui, 'Segoe UI', Roboto, 'Liberation Sans', Arial, sans-serif"
_NOTES = (
    "An arrow points from a package to a package that it imports. Arrows to the same box share a line.",
    f"Dashed: the calls go to AWS or to {BESIDE.title}. A title without a slash stands for modules of the top level.",
)
_MONO = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', 'Liberation Mono', monospace"


@dataclass(frozen=True)
class _Place:
    """Where a box is, and what stands in it."""

    box: Box
    modules: list[str]
    left: int
    top: int
    right: int
    columns: list[int]

    @property
    def bottom(self) -> int:
        lines = -(-len(self.modules) // len(self.columns))
        return self.top + _HEAD + _LINE * lines + _FOOT

    @property
    def way_in(self) -> int:
        return self.top + 17

    @property
    def way_out(self) -> int:
        return self.bottom - 15


def draw(code: Code, floors: Sequence[Sequence[Box]] = FLOORS) -> str:
    """Return the picture as SVG.

    :param code: the imports.
    :param floors: the floors from top to bottom.
    """
    table = _Table(floors)
    arrows = _arrows_between_boxes(code, table)
    boxes = [*(box for floor in floors for box in floor), OUTSIDE]
    targets = [box.name for box in boxes if any(target == box.name for _, target in arrows)]
    left = _MARGIN + _LANES_LEFT + _LANE * len(targets) + 12
    lanes = {name: left - 26 - _LANE * number for number, name in enumerate(targets)}

    # The rows beside which BESIDE stands are narrower: from the first row that it imports from.
    neighbours = {target for source, target in arrows if source == BESIDE.name}
    modules = {box.name: sorted(m for m in code.imports if table.box_of(m) == box) for box in table.boxes}
    top, right = _MARGIN + 16, _WIDTH - _MARGIN - 14
    places: dict[str, _Place] = {}
    beside_top = None
    for floor in [*floors, (OUTSIDE,)]:
        if beside_top is None and (floor == (OUTSIDE,) or any(box.name in neighbours for box in floor)):
            beside_top = top
            right -= _BESIDE_WIDTH + _BESIDE_GAP
        for box in floor:
            names = [*box.modules] if box == OUTSIDE else _names_in(box, modules[box.name])
            columns = _columns(names, right - left - 2 * _PADDING - _TITLE_WIDTH)
            places[box.name] = _Place(box, names, left, top, right, columns)
            top = places[box.name].bottom + _BOX_GAP
        top += _FLOOR_GAP - _BOX_GAP
    floors_bottom = top - _FLOOR_GAP
    beside_left, beside_names = right + _BESIDE_GAP, _names_in(BESIDE, modules[BESIDE.name])
    assert beside_top is not None
    beside = _side(beside_names, beside_left, beside_top, floors_bottom)
    lowest = places[OUTSIDE.name]
    places[OUTSIDE.name] = replace(lowest, top=lowest.top + beside.bottom - floors_bottom)
    height = beside.bottom + 62

    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'font-family="{_SANS}" font-size="12" fill="{_INK}">',
        f'<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto" '
        f'markerUnits="userSpaceOnUse"><path d="M0 0.5L7.5 4L0 7.5z" fill="{_ARROW}"/></marker></defs>',
        f'<rect x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1}" rx="8" fill="{_PAPER}" stroke="{_FRAME}"/>',
    ]
    for place in places.values():
        drawn += _row(place)
    drawn += beside.drawn
    for source, target in arrows:
        end = places[target]
        if source == BESIDE.name:
            way = f"M{beside_left} {end.way_in + 0.5}H{end.right + 2}"
        else:
            start, x, y = places[source], lanes[target] + 0.5, end.way_in + 0.5
            way = (
                f"M{start.left} {start.way_out + 0.5}H{x + _CURVE}q{-_CURVE} 0 {-_CURVE} {_CURVE}"
                f"V{y - _CURVE}q0 {_CURVE} {_CURVE} {_CURVE}H{end.left - 1}"
            )
        drawn.append(_arrow(way, f"{source} imports {target}"))
    wire = places[OUTSIDE.name]
    middle = (wire.top + wire.bottom) // 2 + 0.5
    drawn.append(_arrow(f"M{wire.right} {middle}H{beside_left - 1}", f"or {BESIDE.name}", dashed=True))
    for number, note in enumerate(reversed(_NOTES)):
        drawn.append(_text(left, height - 19 - 16 * number, note, size=11, colour=_MUTED))
    return "\n".join([*drawn, "</svg>", ""])


def _arrows_between_boxes(code: Code, table: _Table) -> list[tuple[str, str]]:
    arrows = set()
    for source, targets in code.imports.items():
        start = table.box_of(source)
        for end in (table.box_of(target) for target in targets):
            if start and end and start != end:
                arrows.add((start.name, end.name))
        # What stands beside the floors does not call AWS: it answers.
        if start and start != BESIDE and source in code.callers:
            arrows.add((start.name, OUTSIDE.name))
    return sorted(arrows)


def _names_in(box: Box, modules: Sequence[str]) -> list[str]:
    names = [module if box.modules else module.partition(".")[2] for module in modules]
    return [name for name in names if name not in ("", "__init__")]


def _columns(names: Sequence[str], width: int) -> list[int]:
    """Return where each column of names starts: one line when the names fit into it, else equal columns."""
    widths = [round((len(name) + 2) * _CHARACTER) for name in names]
    if sum(widths) - 2 * _CHARACTER <= width:
        return [sum(widths[:number]) for number in range(max(1, len(names)))]
    step = max(widths)
    _must_fit(max(names, key=len), _CHARACTER, width)
    return [step * number for number in range(int((width + 2 * _CHARACTER) // step))]


def _must_fit(text: str, letter: float, width: int) -> None:
    if len(text) * letter > width:
        raise SystemExit(f"{text!r} is too long for the picture: {int(width / letter)} characters fit")


def _row(place: _Place) -> list[str]:
    outside = place.box == OUTSIDE
    text = place.left + _PADDING + _TITLE_WIDTH
    _must_fit(place.box.purpose, _LETTER, place.right - _PADDING - text)
    drawn = [
        _rect(place.left, place.top, place.right, place.bottom, _PAPER if outside else _BOX_FILL, _BOX_EDGE, outside),
        _text(place.left + _PADDING, place.top + 21, OUTSIDE.name if outside else place.box.title, size=13, bold=True),
        _text(text, place.top + 21, place.box.purpose, colour=_MUTED),
    ]
    for number, name in enumerate(place.modules):
        line, column = divmod(number, len(place.columns))
        y = place.top + _HEAD + _LINE * (line + 1)
        drawn.append(_text(text + place.columns[column], y, name, mono=True))
    return drawn


@dataclass(frozen=True)
class _Side:
    drawn: list[str]
    bottom: int


def _side(names: Sequence[str], left: int, top: int, bottom: int) -> _Side:
    """Draw what stands beside the floors, at least down to their bottom."""
    room = _BESIDE_WIDTH - 2 * _PADDING
    y = top + 21
    texts = [_text(left + _PADDING, y, BESIDE.title, size=13, bold=True)]
    for line in textwrap.wrap(BESIDE.purpose, int(room / _LETTER)):
        y += _LINE
        texts.append(_text(left + _PADDING, y, line, colour=_MUTED))
    y += 8
    for name in names:
        _must_fit(name, _CHARACTER, room)
        y += _LINE
        texts.append(_text(left + _PADDING, y, name, mono=True))
    bottom = max(bottom, y + _FOOT)
    return _Side([_rect(left, top, left + _BESIDE_WIDTH, bottom, _BESIDE_FILL, _BESIDE_EDGE), *texts], bottom)


def _rect(left: int, top: int, right: int, bottom: int, fill: str, edge: str, dashed: bool = False) -> str:
    dashes = ' stroke-dasharray="4 3"' if dashed else ""
    return (
        f'<rect x="{left + 0.5}" y="{top + 0.5}" width="{right - left - 1}" height="{bottom - top - 1}" rx="5" '
        f'fill="{fill}" stroke="{edge}"{dashes}/>'
    )


def _text(
    x: int, y: int, text: str, *, size: int = 12, colour: str = _INK, bold: bool = False, mono: bool = False
) -> str:
    style = f' font-size="{size}"' if size != 12 else ""
    style += f' fill="{colour}"' if colour != _INK else ""
    style += ' font-weight="600"' if bold else ""
    style += f' font-family="{_MONO}"' if mono else ""
    return f'<text x="{x}" y="{y}"{style}>{escape(text, quote=False)}</text>'


def _arrow(way: str, title: str, *, dashed: bool = False) -> str:
    dashes = ' stroke-dasharray="4 3"' if dashed else ""
    return (
        f'<path d="{way}" fill="none" stroke="{_ARROW}" stroke-width="1"{dashes} marker-end="url(#head)">'
        f"<title>{escape(title, quote=False)}</title></path>"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Check the imports, then draw the picture."""
    parser = argparse.ArgumentParser(description="Check the package's imports and draw docs/_static/architecture.svg.")
    parser.add_argument("--package", type=Path, default=PACKAGE, help="folder of the package (default: this one)")
    parser.add_argument("--output", type=Path, default=PICTURE, help="the SVG to write (default: the documentation's)")
    arguments = parser.parse_args(argv)
    code = read_code(arguments.package)
    problems = find_problems(code)
    if problems:
        sys.stderr.write("".join(f"{problem}\n" for problem in problems))
        return 1
    arguments.output.write_text(draw(code))
    return 0


if __name__ == "__main__":
    sys.exit(main())
