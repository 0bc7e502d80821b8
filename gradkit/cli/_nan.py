"""`gradkit nan`: which operation does the NaN in this value or gradient come from?"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from gradkit._errors import TargetError, describe
from gradkit.cli._argspec import FORMS, parse_arguments, precision_of
from gradkit.cli._given import read_arguments
from gradkit.cli._locate import describe_error
from gradkit.cli._modules import Loader
from gradkit.cli._targets import find_function
from gradkit.debug import find_nonfinite


def nan(
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="MODULE:FUNCTION or FILE.py:FUNCTION.")
    ],
    arg: Annotated[
        list[str] | None,
        typer.Option("--arg", metavar="SPEC", help=f"An argument, in order: {FORMS}."),
    ] = None,
    args_from: Annotated[
        str,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="A function that returns the tuple of arguments, or lists or yields such tuples.",
        ),
    ] = "",
    forward: Annotated[
        bool, typer.Option("--forward", help="Look at the value alone, not at the gradient.")
    ] = False,
) -> None:
    """Name the operation that a NaN or Inf comes from, in the value or the gradient.

    The gradient is that by all floating-point arguments.

    * `gradkit nan model.py:loss --args-from model.py:batch`
    * `gradkit nan jax.numpy.linalg:norm --arg '(0.0, 0.0)'`

    Exit codes: 0 if everything is finite; 1 if there is a NaN or Inf; 2 if the function could not
    be found, understood or run.
    """
    specs = arg or []
    found = False
    try:
        if specs and args_from:
            raise TargetError(describe("--arg and --args-from exclude each other", fix="give one"))
        place, loader = find_function("", target), Loader()
        function = loader.function(place)
        with loader.load(place).active(), precision_of(specs):
            points = [tuple(parse_arguments(specs))]
            if args_from:
                points = read_arguments(args_from, loader)
            for number, args in enumerate(points):
                origin = _find(target, function, args, forward=forward)
                if origin is not None:
                    found = True
                    typer.echo(f"arguments {number}: {origin}" if len(points) > 1 else str(origin))
    except TargetError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    if not found:
        typer.echo("everything is finite")
    raise typer.Exit(1 if found else 0)


def _find(target: str, function: Any, args: tuple[Any, ...], *, forward: bool) -> Any:
    direction = "forward" if forward else "both"
    try:
        return find_nonfinite(function, *args, argnums=None, direction=direction)
    except Exception as error:
        got = describe_error(error, function)
        raise TargetError(describe(f"cannot run {target}", got=got)) from error
