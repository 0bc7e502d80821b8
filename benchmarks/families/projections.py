"""Sparse softmax and quantiles: on a CPU, both are a matter of avoiding the sort."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from families.comparison import Comparison
from gradkit import losses, ops


def _sorted_entmax(z: Any) -> Any:
    """The closed form for alpha = 1.5, differentiated by JAX."""
    x = z / 2 - jnp.max(z / 2, -1, keepdims=True)
    ordered = -jnp.sort(-x, -1)
    count = jnp.arange(1, x.shape[-1] + 1, dtype=x.dtype)[None]
    mean = jnp.cumsum(ordered, -1) / count
    spread = jnp.cumsum(ordered**2, -1) / count - mean**2
    inner = 1 / count - spread
    tau = mean - jnp.sqrt(jnp.where(inner > 0, inner, 1)) * (inner > 0)
    last = jnp.sum(tau <= ordered, -1, keepdims=True) - 1
    return jnp.maximum(x - jnp.take_along_axis(tau, last, -1), 0) ** 2


def _sorted_entmax_loss(z: Any, labels: Any) -> Any:
    p = _sorted_entmax(z)
    right = jnp.take_along_axis(z, labels[:, None], 1)[:, 0]
    return jnp.sum(p * z - (p * jnp.sqrt(p + 1e-12) - p) / 0.75, -1) - right


def comparisons(rng: np.random.Generator) -> Iterator[Comparison]:
    """Few, many and very many classes."""
    drawn = (int(rng.integers(10, 1000)), int(rng.integers(10, 5000)))
    projection = jax.vmap(optax.projections.projection_simplex)
    for shape in ((4096, 10), (512, 128), (64, 1000), (16, 32000), drawn):
        z = jnp.asarray(rng.standard_normal(shape), jnp.float32)
        labels = jnp.asarray(rng.integers(0, shape[1], shape[0]))
        text = f"{shape[0]} x {shape[1]}"
        yield Comparison(
            "ops.sparsemax", text, (z,), ops.sparsemax, projection,
            aim="8x optax", drawn=shape == drawn,
        )  # fmt: skip
        yield Comparison(
            "ops.entmax", text, (z,), ops.entmax, _sorted_entmax,
            aim="8x the sort", drawn=shape == drawn,
        )  # fmt: skip
        yield Comparison(
            "losses.sparsemax_loss", text, (z, labels), losses.sparsemax_loss,
            optax.losses.multiclass_sparsemax_loss, aim="8x optax", drawn=shape == drawn,
        )  # fmt: skip
        yield Comparison(
            "losses.entmax_loss", text, (z, labels), losses.entmax_loss, _sorted_entmax_loss,
            aim="8x the sort", drawn=shape == drawn,
        )  # fmt: skip
        yield Comparison(
            "ops.quantile", f"{text}, q 0.1 and 0.9", (z,),
            lambda z: ops.quantile(z, jnp.array([0.1, 0.9], z.dtype), -1),
            lambda z: jnp.quantile(z, jnp.array([0.1, 0.9], z.dtype), -1), drawn=shape == drawn,
        )  # fmt: skip
        yield Comparison(
            "ops.median", text, (z,), lambda z: ops.median(z, -1), lambda z: jnp.median(z, -1),
            drawn=shape == drawn,
        )  # fmt: skip
