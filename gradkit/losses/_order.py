"""Where sorted entries came from."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax


def places(x: jax.Array) -> jax.Array:
    """The index of each entry along the last axis."""
    return lax.broadcasted_iota(jnp.int32, x.shape, x.ndim - 1)


def put_back(values: jax.Array, place: jax.Array) -> jax.Array:
    """`values[..., i]` at `place[..., i]`. On a CPU a scatter takes a tenth of a second sort."""
    n = values.shape[-1]
    rows = jnp.arange(values.size // n if n else 0)[:, None]
    flat = jnp.zeros_like(values).reshape(-1, n)
    where = flat.at[rows, place.reshape(-1, n)]
    filled = where.set(values.reshape(-1, n), unique_indices=True, mode="promise_in_bounds")
    return filled.reshape(values.shape)
