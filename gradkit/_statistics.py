"""Statistics of a cotangent that fit in a few numbers, without overflow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp


def norm(y_bar: Any, batch_axes: int = 0) -> jax.Array:
    """The Euclidean norm over all but the leading axes, in float32 or wider.

    NaN and infinity are carried on.
    """
    return _norm(_sizes(y_bar), tuple(range(batch_axes, jnp.ndim(y_bar))))


def joint_norm(norms: Sequence[jax.Array]) -> jax.Array:
    """The norm of several arrays together; leading axes that one does not have are broadcast."""
    ndim = max(map(jnp.ndim, norms))
    aligned = [jnp.reshape(n, jnp.shape(n) + (1,) * (ndim - jnp.ndim(n))) for n in norms]
    return _norm(jnp.stack(jnp.broadcast_arrays(*aligned)), 0)


def _sizes(y_bar: Any) -> jax.Array:
    """Absolute values in a dtype that sums can be taken in."""
    sizes = jnp.abs(y_bar)
    return sizes.astype(jnp.promote_types(sizes.dtype, jnp.float32))


def _norm(sizes: jax.Array, axis: Any) -> jax.Array:
    """The norm by way of the largest element, whose square may be out of range."""
    largest = jnp.max(sizes, axis=axis, keepdims=True, initial=0)
    scale = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    return jnp.squeeze(scale, axis) * jnp.sqrt(jnp.sum((sizes / scale) ** 2, axis=axis))


def statistics(y_bar: jax.Array) -> jax.Array:
    """What a table shows of a cotangent.

    Returns:
        Norm, largest absolute value, sum (of the real part), number of zeros, number of NaN and
        infinite elements; the first three of the finite elements alone. Shape `(5,)`, float32 or
        wider.
    """
    finite = jnp.isfinite(y_bar)
    sizes = _sizes(jnp.where(finite, y_bar, 0))
    total = jnp.sum(jnp.where(finite, y_bar, 0).real.astype(sizes.dtype))
    counts = [jnp.sum(y_bar == 0), jnp.sum(~finite)]
    parts = [_norm(sizes, None), jnp.max(sizes, initial=0), total, *counts]
    return jnp.stack([part.astype(sizes.dtype) for part in parts])


def merged(parts: Any) -> Any:
    """The statistics of several arrays together: of shape `(n, 5)`, for one of shape `(5,)`."""
    return jnp.concatenate(
        [
            _norm(parts[:, 0], 0)[None],
            jnp.max(parts[:, 1], initial=0)[None],
            jnp.sum(parts[:, 2:], axis=0),
        ]
    )
