"""A whole run: every check in turn or in workers, and what is left of it after Ctrl-C."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console

from gradkit._errors import TargetError, describe
from gradkit.cli._discover import Found, Task, find_tasks
from gradkit.cli._modules import Loader
from gradkit.cli._outcome import Outcome
from gradkit.cli._progress import Watch, watching
from gradkit.cli._run import Result, Runner
from gradkit.cli._select import Predicate
from gradkit.cli._settings import Settings
from gradkit.cli._targets import find_places
from gradkit.cli._workers import run_in_workers


def run_session(
    targets: Sequence[str],
    settings: Settings,
    console: Console,
    *,
    select: Predicate | None = None,
    exit_first: bool = False,
    workers: int = 1,
) -> Outcome:
    """Find the checks and run them.

    Args:
        targets: As they were written on the command line.
        settings: The options of the checks.
        console: Where progress is shown.
        select: Which checks to run, by their titles; all by default.
        exit_first: Stop at the first check that is not ok.
        workers: How many processes to run them in; 1 for this one.

    Raises:
        TargetError: If a target cannot be found or understood, or no check is selected.
    """
    start = time.perf_counter()
    loader, outcome = Loader(), Outcome(settings, 0)
    with watching(console) as watch:
        try:
            watch.say("importing")
            places = [place for target in targets for place in find_places(target)]
            found = find_tasks(places, settings, loader, targets)
            if select is not None:
                found = _selected(found, select)
            outcome.total, outcome.no_point = len(found.tasks), found.no_point
            _run(found.tasks, Runner(settings, loader), outcome, watch, exit_first, workers)
        except KeyboardInterrupt:
            outcome.interrupted = True
    if exit_first:
        outcome.drop_after_first_failure()
    outcome.seconds = time.perf_counter() - start
    return outcome


def _selected(found: Found, select: Predicate) -> Found:
    tasks = [task for task in found.tasks if select(task.title)]
    if not tasks:
        what = f"-k selects none of {len(found.tasks)} cases"
        shown = ", ".join(repr(task.title) for task in found.tasks[:3])
        more = ", ..." if len(found.tasks) > 3 else ""
        raise TargetError(describe(what, expected=f"a part of {shown}{more}"))
    return Found(tasks, list(filter(select, found.no_point)))


def _run(
    tasks: list[Task],
    runner: Runner,
    outcome: Outcome,
    watch: Watch,
    exit_first: bool,
    workers: int,
) -> None:
    def begun(task: Task) -> None:
        watch.say(task.title)

    def done(number: int, result: Result) -> bool:
        outcome.done[number] = result
        watch.show(outcome)
        return result.verdict == "ok" or not exit_first

    watch.show(outcome)
    if workers > 1:
        run_in_workers(tasks, runner.settings, workers, begun, done)
        return
    for number, task in enumerate(tasks):
        begun(task)
        if not done(number, runner.run(task)):
            return
