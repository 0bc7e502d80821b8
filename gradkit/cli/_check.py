"""`gradkit check`: are the gradients of these functions right?"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from gradkit._errors import TargetError, describe
from gradkit.cli._argspec import FORMS
from gradkit.cli._run import Result, exit_code, make_jobs, run
from gradkit.cli._table import make_console, print_results
from gradkit.cli._targets import find_places, opened

Targets = Annotated[
    list[str],
    typer.Argument(
        metavar="TARGET...",
        help="FILE.py, FOLDER or MODULE; FILE.py:FUNCTION or MODULE:FUNCTION for one function.",
        show_default=False,
    ),
]
Arguments = Annotated[
    list[str] | None,
    typer.Option("--arg", metavar="SPEC", help=f"An argument, in order: {FORMS}."),
]


def check(
    targets: Targets,
    arg: Arguments = None,
    order: Annotated[
        int | None, typer.Option(min=1, help="Check derivatives up to this order.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of directions and of random arguments.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Check gradients against finite differences.

    Checks the cases that the functions of a file, folder or module declare with
    `@gradkit.verify.case(...)`, or one function at the arguments that `--arg` gives.

    * `gradkit check examples`
    * `gradkit check examples/digits.py:smoothed_cross_entropy --order 2`
    * `gradkit check jax.nn:softplus --arg 'f32[8,4]'`
    * `gradkit check jax.numpy:take --arg 'f32[5]' --arg 'i32[3]<5'`

    Exit codes: 0 if everything is right; 1 if a gradient is wrong; 2 if something could not be
    run, found or understood; 3 if something stayed inconclusive, and nothing worse.
    """
    options = {k: v for k, v in (("order", order), ("seed", seed)) if v is not None}
    try:
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            results = _collect(targets, arg or [], seed or 0, options, make_console(stderr=True))
    except TargetError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    code = exit_code(results)
    if as_json:
        found = {"exit_code": code, "results": [result.to_dict() for result in results]}
        typer.echo(json.dumps(found, indent=2, allow_nan=False))
    else:
        print_results(results, make_console())
    raise typer.Exit(code)


def _collect(
    targets: Sequence[str],
    specs: Sequence[str],
    seed: int,
    options: dict[str, Any],
    console: Console,
) -> list[Result]:
    places = [place for target in targets for place in find_places(target)]
    if specs and (len(places) != 1 or places[0].function is None):
        what = "--arg gives the arguments of one function"
        got = ", ".join(targets)
        raise TargetError(
            describe(what, expected="one MODULE:FUNCTION or FILE.py:FUNCTION", got=got)
        )
    results: list[Result] = []
    with _progress(console) as show:
        for place in places:
            show(place.label)
            with opened(place) as module:
                for job in make_jobs(place, module, specs, seed):
                    show(f"{job.label}, case {job.case.name}")
                    results.append(run(job, options))
    if not results:
        raise TargetError(
            describe(
                f"no function declares a case in {', '.join(targets)}",
                fix="decorate one with @gradkit.verify.case(...), "
                "or name one: MODULE:FUNCTION --arg 'f32[8,4]'",
            )
        )
    return results


@contextlib.contextmanager
def _progress(console: Console) -> Iterator[Any]:
    """A line that says what is being checked, while it is, on a terminal."""
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=None)
        yield lambda text: bar.update(task, description=text)
