"""Results on the screen: a table to take in at a glance, and below it what is not right."""

from __future__ import annotations

import textwrap

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gradkit.cli._outcome import Outcome, python_line
from gradkit.cli._run import COULD_NOT_RUN, Result

_STYLES = {
    "ok": ("ok", "green"),
    "wrong": ("WRONG", "bold red"),
    "inconclusive": ("inconclusive", "yellow"),
    COULD_NOT_RUN: ("could not run", "bold magenta"),
}
_WIDTH_IN_A_PIPE = 120
NO_POINT = "no point: declare a case, or give --arg"


def make_console(*, stderr: bool = False) -> Console:
    """A console; wide enough for a table where the output is not a terminal."""
    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal and console.width < _WIDTH_IN_A_PIPE:
        console.width = _WIDTH_IN_A_PIPE
    return console


def print_outcome(outcome: Outcome, console: Console) -> None:
    """The table, the details of what is not right, and closing lines."""
    if outcome.done:
        console.print(_table(outcome))
    for result in outcome.results:
        if result.verdict != "ok":
            _print_details(outcome, result, console)
    if outcome.no_point:
        console.print(f"\n{NO_POINT}", style="yellow")
        for label in outcome.no_point:
            console.print(f"  {label}", markup=False, soft_wrap=True)
    all_ok = outcome.counts["ok"] == outcome.total
    console.print(f"\n{outcome.summary}", style="green" if all_ok else "bold")
    if outcome.cut_short:
        console.print(outcome.cut_short, style="bold yellow")


def _table(outcome: Outcome) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("function", overflow="fold")
    table.add_column("case", overflow="fold")
    table.add_column("verdict")
    for title in ("worst error", "tolerance", "points", "time"):
        table.add_column(title, justify="right", no_wrap=True)
    for result in outcome.results:
        table.add_row(*_row(result))
    return table


def _row(result: Result) -> tuple[str, ...]:
    shown, style = _STYLES[result.verdict]
    worst = None if result.report is None else result.report.worst
    numbers = ("", "") if worst is None else (f"{worst.error:.1e}", f"{worst.tolerance:.1e}")
    points = "" if result.report is None else str(len(result.report.points))
    names = escape(result.task.label), escape(result.task.case)
    return (*names, f"[{style}]{shown}[/]", *numbers, points, f"{result.seconds:.1f} s")


def _print_details(outcome: Outcome, result: Result, console: Console) -> None:
    shown, style = _STYLES[result.verdict]
    name = escape(f"{result.task.label} (case {result.task.case})")
    console.print(f"\n[{style}]{shown}[/] {name}", soft_wrap=True)
    if result.report is None:
        console.print(textwrap.indent(result.error, "  "), markup=False, soft_wrap=True)
        return
    console.print(result.report.details(), markup=False, soft_wrap=True)
    found = (*result.report.findings, *result.report.inconclusive)
    lines = dict.fromkeys(python_line(finding, result.report.seed) for finding in found)
    again = [outcome.command(result), *filter(None, lines)]
    console.print(f"  again: {again[0]}", markup=False, soft_wrap=True, style="dim")
    for line in again[1:]:
        console.print(f"         {line}", markup=False, soft_wrap=True, style="dim")
