"""Norms of cotangents, with derivatives that are finite at zero."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradkit._statistics import joint_norm, norm


def norm_of_all(y_bars: Sequence[jax.Array], batch_axes: int = 0) -> jax.Array:
    """The Euclidean norm of several arrays together, in float32 or wider.

    Args:
        y_bars: The arrays; leading axes are the same in all.
        batch_axes: How many leading axes are not summed over.
    """
    rests = [tuple(range(batch_axes, jnp.ndim(y_bar))) for y_bar in y_bars]
    zeros = [jnp.all(y_bar == 0, axis=rest) for y_bar, rest in zip(y_bars, rests, strict=True)]
    zero = jnp.stack(zeros).all(axis=0)
    # The root has an infinite slope at zero, which a `where` behind it would turn into NaN.
    kept = [
        jnp.where(jnp.expand_dims(zero, rest), 1, y_bar)
        for y_bar, rest in zip(y_bars, rests, strict=True)
    ]
    return jnp.where(zero, 0, joint_norm([norm(y_bar, batch_axes) for y_bar in kept]))


def norm_over(y_bar: jax.Array, axis: Sequence[int]) -> jax.Array:
    """The Euclidean norm over some axes, which stay with length 1; in float32 or wider."""
    ndim = jnp.ndim(y_bar)
    summed = sorted(a % ndim for a in axis)
    kept = [a for a in range(ndim) if a not in summed]
    size = norm_of_all([jnp.transpose(y_bar, [*kept, *summed])], len(kept))
    return jnp.expand_dims(size, summed)


def at_most(size: jax.Array, limit: Any) -> jax.Array:
    """The factor that brings what is of this size down to the limit; 1 where it is below.

    NaN is carried on.
    """
    within = size <= limit
    return jnp.where(within, 1, limit / jnp.where(within, 1, size))
