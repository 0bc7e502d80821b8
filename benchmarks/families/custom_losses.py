"""Losses for custom training whose gradients are written out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from families.comparison import Comparison
from gradkit import losses


def _plain_lovasz(logits: Any, labels: Any) -> Any:
    errors = 1 - jnp.where(labels > 0, 1, -1) * logits
    order = jnp.argsort(-errors, -1)
    ordered = jnp.take_along_axis(errors, order, -1)
    sorted_labels = jnp.take_along_axis(labels, order, -1).astype(logits.dtype)
    total = jnp.sum(sorted_labels, -1, keepdims=True)
    intersection = total - jnp.cumsum(sorted_labels, -1)
    union = total + jnp.cumsum(1 - sorted_labels, -1)
    steps = jnp.diff(1 - intersection / union, axis=-1, prepend=0)
    return jnp.sum(jax.nn.relu(ordered) * jax.lax.stop_gradient(steps), -1)


def _plain_bi_tempered(logits: Any, labels: Any, t1: float = 0.8, t2: float = 1.2) -> Any:
    """The paper's five fixed-point iterations, differentiated one by one."""
    top = jnp.max(logits, -1, keepdims=True)
    shifted = logits - top
    scaled = shifted
    for _ in range(5):
        total = jnp.sum((1 + (1 - t2) * scaled) ** (1 / (1 - t2)), -1, keepdims=True)
        scaled = shifted * total ** (1 - t2)
    total = jnp.sum((1 + (1 - t2) * scaled) ** (1 / (1 - t2)), -1, keepdims=True)
    shift = -(total ** (t2 - 1) - 1) / (1 - t2)
    p = (1 + (1 - t2) * (shifted - shift)) ** (1 / (1 - t2))
    y = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    log_t = lambda x: (x ** (1 - t1) - 1) / (1 - t1)
    gap = y * (log_t(y + 1e-10) - log_t(p))
    return jnp.sum(gap - (y ** (2 - t1) - p ** (2 - t1)) / (2 - t1), -1)


def _plain_crps(members: Any, targets: Any) -> Any:
    n = members.shape[-1]
    ordered = jnp.sort(members, -1)
    weights = 2 * jnp.arange(n, dtype=members.dtype) - n + 1
    pairs = jnp.sum(weights * ordered, -1) / n**2
    return jnp.mean(jnp.abs(members - targets[..., None]), -1) - pairs


def _pairs_crps(members: Any, targets: Any) -> Any:
    apart = jnp.abs(members[..., :, None] - members[..., None, :])
    return jnp.mean(jnp.abs(members - targets[..., None]), -1) - jnp.mean(apart, (-2, -1)) / 2


def _plain_triplet(x: Any, labels: Any) -> Any:
    apart = jnp.sqrt(jnp.maximum(jnp.sum((x[:, None] - x[None]) ** 2, -1), 1e-12))
    alike = labels[:, None] == labels[None]
    farthest = jnp.max(jnp.where(alike, apart, 0), 1)
    nearest = jnp.min(jnp.where(alike, jnp.inf, apart), 1)
    return jax.nn.softplus(farthest - nearest)


def comparisons(rng: np.random.Generator) -> Iterator[Comparison]:
    """Images, classes, ensembles and batches of embeddings."""
    drawn = int(rng.integers(2, 20)), int(rng.integers(100, 20000))
    for shape in ((8, 128 * 128), (1, 321 * 123), drawn):
        yield Comparison(
            "losses.lovasz_hinge", f"{shape[0]} images of {shape[1]} pixels",
            (_normal(rng, *shape), rng.integers(0, 2, shape)), losses.lovasz_hinge, _plain_lovasz,
            aim="faster", drawn=shape == drawn,
        )  # fmt: skip
    drawn = int(rng.integers(10, 2000)), int(rng.integers(3, 2000))
    for shape in ((512, 10), (256, 1000), drawn):
        yield Comparison(
            "losses.bi_tempered_logistic_loss", f"{shape[0]} x {shape[1]} classes",
            (3 * _normal(rng, *shape), rng.integers(0, shape[1], shape[0])),
            losses.bi_tempered_logistic_loss, _plain_bi_tempered,
            exact=losses.bi_tempered_logistic_loss, aim="faster", drawn=shape == drawn,
        )  # fmt: skip
    drawn = int(rng.integers(100, 5000)), int(rng.integers(3, 300))
    for shape in ((4096, 10), (4096, 50), (1024, 200), (64, 2000), drawn):
        yield Comparison(
            "losses.crps_ensemble", f"{shape[0]} ensembles of {shape[1]}",
            (_normal(rng, *shape), _normal(rng, shape[0])), losses.crps_ensemble, _plain_crps,
            {"all pairs": _pairs_crps} if shape[1] < 500 else {}, aim="faster",
            drawn=shape == drawn,
        )  # fmt: skip
    for shape in ((128, 64), (512, 128)):
        yield Comparison(
            "losses.batch_hard_triplet_loss", f"batch {shape[0]}, d {shape[1]}",
            (_normal(rng, *shape), rng.integers(0, 16, shape[0])),
            losses.batch_hard_triplet_loss, _plain_triplet, aim="faster, less memory",
        )  # fmt: skip


def _normal(rng: np.random.Generator, *shape: int) -> Any:
    return jnp.asarray(rng.standard_normal(shape), jnp.float32)
