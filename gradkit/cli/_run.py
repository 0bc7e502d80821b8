"""Running the checks that a target asks for, and what became of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from gradkit._errors import TargetError, describe
from gradkit.cli._argspec import parse_arguments, precision_of
from gradkit.cli._targets import Place, named_function
from gradkit.verify import Case, Report, cases_of, declared_in

COULD_NOT_RUN = "could not run"
EXIT_CODES = {"ok": 0, "wrong": 1, COULD_NOT_RUN: 2, "inconclusive": 3}


@dataclass(frozen=True)
class Job:
    """One check that is to be run."""

    label: str
    function: Callable[..., Any]
    case: Case
    specs: Sequence[str] = ()


@dataclass(frozen=True)
class Result:
    """One check that was run.

    Attributes:
        function: Where it is and what it is called.
        case: The name of the case.
        report: What the check found; `None` if it could not be run.
        error: Why it could not be run.
        seconds: How long it took.
    """

    function: str
    case: str
    report: Report | None
    error: str
    seconds: float

    @property
    def verdict(self) -> str:
        """`"ok"`, `"wrong"`, `"inconclusive"` or `"could not run"`."""
        return COULD_NOT_RUN if self.report is None else self.report.verdict

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "function": self.function,
            "case": self.case,
            "verdict": self.verdict,
            "seconds": round(self.seconds, 3),
            "error": self.error,
            "report": None if self.report is None else self.report.to_dict(),
        }


def make_jobs(place: Place, module: ModuleType, specs: Sequence[str], seed: int) -> Iterator[Job]:
    """The checks of one module: of its declared cases, or of one function at given arguments.

    Raises:
        TargetError: If a function was asked for that has no cases, and no arguments were given.
    """
    if place.function is None:
        for name, function in declared_in(vars(module), module.__name__):
            for case in cases_of(function):
                yield Job(f"{place.label}:{name}", function, case)
        return
    function = named_function(module, place)
    label = f"{place.label}:{place.function}"
    if specs:
        case = Case(tuple(parse_arguments(specs, seed)), {}, ", ".join(specs))
        yield Job(label, function, case, specs)
        return
    if not cases_of(function):
        raise TargetError(
            describe(
                f"{label} declares no case, so there is no point to check it at",
                fix="give its arguments, as in --arg 'f32[8,4]', or decorate it with "
                "@gradkit.verify.case(...)",
            )
        )
    for case in cases_of(function):
        yield Job(label, function, case)


def run(job: Job, options: dict[str, Any]) -> Result:
    """Run one check. Whatever the function raises is its result."""
    start = time.perf_counter()
    report, error = None, ""
    try:
        with precision_of(job.specs):
            report = job.case.run(job.function, **options)
    except Exception as caught:
        error = f"{type(caught).__name__}: {caught}"
    return Result(job.label, job.case.name, report, error, time.perf_counter() - start)


def exit_code(results: Sequence[Result]) -> int:
    """0 only if everything is right; else 1 for wrong, 2 for could not run, 3 for inconclusive."""
    codes = [EXIT_CODES[result.verdict] for result in results]
    return min((code for code in codes if code), default=0)
