"""Pytrees of arguments, outputs and cotangents: flattening them and naming their parts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path

from gradkit import _jax_compat as compat


def describe_type(value: Any) -> str:
    """`float32[3, 4]` for an array, the type's name for anything else; never the values."""
    try:
        aval = jax.typeof(value)
    except TypeError:
        return type(value).__name__
    return describe_aval(aval)


def describe_aval(aval: Any) -> str:
    """`float32[3, 4]` for an array type."""
    return f"{aval.dtype.name}[{', '.join(map(str, aval.shape))}]"


def is_array(leaf: Any) -> bool:
    """Is a leaf something that JAX computes with: an array, a PRNG key or a Python number?"""
    try:
        jax.typeof(leaf)
    except TypeError:
        return False
    return True


def as_array(value: Any) -> Any:
    """A python number as an array of its JAX type; anything else as it is."""
    if isinstance(value, (bool, int, float, complex)):
        return jax.numpy.asarray(value, jax.typeof(value).dtype)
    return value


def zero_cotangent(value: Any) -> np.ndarray:
    """The float0 cotangent of a value without a tangent space (an integer, bool or PRNG key)."""
    return np.zeros(compat.tangent_aval(value).shape, dtype=jax.dtypes.float0)


def path_name(path: Sequence[Any]) -> str:
    """A pytree path as Python would write it: `['w'][0].bias`, or the empty string."""
    return keystr(tuple(path))


def leaves_with_names(tree: Any) -> list[tuple[str, Any]]:
    """The leaves of a pytree with their paths; `None` counts as a leaf."""
    flat, _ = tree_flatten_with_path(tree, is_leaf=lambda node: node is None)
    return [(path_name(path), leaf) for path, leaf in flat]


@dataclass(frozen=True)
class Parameters:
    """How a function's parameters are passed: what its rule owes a cotangent for.

    Attributes:
        positional: The names of the parameters that can be passed by position, in order.
        variadic: The name of `*args`, or None.
        skipped: How many of `positional` lead the list without a cotangent (`self`, `cls`).
    """

    signature: inspect.Signature
    positional: tuple[str, ...]
    variadic: str | None
    skipped: int

    @staticmethod
    def of(fn: Callable[..., Any]) -> Parameters:
        try:
            signature = inspect.signature(fn)
        except (TypeError, ValueError):  # a builtin that does not say
            signature = inspect.signature(lambda *args, **kwargs: None)
        kinds = inspect.Parameter
        positional = tuple(
            p.name
            for p in signature.parameters.values()
            if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)
        )
        variadic = [p.name for p in signature.parameters.values() if p.kind == kinds.VAR_POSITIONAL]
        skipped = 1 if positional[:1] in (("self",), ("cls",)) else 0
        return Parameters(signature, positional, variadic[0] if variadic else None, skipped)

    def bind(self, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        """Move arguments that were passed by name to their position; the rest stay named."""
        if not kwargs:
            return tuple(args), kwargs
        bound = self.signature.bind(*args, **kwargs)
        if any(name in bound.kwargs for name in self.positional):
            bound.apply_defaults()  # one of the parameters before it was left out
        return bound.args, bound.kwargs

    def name_of(self, position: int) -> str:
        """The name of the argument at a position, `args[3]` within `*args`."""
        if position < len(self.positional):
            return self.positional[position]
        return f"{self.variadic}[{position - len(self.positional)}]"
