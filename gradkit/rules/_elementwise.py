"""One array in, one array of its shape out, with a rule: what straight-through functions are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradkit._arguments import widen
from gradkit._errors import describe
from gradkit._rules import Call


def elementwise(
    name: str,
    value: Callable[..., jax.Array],
    rule: Callable[..., Any],
    x: Any,
    *operands: Any,
) -> jax.Array:
    """`value(x, *operands)`, whose cotangent goes on as `rule(x, y_bar, *operands)`.

    Args:
        name: The user's name of the function, for messages.
        value: Computes an array of the shape of `x`.
        rule: Computes the cotangent of `x`.
        x: A floating-point array; an integer counts as one.
        operands: What else both need. Traced values may be among them; their cotangent is zero.
    """

    def body(x, operands):
        def grad(y_bar):
            return rule(x, y_bar, *operands).astype(x.dtype), None

        return value(x, *operands).astype(x.dtype), grad

    return Call(name, body, (as_floating(name, x), operands), ("x", "operands"), (0, 1))()


def as_floating(name: str, x: Any) -> jax.Array:
    """The argument as a real floating-point array; integers become one.

    Raises:
        TypeError: If it is complex, or no array.
    """
    x = jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jnp.integer) or x.dtype == bool:
        return x.astype(float)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            describe(
                f"'{name}' is defined for real numbers only.",
                expected="a floating-point array",
                got=str(x.dtype),
            )
        )
    return x


def parameter(name: str, value: Any, x: jax.Array) -> jax.Array:
    """A number or array that `x` is computed with, in float32 or wider; it keeps its own digits.

    Raises:
        TypeError: If it is complex, or no array.
    """
    return as_floating(name, jnp.asarray(value, jnp.result_type(widen(x), value)))


def through(x: jax.Array, y_bar: jax.Array, *operands: Any) -> jax.Array:
    """The rule that passes the cotangent on."""
    del x, operands
    return y_bar
