"""The error-versus-step curve of a finding: whose side do difference quotients take?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.etree import ElementTree as ET

from gradkit.cli._svg import MINUS, LogScale, add, markup, picture, power_of_ten
from gradkit.verify import Finding

_WIDTH, _HEIGHT = 440, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 426, 40, 240
_TITLE = "Distance of the difference quotient from the rule and from the expected value, by step"

Points = list[tuple[float, float]]


def curve(finding: Finding) -> str:
    """The picture, or an empty string where there is nothing to draw.

    Both axes are logarithmic. Towards the right one of the two lines falls: the number that the
    quotients approach is the derivative. At small steps rounding lifts it again.
    """
    evidence = finding.evidence
    if evidence is None or finding.got is None or finding.expected is None:
        return ""
    pairs = sorted(zip(evidence.steps, evidence.slopes, strict=False))
    series = {
        "got": _distances(pairs, finding.got),
        "expected": _distances(pairs, finding.expected),
    }
    sizes = [d for points in series.values() for _, d in points if d > 0]
    if not sizes or len(series["got"]) < 2:
        return ""
    floor = min(sizes) / 10
    bar = finding.error_bar
    has_bar = bar is not None and math.isfinite(bar) and bar > 0
    extent = [*sizes, bar] if has_bar and bar is not None else sizes
    if any(d == 0 for points in series.values() for _, d in points):
        extent = [*extent, floor]
    x = LogScale([h for h, _ in series["got"]], _LEFT, _RIGHT)
    y = LogScale(extent, _BOTTOM, _TOP)
    svg = picture(_WIDTH, _HEIGHT, _TITLE)
    _draw_axes(svg, x, y)
    if has_bar and bar is not None:
        at = y(bar)
        add(svg, "line", class_="bar", x1=_LEFT, x2=_RIGHT, y1=at, y2=at)
        add(svg, "text", "error bar", class_="small", x=_RIGHT, y=at - 4, text_anchor="end")
    for name, points in series.items():
        _draw_series(svg, name, points, x, y, floor)
    _draw_legend(svg)
    return markup(svg)


def _distances(pairs: Sequence[tuple[float, float]], value: float) -> Points:
    return [(h, abs(s - value)) for h, s in pairs if h > 0 and math.isfinite(abs(s - value))]


def _draw_axes(svg: ET.Element, x: LogScale, y: LogScale) -> None:
    for exponent in x.ticks(8):
        at = x(10.0**exponent)
        add(svg, "line", class_="grid", x1=at, x2=at, y1=_TOP, y2=_BOTTOM)
        text = power_of_ten(exponent)
        add(svg, "text", text, class_="tick", x=at, y=_BOTTOM + 16, text_anchor="middle")
    for exponent in y.ticks(7):
        at = y(10.0**exponent)
        add(svg, "line", class_="grid", x1=_LEFT, x2=_RIGHT, y1=at, y2=at)
        text = power_of_ten(exponent)
        add(svg, "text", text, class_="tick", x=_LEFT - 8, y=at + 4, text_anchor="end")
    add(svg, "path", class_="axis", d=f"M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}")
    middle = (_LEFT + _RIGHT) / 2
    add(svg, "text", "step h", class_="label", x=middle, y=_BOTTOM + 36, text_anchor="middle")
    middle = (_TOP + _BOTTOM) / 2
    turned = f"translate(14 {middle:g}) rotate(-90)"
    add(svg, "text", "distance", class_="label", transform=turned, text_anchor="middle")


def _draw_series(
    svg: ET.Element, name: str, points: Points, x: LogScale, y: LogScale, floor: float
) -> None:
    places = [(x(h), y(d or floor), d) for h, d in points]
    d = "M" + "L".join(f"{left:.1f} {top:.1f}" for left, top, _ in places)
    add(svg, "path", class_=f"line {name}", d=d)
    for (left, top, size), (h, _) in zip(places, points, strict=True):
        dot = _draw_dot(svg, name, left, top, hollow=size == 0)
        add(dot, "title", f"h = {h:.3g}: distance {size:.3g}")


def _draw_dot(svg: ET.Element, name: str, x: float, y: float, *, hollow: bool) -> ET.Element:
    """A round dot for the rule, a square one for the expected value: not by colour alone."""
    kind = f"dot {name} hollow" if hollow else f"dot {name}"
    if name == "got":
        return add(svg, "circle", class_=kind, cx=x, cy=y, r=3.2)
    return add(svg, "rect", class_=kind, x=x - 2.8, y=y - 2.8, width=5.6, height=5.6)


def _draw_legend(svg: ET.Element) -> None:
    texts = {"got": f"|slope(h) {MINUS} got|", "expected": f"|slope(h) {MINUS} expected|"}
    for left, (name, text) in zip((_LEFT, _LEFT + 150), texts.items(), strict=True):
        add(svg, "path", class_=f"line {name}", d=f"M{left} 18h26")
        _draw_dot(svg, name, left + 13, 18, hollow=False)
        add(svg, "text", text, class_="small", x=left + 33, y=22)
