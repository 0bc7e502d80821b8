"""Conversions of large constants, done once and not in every evaluation.

A check runs in float64. Parameters that a function closes over are converted to it by the program,
each time that it runs, or within a product of mixed types; for a large network that takes longer
than all the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from jax import lax
from jax.extend.core import Literal

from gradkit import _jax_compat as compat
from gradkit._programs import Program

_WORTH = 100_000  # numbers in a constant, from which on another trace costs less
# What names the type that an operation converts its operands to.
_TYPES = {"convert_element_type": "new_dtype", "dot_general": "preferred_element_type"}


@dataclass(eq=False)
class _Conversion:
    """A constant, kept so that its identity is not given to another, and what it became."""

    constant: Any
    converted: Any


_known: WeakValueDictionary[tuple[int, Any], _Conversion] = WeakValueDictionary()


def is_large(constant: Any) -> bool:
    """Is a constant so large that it is converted beforehand?"""
    return np.size(constant) >= _WORTH


def fold_conversions(program: Program, name: str) -> tuple[Program, Sequence[Any]]:
    """The program with its large constants in the types that it needs them in.

    Returns:
        The program, and what has to be kept as long as it, so that other programs share the
        converted constants.
    """
    jaxpr = program.jaxpr.jaxpr
    large = {
        v: constant
        for v, constant in zip(jaxpr.invars, program.consts, strict=False)
        if is_large(constant)
    }
    found: dict[tuple[Any, Any], _Conversion] = {}
    for eqn in jaxpr.eqns if large else ():
        dtype = eqn.params.get(_TYPES.get(eqn.primitive.name, ""))
        if dtype is None:  # which NumPy would take for float64
            continue
        for atom in eqn.invars:
            if not isinstance(atom, Literal) and atom in large and atom.aval.dtype != dtype:
                found[atom, dtype] = _convert(large[atom], dtype)
    if not found:
        return program, ()

    def evaluate(*xs: Any) -> list[Any]:
        env = dict(zip(jaxpr.invars, (*program.consts, *xs), strict=True))

        def read(atom: Any, dtype: Any) -> Any:
            if isinstance(atom, Literal):
                return atom.val
            return found[atom, dtype].converted if (atom, dtype) in found else env[atom]

        for eqn in jaxpr.eqns:
            dtype = eqn.params.get(_TYPES.get(eqn.primitive.name, ""))
            out = compat.evaluate_equation(eqn, [read(atom, dtype) for atom in eqn.invars])
            env.update(zip(eqn.outvars, out, strict=True))
        return [read(atom, None) for atom in jaxpr.outvars]

    return Program.trace(evaluate, program.in_avals, name), tuple(found.values())


def _convert(constant: Any, dtype: Any) -> _Conversion:
    key = id(constant), dtype
    conversion = _known.get(key)
    if conversion is None:
        conversion = _Conversion(constant, lax.convert_element_type(constant, dtype))
        _known[key] = conversion
    return conversion
