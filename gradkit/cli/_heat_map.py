"""The heat map of a finding: which coordinates of the argument are wrong, and which way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np

from gradkit.cli._svg import TIMES, add, markup, picture
from gradkit.verify import Finding

_MOST_WIDE, _MOST_HIGH, _LARGEST_CELL = 400, 200, 26
_LEFT, _TOP, _LEGEND = 44, 10, 200


def heat_map(finding: Finding) -> str:
    """The picture, or an empty string where there is no more than one number.

    A cell is as opaque as the root of its error's share of the largest: errors of a hundredth of
    it can still be seen. What is not finite is crossed out.
    """
    evidence = finding.evidence
    rows = () if evidence is None else evidence.errors
    columns = max(map(len, rows), default=0)
    if evidence is None or len(rows) * columns < 2:
        return ""
    size = min(_LARGEST_CELL, _MOST_WIDE / columns, _MOST_HIGH / len(rows))
    numbers = [abs(e) for row in rows for e in row if math.isfinite(e)]
    largest = max(numbers, default=0.0)
    width, height = columns * size, len(rows) * size
    total = max(width, _LEGEND + 60) + _LEFT + 20
    svg = picture(total, height + _TOP + 74, f"Errors by coordinate of {finding.argument}")
    places = _Places(evidence.shape, len(rows), columns)
    for i, row in enumerate(rows):
        for j, error in enumerate(row):
            left, top = _LEFT + j * size, _TOP + i * size
            marked = places.is_exact and places.name(i, j) == _text(finding.index)
            _draw_cell(svg, error, largest, left, top, size, places.name(i, j), marked)
    frame: dict[str, Any] = {"x": _LEFT, "y": _TOP, "width": width, "height": height}
    add(svg, "rect", class_="frame", **frame)
    _draw_ends(svg, places, width, height)
    _draw_legend(svg, largest, height + _TOP + 34, any(_is_odd(e) for row in rows for e in row))
    return markup(svg)


class _Places:
    """Names the coordinates behind the cells of a picture."""

    def __init__(self, shape: Sequence[int], rows: int, columns: int):
        self._shape, self._columns = tuple(shape), columns
        self.rows, self.columns = rows, columns
        self.is_exact = math.prod(shape) == rows * columns

    def name(self, row: int, column: int) -> str:
        if not self.is_exact:
            return f"block {row}, {column}"
        index = np.unravel_index(row * self._columns + column, self._shape)
        return _text(tuple(map(int, index)))


def _text(index: Sequence[int] | None) -> str:
    return "" if index is None else str(list(index))


def _is_odd(error: float) -> bool:
    return not math.isfinite(error)


def _draw_cell(
    svg: ET.Element,
    error: float,
    largest: float,
    left: float,
    top: float,
    size: float,
    name: str,
    marked: bool,
) -> None:
    gap = 1.0 if size > 6 else 0.0
    box: dict[str, Any] = {
        "x": left + gap / 2,
        "y": top + gap / 2,
        "width": size - gap,
        "height": size - gap,
    }
    cell = add(svg, "g", class_="cell")
    add(cell, "title", f"{name}: {error:+.3g}")
    add(cell, "rect", class_="zero", **box)
    if _is_odd(error):
        right, bottom = left + size - gap, top + size - gap
        d = f"M{left + gap:.2f} {top + gap:.2f}L{right:.2f} {bottom:.2f}"
        d += f"M{right:.2f} {top + gap:.2f}L{left + gap:.2f} {bottom:.2f}"
        add(cell, "path", class_="odd", d=d)
    elif error and largest:
        sign = "above" if error > 0 else "below"
        add(cell, "rect", class_=sign, fill_opacity=math.sqrt(abs(error) / largest), **box)
    if marked:
        add(cell, "rect", class_="marked", **box)


def _draw_ends(svg: ET.Element, places: _Places, width: float, height: float) -> None:
    """The first and the last coordinate along both sides."""
    last_column, last_row = places.columns - 1, places.rows - 1
    below = height + _TOP + 14
    if places.is_exact:
        add(svg, "text", "0", class_="tick", x=_LEFT, y=below)
        if last_column:
            right = _LEFT + width
            add(svg, "text", f"{last_column}", class_="tick", x=right, y=below, text_anchor="end")
        if last_row:
            side: dict[str, Any] = {"x": _LEFT - 8, "text_anchor": "end"}
            add(svg, "text", "0", class_="tick", y=_TOP + 10, **side)
            add(svg, "text", f"{last_row}", class_="tick", y=_TOP + height, **side)
        return
    text = f"{places.rows} {TIMES} {places.columns} blocks"
    add(svg, "text", text, class_="tick", x=_LEFT, y=below)


def _draw_legend(svg: ET.Element, largest: float, top: float, odd: bool) -> None:
    """From the most negative error to the most positive, on the scale of the cells."""
    steps = 40
    step = _LEGEND / steps
    for i in range(steps):
        share = (2 * i + 1) / steps - 1  # of the way from the middle to either end
        box: dict[str, Any] = {"x": _LEFT + i * step, "y": top, "width": step + 0.2, "height": 10}
        add(svg, "rect", class_="zero", **box)
        sign = "above" if share > 0 else "below"
        add(svg, "rect", class_=sign, fill_opacity=abs(share), **box)
    ticks = {-1.0: "start", -0.5: "middle", 0.0: "middle", 0.5: "middle", 1.0: "end"}
    for share, anchor in ticks.items():
        at = _LEFT + (share + 1) / 2 * _LEGEND
        text = "0" if share == 0 else f"{math.copysign(share**2, share) * largest:+.2g}"
        add(svg, "text", text, class_="tick", x=at, y=top + 24, text_anchor=anchor)
    if odd:
        left = _LEFT + _LEGEND + 14
        add(svg, "path", class_="odd", d=f"M{left} {top}l10 10m0 -10l-10 10")
        add(svg, "text", "not finite", class_="tick", x=left + 16, y=top + 9)
