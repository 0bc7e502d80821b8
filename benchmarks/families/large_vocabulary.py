"""Losses over linear heads, beside the plain formula on whole logits, and optax."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from families.comparison import Comparison
from gradkit import losses

# Few logits, where the plain path is taken; many; a vocabulary that nothing divides.
SHAPES = ((256, 64, 1000), (512, 256, 8192), (333, 100, 50257), (1024, 512, 32768))
# What others have published figures of; an accelerator's memory holds the plain side too.
LARGE = ((4096, 2048, 131072), (4096, 4096, 128256))
AIM = "1.3x at most, ahead from 32,768 classes on; 15x less memory"


def comparisons(rng: np.random.Generator) -> Iterator[Comparison]:
    """Cross-entropy and distillation."""
    drawn = tuple(int(rng.integers(low, high)) for low, high in ((128, 700), (64, 300), (9e3, 6e4)))
    for shape in (*SHAPES, drawn):
        yield _cross_entropy(rng, *shape, drawn=shape is drawn)
    if jax.default_backend() != "cpu":
        for shape in LARGE:
            for dtype in (jnp.float32, jnp.bfloat16):
                yield _cross_entropy(rng, *shape, drawn=False, dtype=dtype)
    for n, d, v in ((512, 256, 8192), (333, 100, 50257)):
        student, teacher = (_head(rng, n, d, v) for _ in range(2))
        yield Comparison(
            "losses.linear_kl_divergence",
            f"{n} tokens, {d} features, {v} classes",
            (*student, *teacher),
            losses.linear_kl_divergence,
            _plain_divergence,
            argnums=(0, 1),
        )


def _head(rng: np.random.Generator, n: int, d: int, v: int) -> tuple[np.ndarray, np.ndarray]:
    draw = lambda *shape: rng.standard_normal(shape, np.float32)
    return draw(n, d), draw(d, v) / np.float32(np.sqrt(d))


def _cross_entropy(
    rng: np.random.Generator, n: int, d: int, v: int, *, drawn: bool, dtype: Any = jnp.float32
) -> Comparison:
    labels = rng.integers(0, v, n).astype(np.int32)
    return Comparison(
        "losses.linear_cross_entropy",
        f"{n} tokens, {d} features, {v} classes, {jnp.dtype(dtype).name}",
        (*(x.astype(dtype) for x in _head(rng, n, d, v)), labels),
        losses.linear_cross_entropy,
        _plain_cross_entropy,
        {
            "optax": lambda h, w, labels: optax.softmax_cross_entropy_with_integer_labels(
                h @ w, labels
            )
        },
        argnums=(0, 1),
        aim=AIM,
        drawn=drawn,
    )


def _plain_cross_entropy(h: jax.Array, w: jax.Array, labels: jax.Array) -> jax.Array:
    log_p = jax.nn.log_softmax(h @ w)
    return -jnp.take_along_axis(log_p, labels[:, None], 1)[:, 0]


def _plain_divergence(h: jax.Array, w: jax.Array, g: jax.Array, u: jax.Array) -> jax.Array:
    log_q, log_p = jax.nn.log_softmax(h @ w), jax.nn.log_softmax(g @ u)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), 1)
