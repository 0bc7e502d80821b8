"""One HTML page about a run, with everything it needs in the file itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib import resources
from typing import Any

from gradkit._errors import TargetError, describe
from gradkit.cli._curve import curve
from gradkit.cli._heat_map import heat_map
from gradkit.cli._outcome import Outcome, python_line
from gradkit.cli._run import COULD_NOT_RUN, Result
from gradkit.verify import Finding
from gradkit.verify._kinds import EXPLANATIONS, Explanation


def need_jinja() -> Any:
    """The module that fills templates.

    Raises:
        TargetError: If it is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise TargetError(
            describe("--html needs jinja2", fix="pip install 'gradkit[report]'")
        ) from error
    return jinja2


def html_page(outcome: Outcome) -> str:
    """The page as a string.

    Raises:
        TargetError: If jinja2 is not installed.
    """
    jinja2 = need_jinja()
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    results = [_Row(number, result) for number, result in enumerate(outcome.results)]
    return environment.from_string(_template("report.html")).render(
        outcome=outcome,
        rows=results,
        cards=[(row, _cards(outcome, row.result)) for row in results if not row.is_ok],
        colours={"ok": "ok", "wrong": "wrong", "inconclusive": "unsure", COULD_NOT_RUN: "failed"},
        style=_template("report.css"),
        script=_template("report.js"),
    )


def _template(name: str) -> str:
    return (resources.files("gradkit.cli") / "templates" / name).read_text(encoding="utf-8")


@dataclass(frozen=True)
class _Row:
    """One line of the table."""

    number: int
    result: Result

    @property
    def anchor(self) -> str:
        return f"case-{self.number + 1}"

    @property
    def is_ok(self) -> bool:
        return self.result.verdict == "ok"

    @property
    def numbers(self) -> tuple[str, str, str]:
        """The worst error, its tolerance, and how many points were looked at."""
        report = self.result.report
        if report is None:
            return "", "", ""
        worst = report.worst
        count = str(len(report.points))
        if worst is None:
            return "", "", count
        return f"{worst.error:.1e}", f"{worst.tolerance:.1e}", count

    @property
    def notes(self) -> tuple[str, ...]:
        return () if self.result.report is None else self.result.report.notes


@dataclass(frozen=True)
class _Card:
    """One finding, ready to be shown."""

    finding: Finding
    verdict: str
    facts: list[tuple[str, str]]
    explanation: Explanation | None
    python: str
    curve: str
    heat_map: str


def _cards(outcome: Outcome, result: Result) -> list[_Card]:
    report = result.report
    if report is None:
        return []
    found = [("wrong", f) for f in report.findings]
    found += [("inconclusive", f) for f in report.inconclusive]
    return [
        _Card(
            finding,
            verdict,
            list(_facts(finding, report.seed)),
            EXPLANATIONS.get(finding.kind),
            python_line(finding, report.seed),
            curve(finding),
            heat_map(finding),
        )
        for verdict, finding in found
    ]


def _facts(finding: Finding, seed: int) -> Any:
    if finding.expected is not None and finding.got is not None:
        bar = "" if finding.error_bar is None else f" ± {finding.error_bar:.1e}"
        yield "expected", f"{finding.expected:.9g}{bar}"
        yield "got", f"{finding.got:.9g}"
    if finding.error is not None:
        yield "error", f"{finding.error:.3g}{_in_bars(finding)}"
    yield "argument", finding.where
    yield "mode", f"{finding.mode}, order {finding.order}"
    yield "point", f"{finding.point}, seed {seed}"


def _in_bars(finding: Finding) -> str:
    """How many error bars an error is."""
    error, bar = finding.error, finding.error_bar
    if not error or not bar or not math.isfinite(bar) or not math.isfinite(error / bar):
        return ""
    return f", {error / bar:.2g} error bars"
