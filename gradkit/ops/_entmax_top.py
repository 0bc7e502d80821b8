"""The largest probability of entmax, from which all others follow."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

Alpha = float | jax.Array


def weights(x: jax.Array, top: jax.Array, alpha: Alpha) -> tuple[jax.Array, jax.Array]:
    r"""`p` and `p^(2 - alpha)`, given `p` at the largest entry, where `x = 0`.

    $$ p^{\alpha - 1} = [p_\text{top}^{\alpha - 1} + (\alpha - 1) x]_+ $$

    Stated by `p_top` instead of `sigma`, it has no cancellation where many share the weight.
    """
    if isinstance(alpha, float) and alpha == 2:
        p = jnp.maximum(top + x, 0)
        return p, jnp.sign(p)
    if isinstance(alpha, float) and alpha == 1.5:
        root = jnp.maximum(jnp.sqrt(top) + x / 2, 0)
        return root * root, root
    gap = jnp.asarray(alpha, x.dtype) - 1
    scale = top**gap
    ratio = _exp(x / scale, gap)
    outside = ratio == 0
    slope = ratio / jnp.where(outside, 1, 1 + gap * (x / scale))
    return top * ratio, jnp.where(outside, 0, slope * top / scale)


def _exp(w: jax.Array, gap: jax.Array) -> jax.Array:
    """`[1 + gap w]_+^(1 / gap)`, the exponential at `gap = 0`, for `w <= 0`."""
    outside = gap * w <= -1
    log = jnp.log1p(jnp.where(outside, 0, gap * w)) / jnp.where(gap == 0, 1, gap)
    return jnp.where(outside, 0, jnp.exp(jnp.where(gap == 0, w, log)))


def top_by_newton(x: jax.Array, alpha: Alpha) -> jax.Array:
    """The largest probability, for `x` with maximum 0, from 1 downwards.

    The norm `(sum_i p_i)^(alpha - 1)` of the bases `p_i^(alpha - 1)` is convex in `sigma`, so that
    the steps never pass the solution, and it is linear where the entries are equal or `alpha` is 1.
    """
    gap = jnp.asarray(alpha, x.dtype) - 1
    rounding = 4 * jnp.finfo(x.dtype).eps

    def advance(state):
        top, moving = state
        p, slope = weights(x, top, alpha)
        total = jnp.sum(p, -1, keepdims=True)
        log = jnp.log(total)
        # The logarithm to which the power belongs: (total^gap - 1) / gap.
        log = jnp.where(gap == 0, log, jnp.expm1(gap * log) / jnp.where(gap == 0, 1, gap))
        step = total ** (1 - gap) * log / jnp.sum(slope, -1, keepdims=True) / top**gap
        lowered = jnp.where(gap == 1, top - top * step, top * _exp(-step, gap))
        return jnp.where(moving, lowered, top), moving & (step > rounding)

    # The first step stands outside: its result has the type of x under shard_map, 1 has not.
    state = advance((jnp.ones((), x.dtype), jnp.ones((), bool)))
    return lax.while_loop(lambda state: jnp.any(state[1]), advance, state)[0]


def top_by_sort(x: jax.Array, alpha: float) -> jax.Array:
    """The same for `alpha` 1.5 or 2: the support is the longest prefix that has a threshold."""
    x = jnp.sort((alpha - 1) * x, -1, descending=True)
    count = jnp.arange(1, x.shape[-1] + 1, dtype=x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))
    mean = jnp.cumsum(x, -1) / count
    if alpha == 2:
        tau = mean - 1 / count
    else:
        spread = jnp.cumsum(x * x, -1) / count - mean**2
        tau = mean - jnp.sqrt(jnp.maximum(1 / count - spread, 0))
    inside = jnp.where(jnp.isfinite(x), tau < x, False)
    last = jnp.maximum(jnp.sum(inside, -1, keepdims=True) - 1, 0)
    tau = jnp.take_along_axis(tau, last, -1)
    return -tau if alpha == 2 else tau * tau
