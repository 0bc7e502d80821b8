"""What a program says about its accuracy: its types, and loops that stop on a number."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

# Spacing around one from which on rounding turns functions into stairs: bfloat16 and float16.
COARSE = 1e-4
# And below which rounding is no concern: float64.
FINE = 1e-12


@dataclass(frozen=True)
class Precision:
    """How accurately a program computes.

    Attributes:
        dtype: The coarsest floating-point type that any of its operations returns.
        iterates: Does it hold a loop that stops when a floating-point number is small enough?
            Such a program jumps by its tolerance where the number of iterations changes.
    """

    dtype: Any
    iterates: bool = False

    @property
    def eps(self) -> float:
        return float(jnp.finfo(self.dtype).eps)


def inner_programs(eqn: Any) -> Iterator[Any]:
    """The jaxprs among the parameters of an equation."""
    for value in eqn.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            item = getattr(item, "jaxpr", item)
            if hasattr(item, "eqns"):
                yield item


def count_numbers(jaxpr: Any) -> int:
    """How many numbers a program reads and writes, loops counted once: a measure of its cost."""
    variables = (v for eqn in jaxpr.eqns for v in (*eqn.invars, *eqn.outvars))
    own = sum(math.prod(getattr(v.aval, "shape", ())) for v in variables)
    return own + sum(count_numbers(inner) for eqn in jaxpr.eqns for inner in inner_programs(eqn))


def _equations(jaxpr: Any) -> Iterator[Any]:
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in inner_programs(eqn):
            yield from _equations(inner)


def coarsest(dtypes: Sequence[Any]) -> Any:
    """The floating-point type among `dtypes` with the largest spacing around one."""
    return max(dtypes, key=lambda dtype: float(jnp.finfo(dtype).eps))


def _fed_equations(jaxpr: Any, inputs: Sequence[Any]) -> Iterator[Any]:
    """The equations that the inputs reach, inner programs whole; the others are constants."""
    reached = set(inputs)
    for eqn in jaxpr.eqns:
        if not any(v in reached for v in eqn.invars if not hasattr(v, "val")):
            continue
        reached.update(eqn.outvars)
        yield eqn
        for inner in inner_programs(eqn):
            yield from _equations(inner)


def _stops_on_a_number(eqn: Any) -> bool:
    if eqn.primitive.name != "while":
        return False
    condition = eqn.params["cond_jaxpr"].jaxpr
    return any(
        jnp.issubdtype(getattr(v.aval, "dtype", jnp.int32), jnp.inexact)
        for inner in _equations(condition)
        for v in inner.invars
    )


def trace(call: Callable[..., Any], *operands: Any) -> Any:
    """The closed jaxpr of a function, or `None` where it branches on a value."""
    try:
        return jax.make_jaxpr(call)(*operands)
    except jax.errors.JAXTypeError:
        return None


def read_precision(program: Any, leaves: Sequence[Any], n_consts: int = 0) -> Precision:
    """Read the `Precision` of a traced program; without one, `leaves` tell what they can.

    Args:
        program: What `trace` returned: a closed jaxpr.
        leaves: Inputs and outputs of the program.
        n_consts: How many of the program's first inputs are values that it closes over.
    """
    if program is None:
        return Precision(coarsest([x.dtype for x in leaves]))
    inputs = program.jaxpr.invars[n_consts:]
    equations = list(_fed_equations(program.jaxpr, inputs))
    variables = [*inputs, *(v for eqn in equations for v in eqn.outvars)]
    dtypes = {getattr(v.aval, "dtype", None) for v in variables}
    dtypes = [d for d in dtypes if d is not None and jnp.issubdtype(d, jnp.inexact)]
    iterates = any(_stops_on_a_number(eqn) for eqn in equations)
    return Precision(coarsest(dtypes), iterates)
