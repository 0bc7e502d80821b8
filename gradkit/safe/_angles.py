"""Inverse trigonometric and hyperbolic functions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from gradkit.safe._edges import as_real, held, power_of_two


def arccos(x: ArrayLike) -> jax.Array:
    r"""Arc cosine whose derivative at the ends is zero instead of infinite.

    $$ y = \arccos x, \qquad \dot y = -\dot x / \sqrt{(1 - x)(1 + x)} $$

    Args:
        x: Real array, in [-1, 1].

    Returns:
        `y` in radians, as `jnp.arccos`: NaN outside. For a cosine that rounding may have pushed
        past 1, `arccos(jnp.clip(x, -1, 1))`; for an angle that is accurate near 0, `arctan2`.

    Raises:
        TypeError: If `x` is complex.

    At the kink:
        At -1 and 1 the slope is infinite: the angle between two vectors has a kink where they are
        parallel, at which 0 is the smallest subgradient. The rule picks 0, also outside.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> print(jax.vmap(jax.grad(arccos))(jnp.array([-1.0, 0.0, 1.0])))
        [-0. -1. -0.]
    """
    (x,) = as_real("arccos", x)
    return _held_arccos(x)


def arcsin(x: ArrayLike) -> jax.Array:
    r"""Arc sine whose derivative at the ends is zero instead of infinite.

    $$ y = \arcsin x, \qquad \dot y = \dot x / \sqrt{(1 - x)(1 + x)} $$

    Args:
        x: Real array, in [-1, 1].

    Returns:
        `y` in radians, as `jnp.arcsin`: NaN outside.

    Raises:
        TypeError: If `x` is complex.

    At the kink:
        At -1 and 1 the slope is infinite. The rule picks 0, also outside, as for `arccos`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> print(jax.vmap(jax.grad(arcsin))(jnp.array([-1.0, 0.0, 1.0])))
        [0. 1. 0.]
    """
    (x,) = as_real("arcsin", x)
    return _held_arcsin(x)


def _slope(x):
    # 1 - x**2 loses half of the digits next to 1; these factors are exact there.
    return lax.rsqrt((1 - x) * (1 + x))


_arccos = jax.custom_jvp(jnp.arccos)
_arcsin = jax.custom_jvp(jnp.arcsin)
_acosh = jax.custom_jvp(jnp.arccosh)
_arccos.defjvps(lambda x_dot, y, x: -x_dot * _slope(x))
_arcsin.defjvps(lambda x_dot, y, x: x_dot * _slope(x))
# The product of two roots, because x**2 overflows where the slope is an ordinary number.
_acosh.defjvps(lambda x_dot, y, x: x_dot * lax.rsqrt(x - 1) * lax.rsqrt(x + 1))


def _at_either_end(x):
    return jnp.abs(x) >= 1


_held_arccos = held(_arccos, _at_either_end, inside=0.0)
_held_arcsin = held(_arcsin, _at_either_end, inside=0.0)
_held_atanh = held(jnp.arctanh, _at_either_end, inside=0.0)
_held_acosh = held(_acosh, lambda x: x <= 1, inside=2.0)


def arctan2(y: ArrayLike, x: ArrayLike) -> jax.Array:
    r"""Angle of the point `(x, y)`, with a derivative at the origin, for points of any size.

    $$ \theta = \operatorname{atan2}(y, x), \qquad
       \dot\theta = (x\,\dot y - y\,\dot x) / (x^2 + y^2) $$

    Args:
        y: Real array.
        x: Real array.

    Returns:
        The angle in radians, in (-pi, pi], as `jnp.arctan2`.

    Raises:
        TypeError: If one is complex.

    At the kink:
        The origin has no angle. The derivatives are 0 there. Across the cut at `y = 0, x < 0` the
        value jumps, and the derivative is that of either side.

    Example:
        >>> import jax
        >>> print(*jax.grad(arctan2, (0, 1))(0.0, 0.0), *jax.grad(arctan2, (0, 1))(0.0, 2.0))
        0.0 0.0 0.5 -0.0
    """
    y, x = as_real("arctan2", y, x)
    return _arctan2(*jnp.broadcast_arrays(y, x))


@jax.custom_jvp
def _arctan2(y, x):
    return jnp.arctan2(y, x)


@_arctan2.defjvp
def _arctan2_jvp(primals, tangents):
    y, x = primals
    y_dot, x_dot = tangents
    scale = power_of_two(jnp.maximum(jnp.abs(x), jnp.abs(y)))
    x, y = x / scale, y / scale
    square = x**2 + y**2
    origin = square == 0
    square = jnp.where(origin, 1, square)
    # Divided by the scale last: its square may not be a number of this type.
    slopes = [jnp.where(origin, 0, part / square) / scale for part in (x, -y)]
    return _arctan2(*primals), slopes[0] * y_dot + slopes[1] * x_dot


def acosh(x: ArrayLike) -> jax.Array:
    r"""Inverse hyperbolic cosine with a derivative at one, and for large numbers.

    $$ y = \operatorname{arcosh} x, \qquad \dot y = \dot x / (\sqrt{x - 1} \sqrt{x + 1}) $$

    Args:
        x: Real array, from 1 upwards.

    Returns:
        `y`, as `jnp.arccosh`: NaN below 1.

    Raises:
        TypeError: If `x` is complex.

    At the kink:
        At 1 the slope is infinite: a hyperbolic distance has a kink where the points meet. The
        rule picks 0, also below.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> print(jax.vmap(jax.grad(acosh))(jnp.array([1.0, 1e30])))
        [0.e+00 1.e-30]
    """
    (x,) = as_real("acosh", x)
    return _held_acosh(x)


def atanh(x: ArrayLike) -> jax.Array:
    r"""Inverse hyperbolic tangent whose derivative at the ends is zero instead of infinite.

    $$ y = \operatorname{artanh} x, \qquad \dot y = \dot x / (1 - x^2) $$

    Args:
        x: Real array, in [-1, 1].

    Returns:
        `y`, as `jnp.arctanh`: infinite at the ends, NaN outside.

    Raises:
        TypeError: If `x` is complex.

    At the kink:
        At -1 and 1 value and slope are infinite. The rule picks 0, also outside.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> print(jax.vmap(jax.grad(atanh))(jnp.array([-1.0, 0.0, 1.0])))
        [0. 1. 0.]
    """
    (x,) = as_real("atanh", x)
    return _held_atanh(x)
