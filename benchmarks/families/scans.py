"""Linear recurrences and cumulative sums of exponentials."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from families.comparison import Comparison
from gradkit import ops


def _by_scan(a: Any, x: Any) -> Any:
    def step(h: Any, inputs: Any) -> Any:
        a, x = inputs
        h = a * h + x
        return h, h

    return lax.scan(step, jnp.zeros_like(x[0]), (a, x))[1]


def _in_tree(a: Any, x: Any) -> Any:
    def then(before: Any, after: Any) -> Any:
        return before[0] * after[0], after[0] * before[1] + after[1]

    return lax.associative_scan(then, (a, x))[1]


def _scan_of_logaddexp(x: Any) -> Any:
    def step(y: Any, x: Any) -> Any:
        y = jnp.logaddexp(y, x)
        return y, y

    return lax.scan(step, jnp.full_like(x[0], -1e30), x)[1]


def _network(scan: Any, step: Any = lambda f: f, **options: Any) -> Any:
    """A recurrent network's last state, by some scan."""

    def last(w: Any, h: Any, x: Any) -> Any:
        cell = step(lambda h, x: (jnp.tanh(h @ w + x), None))
        return scan(cell, h, x, **options)[0]

    return last


def comparisons(rng: np.random.Generator) -> Iterator[Comparison]:
    """Short and long, narrow and wide."""
    drawn = (int(rng.integers(50, 3000)), int(rng.integers(1, 300)))
    for n, width in ((1000, 128), (10_000, 64), (int(rng.integers(100, 5000)), 96)):
        draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)
        yield Comparison(
            "ops.checkpointed_scan", f"{n} steps, 16 rows, width {width}",
            (draw(width, width) / (2 * width**0.5), draw(16, width), draw(n, 1, 1)),
            _network(ops.checkpointed_scan), _network(lax.scan),
            {
                "scan of checkpoint": _network(lax.scan, jax.checkpoint),
                "branching 2": _network(ops.checkpointed_scan, branching=2),
                "branching sqrt(n)": _network(
                    ops.checkpointed_scan, branching=int(np.ceil(n**0.5))
                ),
            },
            (0, 1, 2), drawn=width == 96,
        )  # fmt: skip
    for shape in ((100_000, 1), (4096, 16), (1000, 256), (256, 2048), drawn):
        a = jnp.asarray(rng.uniform(0.5, 1, shape), jnp.float32)
        x = jnp.asarray(rng.standard_normal(shape), jnp.float32)
        text = f"time {shape[0]}, width {shape[1]}"
        yield Comparison(
            "ops.linear_recurrence", text, (a, x), ops.linear_recurrence, _by_scan,
            {"associative_scan": _in_tree}, (0, 1), drawn=shape == drawn,
        )  # fmt: skip
        yield Comparison(
            "ops.cumlogsumexp", text, (x,), ops.cumlogsumexp, lax.cumlogsumexp,
            {"scan of logaddexp": jax.jit(_scan_of_logaddexp)}, drawn=shape == drawn,
        )  # fmt: skip
