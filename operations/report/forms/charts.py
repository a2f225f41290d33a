"""Draw charts as inline SVG: lines over periods, bars, and triangles as shades. They need no network and no script."""

from __future__ import annotations

from html import escape
from math import floor, log10
from typing import TYPE_CHECKING, NamedTuple

from operations.report.forms.tables import rounded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Number = int | float

WIDTH, HEIGHT = 820, 260
LEFT, RIGHT, TOP, BOTTOM = 76, 210, 14, 34
_COLOURS = ("#1f5f99", "#c26a1b", "#2a7f4f", "#8a3f8f", "#6b6b6b")
_DASHES = ("", "6 3", "2 3", "8 3 2 3", "1 4")
"""Series differ by dashes as well as by colour: a page may be printed in grey."""

_TICKS = 4
_LABELS_MAX = 7


class Series(NamedTuple):
    """Hold one line of a chart: its name, and a value a place; None leaves a gap."""

    name: str
    values: Sequence[Number | None]


def lines(title: str, places: Sequence[str], series: Sequence[Series]) -> str:
    """Return a chart with a line for each series over the same places."""
    known = [value for each in series for value in each.values if value is not None]
    if not known or not places:
        return ""
    low, high = min(0, *known), max(0, *known)
    step = _step((high - low) or 1)
    low, high = floor(low / step) * step, -floor(-high / step) * step
    across = (WIDTH - LEFT - RIGHT) / max(1, len(places) - 1)
    up = (HEIGHT - TOP - BOTTOM) / ((high - low) or 1)

    def y(value: Number) -> float:
        return HEIGHT - BOTTOM - (value - low) * up

    parts = _grid(low, high, step, y)
    parts += _places(places, across)
    for number, each in enumerate(series):
        parts.append(_line(number, each, across, y))
    return _svg(title, HEIGHT, parts)


def _grid(low: Number, high: Number, step: float, y: Callable[[Number], float]) -> list[str]:
    parts = []
    for number in range(round((high - low) / step) + 1):
        value = low + number * step
        at = y(value)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{_short(value)}</text>')
    return parts


def _places(places: Sequence[str], across: float) -> list[str]:
    """Name as many places under the chart as there is room for."""
    every = -(-len(places) // _LABELS_MAX)
    return [
        f'<text x="{LEFT + number * across:.1f}" y="{HEIGHT - 10}" text-anchor="middle">{escape(place)}</text>'
        for number, place in enumerate(places)
        if number % every == 0
    ]


def _line(number: int, series: Series, across: float, y: Callable[[Number], float]) -> str:
    colour, dash = _COLOURS[number % len(_COLOURS)], _DASHES[number % len(_DASHES)]
    points: list[str] = []
    is_begun = False
    for place, value in enumerate(series.values):
        if value is not None:
            points.append(f"{'L' if is_begun else 'M'}{LEFT + place * across:.1f} {y(value):.1f}")
        is_begun = value is not None
    mark = TOP + 10 + number * 18
    name = escape(series.name.replace("_", " ").replace(".", " · "))
    return (
        f'<path d="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>'
        f'<line x1="{WIDTH - RIGHT + 10}" x2="{WIDTH - RIGHT + 34}" y1="{mark}" y2="{mark}" stroke="{colour}"'
        f' stroke-width="2" stroke-dasharray="{dash}"/><text x="{WIDTH - RIGHT + 40}" y="{mark + 4}">{name}</text>'
    )


def bars(title: str, values: Sequence[tuple[str, Number]]) -> str:
    """Return horizontal bars, the longest as wide as the chart; what is below 0 has another colour."""
    if not values:
        return ""
    longest = max(abs(value) for _, value in values) or 1
    parts = []
    for number, (name, value) in enumerate(values):
        at, wide = number * 24, abs(value) * (WIDTH - 320) / longest
        parts.append(
            f'<text x="200" y="{at + 16}" text-anchor="end">{escape(name.replace("_", " "))}</text>'
            f'<rect x="208" y="{at + 4}" width="{wide:.1f}" height="16" fill="{_COLOURS[1 if value < 0 else 0]}"/>'
            f'<text x="{wide + 214:.1f}" y="{at + 16}">{_grouped(value)}</text>'
        )
    return _svg(title, len(values) * 24 + 6, parts)


def waterfall(title: str, opening: Number, moves: Sequence[tuple[str, Number]], closing: Number) -> str:
    """Return bars for an amount, for each move where it happens, and for the amount that results."""
    steps: list[tuple[str, Number, Number]] = [("opening", 0, opening)]
    level = opening
    for name, move in moves:
        if move:
            steps.append((name, level, level + move))
        level += move
    steps.append(("closing", 0, closing))

    low, high = min(0, *(min(a, b) for _, a, b in steps)), max(1, *(max(a, b) for _, a, b in steps))
    scale = (WIDTH - 320) / (high - low)
    parts = []
    for number, (name, begin, end) in enumerate(steps):
        at, is_sum = number * 24, name in {"opening", "closing"}
        colour = _COLOURS[4] if is_sum else _COLOURS[2 if end >= begin else 1]
        left, wide = 208 + (min(begin, end) - low) * scale, max(1.0, abs(end - begin) * scale)
        value = _grouped(end) if is_sum else f"{end - begin:+,}"
        parts.append(
            f'<text x="200" y="{at + 16}" text-anchor="end">{escape(name.replace("_", " "))}</text>'
            f'<rect x="{left:.1f}" y="{at + 4}" width="{wide:.1f}" height="16" fill="{colour}"/>'
            f'<text x="{left + wide + 6:.1f}" y="{at + 16}">{value}</text>'
        )
    return _svg(title, len(steps) * 24 + 6, parts)


def _svg(title: str, height: int, parts: Sequence[str]) -> str:
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><svg role="img" aria-label="{escape(title)}"'
        f' viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">{"".join(parts)}</svg></figure>'
    )


def _step(length: float) -> float:
    """Return a round distance between two lines of the grid."""
    rough = length / _TICKS
    power = 10 ** floor(log10(rough))
    return next(float(power * factor) for factor in (1, 2, 5, 10) if power * factor >= rough)


def _short(value: Number) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"


def _grouped(value: Number) -> str:
    return rounded(value) if isinstance(value, float) else f"{value:,}"
