"""`gradkit explain`: what does this kind of finding mean?"""

from __future__ import annotations

import textwrap
from typing import Annotated

import typer
from rich.console import Console
from rich.syntax import Syntax

from gradkit._errors import describe, did_you_mean
from gradkit.cli._table import make_console
from gradkit.verify._kinds import EXPLANATIONS

_WIDTH = 88


def explain(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="[KIND]", help="The word in brackets behind a finding.", show_default=False
        ),
    ] = None,
) -> None:
    """Explain a kind of finding: its meaning, an example that has it, and its cure.

    Without KIND, list all of them.

    * `gradkit explain kink`

    Exit codes: 0; 2 if there is no such kind.
    """
    if kind is None:
        longest = max(map(len, EXPLANATIONS))
        for name, explanation in EXPLANATIONS.items():
            typer.echo(f"{name:<{longest}}  {explanation.summary}")
        return
    if kind.lower() not in EXPLANATIONS:
        what = f"there is no kind of finding {kind!r}{did_you_mean(kind, EXPLANATIONS)}"
        typer.echo(f"error: {describe(what, expected=', '.join(EXPLANATIONS))}", err=True)
        raise typer.Exit(2)
    _print(kind.lower(), make_console())


def _print(kind: str, console: Console) -> None:
    explanation = EXPLANATIONS[kind]
    console.print(f"[bold]{kind}[/]: {explanation.summary}\n", soft_wrap=True)
    console.print(textwrap.fill(explanation.meaning, _WIDTH), markup=False, soft_wrap=True)
    console.print("\n[bold]Example[/]\n")
    code = textwrap.indent(explanation.example.strip(), "    ")
    if console.is_terminal:
        console.print(Syntax(code, "python", background_color="default"))
    else:
        typer.echo(code)
    console.print("\n[bold]Cure[/]\n")
    console.print(textwrap.fill(explanation.cure, _WIDTH), markup=False, soft_wrap=True)
