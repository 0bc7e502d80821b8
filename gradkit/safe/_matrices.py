"""Stacks of matrices."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def adjoint(a: jax.Array) -> jax.Array:
    """The conjugate transpose."""
    return jnp.swapaxes(a, -1, -2).conj()


def diagonal_matrix(d: jax.Array) -> jax.Array:
    """The matrix with `d` on its diagonal."""
    return jnp.where(_on_diagonal((*d.shape, d.shape[-1])), d[..., None], 0)


def unit_columns(a: jax.Array, kept: jax.Array) -> jax.Array:
    """`a`, with a column of the identity in the place of each that is not kept."""
    return jnp.where(kept[..., None, :], a, _on_diagonal(a.shape).astype(a.dtype))


def _on_diagonal(shape):
    return jnp.broadcast_to(jnp.eye(shape[-1], dtype=bool), shape)
