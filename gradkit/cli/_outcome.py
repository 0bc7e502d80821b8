"""What became of a whole run: its results, what was left out, and the exit code."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from gradkit.cli._run import COULD_NOT_RUN, Result
from gradkit.cli._settings import Settings
from gradkit.verify import Finding
from gradkit.verify._report import GIVEN

EXIT_CODES = {"ok": 0, "wrong": 1, COULD_NOT_RUN: 2, "inconclusive": 3}
INTERRUPTED = 130


@dataclass
class Outcome:
    """The results so far.

    Attributes:
        settings: The options that they were got with.
        total: How many checks were asked for.
        no_point: Functions that have a rule and no arguments to be checked at.
        versions: What ran: gradkit, JAX and the device.
        done: The results, by the number of their task.
        interrupted: Did Ctrl-C end the run?
        seconds: How long it took.
        started: When it began.
    """

    settings: Settings
    total: int
    no_point: list[str] = field(default_factory=list)
    versions: str = ""
    done: dict[int, Result] = field(default_factory=dict)
    interrupted: bool = False
    seconds: float = 0.0
    started: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def results(self) -> list[Result]:
        """The results, in the order of the tasks."""
        return [self.done[number] for number in sorted(self.done)]

    @property
    def counts(self) -> dict[str, int]:
        """How many checks came to each verdict."""
        return {verdict: sum(r.verdict == verdict for r in self.results) for verdict in EXIT_CODES}

    @property
    def exit_code(self) -> int:
        """0 only if everything is right; else 1 for wrong, 2 for could not run, 3 for unsure."""
        if self.interrupted:
            return INTERRUPTED
        codes = [EXIT_CODES[result.verdict] for result in self.results]
        return min((code for code in codes if code), default=0)

    @property
    def summary(self) -> str:
        """`3 cases: 2 ok, 1 wrong`."""
        parts = [f"{count} {verdict}" for verdict, count in self.counts.items() if count]
        count = len(self.done)
        return f"{count} case{'' if count == 1 else 's'}: {', '.join(parts) or 'none done'}"

    @property
    def cut_short(self) -> str:
        """Why there are fewer results than tasks; empty if there are not."""
        if self.interrupted:
            return f"interrupted: {len(self.done)} of {self.total} cases done"
        if len(self.done) < self.total:
            return f"stopped at the first that is not ok: {len(self.done)} of {self.total} done"
        return ""

    def drop_after_first_failure(self) -> None:
        """Forget the results beyond the first that is not ok: workers run ahead."""
        bad = [number for number, result in self.done.items() if result.verdict != "ok"]
        if bad:
            self.done = {n: result for n, result in self.done.items() if n <= min(bad)}

    def command(self, result: Result) -> str:
        """The command line that runs a check again."""
        seed = self.settings.seed if result.report is None else result.report.seed
        return self.settings.command(result.task.label, result.task.specs, seed)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "exit_code": self.exit_code,
            "versions": self.versions,
            "total": self.total,
            "interrupted": self.interrupted,
            "no_point": self.no_point,
            "results": [self._one(result) for result in self.results],
        }

    def _one(self, result: Result) -> dict[str, Any]:
        return {
            "function": result.task.label,
            "case": result.task.case,
            "verdict": result.verdict,
            "seconds": round(result.seconds, 3),
            "file": result.task.file,
            "line": result.task.line,
            "reproduce": self.command(result),
            "error": result.error,
            "report": None if result.report is None else result.report.to_dict(),
        }


def python_line(finding: Finding, seed: int) -> str:
    """Goes to the point of a finding that is not the given one; else empty.

    Example:
        >>> finding = Finding("gradient", "both", 1, "args[0]", "...", point="signs flipped")
        >>> python_line(finding, 3)
        'gradkit.check(f, *gradkit.verify.point_at("signs flipped", *args, seed=3), points=0)'
    """
    if finding.point == GIVEN:
        return ""
    point = finding.point.replace("\\", "\\\\").replace('"', '\\"')
    return f'gradkit.check(f, *gradkit.verify.point_at("{point}", *args, seed={seed}), points=0)'
