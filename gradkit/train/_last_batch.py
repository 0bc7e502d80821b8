"""What becomes of the last, shorter batch of an epoch."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

KEEP, DROP, PAD = "keep", "drop", "pad"
LAST = (KEEP, DROP, PAD)


def pad_batch(batch: Any, length: int) -> tuple[Any, np.ndarray]:
    """A batch filled with zeros up to `length` examples, and the mask of those that it had."""
    size = next((len(x) for x in jax.tree.leaves(batch) if x.ndim), length)
    missing = max(length - size, 0)

    def pad(x: np.ndarray) -> np.ndarray:
        return np.pad(x, [(0, missing), *[(0, 0)] * (x.ndim - 1)]) if x.ndim and missing else x

    return jax.tree.map(pad, batch), np.arange(size + missing) < size
