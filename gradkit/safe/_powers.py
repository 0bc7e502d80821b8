"""Quotients and powers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradkit.safe._edges import as_real
from gradkit.safe._logs import log


def divide(x: ArrayLike, y: ArrayLike, fill: ArrayLike = 0.0) -> jax.Array:
    r"""Quotient that is `fill` where the denominator is zero.

    $$ q = x / y, \qquad \dot q = (\dot x - q\,\dot y) / y $$

    JAX divides by `y**2`, which is zero as soon as `|y| < 1e-19` in float32, although quotient and
    slope may be ordinary numbers.

    Args:
        x: Real array.
        y: Real array.
        fill: The result where `y` is zero. It is differentiated too.

    Returns:
        `q`, in the common dtype.

    Raises:
        TypeError: If one is complex.

    At the kink:
        At `y = 0` the quotient has a pole. The derivatives with respect to `x` and `y` are 0.

    Example:
        >>> import jax
        >>> print(*jax.grad(divide, (0, 1))(1.0, 0.0), *jax.grad(divide, (0, 1))(1.0, 2.0))
        0.0 0.0 0.5 -0.25
    """
    x, y = as_real("divide", x, y)
    zero = y == 0
    return jnp.where(zero, jnp.asarray(fill, x.dtype), _quotient(x, jnp.where(zero, 1, y)))


@jax.custom_jvp
def _quotient(x, y):
    return x / y


@_quotient.defjvp
def _quotient_jvp(primals, tangents):
    x, y = primals
    x_dot, y_dot = tangents
    q = _quotient(x, y)
    return q, (x_dot - q * y_dot) / y


def power(x: ArrayLike, y: ArrayLike) -> jax.Array:
    r"""Power whose derivatives are right at base zero and at negative bases.

    $$ z = x^y, \qquad \dot z = y x^{y-1} \dot x + z \log(x)\,\dot y $$

    Args:
        x: Base, real array.
        y: Exponent, real array. For one known beforehand, `x**2`, JAX is right already.

    Returns:
        `z`, as `jnp.power`: 1 for `y = 0`, NaN for a negative base and a fraction.

    Raises:
        TypeError: If one is complex.

    At the kink:
        At `x = 0` the derivative with respect to `x` is the limit where that is finite (`y = 0`,
        `y >= 1`), also of higher orders, and 0 where it is infinite. With respect to `y` it is 0
        for `x <= 0`: a negative base has values at whole exponents only.

    Example:
        >>> import jax
        >>> print(*jax.grad(power, (0, 1))(0.0, 1.0), *jax.grad(power, (0, 1))(-2.0, 2.0))
        1.0 0.0 -4.0 0.0
    """
    x, y = as_real("power", x, y)
    return _power(*jnp.broadcast_arrays(x, y))


@jax.custom_jvp
def _power(x, y):
    return jnp.power(x, y)


@_power.defjvp
def _power_jvp(primals, tangents):
    x, y = primals
    x_dot, y_dot = tangents
    z = _power(x, y)
    infinite = (x == 0) & (y < 1)
    slope = jnp.where(infinite | (y == 0), 0, y * _power(jnp.where(infinite, 1, x), y - 1))
    undefined = x <= 0
    growth = jnp.where(undefined, 0, z * log(jnp.where(undefined, 1, x)))
    return z, slope * x_dot + growth * y_dot
