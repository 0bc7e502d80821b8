"""Arrays as data: kept on the device, and shuffled there once an epoch."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._errors import describe
from gradkit.train._placement import Placement
from gradkit.train._portion import Portion

KEEP, DROP = "keep", "drop"
_SHUFFLE = 0x5F  # folded into the seed: shuffling has keys of its own


class Arrays:
    """A pytree of arrays whose first axis counts examples.

    Shuffled arrays are slices of a shuffled copy, and not gathers from the arrays: a step then
    reads memory that lies together.

    Args:
        data: The arrays.
        batch_size: Examples a step.
        shuffle: In a new order each epoch?
        seed: Of the order.
        last: What becomes of the last, shorter batch: `"keep"` it, as a shorter batch, or
            `"drop"` it.
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
        placement: Placement | None = None,
    ):
        self._data = jax.tree.map(_on_device, data)
        if placement is not None:
            self._data = jax.device_put(self._data, placement.whole)
        self._n = _length(self._data)
        self._batch_size = min(batch_size, self._n)
        self._shuffle = shuffle
        self._seed = seed
        self._rest = self._n % self._batch_size if last == KEEP else 0
        self._picks = {
            size: functools.partial(_pick, size, placement)
            for size in (self._batch_size, self._rest)
        }
        self._shuffled = jax.jit(functools.partial(_shuffle, seed))

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        return self._n // self._batch_size + bool(self._rest)

    def portions(self, epoch: int, start: int) -> Iterator[Portion]:
        """All full batches, then the short one."""
        data = self._shuffled(self._data, epoch) if self._shuffle else self._data
        full = self._n // self._batch_size
        if start < full:
            yield self._portion(data, start * self._batch_size, full - start, self._batch_size)
        if self._rest and start <= full:
            yield self._portion(data, full * self._batch_size, 1, self._rest)

    def _portion(self, data: Any, first: int, count: int, size: int) -> Portion:
        def source_at(n: int) -> Any:
            return data, np.int32(first + n * size)

        return Portion(count, size, self._picks[size], source_at)


def _pick(size: int, placement: Placement | None, source: Any, i: Any) -> Any:
    data, first = source
    start = first + i * size
    batch = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, size), data)
    return batch if placement is None else placement.divide(batch, size)


def _shuffle(seed: int, data: Any, epoch: Any) -> Any:
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _SHUFFLE), epoch)
    order = jax.random.permutation(key, _length(data))
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
