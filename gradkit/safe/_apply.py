"""Any function on the part of its arguments where it is defined."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def safe_apply(
    fn: Callable[[Any], Any],
    mask: ArrayLike,
    x: Any,
    fill: ArrayLike = 0.0,
    *,
    inside: ArrayLike = 1.0,
) -> Any:
    r"""`fn(x)` where the mask holds, and `fill` elsewhere, without NaN from elsewhere.

    $$ y = \begin{cases} f(x) & \text{mask} \\ \text{fill} & \text{else} \end{cases}, \qquad
       \dot y = \begin{cases} f'(x)\,\dot x & \text{mask} \\ \dot{\text{fill}} & \text{else}
       \end{cases} $$

    `jnp.where(mask, fn(x), fill)` has this value, but its derivative is NaN where `fn` has an
    infinite slope behind the mask. Here `fn` never sees those arguments.

    Args:
        fn: An elementwise function, as far as the mask tells elements apart.
        mask: Boolean, of a shape that broadcasts with `x` and with the result.
        x: An array, or a pytree of arrays that `fn` takes as its one argument.
        fill: The result where the mask does not hold. It is differentiated too.
        inside: What `fn` is given there: any point at which it and its slope are finite.

    Returns:
        The result of `fn`, array by array.

    At the kink:
        The border of the mask belongs to the side that the mask says.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def f(x):
        ...     return safe_apply(jnp.log, x > 0, x, fill=-1.0).sum()
        >>> print(jax.grad(f)(jnp.array([0.0, 2.0])))
        [0.  0.5]
    """
    x = jax.tree.map(jnp.asarray, x)
    kept = jax.tree.map(lambda leaf: jnp.where(mask, leaf, jnp.asarray(inside, leaf.dtype)), x)
    return jax.tree.map(lambda y: jnp.where(mask, y, jnp.asarray(fill, y.dtype)), fn(kept))
