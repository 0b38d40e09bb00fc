"""A chart as SVG: what was measured beside its limit, and what a trigger costs as there are more of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH = 900
OURS, THEIRS, BROKEN, INK, FAINT = "#2a7f62", "#d08a1d", "#c0392b", "#222222", "#cccccc"
_LEFT, _RIGHT, _ROW, _TOP = 470, 860, 20, 124
_SHARES = (0.01, 100.0)
_PANEL_WIDTH, _PANEL_HEIGHT = 340, 200
_LINE = 17


@dataclass(frozen=True, kw_only=True)
class Share:
    """What was measured, as a share of its limit.

    :param name: what was measured.
    :param ours: its share.
    :param holds: whether it keeps the limit.
    :param theirs: the share of the usual way to do the same, if it was measured.
    """

    name: str
    ours: float
    holds: bool = True
    theirs: float | None = None


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Lines in a plane with logarithmic axes.

    :param title: what they show.
    :param note: what it means, in lines.
    :param axis: what the horizontal axis counts.
    :param ours: the points of our line.
    :param theirs: the points of the usual way.
    """

    title: str
    note: Sequence[str] = ()
    axis: str = ""
    ours: Sequence[tuple[float, float]]
    theirs: Sequence[tuple[float, float]]


def draw(title: str, lead: Sequence[str], shares: Sequence[Share], panels: Sequence[Panel], *, peer: str) -> str:
    """Draw shares below each other and, below them, panels side by side.

    :param title: the title.
    :param lead: what the chart means, in at most three lines.
    :param shares: what to draw above.
    :param panels: at most two.
    :param peer: what the lines that stand beside ours are called.
    """
    bottom = _TOP + _ROW * len(shares)
    below = bottom + 100 + _LINE * max((len(panel.note) for panel in panels), default=0)
    height = below + _PANEL_HEIGHT + 60 if panels else bottom + 40
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="sans-serif" font-size="11" fill="{INK}" role="img" aria-label="{escape(title)}">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        _text(20, 28, title, size=16),
        *(_text(20, 50 + _LINE * number, line, size=12) for number, line in enumerate(lead)),
        *_legend(20, _TOP - 20, {"this package": OURS, "the usual way": THEIRS, "limit exceeded": BROKEN}),
        *_shares(shares, bottom),
    ]
    for number, panel in enumerate(panels):
        drawn += _panel(60 + number * (_PANEL_WIDTH + 90), below, panel, peer)
    return "\n".join([*drawn, "</svg>", ""])


def _shares(shares: Sequence[Share], bottom: float) -> list[str]:
    x_of = _Axis(_SHARES, _LEFT, _RIGHT)
    drawn = []
    for value in _powers(_SHARES):
        drawn.append(_line(x_of(value), _TOP - 8, x_of(value), bottom, INK if value == 1 else FAINT))
        label = "limit" if value == 1 else f"{value:g} x limit"
        drawn.append(_text(x_of(value), bottom + 16, label, anchor="middle"))
    for number, share in enumerate(shares):
        y = _TOP + _ROW * number + 6
        drawn.append(_text(_LEFT - 12, y + 4, share.name, anchor="end"))
        if share.theirs is not None:
            drawn.append(_dot(x_of(_within(share.theirs)), y, THEIRS))
        drawn.append(_dot(x_of(_within(share.ours)), y, OURS if share.holds else BROKEN))
    return drawn


def _within(share: float) -> float:
    return min(max(share, _SHARES[0]), _SHARES[1])


def _panel(left: float, top: float, panel: Panel, peer: str) -> list[str]:
    points = [*panel.ours, *panel.theirs]
    right, bottom = left + _PANEL_WIDTH, top + _PANEL_HEIGHT
    x_of = _Axis([x for x, _ in points], left, right)
    y_of = _Axis([y for _, y in points], bottom, top)
    notes = [*panel.note, ""]
    drawn = [_text(left, top - 20 - _LINE * len(notes), panel.title, size=13)]
    drawn += [_text(left, top - 2 - _LINE * (len(notes) - n), line) for n, line in enumerate(panel.note)]
    drawn += _legend(left, top - 12, {"this package": OURS, peer: THEIRS})
    drawn.append(_text((left + right) / 2, bottom + 34, panel.axis, anchor="middle"))
    for value in _powers([x for x, _ in points]):
        drawn.append(_line(x_of(value), top, x_of(value), bottom, FAINT))
        drawn.append(_text(x_of(value), bottom + 16, f"{value:,g}", anchor="middle"))
    for value in _powers([y for _, y in points]):
        drawn.append(_line(left, y_of(value), right, y_of(value), FAINT))
        drawn.append(_text(left - 6, y_of(value) + 4, f"{value:,g}", anchor="end"))
    for line, colour in ((panel.theirs, THEIRS), (panel.ours, OURS)):
        places = [(x_of(x), y_of(y)) for x, y in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        drawn += [_dot(x, y, colour) for x, y in places]
    return drawn


class _Axis:
    """A logarithmic axis from one power of ten to another."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        powers = _powers(values)
        self._low, self._high = math.log10(powers[0]), math.log10(powers[-1])
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        share = (math.log10(value) - self._low) / (self._high - self._low)
        return self._start + share * (self._end - self._start)


def _powers(values: Sequence[float]) -> list[float]:
    """Give the powers of ten around the values, at least two."""
    low = math.floor(math.log10(min(values)))
    high = max(low + 1, math.ceil(math.log10(max(values))))
    return [10.0**power for power in range(low, high + 1)]


def _legend(x: float, y: float, colours: Mapping[str, str]) -> list[str]:
    drawn = []
    for name, colour in colours.items():
        drawn += [_dot(x + 4, y - 4, colour), _text(x + 14, y, name)]
        x += 34 + 6 * len(name)
    return drawn


def _dot(x: float, y: float, colour: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 11) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'
