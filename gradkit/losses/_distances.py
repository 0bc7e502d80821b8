"""Squared distances of all pairs of points, by one matrix product."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax


def squared_distances(x: jax.Array, y: jax.Array) -> jax.Array:
    """`|x_i - y_j|^2` of `x[..., n, d]` and `y[..., m, d]`, `[..., n, m]`.

    Centred first: what the product rounds off is relative to the points' spread, and not to how
    far the origin is.
    """
    centre = lax.stop_gradient(jnp.mean(y, -2, keepdims=True))
    x, y = x - centre, y - centre
    product = jnp.einsum("...nd,...md->...nm", x, y, precision=lax.Precision.HIGHEST)
    norms = jnp.sum(x * x, -1)[..., :, None] + jnp.sum(y * y, -1)[..., None, :]
    return norms - 2 * product
