"""Max pooling, beside the gradient of XLA's windows."""

from __future__ import annotations

from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from families.comparison import Comparison
from gradkit import ops

SAME = "SAME"
CASES = (
    ((32, 32, 32, 64), (2, 2), (2, 2), "VALID"),
    ((8, 112, 112, 64), (3, 3), (2, 2), SAME),
    ((8, 28, 28, 64), (3, 3), (1, 1), SAME),
    ((64, 28, 28, 1), (2, 2), (2, 2), "VALID"),
    ((16, 1000, 32), (4,), (4,), "VALID"),
    ((2, 16, 16, 16, 16), (2, 2, 2), (2, 2, 2), "VALID"),
    ((7, 29, 31, 5), (3, 2), (2, 3), SAME),
)


def comparisons(rng: np.random.Generator) -> Iterator[Comparison]:
    """The first layers of image networks, one to three dimensions, odd sizes."""
    height, width, channels = (int(n) for n in rng.integers(5, 70, 3))
    drawn = ((int(rng.integers(1, 9)), height, width, channels), (3, 3), (2, 2), SAME)
    for shape, window, strides, padding in (*CASES, drawn):
        x = jnp.asarray(rng.standard_normal(shape), jnp.float32)
        options = (window, strides, padding)
        yield Comparison(
            "ops.max_pool", f"{shape}, window {window}, strides {strides}, {padding}", (x,),
            lambda x, o=options: ops.max_pool(x, *o), lambda x, o=options: nn.max_pool(x, *o),
            aim="6x to 22x", drawn=shape == drawn[0],
        )  # fmt: skip
