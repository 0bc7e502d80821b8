"""An iterable as data: batches are gathered, stacked and sent to the device by a thread."""

from __future__ import annotations

import functools
import queue
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from gradkit._errors import describe
from gradkit.train._placement import Placement
from gradkit.train._portion import Portion

_MOST_BYTES = 64 << 20  # of one group of batches
_MOST_BATCHES = 64
_PATIENCE = 0.2  # seconds that a group waits to be full
_AHEAD = 2  # groups on the device that nobody has used yet


class Stream:
    """Batches from an iterable, of unknown number; shapes may change on the way.

    Args:
        data: Iterated anew each epoch. An iterator serves one epoch only.
        placement: The devices; `None` for the default one.
    """

    steps_per_epoch = None

    def __init__(self, data: Iterable[Any], placement: Placement | None = None):
        self._data = data
        self._placement = placement
        self._picks: dict[int, Any] = {}
        self._used = False

    def portions(self, epoch: int, start: int) -> Iterator[Portion]:
        """Groups of batches of one shape."""
        iterator = iter(self._data)
        if iterator is self._data and self._used:
            return  # it has ended
        self._used = True
        groups: queue.Queue[Any] = queue.Queue(_AHEAD)
        stop = threading.Event()
        thread = threading.Thread(
            target=_gather, args=(iterator, start, groups, stop), name="gradkit-data", daemon=True
        )
        thread.start()
        try:
            while (group := groups.get()) is not None:
                if isinstance(group, BaseException):
                    raise group
                batches, count = group
                examples = next((x.shape[1] for x in jax.tree.leaves(batches) if x.ndim > 1), 1)
                pick = self._picks.setdefault(
                    examples, functools.partial(_pick, examples, self._placement)
                )
                if self._placement is not None:
                    batches = jax.device_put(batches, self._placement.whole)
                yield Portion(count, examples, pick, batches)
        finally:
            stop.set()


def _pick(size: int, placement: Placement | None, batches: Any, i: Any) -> Any:
    take = jax.lax.dynamic_index_in_dim
    batch = jax.tree.map(lambda x: take(x, i, keepdims=False), batches)
    return batch if placement is None else placement.divide(batch, size)


def _gather(iterator: Any, start: int, groups: queue.Queue, stop: threading.Event) -> None:
    """Put groups into the queue, or the exception that ended it; at last `None`."""

    def put(item: Any) -> bool:
        while not stop.is_set():
            try:
                groups.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    group: list[Any] = []
    began = time.monotonic()
    try:
        for i, batch in enumerate(iterator):
            if i < start:
                continue
            batch = jax.tree.map(np.asarray, batch)
            _check_batch(batch, i)
            if group and (_types(batch) != _types(group[0]) or not _has_room(group)):
                if not put(_stacked(group)):
                    return
                group = []
            began = began if group else time.monotonic()
            group.append(batch)
            if time.monotonic() - began > _PATIENCE:
                if not put(_stacked(group)):
                    return
                group = []
        if group:
            put(_stacked(group))
        put(None)
    except BaseException as error:  # it belongs to the thread that trains
        error.add_note("raised by the iterator given to fit as data=")
        put(error)


def _capacity(batch: Any) -> int:
    size = sum(x.nbytes for x in jax.tree.leaves(batch))
    return int(np.clip(_MOST_BYTES // max(size, 1), 1, _MOST_BATCHES))


def _has_room(group: list[Any]) -> bool:
    return len(group) < _capacity(group[0])


def _types(batch: Any) -> Any:
    leaves, structure = jax.tree.flatten(batch)
    return structure, tuple((x.shape, x.dtype) for x in leaves)


def _stacked(group: list[Any]) -> tuple[Any, int]:
    """On the device, with room for as many batches as there can be: one shape, one program."""
    room = _capacity(group[0])

    def stack(*xs: np.ndarray) -> jax.Array:
        found = np.zeros((room, *xs[0].shape), xs[0].dtype)
        np.stack(xs, out=found[: len(xs)])
        return jax.device_put(found)

    return jax.tree.map(stack, *group), len(group)


def _check_batch(batch: Any, i: int) -> None:
    if not jax.tree.leaves(batch) or any(x.dtype == object for x in jax.tree.leaves(batch)):
        raise TypeError(
            describe(
                f"batch {i} of data= of fit is no pytree of arrays",
                expected="arrays, or tuples and dicts of them",
                got=type(batch).__name__,
            )
        )
