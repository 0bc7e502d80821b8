"""`gradkit check`: run checks one after another and show the results as a table."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from gradkit._errors import TargetError, describe
from gradkit.cli._argspec import parse_argument
from gradkit.cli._loading import load_function, modules_of
from gradkit.verify import Case, Report, cases_of, declared_in

_STYLES = {"ok": "green", "wrong": "bold red", "inconclusive": "yellow", "could not run": "magenta"}


@dataclass(frozen=True)
class Job:
    """One case of one function."""

    function: str
    target: Callable[..., Any]
    case: Case


@dataclass(frozen=True)
class Outcome:
    """What became of a job: a report, or the error that kept it from running."""

    job: Job
    seconds: float
    report: Report | None
    error: str = ""

    @property
    def verdict(self) -> str:
        """`"ok"`, `"wrong"`, `"inconclusive"` or `"could not run"`."""
        return "could not run" if self.report is None else self.report.verdict

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "function": self.job.function,
            "case": self.job.case.name,
            "verdict": self.verdict,
            "seconds": round(self.seconds, 3),
            "error": self.error,
            "report": None if self.report is None else self.report.to_dict(),
        }


def collect(targets: Sequence[str], specs: Sequence[str], seed: int) -> list[Job]:
    """The jobs that the targets stand for.

    Raises:
        TargetError: If a target cannot be loaded, or nothing in it declares a case.
    """
    jobs: list[Job] = []
    for target in targets:
        if _names_function(target):
            name, function = load_function(target)
            cases = cases_of(function)
            if specs:
                values = (parse_argument(s, seed + i) for i, s in enumerate(specs))
                cases = (Case(tuple(values), {}, ", ".join(specs)),)
            if not cases:
                raise TargetError(
                    describe(
                        f"{target!r} declares no case.",
                        fix="say what to call it with: --arg 'f32[8,4]', once per argument",
                    )
                )
            jobs += [Job(name, function, case) for case in cases]
            continue
        if specs:
            raise TargetError(f"--arg goes with module:function, not with {target!r}")
        for module_name, module in modules_of(target):
            for name, function in declared_in(vars(module), module.__name__):
                label = f"{module_name}:{name}"
                jobs += [Job(label, function, case) for case in cases_of(function)]
    if not jobs:
        raise TargetError(
            describe(
                f"nothing to check in {', '.join(map(repr, targets))}.",
                expected="functions decorated with @gradkit.verify.case(args...)",
                fix="declare cases, or name a function: gradkit check module:function --arg '3.0'",
            )
        )
    return jobs


def _names_function(target: str) -> bool:
    head, _, tail = target.rpartition(":")
    return bool(head) and "/" not in tail and "\\" not in tail


def run(jobs: Sequence[Job], options: dict[str, Any], console: Console) -> list[Outcome]:
    """Run the jobs, with a progress line where the output is a terminal."""
    outcomes: list[Outcome] = []
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=len(jobs))
        for i, job in enumerate(jobs, 1):
            bar.update(task, description=f"{i}/{len(jobs)} {job.function}")
            outcomes.append(_run_one(job, options))
    return outcomes


def _run_one(job: Job, options: dict[str, Any]) -> Outcome:
    start = time.perf_counter()
    try:
        report = job.case.run(job.target, **options)
    except Exception as error:
        notes = "".join(f"\n{note}" for note in getattr(error, "__notes__", ()))
        text = f"{type(error).__name__}: {error}{notes}"
        return Outcome(job, time.perf_counter() - start, None, text)
    return Outcome(job, time.perf_counter() - start, report)


def show(outcomes: Sequence[Outcome], console: Console) -> None:
    """Print the table, then the details of everything that is not ok."""
    table = Table(box=None, pad_edge=False)
    for heading in ("function", "case", "verdict", "worst error", "tolerance", "seconds"):
        right = heading in ("worst error", "tolerance", "seconds")
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    for outcome in outcomes:
        worst = None if outcome.report is None else outcome.report.worst
        verdict = "WRONG" if outcome.verdict == "wrong" else outcome.verdict
        table.add_row(
            outcome.job.function,
            outcome.job.case.name,
            f"[{_STYLES[outcome.verdict]}]{verdict}[/]",
            "" if worst is None else f"{worst.error:.1e}",
            "" if worst is None else f"{worst.tolerance:.1e}",
            f"{outcome.seconds:.2f}",
        )
    console.print(table)
    for outcome in outcomes:
        if outcome.verdict != "ok":
            console.print()
            title = f"{outcome.job.function}, case {outcome.job.case.name}"
            console.print(f"[bold]{title}[/]", highlight=False)
            console.print(outcome.error or str(outcome.report), markup=False, highlight=False)
    console.print()
    console.print(_summary(outcomes), highlight=False)


def _summary(outcomes: Sequence[Outcome]) -> str:
    counts = {v: sum(o.verdict == v for o in outcomes) for v in _STYLES}
    parts = [f"{n} {verdict}" for verdict, n in counts.items() if n]
    return f"{len(outcomes)} checked: {', '.join(parts)}"


def as_json(outcomes: Sequence[Outcome]) -> str:
    """The outcomes as a JSON document."""
    return json.dumps([outcome.to_dict() for outcome in outcomes], indent=1)
