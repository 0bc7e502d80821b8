"""Weighted sums over many evaluations of a model, a few at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradkit import _jax_compat as compat


def weighted_sum(
    fn: Callable[[Any], Any], points: Any, weights: Any, chunk_size: int | None
) -> Any:
    r"""$\sum_i w_i\, \mathrm{fn}(p_i)$, of which `chunk_size` terms are in memory at a time.

    Args:
        fn: From one point to a pytree of arrays.
        points: A pytree of arrays, the points along their first axis.
        weights: The weights, `[n]`.
        chunk_size: How many points are evaluated together (by `vmap`); None for all.

    Returns:
        The sums, in float32 or wider.
    """
    n = len(weights)
    size = min(chunk_size or n, n)
    rounds = -(-n // size)
    # The last round is filled up with copies of the last point, which weigh nothing.
    at = jnp.arange(rounds * size)
    own = jnp.where(at < n, jnp.asarray(weights)[jnp.minimum(at, n - 1)], 0)
    at = jnp.minimum(at, n - 1)

    def add(total: Any, part: Any) -> tuple[Any, None]:
        i, w = part
        terms = jax.vmap(fn)(jax.tree.map(lambda p: p[i], points))
        return jax.tree.map(lambda t, ys: t + _dot(w, ys, t.dtype), total, terms), None

    one = jax.eval_shape(fn, jax.tree.map(lambda p: p[0], points))
    zeros = jax.tree.map(_zeros, one)
    total, _ = jax.lax.scan(add, zeros, (at.reshape(rounds, size), own.reshape(rounds, size)))
    return total


def _zeros(y: Any) -> Any:
    wide = jnp.promote_types(y.dtype, jnp.float32)
    return compat.match_varying_axes(jnp.zeros(y.shape, wide), y)


def _dot(w: Any, ys: Any, dtype: Any) -> Any:
    return jnp.tensordot(w.astype(dtype), ys.astype(dtype), 1, precision="highest")
