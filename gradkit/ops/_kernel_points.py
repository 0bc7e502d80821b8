"""Points and what belongs to them, checked."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from gradkit._errors import describe
from gradkit._trees import describe_type


def as_points(
    function: str, x: Any, z: Any, bandwidth: Any, *others: Any
) -> tuple[jax.Array, jax.Array, jax.Array, Any]:
    """Two sets of points with their mean at the origin, the bandwidth, and the result's dtype.

    Distances do not change when all points move, so the mean is a constant.
    """
    arrays = [x, z, *(other for other in others if other is not None)]
    dtype = jnp.result_type(*arrays)
    if not jnp.issubdtype(dtype, jnp.floating):
        dtype = jnp.result_type(dtype, float)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            describe(
                f"{function} takes real numbers only.",
                expected="floating-point or integer arrays",
                got=str(dtype),
                fix="pass real and imaginary parts as features",
            )
        )
    wide = jnp.promote_types(dtype, jnp.float32)
    x, z, bandwidth = (jnp.asarray(array, wide) for array in (x, z, bandwidth))
    if x.ndim != 2 or z.ndim != 2 or x.shape[1] != z.shape[1] or 0 in (*x.shape, *z.shape):
        raise ValueError(
            describe(
                f"{function} takes two sets of points.",
                expected="x[N, D] and z[M, D], none of them empty",
                got=f"x{list(x.shape)} and z{list(z.shape)}",
                fix="use jax.vmap over further axes; a feature of its own is x[:, None]",
            )
        )
    if bandwidth.shape not in ((), x.shape[1:]):
        raise ValueError(
            describe(
                f"{function} has one bandwidth, or one for each feature.",
                expected=f"shape () or {x.shape[1:]}",
                got=describe_type(bandwidth),
            )
        )
    centre = lax.stop_gradient(z.mean(0, keepdims=True))
    return x - centre, z - centre, bandwidth[None] if bandwidth.ndim else bandwidth, dtype


def as_values(function: str, v: Any, z: jax.Array) -> jax.Array:
    """What belongs to points: `[M]` or `[M, E]`."""
    v = jnp.asarray(v, z.dtype)
    if v.ndim not in (1, 2) or len(v) != len(z):
        raise ValueError(
            describe(
                f"{function} takes one value, or one vector, for each point.",
                expected=f"shape [{len(z)}] or [{len(z)}, E]",
                got=describe_type(v),
            )
        )
    return v
