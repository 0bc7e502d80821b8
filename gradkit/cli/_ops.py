"""`gradkit ops`: what could be overridden in this function?"""

from __future__ import annotations

from typing import Annotated

import typer

from gradkit._errors import TargetError, describe
from gradkit._survey import overridable_ops
from gradkit.cli._argspec import FORMS, parse_arguments, precision_of
from gradkit.cli._modules import Loader
from gradkit.cli._targets import find_function


def ops(
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="MODULE:FUNCTION or FILE.py:FUNCTION.")
    ],
    arg: Annotated[
        list[str] | None,
        typer.Option("--arg", metavar="SPEC", help=f"An argument, in order: {FORMS}."),
    ] = None,
) -> None:
    """List the operations in a function that an override could match, with the key to write.

    Nested calls are included. Nothing is computed; the function is only traced.

    * `gradkit ops jax.nn:softplus --arg 'f32[8,4]'`

    Exit codes: 0; 2 if the function could not be found, understood or traced.
    """
    specs = arg or []
    try:
        place, loader = find_function("", target), Loader()
        function = loader.function(place)
        with loader.load(place).active(), precision_of(specs):
            try:
                found = overridable_ops(function, *parse_arguments(specs))
            except TargetError:
                raise
            except Exception as error:
                got = f"{type(error).__name__}: {error}"
                raise TargetError(describe(f"cannot trace {target}", got=got)) from error
    except TargetError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    typer.echo(str(found))
