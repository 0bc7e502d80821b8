"""Which programs are not to be put into a loop."""

from __future__ import annotations

from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr

# XLA's CPU compiler hands these to a library of threads, but not inside of loops: a convolutional
# network was 13 times slower in one (JAX 0.10). To be dropped when benchmarks/train.py shows none.
_SLOW_IN_LOOPS = ("conv_general_dilated",)


def is_slow_in_loops(program: ClosedJaxpr) -> bool:
    """Would the program run much slower inside a loop than by itself, on this backend?"""
    return jax.default_backend() == "cpu" and _holds(program.jaxpr)


def _holds(jaxpr: Jaxpr) -> bool:
    return any(
        eqn.primitive.name in _SLOW_IN_LOOPS or any(map(_holds, _inside(eqn))) for eqn in jaxpr.eqns
    )


def _inside(eqn: Any) -> list[Jaxpr]:
    found = []
    for value in eqn.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            item = getattr(item, "jaxpr", item)
            if isinstance(item, Jaxpr):
                found.append(item)
    return found
