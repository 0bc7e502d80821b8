"""Results on the screen: a table to take in at a glance, and below it what is not right."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gradkit.cli._run import COULD_NOT_RUN, Result

_STYLES = {
    "ok": ("ok", "green"),
    "wrong": ("WRONG", "bold red"),
    "inconclusive": ("inconclusive", "yellow"),
    COULD_NOT_RUN: ("could not run", "bold magenta"),
}
_WIDTH_IN_A_PIPE = 120


def make_console(*, stderr: bool = False) -> Console:
    """A console; wide enough for a table where the output is not a terminal."""
    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal and console.width < _WIDTH_IN_A_PIPE:
        console.width = _WIDTH_IN_A_PIPE
    return console


def print_results(results: Sequence[Result], console: Console) -> None:
    """The table, the details of what is not right, and one closing line."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("function", overflow="fold")
    table.add_column("case", overflow="fold")
    table.add_column("verdict")
    for title in ("worst error", "tolerance", "time"):
        table.add_column(title, justify="right", no_wrap=True)
    for result in results:
        table.add_row(*_row(result))
    console.print(table)
    for result in results:
        if result.verdict != "ok":
            shown, style = _STYLES[result.verdict]
            name = escape(f"{result.function} (case {result.case})")
            console.print(f"\n[{style}]{shown}[/] {name}", soft_wrap=True)
            details = result.error if result.report is None else result.report.details()
            console.print(details, markup=False, soft_wrap=True)
    console.print(f"\n{summary(results)}", style="green" if _all_ok(results) else "bold")


def summary(results: Sequence[Result]) -> str:
    """`3 cases: 2 ok, 1 wrong`."""
    counts = {verdict: sum(r.verdict == verdict for r in results) for verdict in _STYLES}
    parts = [f"{count} {verdict}" for verdict, count in counts.items() if count]
    return f"{len(results)} case{'' if len(results) == 1 else 's'}: {', '.join(parts)}"


def _all_ok(results: Sequence[Result]) -> bool:
    return all(result.verdict == "ok" for result in results)


def _row(result: Result) -> tuple[str, ...]:
    shown, style = _STYLES[result.verdict]
    worst = None if result.report is None else result.report.worst
    numbers = ("", "") if worst is None else (f"{worst.error:.1e}", f"{worst.tolerance:.1e}")
    names = escape(result.function), escape(result.case)
    return (*names, f"[{style}]{shown}[/]", *numbers, f"{result.seconds:.1f} s")
