"""What both pictures of a report are drawn with: SVG elements, scales and the text of numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.etree import ElementTree as ET

MINUS, TIMES = "\u2212", "\u00d7"
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def picture(width: float, height: float, title: str) -> ET.Element:
    """An empty picture that scales with the page, with a title for those who cannot see it."""
    box = f"0 0 {width:g} {height:g}"
    svg = ET.Element("svg", {"viewBox": box, "role": "img", "style": f"max-width: {width:g}px"})
    ET.SubElement(svg, "title").text = title
    return svg


def add(parent: ET.Element, tag: str, text: str = "", **attributes: float | str) -> ET.Element:
    """Add an element; `_` in an attribute's name stands for `-`, one at its end for nothing."""
    written = {
        name.rstrip("_").replace("_", "-"): value if isinstance(value, str) else f"{value:.5g}"
        for name, value in attributes.items()
    }
    element = ET.SubElement(parent, tag, written)
    element.text = text or None
    return element


def markup(svg: ET.Element) -> str:
    """The picture as text to put into a page."""
    return ET.tostring(svg, encoding="unicode")


def power_of_ten(exponent: int) -> str:
    """`10⁻³`.

    Example:
        >>> power_of_ten(-12)
        '10⁻¹²'
    """
    return "10" + str(exponent).translate(_RAISED)


class LogScale:
    """Places numbers along an axis by their logarithms.

    Args:
        values: Positive numbers that have to fit.
        start: Where the lowest decade is drawn.
        end: Where the highest is.
    """

    def __init__(self, values: Sequence[float], start: float, end: float):
        logs = [math.log10(value) for value in values]
        self.low, self.high = math.floor(min(logs)), math.ceil(max(logs))
        if self.low == self.high:
            self.high += 1
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return self._start + share * (self._end - self._start)

    def ticks(self, most: int) -> list[int]:
        """The exponents to mark, no more than `most` of them."""
        step = math.ceil((self.high - self.low + 1) / most)
        return list(range(self.low, self.high + 1, step))
