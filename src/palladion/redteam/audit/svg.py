"""Plots as SVG that stands in a page: lines with intervals, no scripts, every word escaped."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 380
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 14, 48
LEGEND_HEIGHT = 20
# told apart by hue, by lightness and by dashes: also in print, and by who sees no red
_STYLES = (("#1f4e8c", ""), ("#c2410c", "7 4"), ("#0f766e", "2 3"), ("#7e22ce", "10 3 2 3"), ("#52525b", "1 5"))
POINTS_MAX = 500


@dataclass(frozen=True)
class Point:
    """Where a line goes through; with an interval, a bar stands there."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Line:
    """Points in order, and what they are."""

    name: str
    points: tuple[Point, ...]


def plot(lines: Sequence[Line], *, title: str, x: str, y: str, log_y: bool = False) -> str:
    """An SVG element: x on a logarithmic axis, y from 0 to 1, or logarithmic down to 1e-4."""
    drawn = [line for line in lines if line.points]
    xs = [point.x for line in drawn for point in line.points if point.x > 0]
    if not xs:
        return ""
    across = _Axis(
        math.floor(math.log10(min(xs))), max(math.ceil(math.log10(max(xs))), 1 + math.floor(math.log10(min(xs))))
    )
    height = HEIGHT + LEGEND_HEIGHT * len(drawn)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}" xmlns="http://www.w3.org/2000/svg">',
        f"<title>{escape(title)}</title>",
        *_axes(across, x, y, log_y=log_y),
    ]
    for index, line in enumerate(drawn):
        colour, dashes = _STYLES[index % len(_STYLES)]
        parts += _drawn(line, across, colour, dashes, log_y=log_y)
        parts += _legend(line.name, index, colour, dashes)
    return "".join([*parts, "</svg>"])


@dataclass(frozen=True)
class _Axis:
    """Decades, from `first` to `last`."""

    first: int
    last: int

    def place(self, value: float) -> float:
        share = (math.log10(max(value, 10.0**self.first)) - self.first) / (self.last - self.first)
        return LEFT + min(share, 1.0) * (WIDTH - LEFT - RIGHT)


_RATES = _Axis(-4, 0)


def _height(value: float, *, log_y: bool) -> float:
    inner = HEIGHT - TOP - BOTTOM
    share = (_RATES.place(value) - LEFT) / (WIDTH - LEFT - RIGHT) if log_y else min(max(value, 0.0), 1.0)
    return TOP + (1 - share) * inner


def _axes(across: _Axis, x: str, y: str, *, log_y: bool) -> list[str]:
    floor = HEIGHT - BOTTOM
    parts = []
    for decade in range(across.first, across.last + 1):
        place = across.place(10.0**decade)
        parts.append(f'<path class="grid" d="M{place:.1f} {TOP}V{floor}"/>')
        parts.append(f'<text x="{place:.1f}" y="{floor + 18}" text-anchor="middle">{10.0**decade:g}</text>')
    for value in (1e-4, 1e-3, 1e-2, 0.1, 1.0) if log_y else (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        place = _height(value, log_y=log_y)
        parts.append(f'<path class="grid" d="M{LEFT} {place:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{place + 4:.1f}" text-anchor="end">{value:g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle:.0f}" y="{floor + 38}" text-anchor="middle">{escape(x)}</text>')
    turned = f"rotate(-90 14 {(TOP + floor) / 2:.0f})"
    parts.append(
        f'<text x="14" y="{(TOP + floor) / 2:.0f}" text-anchor="middle" transform="{turned}">{escape(y)}</text>'
    )
    return parts


def _drawn(line: Line, across: _Axis, colour: str, dashes: str, *, log_y: bool) -> list[str]:
    points = [point for point in line.points if point.x > 0][:POINTS_MAX]
    places = [(across.place(point.x), _height(point.y, log_y=log_y), point) for point in points]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y, _ in places)
    parts = [f'<path class="line" stroke="{colour}" stroke-dasharray="{dashes}" d="M{path}"/>']
    for x, y, point in places:
        if point.low is None or point.high is None:
            continue
        low, high = _height(point.low, log_y=log_y), _height(point.high, log_y=log_y)
        ends = f"M{x - 5:.1f} {low:.1f}h10M{x - 5:.1f} {high:.1f}h10"
        parts.append(f'<path class="bar" stroke="{colour}" d="M{x:.1f} {low:.1f}V{high:.1f}{ends}"/>')
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>')
    return parts


def _legend(name: str, index: int, colour: str, dashes: str) -> list[str]:
    y = HEIGHT + LEGEND_HEIGHT * index + 8
    sample = f'<path class="line" stroke="{colour}" stroke-dasharray="{dashes}" d="M{LEFT} {y}h36"/>'
    return [sample, f'<text x="{LEFT + 46}" y="{y + 4}">{escape(name)}</text>']
