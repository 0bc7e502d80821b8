"""Logarithms, and products with them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy import special
from jax.typing import ArrayLike

from gradkit.safe._edges import as_real, held


def log(x: ArrayLike) -> jax.Array:
    r"""Natural logarithm whose derivative at zero is zero instead of infinite.

    $$ y = \log x, \qquad \dot y = \dot x / x $$

    Args:
        x: Real array.

    Returns:
        `y`, as `jnp.log`: `-inf` at 0, NaN below. Where another value is wanted,
        `jnp.where(x > 0, log(x), value)` has the right derivative. For a product with `x` there
        is `xlogx`.

    Raises:
        TypeError: If `x` is complex.

    At the kink:
        At 0 the slope is infinite, and so is the value. The rule picks 0, so that a masked entry
        leaves the rest of a gradient alone. Below 0 all derivatives are 0.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> print(jax.vmap(jax.grad(log))(jnp.array([0.0, 4.0])))
        [0.   0.25]
    """
    (x,) = as_real("log", x)
    return _log(x)


def log1p(x: ArrayLike) -> jax.Array:
    r"""`log(1 + x)` whose derivative at -1 is zero instead of infinite.

    $$ y = \log(1 + x), \qquad \dot y = \dot x / (1 + x) $$

    Args:
        x: Real array.

    Returns:
        `y`, as `jnp.log1p`: `-inf` at -1, NaN below.

    Raises:
        TypeError: If `x` is complex.

    At the kink:
        From -1 downwards all derivatives are 0, as with `log`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> print(jax.vmap(jax.grad(log1p))(jnp.array([-1.0, 3.0])))
        [0.   0.25]
    """
    (x,) = as_real("log1p", x)
    return _log1p(x)


_log = held(jnp.log, lambda x: x <= 0, inside=1.0)
_log1p = held(jnp.log1p, lambda x: x <= -1, inside=0.0)


def xlogx(x: ArrayLike) -> jax.Array:
    r"""`x log(x)`, zero at zero, as in an entropy.

    $$ y = x \log x, \qquad \dot y = (1 + \log x)\,\dot x $$

    Args:
        x: Real array.

    Returns:
        `y`: 0 at 0, NaN below.

    Raises:
        TypeError: If `x` is complex.

    At the kink:
        At 0 the slope is minus infinity. The rule picks 0, as for a class that is left out.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> print(jax.vmap(jax.grad(xlogx))(jnp.array([0.0, 1.0])))
        [0. 1.]
    """
    (x,) = as_real("xlogx", x)
    return xlogy(x, x)


def xlogy(x: ArrayLike, y: ArrayLike) -> jax.Array:
    r"""`x log(y)`, zero where `x` is, with derivatives where `y` is zero too.

    $$ z = x \log y, \qquad \dot z = \log(y)\,\dot x + (x / y)\,\dot y $$

    Args:
        x: Real array.
        y: Real array.

    Returns:
        `z`, as `jax.scipy.special.xlogy`.

    Raises:
        TypeError: If one is complex.

    At the kink:
        At `y = 0` the slope with respect to `x` is infinite, and the one with respect to `y` is
        infinite or, at `x = 0`, any number. The rule picks 0 for both, and below, and at infinity.

    Example:
        >>> import jax
        >>> print(*jax.grad(xlogy, (0, 1))(0.0, 0.0), *jax.grad(xlogy, (0, 1))(3.0, 1.0))
        0.0 0.0 0.0 3.0
    """
    x, y = as_real("xlogy", x, y)
    edge = (y <= 0) | (y == jnp.inf) | (jnp.isnan(y) & (x == 0))
    # The product is written out because JAX's own rule for xlogy divides by y**2 at second order.
    product = x * jnp.log(jnp.where(edge, 1, y))
    held = special.xlogy(jax.lax.stop_gradient(x), jax.lax.stop_gradient(y))
    return jnp.where(edge, held, product)
