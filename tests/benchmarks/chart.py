"""A chart as SVG: what was measured beside its bar, and what a trigger costs as there are more of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH = 900
OURS, THEIRS, BROKEN, INK, FAINT = "#2a7f62", "#d08a1d", "#c0392b", "#222222", "#cccccc"
_LEFT, _RIGHT, _ROW, _TOP = 470, 860, 20, 80
_SHARES = (0.01, 100.0)
_PANEL_WIDTH, _PANEL_HEIGHT = 340, 200


@dataclass(frozen=True, kw_only=True)
class Share:
    """What was measured, as a share of its bar.

    :param name: what was measured.
    :param ours: its share.
    :param holds: whether the bar holds.
    :param theirs: the share of what stands beside it, if there is something.
    """

    name: str
    ours: float
    holds: bool = True
    theirs: float | None = None


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Lines in a plane with logarithmic axes.

    :param title: what they show.
    :param ours: the points of our line.
    :param theirs: the points of what stands beside it.
    """

    title: str
    ours: Sequence[tuple[float, float]]
    theirs: Sequence[tuple[float, float]]


def draw(title: str, shares: Sequence[Share], panels: Sequence[Panel], *, peer: str) -> str:
    """Draw shares below each other and, below them, panels side by side.

    :param title: the title.
    :param shares: what to draw above.
    :param panels: at most two.
    :param peer: what the lines that stand beside ours are called.
    """
    bottom = _TOP + _ROW * len(shares)
    below = bottom + 90
    height = below + _PANEL_HEIGHT + 50 if panels else bottom + 40
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="sans-serif" font-size="11" fill="{INK}">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        _text(20, 28, title, size=16),
        *_legend(20, 50, {"the package": OURS, "what stands beside it": THEIRS, "bar does not hold": BROKEN}),
        *_shares(shares, bottom),
    ]
    low, high = _SHARES
    drawn.append(_text(_RIGHT, 50, f"below {low:g} x and above {high:g} x: at the edge", anchor="end"))
    for number, panel in enumerate(panels):
        drawn += _panel(60 + number * (_PANEL_WIDTH + 90), below, panel, peer)
    return "\n".join([*drawn, "</svg>", ""])


def _shares(shares: Sequence[Share], bottom: float) -> list[str]:
    x_of = _Axis(_SHARES, _LEFT, _RIGHT)
    drawn = []
    for value in _powers(_SHARES):
        drawn.append(_line(x_of(value), _TOP - 8, x_of(value), bottom, INK if value == 1 else FAINT))
        label = "the bar" if value == 1 else f"{value:g} x"
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
    drawn = [_text(left, top - 32, panel.title, size=13)]
    drawn += _legend(left, top - 12, {"the package": OURS, peer: THEIRS})
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
