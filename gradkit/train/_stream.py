"""An iterable as data: batches are gathered, stacked and sent to the device by a thread."""

from __future__ import annotations

import functools
import itertools
import queue
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from gradkit._errors import DataTimeoutError, ProcessError, describe
from gradkit.train._last_batch import PAD, pad_batch
from gradkit.train._placement import Placement, put_shares
from gradkit.train._portion import Portion
from gradkit.train._processes import Processes

_MOST_BYTES = 64 << 20  # of one group of batches
_MOST_BATCHES = 64
_PATIENCE = 0.2  # seconds that a group waits to be full
_AHEAD = 2  # groups on the device that nobody has used yet
_SECONDS_TO_WARN = 60.0
_NAMES = itertools.count()  # the same in all processes, which make the same streams


class Stream:
    """Batches from an iterable, of unknown number; shapes may change on the way.

    Of several processes, each has batches of its own: shares of the batches that are trained on.

    Args:
        data: Iterated anew each epoch. An iterator serves one epoch only.
        placement: The devices; `None` for the default one.
        processes: Those that read together.
        last: `"pad"` fills batches that are shorter than the first up to its length.
        masked: Do batches come with a mask of what is in them?
        timeout: Seconds without a batch after which to give up; `None` for never.
    """

    steps_per_epoch = None

    def __init__(
        self,
        data: Iterable[Any],
        placement: Placement | None,
        processes: Processes,
        *,
        last: str,
        masked: bool,
        timeout: float | None,
    ):
        self._data = data
        self._placement = placement
        self._processes = processes
        self._last = last
        self._masked = masked
        self._timeout = timeout
        self._picks: dict[int, Any] = {}
        self._used = False
        self._name = f"data {next(_NAMES)}"
        self._passes = itertools.count()

    def portions(self, epoch: int, start: int) -> Iterator[Portion]:
        """Groups of batches of one shape."""
        iterator = iter(self._data)
        if iterator is self._data and self._used:
            return  # it has ended
        self._used = True
        groups: queue.Queue[Any] = queue.Queue(_AHEAD)
        stop = threading.Event()
        batches = _batches(iterator, start, self._last, self._masked)
        agree = functools.partial(
            self._processes.exchange, f"{self._name}/{next(self._passes)}", given_up=stop.is_set
        )
        thread = threading.Thread(
            target=_gather,
            args=(batches, groups, stop, agree, self._stack),
            name="gradkit-data",
            daemon=True,
        )
        thread.start()
        try:
            while (group := self._get(groups)) is not None:
                if isinstance(group, BaseException):
                    raise group
                yield self._make_portion(*group)
        finally:
            stop.set()
            if self._processes.are_several:
                thread.join(5)  # it may not be talking any more when the process ends

    def _get(self, groups: queue.Queue) -> Any:
        """The next group, or the exception that ended them."""
        began = time.monotonic()
        warned = False
        while True:
            seconds = time.monotonic() - began
            if self._timeout is not None and seconds >= self._timeout:
                raise DataTimeoutError(
                    describe(
                        f"the iterator given to fit as data= gave no batch for {seconds:.0f} s",
                        expected=f"a batch each data_timeout={self._timeout:g} seconds",
                        fix="see what it waits for, or allow for more time",
                    )
                )
            if seconds >= _SECONDS_TO_WARN and not warned:
                warned = True
                text = f"fit waits for data: no batch for {seconds:.0f} s (see data_timeout=)"
                warnings.warn(text, stacklevel=2)
            limits = [_SECONDS_TO_WARN] if self._timeout is None else [self._timeout - seconds]
            try:
                return groups.get(timeout=max(min(*limits, _SECONDS_TO_WARN), 0.001))
            except queue.Empty:
                continue

    def _stack(self, group: list[Any]) -> tuple[Any, int]:
        """On the device, with room for as many batches as there can be: one shape, one program."""
        room = _capacity(group[0])

        def stack(*xs: np.ndarray) -> np.ndarray:
            found = np.zeros((room, *xs[0].shape), xs[0].dtype)
            np.stack(xs, out=found[: len(xs)])
            return found

        stacked = jax.tree.map(stack, *group)
        if self._placement is None:
            return jax.device_put(stacked), len(group)
        return jax.tree.map(self._place, stacked), len(group)

    def _place(self, x: np.ndarray) -> jax.Array:
        assert self._placement is not None
        mesh = self._placement.mesh
        spec = self._placement.batch.spec
        several = self._processes.are_several
        if x.ndim == 1 or (not several and x.shape[1] % mesh.devices.shape[0]):
            return put_shares(x, self._placement.whole)
        try:
            return put_shares(x, NamedSharding(mesh, PartitionSpec(None, *spec)))
        except ValueError as error:
            here = mesh.devices.shape[0] // len(self._processes.members)
            raise ValueError(
                describe(
                    "a batch of data= of fit cannot be divided among the devices",
                    expected=f"a multiple of {here} examples from each process",
                    got=f"{x.shape[1]}",
                    fix="drop the last, shorter batch, or last_batch='pad' with a loss that takes "
                    "a mask",
                )
            ) from error

    def _make_portion(self, batches: Any, count: int) -> Portion:
        examples = next((x.shape[1] for x in jax.tree.leaves(batches) if x.ndim > 1), 1)
        pick = self._picks.setdefault(examples, functools.partial(_pick, examples, self._placement))
        return Portion(count, examples, pick, batches)


def _pick(size: int, placement: Placement | None, batches: Any, i: Any) -> Any:
    take = jax.lax.dynamic_index_in_dim
    batch = jax.tree.map(lambda x: take(x, i, keepdims=False), batches)
    return batch if placement is None else placement.divide(batch, size)


def _batches(iterator: Iterator[Any], start: int, last: str, masked: bool) -> Iterator[Any]:
    """Checked batches of NumPy arrays, from batch `start` on."""
    size = 0
    for i, batch in enumerate(iterator):
        if i < start and size:
            continue
        batch = jax.tree.map(np.asarray, batch)
        _check_batch(batch, i)
        size = size or _examples(batch)
        if i >= start:
            length = size if last == PAD else _examples(batch)
            yield pad_batch(batch, length) if masked else batch


def _gather(
    batches: Iterator[Any],
    groups: queue.Queue,
    stop: threading.Event,
    agree: Callable[[Any], list[Any]],
    stack: Callable[[list[Any]], Any],
) -> None:
    """Put groups into the queue, or the exception that ended it; at last `None`."""

    def put(item: Any) -> None:
        while not stop.is_set():
            try:
                groups.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    try:
        for group in _agreed_groups(batches, agree):
            put(stack(group))
            if stop.is_set():
                return
        put(None)
    except ProcessError as error:
        put(error)
    except BaseException as error:  # it belongs to the thread that trains
        error.add_note("raised by the iterator given to fit as data=")
        put(error)


def _agreed_groups(
    batches: Iterator[Any], agree: Callable[[Any], list[Any]]
) -> Iterator[list[Any]]:
    """Groups of as many batches of the same types in all processes, until one has no more."""
    waiting: list[Any] = []
    ahead = iter(_groups(batches))
    while True:
        if not waiting:
            waiting = next(ahead, [])
        types = str(_types(waiting[0])[1]) if waiting else ""
        heard = agree([len(waiting), types])
        count = min(n for n, _ in heard)
        if not count:
            return
        if len({text for _, text in heard}) > 1:
            raise ValueError(
                describe(
                    "the batches of data= of fit are not alike in all processes",
                    expected="the same shapes and types everywhere at the same time",
                    got="; ".join(text for _, text in heard),
                )
            )
        yield waiting[:count]
        waiting = waiting[count:]


def _groups(batches: Iterator[Any]) -> Iterator[list[Any]]:
    """Batches of one shape: as many as have room, or as come in a short time."""
    group: list[Any] = []
    began = 0.0
    for batch in batches:
        if group and (_types(batch) != _types(group[0]) or len(group) >= _capacity(group[0])):
            yield group
            group = []
        began = began if group else time.monotonic()
        group.append(batch)
        if time.monotonic() - began > _PATIENCE:
            yield group
            group = []
    if group:
        yield group


def _capacity(batch: Any) -> int:
    size = sum(x.nbytes for x in jax.tree.leaves(batch))
    return int(np.clip(_MOST_BYTES // max(size, 1), 1, _MOST_BATCHES))


def _examples(batch: Any) -> int:
    return next((len(x) for x in jax.tree.leaves(batch) if x.ndim), 1)


def _types(batch: Any) -> Any:
    leaves, structure = jax.tree.flatten(batch)
    return structure, tuple((x.shape, x.dtype.name) for x in leaves)


def _check_batch(batch: Any, i: int) -> None:
    if not jax.tree.leaves(batch) or any(x.dtype == object for x in jax.tree.leaves(batch)):
        raise TypeError(
            describe(
                f"batch {i} of data= of fit is no pytree of arrays",
                expected="arrays, or tuples and dicts of them",
                got=type(batch).__name__,
            )
        )
