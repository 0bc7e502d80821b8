"""A kernel summed over all pairs of points, its gradient found on the way."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gradkit.ops._fused import fused
from gradkit.ops._kernel_sweep import sweep
from gradkit.ops._kernels import all_pairs


def pair_total(kernel: str, x: jax.Array, z: jax.Array) -> jax.Array:
    """The sum over all `k(x_i, z_j)`."""

    def forward(x, z):
        found = sweep(kernel, x, z, jnp.ones_like(z[:, :1]), jnp.ones_like(x[:, :1]))
        return found.y.sum(), (found.x_bar, found.z_bar)

    def backward(xs, y, kept, y_bar, wanted):
        del xs, y, wanted
        return tuple(y_bar * x_bar for x_bar in kept)

    return fused(lambda x, z: all_pairs(kernel, x, z).sum(), forward, backward, x, z)


def self_total(kernel: str, x: jax.Array) -> jax.Array:
    """The sum over all `k(x_i, x_j)`, `i = j` included, of which half the blocks are computed."""

    def forward(x):
        ones = jnp.ones_like(x[:, :1])
        found = sweep(kernel, x, x, ones, ones, symmetric=True)
        return found.y.sum(), found.x_bar + found.z_bar

    def backward(xs, y, kept, y_bar, wanted):
        del xs, y, wanted
        return (y_bar * kept,)

    return fused(lambda x: all_pairs(kernel, x, x).sum(), forward, backward, x)
