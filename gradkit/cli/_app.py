"""The `gradkit` command: its options, its help, and where its commands are."""

from __future__ import annotations

from typing import Annotated

import typer

from gradkit.cli._check import check
from gradkit.cli._explain import explain
from gradkit.cli._nan import nan
from gradkit.cli._ops import ops
from gradkit.cli._rules import rules
from gradkit.cli._versions import version_text

app = typer.Typer(
    name="gradkit",
    help="Prove gradients right, list what can be overridden, and look things up in the catalogue.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,  # a user's traceback says more than a picture of it
)
app.command()(check)
app.command()(explain)
app.command()(nan)
app.command()(ops)
app.command()(rules)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version_text())
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the versions of gradkit and JAX, and the device.",
        ),
    ] = False,
) -> None:
    """Prove gradients right, list what can be overridden, and look things up in the catalogue."""


def main() -> None:
    """Run the command line; the entry point of the `gradkit` script."""
    app()
