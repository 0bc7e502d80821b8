"""A step of Adam on a large table, of which few rows were looked up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from families.comparison import Comparison
from gradkit import ops

STEPS = 64
LEARNING_RATE = 1e-3


def _loss(vectors: Any, targets: Any) -> Any:
    return jnp.mean((vectors - targets) ** 2)


def _lazy(table: Any, words: Any, targets: Any) -> Any:
    optimizer = ops.lazy_rows(optax.adam(LEARNING_RATE))

    def step(carry: Any, batch: Any) -> Any:
        table, state = carry
        rows_bar = jax.grad(_loss)(table[batch[0]], batch[1])
        gradient = ops.SparseRows.sum_of(batch[0], rows_bar, len(table))
        updates, state = optimizer.update(gradient, state, table)
        return (optax.apply_updates(table, updates), state), None

    (table, _), _ = jax.lax.scan(step, (table, optimizer.init(table)), (words, targets))
    return table[words], ()


def _dense(table: Any, words: Any, targets: Any) -> Any:
    optimizer = optax.adam(LEARNING_RATE)

    def step(carry: Any, batch: Any) -> Any:
        table, state = carry
        gradient = jax.grad(lambda table: _loss(table[batch[0]], batch[1]))(table)
        updates, state = optimizer.update(gradient, state, table)
        return (optax.apply_updates(table, updates), state), None

    (table, _), _ = jax.lax.scan(step, (table, optimizer.init(table)), (words, targets))
    return table[words], ()


def comparisons(rng: np.random.Generator) -> Iterator[Comparison]:
    """Steps over the same 1,024 tokens, so that lazy and dense moments are the same.

    A call makes the moments anew and copies the table, once for all its steps.
    """
    drawn = int(rng.integers(20_000, 60_000))
    for size in (1_000, 10_000, 100_000, drawn):
        words = np.broadcast_to(rng.zipf(1.2, 1024) % size, (STEPS, 1024)).astype(np.int32)
        targets = np.broadcast_to(rng.standard_normal((1024, 64)), (STEPS, 1024, 64))
        table = jnp.asarray(rng.standard_normal((size, 64)), jnp.float32)
        yield Comparison(
            "ops.lazy_rows", f"{STEPS} steps, {size:,} x 64, 1,024 tokens",
            (table, jnp.asarray(words), jnp.asarray(targets, jnp.float32)),
            _lazy, _dense, whole=True, aim="a time that does not grow", drawn=size == drawn,
        )  # fmt: skip
