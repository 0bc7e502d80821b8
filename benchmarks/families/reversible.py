"""Reversible stacks beside a scan over layers, with and without checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from families.comparison import Comparison
from gradkit import ops


def comparisons(rng: np.random.Generator) -> Iterator[Comparison]:
    """Two-layer perceptrons as blocks."""
    drawn = (int(rng.integers(8, 40)), int(rng.integers(50, 200)), int(rng.integers(40, 80)))
    for layers, rows, width in ((32, 128, 64), (8, 512, 128), (24, 77, 45), drawn):
        shapes = ((layers, width, 4 * width), (layers, 4 * width, width))
        params = tuple(
            tuple((rng.standard_normal(s) / (4 * np.sqrt(s[1]))).astype(np.float32) for s in shapes)
            for _ in "fg"
        )
        x = tuple(rng.standard_normal((2, rows, width)).astype(np.float32))
        yield Comparison(
            "ops.reversible",
            f"{layers} layers, {rows} x {width}",
            (params, x),
            lambda params, x: ops.reversible(_block, _block, params, x),
            _scanned,
            {"jax.checkpoint of each layer": _checkpointed},
            argnums=(0, 1),
            aim="65x less memory" if layers == 32 else "",
            drawn=(layers, rows, width) == drawn,
        )


def _block(p: Any, x: jax.Array) -> jax.Array:
    return jax.nn.gelu(x @ p[0]) @ p[1]


def _layer(x: Any, params: Any) -> tuple[Any, None]:
    y1 = x[0] + _block(params[0], x[1])
    return (y1, x[1] + _block(params[1], y1)), None


def _scanned(params: Any, x: Any) -> Any:
    return jax.lax.scan(_layer, x, params)[0]


def _checkpointed(params: Any, x: Any) -> Any:
    return jax.lax.scan(jax.checkpoint(_layer, prevent_cse=False), x, params)[0]
