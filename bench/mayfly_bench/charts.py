# SPDX-License-Identifier: MIT OR Apache-2.0
"""The page's charts. Colours and fonts are the page's style sheet's (page.html), so they follow light and dark."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from . import svg
from .figures import AtLoad, load_name, number

_WIDTH, _HEIGHT = 720.0, 270.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 8.0, 22.0, 34.0

Loads = Sequence[AtLoad]


@dataclass(frozen=True)
class Part:
    """One part of a stacked bar."""

    words: str
    value: float
    class_: str


def compact(value: float) -> str:
    """A figure short enough to stand on a mark: 940, 8.2, 52k, 1.3M."""
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def columns(loads: Loads, key: str, unit: str) -> str:
    """One figure of all routes at every load, as groups of columns from zero."""
    top = _nice_top(max(entry[key] for at_load in loads for _, entry in at_load))
    slot = (_WIDTH - _LEFT - _RIGHT) / len(loads)
    width = min(38.0, slot * 0.76 / max(map(len, loads)))

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - value / top * (_HEIGHT - _TOP - _BOTTOM)

    marks = [_grid(y(top * step / 4), compact(top * step / 4)) for step in range(5)]
    for index, at_load in enumerate(loads):
        middle = _LEFT + slot * (index + 0.5)
        marks.append(svg.text(load_name(at_load[0][1]), middle, _HEIGHT - 12))
        for side, (name, entry) in enumerate(at_load):
            value, centre = entry[key], middle + (side - (len(at_load) - 1) / 2) * (width + 2)
            words = f"{name} {load_name(entry)}: {number(value)} {unit}"
            marks.append(
                svg.tag(
                    "rect",
                    svg.title(words),
                    x=centre - width / 2, y=y(value), width=width, height=y(0) - y(value), rx=2, class_=name,
                )
            )
            marks.append(svg.text(compact(value), centre, y(value) - 4, "value"))
    return svg.drawing(_WIDTH, _HEIGHT, f"{unit} of all routes at every load", *marks)


def latencies(loads: Loads) -> str:
    """The latency distribution at every load: from the median (dot) over p75 and p90 (ticks) to p99 (end), on a log
    axis.
    """
    values = [entry[key] for at_load in loads for _, entry in at_load for key in ("p50_us", "p99_us")]
    low, high = 10 ** math.floor(math.log10(max(min(values), 1))), max(values) * 1.3
    slot = (_WIDTH - _LEFT - _RIGHT) / len(loads)

    def y(value: float) -> float:
        share = math.log(max(value, low) / low) / math.log(high / low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    marks = [_grid(y(tick), f"{compact(tick)}") for tick in _log_ticks(low, high)]
    for index, at_load in enumerate(loads):
        middle = _LEFT + slot * (index + 0.5)
        marks.append(svg.text(load_name(at_load[0][1]), middle, _HEIGHT - 12))
        for side, (name, entry) in enumerate(at_load):
            marks.append(_range(name, entry, middle + (side - (len(at_load) - 1) / 2) * slot * 0.8 / len(at_load), y))
    return svg.drawing(_WIDTH, _HEIGHT, "latency of all routes at every load, microseconds", *marks)


def stacked(rows: Sequence[tuple[str, Sequence[Part]]], unit: str) -> str:
    """Horizontal bars made of parts, to one scale, each part with its figure."""
    left, row_height, total_width = 92.0, 44.0, 64.0
    longest = max(sum(part.value for part in parts) for _, parts in rows)
    scale = (_WIDTH - left - total_width) / longest
    marks = []
    for index, (name, parts) in enumerate(rows):
        top, x = index * row_height + 6, left
        marks.append(svg.text(name, left - 10, top + 20, "label", "end"))
        for part in parts:
            width = part.value * scale
            words = f"{part.words}: {number(part.value)} {unit}"
            marks.append(svg.tag("rect", svg.title(words), x=x, y=top, width=max(0.0, width - 1.5), height=30.0, class_=part.class_))
            if width > 34:
                marks.append(svg.text(compact(part.value), x + width / 2, top + 20, "inside"))
            x += width
        marks.append(svg.text(f"{compact(sum(part.value for part in parts))} {unit}", x + 8, top + 20, "value", "start"))
    return svg.drawing(_WIDTH, len(rows) * row_height, f"{unit} of {' and '.join(name for name, _ in rows)}", *marks)


def _range(route: str, entry: dict, x: float, y) -> str:
    """One distribution: a line with its marks, and the figures at both ends."""
    words = ", ".join(f"{name} {number(entry[f'{name}_us'])} µs" for name in ("p50", "p75", "p90", "p99"))
    low, high = y(entry["p50_us"]), y(entry["p99_us"])
    ticks = (
        svg.tag("line", x1=x - 5, x2=x + 5, y1=y(entry[key]), y2=y(entry[key]), class_=f"stroke {route}")
        for key in ("p75_us", "p90_us", "p99_us")
    )
    return svg.tag(
        "g",
        svg.title(f"{route} {load_name(entry)}: {words}"),
        svg.tag("line", x1=x, x2=x, y1=low, y2=high, class_=f"stroke {route}"),
        *ticks,
        svg.tag("circle", cx=x, cy=low, r=4.5, class_=route),
        svg.text(compact(entry["p50_us"]), x, low + 16, "value"),
        svg.text(compact(entry["p99_us"]), x, high - 6, "value"),
    )


def _grid(y: float, words: str) -> str:
    return svg.tag("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_="grid") + svg.text(words, _LEFT - 8, y + 4, "axis", "end")


def _nice_top(value: float) -> float:
    """The end of an axis: a round number at or above the largest figure."""
    if value <= 0:
        return 1.0
    power = 10 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10) if step * power >= value)


def _log_ticks(low: float, high: float) -> list[float]:
    """The powers of ten of an axis, with 2 and 5 between them while there is room."""
    powers = [low * 10**step for step in range(int(math.log10(high / low)) + 1)]
    steps = (1, 2, 5) if len(powers) <= 3 else (1,)
    return [tick for power in powers for step in steps if (tick := power * step) <= high]
