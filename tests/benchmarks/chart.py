"""A chart as SVG: how much of each bar is used up, and what a trigger costs as there are more of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH = 900
GOOD, BAD, OTHER, INK, FAINT = "#2a7f62", "#c0392b", "#d08a1d", "#222222", "#cccccc"
_TEXT, _ROW, _BAR_LEFT, _BAR_WIDTH = 11, 20, 520, 260
_MOST_SHARE = 1.3
_PANEL_WIDTH, _PANEL_HEIGHT = 340, 200


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A panel with logarithmic axes.

    :param title: what it shows.
    :param lines: points by name of the line.
    """

    title: str
    lines: Mapping[str, Sequence[tuple[float, float]]]


def draw(title: str, shares: Sequence[tuple[str, float]], panels: Sequence[Panel]) -> str:
    """Draw bars and, below them, panels side by side.

    :param title: the title.
    :param shares: what was measured, and how much of its bar is used up: above 1 it does not hold.
    :param panels: at most two.
    """
    top = 70
    below = top + _ROW * len(shares) + 60
    height = below + _PANEL_HEIGHT + 60 if panels else below - 30
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="sans-serif" font-size="{_TEXT}" fill="{INK}">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        _text(20, 28, title, size=16),
        _text(_BAR_LEFT, top - 22, "share of the bar used; left of the line it holds"),
    ]
    for number, (name, share) in enumerate(shares):
        drawn += _share(top + _ROW * number, name, share)
    at_bar = _BAR_LEFT + _BAR_WIDTH / _MOST_SHARE
    drawn.append(_line(at_bar, top - 12, at_bar, top + _ROW * len(shares), INK))
    for number, panel in enumerate(panels):
        drawn += _panel(60 + number * (_PANEL_WIDTH + 90), below, panel)
    return "\n".join([*drawn, "</svg>", ""])


def _share(y: float, name: str, share: float) -> list[str]:
    width = _BAR_WIDTH * min(max(share, 0.005), _MOST_SHARE) / _MOST_SHARE
    told = f"{share:.0%}" if share < 1e3 else "over"
    return [
        _text(_BAR_LEFT - 10, y + 10, name, anchor="end"),
        f'<rect x="{_BAR_LEFT}" y="{y}" width="{width:.1f}" height="{_ROW - 6}" fill="{GOOD if share <= 1 else BAD}"/>',
        _text(_BAR_LEFT + _BAR_WIDTH + 10, y + 10, told),
    ]


def _panel(left: float, top: float, panel: Panel) -> list[str]:
    points = [point for line in panel.lines.values() for point in line]
    x_of = _Axis([x for x, _ in points], left, left + _PANEL_WIDTH)
    y_of = _Axis([y for _, y in points], top + _PANEL_HEIGHT, top)
    drawn = [_text(left, top - 14, panel.title, size=13)]
    for value in _powers([x for x, _ in points]):
        drawn.append(_line(x_of(value), top, x_of(value), top + _PANEL_HEIGHT, FAINT))
        drawn.append(_text(x_of(value), top + _PANEL_HEIGHT + 16, f"{value:,g}", anchor="middle"))
    for value in _powers([y for _, y in points]):
        drawn.append(_line(left, y_of(value), left + _PANEL_WIDTH, y_of(value), FAINT))
        drawn.append(_text(left - 6, y_of(value) + 4, f"{value:,g}", anchor="end"))
    for (name, line), colour in zip(panel.lines.items(), (GOOD, OTHER, BAD), strict=False):
        path = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in line)
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        drawn += [f'<circle cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="3" fill="{colour}"/>' for x, y in line]
        x, y = line[-1]
        anchor = "end" if x_of(x) > left + _PANEL_WIDTH / 2 else "start"
        drawn.append(_text(x_of(x), y_of(y) - 8, name, anchor=anchor, colour=colour))
    return drawn


class _Axis:
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


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = _TEXT, colour: str = INK) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">{escape(text)}</text>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'
