"""JUnit XML, which CI services show beside a change: one test case per case."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from gradkit.cli._outcome import Outcome, python_line
from gradkit.cli._run import COULD_NOT_RUN, Result

# What XML 1.0 has no place for, such as the escapes that colour a terminal.
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_xml(outcome: Outcome) -> str:
    """The report as a string.

    Wrong gradients are failures, and so are inconclusive ones, of the type `inconclusive`; what
    could not be run is an error.
    """
    counts = outcome.counts
    totals = {
        "tests": str(len(outcome.done)),
        "failures": str(counts["wrong"] + counts["inconclusive"]),
        "errors": str(counts[COULD_NOT_RUN]),
        "skipped": "0",
        "time": f"{outcome.seconds:.3f}",
    }
    root = ET.Element("testsuites", {"name": "gradkit check", **totals})
    suite = ET.SubElement(
        root,
        "testsuite",
        {
            "name": "gradkit check",
            **totals,
            "timestamp": outcome.started.strftime("%Y-%m-%dT%H:%M:%S"),
            "hostname": "localhost",
        },
    )
    _add_properties(suite, outcome)
    for result in outcome.results:
        _add_case(suite, outcome, result)
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _add_properties(suite: ET.Element, outcome: Outcome) -> None:
    properties = ET.SubElement(suite, "properties")
    values = {"versions": outcome.versions, "note": outcome.cut_short}
    values |= {f"no point {i + 1}": label for i, label in enumerate(outcome.no_point)}
    for name, value in values.items():
        if value:
            ET.SubElement(properties, "property", {"name": name, "value": _clean(value)})


def _add_case(suite: ET.Element, outcome: Outcome, result: Result) -> None:
    task, report = result.task, result.report
    module, _, function = task.label.rpartition(":")
    attributes = {
        "classname": _clean(module),
        "name": _clean(f"{function} [{task.case}]"),
        "time": f"{result.seconds:.3f}",
    }
    if task.file:
        attributes["file"] = _clean(task.file)
    if task.line is not None:
        attributes["line"] = str(task.line)
    case = ET.SubElement(suite, "testcase", attributes)
    if report is None:
        first = result.error.splitlines()[0] if result.error else COULD_NOT_RUN
        body = ET.SubElement(case, "error", {"message": _clean(first), "type": COULD_NOT_RUN})
        body.text = _clean(f"{result.error}\n\n{outcome.command(result)}")
    elif not report.ok:
        found = report.findings or report.inconclusive
        kind = found[0].kind if report.findings else "inconclusive"
        message = _clean("; ".join(f"{f.where}: {f.message}" for f in found))
        body = ET.SubElement(case, "failure", {"message": message, "type": kind})
        lines = dict.fromkeys(python_line(f, report.seed) for f in found)
        again = [outcome.command(result), *filter(None, lines)]
        body.text = _clean("\n".join([str(report), "", *again]))


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("", text)
