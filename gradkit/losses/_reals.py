"""What the losses on real arrays do to their arguments at the door."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradkit._arguments import as_floating, widen
from gradkit._errors import describe


def as_reals(function: str, *arrays: ArrayLike) -> tuple[tuple[jax.Array, ...], jnp.dtype]:
    """The arrays in the type to compute in, and the one to answer in; half as float32."""
    reals = [as_floating(function, array) for array in arrays]
    dtype = jnp.result_type(*reals)
    return tuple(widen(real.astype(dtype)) for real in reals), dtype


def check_fits(function: str, name: str, shape: tuple[int, ...], expected: tuple, why: str) -> None:
    """Raise unless `shape` is the one expected, in which a text stands for any length."""
    fits = len(shape) == len(expected) and all(
        isinstance(e, str) or e == n for n, e in zip(shape, expected, strict=True)
    )
    if not fits:
        raise ValueError(
            describe(
                f"gk.{function} got '{name}' of a shape that does not fit.",
                expected=f"[{', '.join(map(str, expected))}], {why}",
                got=f"shape {shape}",
            )
        )


def check_positive(function: str, name: str, value: ArrayLike) -> None:
    """Raise where a Python number is not above 0; an array may be traced, and is let through."""
    if isinstance(value, (int, float)) and not value > 0:
        raise ValueError(
            describe(
                f"gk.{function} needs a positive '{name}'.",
                expected=f"{name} > 0",
                got=f"{name} = {value}",
            )
        )


def check_integers(function: str, name: str, values: ArrayLike) -> jax.Array:
    """The values as an array, if they are integers or booleans."""
    array = jnp.asarray(values)
    if not jnp.issubdtype(array.dtype, jnp.integer) and array.dtype != jnp.bool_:
        raise TypeError(
            describe(
                f"gk.{function} takes integers as '{name}'.",
                expected="integers",
                got=str(array.dtype),
                fix=f"pass {name}.astype(int), or argmax over the classes of one-hot rows",
            )
        )
    return array
