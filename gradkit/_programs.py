"""Evaluating programs (jaxprs) as they are: what is in them is never overridden again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun

from gradkit import _jax_compat as compat
from gradkit import _scope


def evaluate(program: ClosedJaxpr, xs: Sequence[Any]) -> list[Any]:
    """The outputs of a program."""
    with _scope.switched_off():
        return jaxpr_as_fun(program)(*xs)


def evaluate_cutting_off(jaxpr: Jaxpr, operands: Sequence[Any], n_outputs: int) -> list[Any]:
    """Evaluate, stopping derivatives where a value is needed for the first outputs only.

    Args:
        jaxpr: The program.
        operands: The values of its constants and inputs.
        n_outputs: How many of its outputs get their tangents elsewhere. An operation on the way
            to these alone may have no derivative.
    """
    needed = {a for a in jaxpr.outvars[n_outputs:] if not isinstance(a, Literal)}
    natural: set[int] = set()
    for i, eqn in reversed(list(enumerate(jaxpr.eqns))):
        if any(v in needed for v in eqn.outvars):
            natural.add(i)
            needed.update(a for a in eqn.invars if not isinstance(a, Literal))
    env = dict(zip([*jaxpr.constvars, *jaxpr.invars], operands, strict=True))
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
