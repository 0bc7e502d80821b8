"""Programs (jaxprs): tracing them, and evaluating them without overriding anything again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun

from gradkit import _jax_compat as compat
from gradkit import _scope


@dataclass(frozen=True)
class Program:
    """A traced function.

    Attributes:
        jaxpr: `(*consts, *xs) -> outputs`, without constants of its own.
        consts: The values that the function closes over.
    """

    jaxpr: ClosedJaxpr
    consts: Sequence[Any] = ()

    @staticmethod
    def trace(fn: Callable[..., Sequence[Any]], avals: Sequence[Any], name: str) -> Program:
        """Trace a function from flat arguments to flat outputs."""
        return Program(*compat.trace_to_jaxpr(fn, avals, name))

    def __call__(self, *xs: Any) -> list[Any]:
        with _scope.switched_off():
            return jaxpr_as_fun(self.jaxpr)(*self.consts, *xs)

    @property
    def in_avals(self) -> Sequence[Any]:
        """The types of `xs`."""
        return self.jaxpr.in_avals[len(self.consts) :]

    @property
    def out_avals(self) -> Sequence[Any]:
        """The types of the outputs."""
        return self.jaxpr.out_avals


def evaluate_cutting_off(
    program: ClosedJaxpr, operands: Sequence[Any], n_outputs: int
) -> list[Any]:
    """Evaluate, stopping derivatives where a value is needed for the first outputs only.

    Args:
        program: The program.
        operands: The values of its inputs.
        n_outputs: How many of its outputs get their tangents elsewhere. An operation on the way
            to these alone may have no derivative.
    """
    jaxpr = program.jaxpr
    needed = {a for a in jaxpr.outvars[n_outputs:] if not isinstance(a, Literal)}
    natural: set[int] = set()
    for i, eqn in reversed(list(enumerate(jaxpr.eqns))):
        if any(v in needed for v in eqn.outvars):
            natural.add(i)
            needed.update(a for a in eqn.invars if not isinstance(a, Literal))
    env = dict(zip(jaxpr.invars, operands, strict=True))
    stopped: dict[Any, Any] = {}

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else env[atom]

    def read_stopped(atom: Any) -> Any:
        if isinstance(atom, Literal):
            return atom.val
        if atom not in stopped:
            value = env[atom]
            stopped[atom] = jax.lax.stop_gradient(value) if isinstance(value, Tracer) else value
        return stopped[atom]

    with _scope.switched_off():
        for i, eqn in enumerate(jaxpr.eqns):
            look_up = read if i in natural else read_stopped
            out = compat.evaluate_equation(eqn, [look_up(atom) for atom in eqn.invars])
            env.update(zip(eqn.outvars, out, strict=True))
            if i not in natural:  # constant already
                stopped.update(zip(eqn.outvars, out, strict=True))
    return [read(atom) for atom in jaxpr.outvars]
