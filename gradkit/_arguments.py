"""What the catalogue does to its arguments at the door."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradkit._errors import describe


def widen(x: jax.Array) -> jax.Array:
    """Half precision as float32, for sums and factorisations; other types as they are."""
    return x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x


def as_floating(function: str, x: ArrayLike, *, complex_too: bool = False) -> jax.Array:
    """The array, integers as floating-point numbers; `function` is named as "ops.median"."""
    dtype = jnp.result_type(x)
    if jnp.issubdtype(dtype, jnp.complexfloating) and not complex_too:
        raise TypeError(
            describe(
                f"gk.{function} is defined for real numbers only.",
                expected="real numbers, floating-point or integer",
                got=str(dtype),
            )
        )
    if not jnp.issubdtype(dtype, jnp.inexact):
        return jnp.asarray(x, jnp.result_type(x, float))
    return jnp.asarray(x)


def axis_index(function: str, x: jax.Array, axis: int) -> int:
    """`axis` counted from the front."""
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(
            describe(
                f"gk.{function} got an axis that its array does not have.",
                expected=f"an axis of an array of shape {x.shape}",
                got=f"axis {axis}",
            )
        )
    return axis % x.ndim
