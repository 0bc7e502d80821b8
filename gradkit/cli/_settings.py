"""The options of `gradkit check`, as they travel to the processes that run the checks."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import Any

ROLES = ("reference", "surrogate", "cotangent_map", "domain")


def flag_of(role: str) -> str:
    """The option on the command line: `--cotangent-map` for `cotangent_map`."""
    return "--" + role.replace("_", "-")


@dataclass(frozen=True)
class Settings:
    """What was asked for on the command line.

    Attributes:
        specs: The values of `--arg`.
        args_from: The function that makes the arguments, as it was written.
        options: Options of `check` that are numbers or names; what was not given is left out.
        roles: The functions for options of `check`, as they were written, by option.
        dtype: The type to cast floating-point arguments to, or an empty string.
    """

    specs: tuple[str, ...] = ()
    args_from: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)
    dtype: str = ""

    @property
    def seed(self) -> int:
        """The seed of random arguments."""
        return self.options.get("seed", 0)

    @property
    def for_one_function(self) -> list[str]:
        """The options given that make sense for one function only."""
        given = (("--arg", self.specs), ("--args-from", self.args_from), *self.roles.items())
        return [name if name.startswith("-") else flag_of(name) for name, value in given if value]

    def command(self, label: str, specs: tuple[str, ...], seed: int) -> str:
        """The command line that runs one function's check again.

        Example:
            >>> Settings(options={"order": 2}).command("f.py:g", ("f32[3]",), 0)
            "gradkit check f.py:g --arg 'f32[3]' --order 2 --seed 0"
        """
        words = ["gradkit", "check", label]
        for spec in specs:
            words += ["--arg", spec]
        if self.args_from:
            words += ["--args-from", self.args_from]
        for role, target in self.roles.items():
            words += [flag_of(role), target]
        for option, value in self.options.items():
            if option == "modes":
                words += [word for mode in value for word in ("--mode", mode)]
            elif option != "seed":
                words += [flag_of(option), f"{value}"]
        if self.dtype:
            words += ["--dtype", self.dtype]
        return shlex.join([*words, "--seed", str(seed)])
