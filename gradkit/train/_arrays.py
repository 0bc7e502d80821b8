"""Arrays as data: kept on the device, and shuffled there once an epoch."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._errors import describe
from gradkit.train._last_batch import KEEP, PAD
from gradkit.train._placement import Placement, put
from gradkit.train._portion import Portion


class Arrays:
    """A pytree of arrays whose first axis counts examples.

    Shuffled arrays are slices of a shuffled copy, and not gathers from the arrays: a step then
    reads memory that lies together.

    Args:
        data: The arrays.
        batch_size: Examples a step.
        shuffle: In a new order each epoch?
        seed: Of the order.
        last: What becomes of the last, shorter batch: `"keep"` it, as a shorter batch, `"drop"`
            it, or `"pad"` it to the length of the others.
        masked: Do batches come with a mask of what is in them, as pairs?
        placement: The devices; `None` for the default one.

    Raises:
        TypeError: If something in the tree is no array.
        ValueError: If the arrays do not have the same length, or fewer examples than one batch.
    """

    def __init__(
        self,
        data: Any,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int,
        last: str = KEEP,
        masked: bool = False,
        placement: Placement | None = None,
    ):
        self._data = jax.tree.map(_on_device, data)
        if placement is not None:
            self._data = put(self._data, placement.whole)
        self._n = _length(self._data)
        self._batch_size = min(batch_size, self._n)
        self._shuffle = shuffle
        self._seed = seed
        short = self._n % self._batch_size
        self._rest = short if last == KEEP else 0
        self._missing = self._batch_size - short if last == PAD and short else 0
        self._full = (self._n + self._missing) // self._batch_size
        self._masked = masked
        first = self._full * self._batch_size
        self._picks = {
            size: functools.partial(_pick, start, size, placement)
            for start, size in ((0, self._batch_size), (first, self._rest))
        }

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        return self._full + bool(self._rest)

    def portions(self, epoch: int, start: int) -> Iterator[Portion]:
        """All full batches, then the short one."""
        data, full = self._data, self._full
        order = np.arange(self._n)
        if self._shuffle:
            order = np.random.default_rng([self._seed, epoch]).permutation(self._n)
        if self._shuffle or self._missing:
            order = np.append(order, np.zeros(self._missing, order.dtype))
            data = _take(data, order.astype(np.int32))
        if self._masked:
            data = data, np.arange(len(order)) < self._n
        if start < full:
            pick = self._picks[self._batch_size]
            yield Portion(full - start, self._batch_size, pick, data, start)
        if self._rest and start <= full:
            yield Portion(1, self._rest, self._picks[self._rest], data)


def _pick(first: int, size: int, placement: Placement | None, data: Any, i: Any) -> Any:
    start = first + i * size
    batch = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, size), data)
    return batch if placement is None else placement.divide(batch, size)


@jax.jit
def _take(data: Any, order: Any) -> Any:
    return jax.tree.map(lambda x: x[order], data)


def _on_device(x: Any) -> Any:
    if not (hasattr(x, "shape") and hasattr(x, "dtype")):
        raise TypeError(
            describe(
                "data= of fit holds something that is no array",
                expected="a pytree of arrays, or an iterable of batches that is no tuple or dict",
                got=type(x).__name__,
            )
        )
    return jnp.asarray(x)


def _length(data: Any) -> int:
    lengths = {x.shape[0] if x.ndim else 0 for x in jax.tree.leaves(data)}
    if len(lengths) != 1 or 0 in lengths:
        shapes = ", ".join(str(list(x.shape)) for x in jax.tree.leaves(data))
        raise ValueError(
            describe(
                "the arrays of data= of fit do not hold the same number of examples",
                expected="arrays whose first axes are equally long, and not empty",
                got=shapes or "no arrays",
            )
        )
    return lengths.pop()
