"""What a terminal shows while checks run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from gradkit.cli._outcome import Outcome


class Watch:
    """A line with a bar, the counts so far, and what is under way."""

    def __init__(self, bar: Progress, task: TaskID):
        self._bar = bar
        self._task = task

    def say(self, text: str) -> None:
        """Say what is under way."""
        self._bar.update(self._task, description=text)

    def show(self, outcome: Outcome) -> None:
        """Show how far the checks are."""
        bad = [f"{n} {verdict}" for verdict, n in outcome.counts.items() if n and verdict != "ok"]
        self._bar.update(
            self._task,
            total=outcome.total,
            completed=len(outcome.done),
            counts=", ".join(bad),
        )


@contextlib.contextmanager
def watching(console: Console) -> Iterator[Watch]:
    """The line, on a terminal; it is gone in the end."""
    columns = (
        SpinnerColumn(),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("[bold red]{task.fields[counts]}"),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
    )
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        yield Watch(bar, bar.add_task("", total=None, counts=""))
