"""Running one check, and what became of it."""

from __future__ import annotations

import contextlib
import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gradkit._errors import describe
from gradkit._trees import describe_type
from gradkit.cli._argspec import parse_arguments, precision_of
from gradkit.cli._discover import Task
from gradkit.cli._dtype import cast_arguments, precision_for
from gradkit.cli._given import read_arguments
from gradkit.cli._locate import describe_error
from gradkit.cli._modules import Loader
from gradkit.cli._settings import Settings, flag_of
from gradkit.verify import Case, Report, cases_of

COULD_NOT_RUN = "could not run"


@dataclass(frozen=True)
class Result:
    """One check that was run.

    Attributes:
        task: What was asked for.
        report: What the check found; `None` if it could not be run.
        error: Why it could not be run.
        seconds: How long it took.
    """

    task: Task
    report: Report | None
    error: str
    seconds: float

    @property
    def verdict(self) -> str:
        """`"ok"`, `"wrong"`, `"inconclusive"` or `"could not run"`."""
        return COULD_NOT_RUN if self.report is None else self.report.verdict


class Runner:
    """Runs checks in this process.

    Args:
        settings: What was asked for on the command line.
        loader: Finds modules; a new one by default.
    """

    def __init__(self, settings: Settings, loader: Loader | None = None):
        self.settings = settings
        self.loader = loader or Loader()
        self._made: list[tuple[Any, ...]] | None = None

    def run(self, task: Task) -> Result:
        """Run one check. Whatever its function raises is its result."""
        start = time.perf_counter()
        report, error, function = None, "", None
        try:
            with contextlib.ExitStack() as stack:
                # A reference may live in a file that registers the same names: the target's win.
                roles = {role: self._role(stack, role) for role in self.settings.roles}
                stack.enter_context(self.loader.load(task.place).active())
                function = self.loader.function(task.place)
                stack.enter_context(precision_of(task.specs))
                stack.enter_context(precision_for(self.settings.dtype))
                case = self._case(task, function)
                _check_fit(function, case.args)
                report = case.run(function, **self.settings.options, **roles)
        except (Exception, SystemExit) as caught:
            error = describe_error(caught, function)
        return Result(task, report, error, time.perf_counter() - start)

    def _role(self, stack: contextlib.ExitStack, role: str) -> Callable[..., Any]:
        loaded, function = self.loader.option(flag_of(role), self.settings.roles[role])
        stack.enter_context(loaded.active())
        return function

    def _case(self, task: Task, function: Callable[..., Any]) -> Case:
        """The arguments, and the options that were declared with them."""
        if task.specs:
            case = Case(tuple(parse_arguments(task.specs, self.settings.seed)))
        elif self.settings.args_from:
            if self._made is None:
                self._made = read_arguments(self.settings.args_from, self.loader)
            case = Case(self._made[task.index])
        else:
            case = cases_of(function)[task.index]
        if self.settings.dtype:
            return Case(cast_arguments(case.args, self.settings.dtype), case.options, case.name)
        return case


def _check_fit(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """Refuse arguments of another number than the function takes.

    Raises:
        TypeError: If they do not fit.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*args)
    except TypeError as error:
        name = getattr(function, "__name__", type(function).__name__)
        shown = ", ".join(map(describe_type, args)) or "none"
        raise TypeError(
            describe(
                f"the arguments do not fit {name!r}: {error}",
                expected=f"{name}{signature}",
                got=f"{len(args)} argument{'' if len(args) == 1 else 's'}: {shown}",
                fix="give one argument per parameter that has no default",
            )
        ) from None
