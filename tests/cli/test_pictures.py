"""The pictures of a finding: well formed, and true to its numbers."""

import math
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from gradkit.cli._curve import curve
from gradkit.cli._heat_map import heat_map
from gradkit.cli._svg import LogScale
from gradkit.verify import Evidence
from tests.cli.outcomes import DOUBLED, INFINITE, STEPS, UNSURE


def classes(svg, name):
    return [e for e in ET.fromstring(svg).iter() if name in e.get("class", "").split()]


def with_evidence(**changes):
    return replace(DOUBLED, evidence=replace(DOUBLED.evidence, **changes))


def test_the_curve_has_a_dot_a_step_and_both_axes():
    svg = curve(DOUBLED)
    assert len(classes(svg, "dot")) == 2 * len(STEPS) + 2  # and the legend's
    texts = [e.text for e in ET.fromstring(svg).iter("text")]
    for text in ("step h", "distance", "error bar", "10⁻⁶", "10⁰"):
        assert text in texts
    assert len([text for text in texts if text.startswith("10")]) <= 15


def test_the_curve_of_the_rule_stays_up_while_the_other_falls():
    tops = {
        name: [
            float(e.get("cy") or e.get("y"))
            for e in classes(curve(DOUBLED), "dot")[:-2]
            if name in e.get("class")
        ]
        for name in ("got", "expected")
    }
    assert max(tops["got"]) - min(tops["got"]) < 2
    assert max(tops["expected"]) > max(tops["got"]) + 100


def test_exact_slopes_are_drawn_hollow_at_the_bottom():
    svg = curve(replace(with_evidence(slopes=(DOUBLED.expected,) * len(STEPS)), error_bar=0.0))
    assert len(classes(svg, "hollow")) == len(STEPS)


@pytest.mark.parametrize(
    "finding",
    [
        INFINITE,
        UNSURE,
        replace(DOUBLED, got=None),
        replace(DOUBLED, got=math.inf),
        with_evidence(steps=(), slopes=()),
    ],
    ids=["no evidence", "one slope", "nothing got", "infinite", "no steps"],
)
def test_no_curve_without_numbers(finding):
    assert curve(finding) == ""


def test_the_heat_map_has_a_cell_a_coordinate():
    svg = heat_map(DOUBLED)
    cells = classes(svg, "cell")
    assert len(cells) == 48
    titles = [cell.find("title").text for cell in cells]
    assert titles[0] == "[0, 0]: +4"
    assert titles[8] == "[1, 0]: +0"
    assert titles[-1] == "[5, 7]: +nan"
    first, still, odd = cells[0], cells[8], cells[-1]
    assert [e.get("class") for e in first][1:] == ["zero", "above", "marked"]
    assert first[2].get("fill-opacity") == "1"
    assert [e.get("class") for e in still][1:] == ["zero"]
    assert [e.get("class") for e in odd][1:] == ["zero", "odd"]
    texts = [e.text for e in ET.fromstring(svg).iter("text")]
    for text in ("0", "7", "5", "-4", "-1", "+1", "+4", "not finite"):
        assert text in texts


def test_blocks_are_called_blocks():
    svg = heat_map(with_evidence(shape=(60, 80)))
    assert classes(svg, "cell")[9].find("title").text.startswith("block 1, 1: ")
    assert not classes(svg, "marked")


def test_a_vector_is_one_row():
    svg = heat_map(with_evidence(errors=((1.0, -2.0, 0.0),), shape=(3,)))
    titles = [cell.find("title").text for cell in classes(svg, "cell")]
    assert titles == ["[0]: +1", "[1]: -2", "[2]: +0"]


@pytest.mark.parametrize("rows", [(), ((),), ((1.0,),)], ids=str)
def test_no_heat_map_of_a_single_number(rows):
    assert heat_map(replace(DOUBLED, evidence=Evidence(errors=rows))) == ""


def test_a_scale_marks_few_decades():
    scale = LogScale([1e-12, 3.0], 0, 130)
    assert (scale.low, scale.high) == (-12, 1)
    assert scale(1e-12) == 0
    assert scale(10.0) == pytest.approx(130)
    assert scale.ticks(5) == [-12, -9, -6, -3, 0]
