"""Sums over all pairs beside the matmul form of the distances, and beside broadcasting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from families.comparison import Comparison
from gradkit import losses, ops

Matrix = Callable[[jax.Array, jax.Array], jax.Array]
AIM = "1.5x, 20x less memory"


def comparisons(rng: np.random.Generator) -> Iterator[Comparison]:
    """Products, means and discrepancies."""
    drawn = (*(int(n) for n in rng.integers(1000, 5000, 2)), int(rng.integers(2, 17)))
    shapes = [(4096, 4096, 16), (4096, 4096, 3), (4097, 3001, 8), (2048, 2048, 64), drawn]
    for n, m, d in shapes:
        for kernel in ("gaussian", "laplace"):
            yield Comparison(
                "ops.kernel_matvec",
                f"{kernel}, N={n} M={m} D={d}",
                (*_points(rng, n, m, d), rng.standard_normal(m, np.float32)),
                partial(ops.kernel_matvec, kernel=kernel),
                lambda x, z, v, kernel=kernel: _of_squares(kernel, _by_product(x, z)) @ v,
                {
                    "broadcasting": lambda x, z, v, kernel=kernel: (
                        _of_squares(kernel, _by_differences(x, z)) @ v
                    )
                }
                if d <= 16
                else {},
                argnums=(0, 1, 2),
                exact=lambda x, z, v, kernel=kernel: _of_squares(kernel, _by_differences(x, z)) @ v,
                aim=AIM if (n, d) == (4096, 16) else "",
                drawn=(n, m, d) == drawn,
            )
    for n, m, d in (4096, 4096, 16), (2047, 1000, 3), (2048, 2048, 64):
        for name, ours, kernel in (
            ("losses.mmd", losses.mmd, "gaussian"),
            ("losses.energy_distance", losses.energy_distance, "energy"),
        ):
            yield Comparison(
                name,
                f"N={n} M={m} D={d}",
                _points(rng, n, m, d),
                ours,
                partial(_discrepancy, lambda x, z, k=kernel: _of_squares(k, _by_product(x, z))),
                argnums=(0, 1),
                exact=partial(
                    _discrepancy, lambda x, z, k=kernel: _of_squares(k, _by_differences(x, z))
                ),
                aim=AIM if d == 16 else "",
            )


def _points(rng: np.random.Generator, n: int, m: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Two samples, at distances that kernels of bandwidth 1 tell apart."""
    x, z = (rng.standard_normal((size, d), np.float32) for size in (n, m))
    return x / np.float32(d**0.5), (z + 1) / np.float32(d**0.5)


def _by_product(x: jax.Array, z: jax.Array) -> jax.Array:
    return (x**2).sum(1)[:, None] + (z**2).sum(1)[None] - 2 * x @ z.T


def _by_differences(x: jax.Array, z: jax.Array) -> jax.Array:
    return ((x[:, None] - z[None]) ** 2).sum(-1)


def _of_squares(kernel: str, t: jax.Array) -> jax.Array:
    if kernel == "gaussian":
        return jnp.exp(-t / 2)
    positive = t > 0
    r = jnp.where(positive, jnp.sqrt(jnp.where(positive, t, 1)), 0)
    return jnp.exp(-r) if kernel == "laplace" else -r


def _discrepancy(matrix: Matrix, x: jax.Array, z: jax.Array) -> jax.Array:
    return matrix(x, x).mean() + matrix(z, z).mean() - 2 * matrix(x, z).mean()
