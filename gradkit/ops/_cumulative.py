"""Cumulative sums of exponentials."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from gradkit._arguments import as_floating, axis_index, widen
from gradkit.ops._recurrence import recur, shift


def cumlogsumexp(x: ArrayLike, axis: int = 0, *, reverse: bool = False) -> jax.Array:
    r"""Cumulative logarithm of a sum of exponentials, whose gradient is a stable recurrence.

    $$ y_t = \log \sum_{s \le t} e^{x_s}, \qquad
       \dot y_t = e^{y_{t-1} - y_t} \dot y_{t-1} + e^{x_t - y_t} \dot x_t $$

    Both factors are at most 1, so derivatives neither overflow nor lose digits where `x` ranges
    over hundreds; in reverse mode the same recurrence runs backwards. Where `x` starts with several
    `-inf`, as masks do, so does `y`; the gradient of `lax.cumlogsumexp` is NaN there.

    Args:
        x: Real array.
        axis: The axis that is accumulated along.
        reverse: Whether from its end.

    Returns:
        `y`, with shape and dtype of `x`. Half precision is computed in float32.

    Raises:
        TypeError: If `x` is complex.
        ValueError: If `x` has no such axis.

    At the kink:
        Where all of `x` so far is `-inf`, derivatives are 0.

    Keeps:
        The two factors.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x = jnp.array([-jnp.inf, 0.0, 0.0])
        >>> print(cumlogsumexp(x), jax.grad(lambda x: cumlogsumexp(x)[2])(x))
        [ -inf 0. 0.6931472] [0. 0.5 0.5]
    """
    x = as_floating("ops.cumlogsumexp", x)
    axis = axis_index("ops.cumlogsumexp", x, axis)
    y = _cumlogsumexp(reverse, jnp.moveaxis(widen(x), axis, 0))
    return jnp.moveaxis(y, 0, axis).astype(x.dtype)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _cumlogsumexp(reverse, x):
    if not x.size:
        return x
    if jax.default_backend() != "cpu":
        return lax.cumlogsumexp(x, 0, reverse)

    def step(carried, x):
        top, total = carried  # the largest so far, and the sum of exp(x - top)
        smaller = _exp_of_difference(jnp.minimum(x, top), jnp.maximum(x, top))
        total = jnp.where(x > top, total * smaller + 1, total + smaller)
        return (jnp.maximum(top, x), total), (jnp.maximum(top, x), total)

    start = (jnp.full_like(x[0], -jnp.inf), jnp.zeros_like(x[0]))
    _, (top, total) = lax.scan(step, start, x, reverse=reverse)
    return top + jnp.log(total)


@_cumlogsumexp.defjvp
def _cumlogsumexp_jvp(reverse, primals, tangents):
    ((x,), (x_dot,)) = primals, tangents
    y = _cumlogsumexp(reverse, x)
    if not x.size:
        return y, x_dot
    held = _exp_of_difference(shift(y, reverse, -jnp.inf), y)
    return y, recur(held, _exp_of_difference(x, y) * x_dot, reverse)


def _exp_of_difference(x: jax.Array, y: jax.Array) -> jax.Array:
    """`exp(x - y)` for `x <= y`: 0 where `x` is `-inf`, 1 where both are `+inf`."""
    same = x == y
    nothing = x == -jnp.inf
    gap = jnp.where(same | nothing, 0, x) - jnp.where(same | nothing, 0, y)
    return jnp.where(nothing, 0, jnp.exp(gap))
