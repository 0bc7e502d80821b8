"""The `gradkit` command: its options, its help, and where its commands are."""

from __future__ import annotations

from importlib import metadata
from typing import Annotated

import jax
import typer

from gradkit.cli._check import check
from gradkit.cli._ops import ops

app = typer.Typer(
    name="gradkit",
    help="Prove gradients right, and see what can be overridden in a function.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,  # a user's traceback says more than a picture of it
)
app.command()(check)
app.command()(ops)


def version_text() -> str:
    """`gradkit 0.1.0, JAX 0.10.2, cpu`."""
    device = jax.devices()[0]
    kind = "" if device.device_kind == device.platform else f" ({device.device_kind})"
    return f"gradkit {metadata.version('gradkit')}, JAX {jax.__version__}, {device.platform}{kind}"


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
    """Prove gradients right, and see what can be overridden in a function."""


def main() -> None:
    """Run the command line; the entry point of the `gradkit` script."""
    app()
