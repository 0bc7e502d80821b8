"""Likelihood of Gaussian processes, and many small positive definite systems."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from families.comparison import Comparison
from gradkit import losses, ops


def _likelihood(kernel: Any, y: Any) -> Any:
    """As one writes it: a factor, and one triangular system."""
    factor = jnp.linalg.cholesky(kernel)
    z = jax.scipy.linalg.solve_triangular(factor, y, lower=True)
    log_det = 2 * jnp.sum(jnp.log(jnp.diag(factor)))
    return -(jnp.sum(z**2) + log_det + len(y) * math.log(2 * math.pi)) / 2


def _density(kernel: Any, y: Any) -> Any:
    return jax.scipy.stats.multivariate_normal.logpdf(y, jnp.zeros_like(y), kernel)


def _by_factor(a: Any, b: Any) -> Any:
    factor = jax.scipy.linalg.cho_factor((a + jnp.swapaxes(a, -1, -2)) / 2, lower=True)
    return jax.scipy.linalg.cho_solve(factor, b[..., None])[..., 0]


def _general(a: Any, b: Any) -> Any:
    return jnp.linalg.solve((a + jnp.swapaxes(a, -1, -2)) / 2, b[..., None])[..., 0]


def _positive(a: Any, b: Any) -> Any:
    solve = partial(jax.scipy.linalg.solve, assume_a="pos")
    return solve((a + jnp.swapaxes(a, -1, -2)) / 2, b[..., None])[..., 0]


def comparisons(rng: np.random.Generator) -> Iterator[Comparison]:
    """Processes of 64 to 1,024 observations; batches of matrices from 2 x 2 to 8 x 8."""
    drawn = int(rng.integers(100, 700))
    for n in (64, 256, 1024, drawn):
        x = np.sort(rng.uniform(0, n / 10, n))
        kernel = np.exp(-((x[:, None] - x) ** 2) / 2) + 0.1 * np.eye(n)
        y = np.sin(x) + rng.standard_normal(n) / 3
        yield Comparison(
            "losses.gp_log_likelihood", f"{n} observations",
            (jnp.asarray(kernel, jnp.float32), jnp.asarray(y, jnp.float32)),
            losses.gp_log_likelihood, _likelihood, {"multivariate_normal.logpdf": _density}, (0, 1),
            aim="time 1.5x", drawn=n == drawn,
        )  # fmt: skip

    drawn_batch = (int(rng.integers(2_000, 50_000)), int(rng.integers(2, 7)))
    for batch, n in ((1_000, 3), (100_000, 2), (10_000, 4), (10_000, 6), (30_000, 8), drawn_batch):
        root = rng.standard_normal((batch, n, n))
        a = jnp.asarray(root @ root.swapaxes(-1, -2) + np.eye(n), jnp.float32)
        b = jnp.asarray(rng.standard_normal((batch, n)), jnp.float32)
        yield Comparison(
            "ops.spd_solve", f"{batch:,} of {n} x {n}",
            (a, b), ops.spd_solve, _by_factor,
            {"jnp.linalg.solve": _general, "solve(assume_a='pos')": _positive}, (0, 1),
            aim="time 1.5x", drawn=(batch, n) == drawn_batch,
        )  # fmt: skip
