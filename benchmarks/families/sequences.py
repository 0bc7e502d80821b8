"""Soft-DTW, conditional random fields and hidden Markov models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from families.comparison import Comparison
from gradkit import losses


def _plain_soft_dtw(x: Any, y: Any, gamma: float = 1.0) -> Any:
    """Row by row along the second sequence, as one writes it down."""
    cost = jnp.sum((x[:, :, None] - y[:, None]) ** 2, -1) / gamma

    def of_pair(cost: Any) -> Any:
        first = jnp.cumsum(cost[0])

        def step(above: Any, costs: Any) -> Any:
            corner = jnp.concatenate([jnp.full(1, 1e30, x.dtype), above[:-1]])
            up = -jnp.logaddexp(-above, -corner)

            def cell(left: Any, now: Any) -> Any:
                cost, up = now
                entry = cost - jnp.logaddexp(-left, -up)
                return entry, entry

            return jax.lax.scan(cell, jnp.asarray(1e30, x.dtype), (costs, up))[1], None

        return jax.lax.scan(step, first, cost[1:])[0][-1]

    return gamma * jax.vmap(of_pair)(cost)


def _ott_soft_dtw() -> dict[str, Any]:
    try:
        from ott.geometry.costs import SoftDTW
    except ImportError:
        return {}
    return {"ott SoftDTW": lambda x, y: jax.vmap(SoftDTW(gamma=1.0))(x, y)}


def _plain_crf(unary: Any, transitions: Any, tags: Any) -> Any:
    """Logarithms summed in a scan."""

    def of_sequence(unary: Any, tags: Any) -> Any:
        def step(forward: Any, here: Any) -> Any:
            return jax.nn.logsumexp(forward[:, None] + transitions, 0) + here, None

        last, _ = jax.lax.scan(step, unary[0], unary[1:])
        score = jnp.sum(jnp.take_along_axis(unary, tags[:, None], 1))
        return score + jnp.sum(transitions[tags[:-1], tags[1:]]) - jax.nn.logsumexp(last)

    return jax.vmap(of_sequence)(unary, tags)


def _plain_hmm(initial: Any, transitions: Any, observed: Any) -> Any:
    def of_sequence(observed: Any) -> Any:
        def step(forward: Any, here: Any) -> Any:
            return jax.nn.logsumexp(forward[:, None] + transitions, 0) + here, None

        return jax.nn.logsumexp(jax.lax.scan(step, initial + observed[0], observed[1:])[0])

    return jax.vmap(of_sequence)(observed)


def comparisons(rng: np.random.Generator) -> Iterator[Comparison]:
    """Batches and single sequences, few states and many."""
    drawn = tuple(int(n) for n in rng.integers(8, 200, 3))
    for b, n, m in ((16, 128, 128), (1, 256, 200), (64, 37, 53), drawn):
        yield Comparison(
            "losses.soft_dtw", f"batch {b}, {n} x {m}, d 4",
            (_normal(rng, b, n, 4), _normal(rng, b, m, 4)),
            losses.soft_dtw, _plain_soft_dtw, _ott_soft_dtw(), (0, 1),
            aim="3x OTT, less memory", drawn=(b, n, m) == drawn,
        )  # fmt: skip
    drawn = tuple(int(n) for n in rng.integers(3, 100, 3))
    for b, n, k in ((32, 128, 2), (32, 128, 9), (32, 100, 50), (8, 64, 200), drawn):
        yield Comparison(
            "losses.crf_log_likelihood", f"batch {b}, {n} steps, {k} tags",
            (_normal(rng, b, n, k), _normal(rng, k, k), rng.integers(0, k, (b, n))),
            losses.crf_log_likelihood, _plain_crf, {}, (0, 1),
            aim="faster", drawn=(b, n, k) == drawn,
        )  # fmt: skip
    for b, n, k in ((1, 1000, 2), (4, 500, 10)):
        yield Comparison(
            "losses.hmm_log_likelihood", f"batch {b}, {n} steps, {k} states",
            (_normal(rng, k), _normal(rng, k, k), _normal(rng, b, n, k)),
            losses.hmm_log_likelihood, _plain_hmm, {}, (0, 1, 2), aim="faster",
        )  # fmt: skip


def _normal(rng: np.random.Generator, *shape: int) -> Any:
    return jnp.asarray(rng.standard_normal(shape), jnp.float32)
