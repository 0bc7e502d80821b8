"""What every safe function does at the edge of its domain, and to its arguments at the door."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from gradkit._errors import describe


def as_real(function: str, *arrays: ArrayLike) -> tuple[jax.Array, ...]:
    """The arrays in their common floating-point type; integers count as numbers of that type."""
    return _as_inexact(function, jnp.floating, "real numbers", arrays)


def as_matrix(function: str, a: ArrayLike, *, square: bool = False) -> jax.Array:
    """The array as a stack of real or complex matrices."""
    (matrix,) = _as_inexact(function, jnp.inexact, "real or complex numbers", (a,))
    if matrix.ndim < 2 or (square and matrix.shape[-1] != matrix.shape[-2]):
        raise ValueError(
            describe(
                f"gk.safe.{function} takes a {'square ' if square else ''}matrix.",
                expected="[..., n, n]" if square else "[..., m, n]",
                got=f"shape {matrix.shape}",
                fix="" if matrix.ndim < 2 else "use svd or qr, which take any matrix",
            )
        )
    return matrix


def _as_inexact(function: str, kind: Any, expected: str, arrays: Any) -> tuple[jax.Array, ...]:
    dtype = jnp.result_type(*arrays)
    if not jnp.issubdtype(dtype, jnp.inexact):
        dtype = jnp.result_type(*arrays, float)
    if not jnp.issubdtype(dtype, kind):
        raise TypeError(
            describe(
                f"gk.safe.{function} is defined for {expected} only.",
                expected=f"{expected}, floating-point or integer",
                got=str(dtype),
                fix="pass real and imaginary part apart" if "complex" in str(dtype) else "",
            )
        )
    # A Python number keeps its weak type, as it would in jax.numpy.
    return tuple(
        jnp.asarray(a) if jnp.result_type(a) == dtype else jnp.asarray(a, dtype) for a in arrays
    )


def held(
    fn: Callable[[jax.Array], jax.Array],
    is_edge: Callable[[jax.Array], jax.Array],
    inside: float,
) -> Callable[[jax.Array], jax.Array]:
    """`fn`, held on its edge: derivatives of every order are zero there.

    The slope is taken at `inside`, where it is finite. Masking the infinite slope afterwards would
    not do: it comes back as 0 * inf when that is differentiated or transposed.
    """

    @jax.custom_jvp
    def value(x):
        return fn(x)

    @value.defjvp
    def rule(primals, tangents):
        (x,), (x_dot,) = primals, tangents
        edge = is_edge(x)
        _, y_dot = jax.jvp(fn, (jnp.where(edge, inside, x),), (x_dot,))
        return value(x), jnp.where(edge, 0, y_dot)

    return value


def power_of_two(x: jax.Array) -> jax.Array:
    """The power of two at or below `|x|`, as a constant; 1 for zero and what is not finite."""
    x = lax.stop_gradient(x)
    usable = (x != 0) & jnp.isfinite(x)
    exponent = jnp.frexp(jnp.where(usable, x, 1))[1] - 1
    return jnp.ldexp(jnp.ones_like(x), exponent)
