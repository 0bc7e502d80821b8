"""One line of the catalogue; each package of the catalogue holds its own table of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One line of the catalogue.

    Attributes:
        function: The function.
        value: What it computes.
        rule: What its derivative is; `x_bar` where `y_bar` arrives.
        source: Where it is from; empty for what everybody knows.
        forward: Whether there is a forward mode.
        in_maps: How it serves as a value of an override map: by name (`{"Sign": "sign"}`) or as the
            function; with options only, through `functools.partial`; or, empty, not at all.
    """

    function: Callable[..., Any]
    value: str
    rule: str
    source: str = ""
    forward: bool = True
    in_maps: str = ""

    @property
    def path(self) -> tuple[str, ...]:
        """The names that lead to it from the package: ("rules", "surrogate", "arctan")."""
        modules = self.function.__module__.split(".")[1:]
        name = getattr(self.function, "__name__", "")
        return (*(module for module in modules if not module.startswith("_")), name)

    @property
    def package(self) -> str:
        """The part of the catalogue that it belongs to: "rules", "safe", "ops" or "losses"."""
        return self.path[0]

    @property
    def name(self) -> str:
        """Its name within the package."""
        return ".".join(self.path[1:])

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return (self.function.__doc__ or "").split("\n", 1)[0]
