"""Two kinds of picture, as text: horizontal bars, and lines over axes."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_WIDTH = 800
_ROW = 30
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 236, 56, 52
_PLOT_HEIGHT = 260
_LABEL_GAP = 16
_BAR_LEFT, _BAR_ROOM = 240, 400
_TICKS = 5
_LETTER = 6.0

_FORM = """
text { font: 13px system-ui, sans-serif }
.title { font-size: 15px; font-weight: 600 }
.axis { font-size: 12px }
.line { fill: none; stroke-width: 2.5; stroke-linejoin: round }
"""
_LIGHT = {
    "back": "#fcfcfb", "ink": "#1b1b19", "faint": "#5f5e5a", "grid": "#e3e2dd",
    "ours": "#2468c8", "ours2": "#12876b", "other": "#b8641a", "limit": "#6f6e69",
}  # fmt: skip
_DARK = {
    "back": "#181817", "ink": "#f3f2ee", "faint": "#b0afa8", "grid": "#373733",
    "ours": "#6aa5f5", "ours2": "#43bf9b", "other": "#e5985a", "limit": "#a3a29b",
}  # fmt: skip
_MARKS = ("ours", "ours2", "other", "limit")


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar with its name to the left and its value, in words, at its end."""

    label: str
    value: float
    shown: str
    style: str


@dataclass(frozen=True, slots=True)
class Line:
    """A line through points, with its name at its end."""

    label: str
    points: Sequence[tuple[float, float]]
    style: str


def bars(title: str, axis: str, rows: Sequence[Bar]) -> str:
    """Horizontal bars from zero; empty without rows."""
    if not rows:
        return ""
    top = _nice(max(row.value for row in rows))
    height = _TOP + len(rows) * _ROW + _BOTTOM
    foot = _TOP + len(rows) * _ROW
    parts = []
    for number in range(_TICKS + 1):
        value = top * number / _TICKS
        x = _BAR_LEFT + _BAR_ROOM * number / _TICKS
        parts.append(_rule(x, _TOP - 6, x, foot))
        parts.append(_text(x, foot + 18, _plain(value), "axis", "middle"))
    parts.append(_text(_BAR_LEFT + _BAR_ROOM / 2, foot + 38, axis, "axis", "middle"))
    for number, row in enumerate(rows):
        y = _TOP + number * _ROW
        width = max(1.0, _BAR_ROOM * row.value / top)
        parts.append(_text(_BAR_LEFT - 10, y + 16, row.label, "", "end"))
        parts.append(
            f'<rect class="bar {row.style}" x="{_BAR_LEFT}" y="{y + 3}" width="{width:.1f}" '
            f'height="{_ROW - 10}" rx="2"/>'
        )
        parts.append(_text(_BAR_LEFT + width + 8, y + 16, row.shown, "", "start"))
    return _picture(title, height, parts)


def lines(
    title: str,
    x_axis: str,
    y_axis: str,
    rows: Sequence[Line],
    *,
    x_log: bool = False,
    y_log: bool = False,
    x_label: Callable[[float], str] | None = None,
    with_values: bool = False,
) -> str:
    """Lines over two axes; the x axis has a mark at every point. Empty without lines."""
    if not rows:
        return ""
    xs = sorted({x for row in rows for x, _ in row.points})
    ys = [y for row in rows for _, y in row.points]
    right, foot = _WIDTH - _RIGHT, _TOP + _PLOT_HEIGHT
    across = _scale(xs[0], xs[-1], _LEFT + 14, right - 6, log=x_log)
    marks = _decades(min(ys), max(ys)) if y_log else _steps(_nice(max(ys)))
    up = _scale(marks[0], marks[-1], foot, _TOP, log=y_log)
    parts = []
    for mark in marks:
        parts.append(_rule(_LEFT, up(mark), right, up(mark)))
        parts.append(_text(_LEFT - 8, up(mark) + 4, _plain(mark), "axis", "end"))
    free = -math.inf
    for x in xs:
        label = x_label(x) if x_label else _plain(x)
        half = len(label) * _LETTER / 2
        if across(x) - half >= free:
            parts.append(_text(across(x), foot + 20, label, "axis", "middle"))
            free = across(x) + half
    parts.append(_text((_LEFT + right) / 2, foot + 42, x_axis, "axis", "middle"))
    parts.append(_text(8, _TOP - 14, y_axis, "axis", "start"))
    for row in rows:
        places = [(across(x), up(y)) for x, y in row.points]
        way = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline class="line {row.style}" points="{way}"/>')
        for (x, y), (_, value) in zip(places, row.points, strict=True):
            parts.append(
                f'<circle class="dot {row.style}" cx="{x:.1f}" cy="{y:.1f}" r="3.5">'
                f"<title>{escape(row.label)}: {_plain(value)}</title></circle>"
            )
    if with_values:
        parts += _value_labels(rows, across, up)
    parts += _end_labels(rows, across, up, right)
    return _picture(title, foot + _BOTTOM, parts)


def _value_labels(
    rows: Sequence[Line], across: Callable[[float], float], up: Callable[[float], float]
) -> list[str]:
    """Values above their points, but for the last of a line; moved down where they would touch."""
    points = sorted((x, up(y), y) for row in rows for x, y in row.points[:-1])
    parts = []
    column, lowest = math.nan, -math.inf
    for x, place, value in points:
        if x != column:
            column, lowest = x, -math.inf
        lowest = max(place - 9, lowest + _LABEL_GAP - 2)
        parts.append(_text(across(x), lowest, _plain(value), "axis", "middle"))
    return parts


def _end_labels(
    rows: Sequence[Line],
    across: Callable[[float], float],
    up: Callable[[float], float],
    right: float,
) -> list[str]:
    """Names and last values beside the ends of the lines, moved apart where they would touch."""
    parts = []
    lowest = -math.inf
    for row in sorted(rows, key=lambda row: up(row.points[-1][1])):
        x, value = row.points[-1]
        y = max(up(value) + 4, lowest + 2 * _LABEL_GAP)
        lowest = y
        at = max(across(x), right - 6) + 10
        parts.append(f'<circle class="dot {row.style}" cx="{at + 4}" cy="{y - 4:.1f}" r="4"/>')
        parts.append(_text(at + 14, y, row.label, "", "start"))
        parts.append(_text(at + 14, y + _LABEL_GAP - 2, _plain(value), "axis", "start"))
    return parts


def _picture(title: str, height: float, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" '
        f'width="{_WIDTH}" height="{height:.0f}" role="img" aria-label="{escape(title)}">\n'
        f'<style>{_style()}</style>\n<rect class="back" width="100%" height="100%" rx="6"/>\n'
        f"{_text(16, 26, title, 'title', 'start')}\n{body}\n</svg>\n"
    )


def _style() -> str:
    """Plain colours, not variables: there are viewers that know no variables."""
    dark = _colours(_DARK)
    return f"{_FORM}{_colours(_LIGHT)}@media (prefers-color-scheme: dark) {{\n{dark}}}\n"


def _colours(of: Mapping[str, str]) -> str:
    lines = [
        f"text {{ fill: {of['ink']} }}", f".axis {{ fill: {of['faint']} }}",
        f".back {{ fill: {of['back']} }}", f".grid {{ stroke: {of['grid']} }}",
        *(f".bar.{mark}, .dot.{mark} {{ fill: {of[mark]} }}" for mark in _MARKS),
        *(f".line.{mark} {{ stroke: {of[mark]} }}" for mark in _MARKS),
    ]  # fmt: skip
    return "".join(f"{line}\n" for line in lines)


def _text(x: float, y: float, text: str, style: str, anchor: str) -> str:
    named = f' class="{style}"' if style else ""
    return f'<text{named} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="grid" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _scale(
    low: float, high: float, start: float, end: float, *, log: bool
) -> Callable[[float], float]:
    """From values to places."""
    turn: Callable[[float], float] = math.log10 if log else float
    span = turn(high) - turn(low) or 1.0
    return lambda value: start + (end - start) * (turn(value) - turn(low)) / span


def _nice(value: float) -> float:
    """The next round number above, divisible by the number of ticks."""
    unit = 10 ** math.floor(math.log10(value)) if value > 0 else 1.0
    return next(unit * step for step in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if unit * step >= value)


def _steps(top: float) -> list[float]:
    return [top * number / _TICKS for number in range(_TICKS + 1)]


def _decades(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return [10.0**power for power in range(first, max(last, first + 1) + 1)]


def _plain(value: float) -> str:
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.2g}" if value < 1 else f"{value:.1f}"
