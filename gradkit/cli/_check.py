"""`gradkit check`: are the gradients of these functions right?"""

from __future__ import annotations

import contextlib
import enum
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from gradkit._errors import TargetError
from gradkit.cli._argspec import FORMS
from gradkit.cli._dtype import FloatType
from gradkit.cli._files import ReportFiles, to_json
from gradkit.cli._select import parse_expression
from gradkit.cli._session import run_session
from gradkit.cli._settings import ROLES, Settings
from gradkit.cli._table import make_console, print_outcome
from gradkit.cli._versions import version_text

_POINT, _HOW, _WHICH, _REPORTS = "Where to check", "How to check", "Which to run", "Reports"
_FUNCTION = "MODULE:FUNCTION"


class Mode(enum.StrEnum):
    """The modes on offer."""

    reverse = "reverse"
    forward = "forward"


def _option(*names: str, panel: str, **details: Any) -> Any:
    return typer.Option(*names, rich_help_panel=panel, show_default=False, **details)


def check(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="TARGET...",
            help="FILE.py, FOLDER or MODULE; FILE.py:FUNCTION or MODULE:FUNCTION for one function.",
            show_default=False,
        ),
    ],
    arg: Annotated[
        list[str] | None,
        _option("--arg", panel=_POINT, metavar="SPEC", help=f"An argument, in order: {FORMS}."),
    ] = None,
    args_from: Annotated[
        str,
        _option(
            panel=_POINT,
            metavar=_FUNCTION,
            help="A function that returns the tuple of arguments, or lists or yields such tuples.",
        ),
    ] = "",
    dtype: Annotated[
        FloatType | None, _option(panel=_POINT, help="Cast floating-point arguments to this type.")
    ] = None,
    points: Annotated[
        int | None,
        _option(panel=_POINT, min=0, metavar="N", help="How many further points to look at."),
    ] = None,
    domain: Annotated[
        str,
        _option(
            panel=_POINT,
            metavar=_FUNCTION,
            help="A function of the arguments that says whether a further point counts.",
        ),
    ] = "",
    seed: Annotated[
        int | None,
        _option(panel=_POINT, help="Seed of directions, further points and random arguments."),
    ] = None,
    order: Annotated[
        int | None, _option(panel=_HOW, min=1, help="Check derivatives up to this order.")
    ] = None,
    mode: Annotated[
        list[Mode] | None,
        _option(panel=_HOW, help="Insist on this mode; may be given twice."),
    ] = None,
    reference: Annotated[
        str,
        _option(
            panel=_HOW,
            metavar=_FUNCTION,
            help="The same function without the rule; value and derivative must agree.",
        ),
    ] = "",
    surrogate: Annotated[
        str,
        _option(
            panel=_HOW,
            metavar=_FUNCTION,
            help="The function whose derivative the rule is meant to have.",
        ),
    ] = "",
    cotangent_map: Annotated[
        str,
        _option(
            panel=_HOW,
            metavar=_FUNCTION,
            help="What the rule is meant to do to its cotangent, such as clipping it.",
        ),
    ] = "",
    budget: Annotated[
        float | None,
        _option(panel=_HOW, min=0.0, metavar="SECONDS", help="Time for each case."),
    ] = None,
    keyword: Annotated[
        str | None,
        _option(
            "-k",
            panel=_WHICH,
            metavar="EXPRESSION",
            help="Only cases whose label and name fit: parts of them with and, or, not, (). "
            "'not guessed' leaves those out that no one declared.",
        ),
    ] = None,
    exit_first: Annotated[
        bool, _option("-x", "--exitfirst", panel=_WHICH, help="Stop at the first that is not ok.")
    ] = False,
    workers: Annotated[
        int,
        _option("-n", "--workers", panel=_WHICH, min=1, metavar="N", help="Run N at a time."),
    ] = 1,
    as_json: Annotated[
        bool, _option("--json", panel=_REPORTS, help="Print JSON instead of a table.")
    ] = False,
    output: Annotated[
        Path | None, _option(panel=_REPORTS, metavar="FILE.json", help="Write the JSON to a file.")
    ] = None,
    junit: Annotated[
        Path | None,
        _option("--junit", panel=_REPORTS, metavar="FILE.xml", help="Write JUnit XML, for CI."),
    ] = None,
    sarif: Annotated[
        Path | None,
        _option("--sarif", panel=_REPORTS, metavar="FILE", help="Write SARIF, for code review."),
    ] = None,
    html: Annotated[
        Path | None,
        _option("--html", panel=_REPORTS, metavar="FILE", help="Write a page to look at."),
    ] = None,
) -> None:
    """Check gradients against finite differences.

    Checks the cases that the functions of a file, folder or module declare with
    `@gradkit.verify.case(...)`; functions with a gradient of their own that declare none, at
    arguments that fit; or one function at the arguments that are given.

    * `gradkit check examples`
    * `gradkit check examples/digits.py:smoothed_cross_entropy --order 2`
    * `gradkit check jax.nn:softplus --arg 'f32[8,4]'`
    * `gradkit check jax.numpy:take --arg 'f32[5]' --arg 'i32[3]<5'`
    * `gradkit check examples -n 4 -k 'not large' --html report.html`

    Exit codes: 0 if everything is right; 1 if a gradient is wrong; 2 if something could not be
    run, found or understood; 3 if something stayed inconclusive, and nothing worse; 130 after
    Ctrl-C, with a report on what was done until then. `gradkit explain` tells what each kind of
    finding means.
    """
    numbers = {"order": order, "seed": seed, "points": points, "budget": budget}
    options: dict[str, Any] = {name: value for name, value in numbers.items() if value is not None}
    if mode:
        options["modes"] = tuple(dict.fromkeys(m.value for m in mode))
    roles = dict(zip(ROLES, (reference, surrogate, cotangent_map, domain), strict=True))
    settings = Settings(
        specs=tuple(arg or ()),
        args_from=args_from,
        options=options,
        roles={role: target for role, target in roles.items() if target},
        dtype="" if dtype is None else dtype.value,
    )
    wanted = {"--output": output, "--junit": junit, "--sarif": sarif, "--html": html}
    files = ReportFiles({option: path for option, path in wanted.items() if path is not None})
    try:
        files.check()
        select = None if keyword is None else parse_expression(keyword)
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            outcome = run_session(
                targets,
                settings,
                make_console(stderr=True),
                select=select,
                exit_first=exit_first,
                workers=workers,
            )
        outcome.versions = version_text()
        if as_json:
            typer.echo(to_json(outcome), nl=False)
            if outcome.cut_short:
                typer.echo(outcome.cut_short, err=True)
        else:
            print_outcome(outcome, make_console())
        files.write(outcome)
    except TargetError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    raise typer.Exit(outcome.exit_code)
