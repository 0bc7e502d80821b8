"""Sinkhorn's loss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from families.comparison import Comparison
from gradkit import losses

TOLERANCE = 1e-3


def _unrolled(x: Any, y: Any, epsilon: float, iterations: int = 100) -> Any:
    """As many iterations as are needed here, differentiated one by one."""
    cost = jnp.sum((x[:, None] - y[None]) ** 2, -1)
    log_a, log_b = -jnp.log(x.shape[0]), -jnp.log(y.shape[0])

    def step(g: Any, _: Any) -> Any:
        f = -epsilon * jax.nn.logsumexp((g[None] - cost) / epsilon + log_b, 1)
        return -epsilon * jax.nn.logsumexp((f[:, None] - cost) / epsilon + log_a, 0), None

    g, _ = jax.lax.scan(step, jnp.zeros(y.shape[0], x.dtype), None, length=iterations)
    f = -epsilon * jax.nn.logsumexp((g[None] - cost) / epsilon + log_b, 1)
    return jnp.mean(f) + jnp.mean(g)


def _ott(epsilon: float) -> dict[str, Any]:
    try:
        from ott.geometry.pointcloud import PointCloud
        from ott.solvers.linear import solve
    except ImportError:
        return {}

    def loss(x: Any, y: Any) -> Any:
        out = solve(PointCloud(x, y, epsilon=epsilon), threshold=TOLERANCE)
        return out.reg_ot_cost

    return {"ott solve": loss}


def comparisons(rng: np.random.Generator) -> Iterator[Comparison]:
    """Point clouds of equal and unequal size."""
    drawn = (*(int(n) for n in rng.integers(50, 600, 2)), 3)
    for n, m, d in ((256, 256, 2), (500, 333, 16), (1500, 1500, 3), drawn):
        epsilon = 0.2 * d
        x, y = (jnp.asarray(rng.standard_normal((k, d)), jnp.float32) for k in (n, m))
        yield Comparison(
            "losses.sinkhorn", f"{n} x {m}, d {d}, epsilon {epsilon:.1f}", (x, y + 0.5),
            lambda x, y, e=epsilon: losses.sinkhorn(x, y, epsilon=e, tolerance=TOLERANCE),
            lambda x, y, e=epsilon: _unrolled(x, y, e), _ott(epsilon), (0,),
            exact=lambda x, y, e=epsilon: losses.sinkhorn(x, y, epsilon=e, tolerance=1e-12),
            aim="50x less memory than unrolled", drawn=(n, m, d) == drawn,
        )  # fmt: skip
