"""Other arguments: other shapes that fit together, and other integers and flags."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from gradkit.verify._directions import random_step
from gradkit.verify._subject import is_differentiable

_MOST_LEAVES = 4  # arrays whose axes are changed one at a time
_INTEGERS = re.compile(r"integers from -?\d+ to (\d+)")


@dataclass(frozen=True)
class Variant:
    """Arguments like the given ones.

    Attributes:
        label: What was changed.
        args: The arguments.
        axes: Which axes have another length; those of one kind differ in that length alone.
    """

    label: str
    args: tuple[Any, ...]
    axes: tuple[tuple[int, int], ...] = ()

    @property
    def is_consistent(self) -> bool:
        """Have all axes of one length been changed alike, and not so that they broadcast?"""
        return not self.label.startswith("axis ") and not self.label.endswith(" made 1")


def other_arguments(
    args: Sequence[Any], seed: int, lengths: Sequence[int] = ()
) -> Iterator[Variant]:
    """Arguments like `args`, the most telling first. Not all of them need fit a function.

    Axes of one length are taken for the same axis and changed together. Then single axes are
    changed on their own, since two axes may have one length by accident.

    Args:
        args: The given arguments.
        seed: Seed of new numbers.
        lengths: Axis lengths of the results, within which integers may count.
    """
    leaves, structure = jax.tree.flatten(tuple(args))
    for label, changed in _other_integers(leaves, seed, lengths):
        yield Variant(label, jax.tree.unflatten(structure, changed))
    for label, sizes in _other_sizes(leaves):
        rng = np.random.default_rng(seed)
        changed = [_resize(rng, leaf, sizes.get(i, {})) for i, leaf in enumerate(leaves)]
        axes = tuple((i, axis) for i, changes in sizes.items() for axis in changes)
        yield Variant(label, jax.tree.unflatten(structure, _refit(leaves, changed)), axes)


def variant_at(label: str, args: Sequence[Any], seed: int) -> tuple[Any, ...] | None:
    """The arguments that have a label, if any."""
    match = _INTEGERS.fullmatch(label)
    lengths = [int(match[1]) + 1] if match else []
    found = (v.args for v in other_arguments(args, seed, lengths) if v.label == label)
    return next(found, None)


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray) and leaf.ndim > 0 and not _is_key(leaf)


def _has_kind(leaf: Any, kind: type[np.generic]) -> bool:
    arrays = jax.Array | np.ndarray | np.generic
    return isinstance(leaf, arrays) and jax.numpy.issubdtype(leaf.dtype, kind)


def _other_integers(
    leaves: Sequence[Any], seed: int, lengths: Sequence[int]
) -> Iterator[tuple[str, list[Any]]]:
    rng = np.random.default_rng(seed)
    whole = [i for i, leaf in enumerate(leaves) if _is_array(leaf) and _has_kind(leaf, np.integer)]
    whole = [i for i in whole if leaves[i].size]
    if whole:
        low = min(int(np.min(leaves[i])) for i in whole)
        high = max(int(np.max(leaves[i])) for i in whole)
        # The shortest axis that could be counted along is no longer than the one that is.
        known = [n for leaf in leaves if _is_array(leaf) for n in leaf.shape]
        high = min((n for n in (*known, *lengths) if n > high), default=high + 1) - 1
        changed = list(leaves)
        for i in whole:
            changed[i] = rng.integers(low, high + 1, leaves[i].shape).astype(leaves[i].dtype)
        yield f"integers from {low} to {high}", changed
    single = [
        i
        for i, leaf in enumerate(leaves)
        if (isinstance(leaf, int) and not isinstance(leaf, bool))
        or (np.shape(leaf) == () and _has_kind(leaf, np.integer))
    ]
    for new in (0, 1, 2, 3, -1) if single else ():
        changed = list(leaves)
        for i in single:
            changed[i] = new if isinstance(leaves[i], int) else np.asarray(new, leaves[i].dtype)
        yield f"single integers made {new}", changed
    flags = [i for i, leaf in enumerate(leaves) if _has_kind(leaf, np.bool_)]
    if flags:
        changed = list(leaves)
        for i in flags:
            drawn = rng.random(np.shape(leaves[i])) < 0.5
            changed[i] = drawn if drawn.ndim else ~np.asarray(leaves[i])
        yield "flags drawn anew", changed
    if any(isinstance(leaf, bool) for leaf in leaves):
        yield "flags flipped", [not x if isinstance(x, bool) else x for x in leaves]
    if any(map(_is_key, leaves)):
        yield "another key", [jax.random.fold_in(x, 1) if _is_key(x) else x for x in leaves]


def _other_sizes(leaves: Sequence[Any]) -> Iterator[tuple[str, dict[int, dict[int, int]]]]:
    """Labels, and new lengths by leaf and axis."""
    arrays = {i: leaf.shape for i, leaf in enumerate(leaves) if _is_array(leaf)}
    places: dict[int, list[tuple[int, int]]] = {}
    for i, shape in arrays.items():
        for axis, n in enumerate(shape):
            if n:
                places.setdefault(n, []).append((i, axis))
    for make in (lambda n: n + 1, lambda n: 1, lambda n: 2, lambda n: 3):
        for n, where in places.items():
            if make(n) != n:
                sizes: dict[int, dict[int, int]] = {}
                for i, axis in where:
                    sizes.setdefault(i, {})[axis] = make(n)
                yield f"axes of length {n} made {make(n)}", sizes
    for i in list(arrays)[:_MOST_LEAVES]:
        for axis, n in enumerate(arrays[i]):
            for new in (n + 1, 1) if n > 1 and len(places[n]) > 1 else ():
                yield f"axis {axis} of array {i} made {new}", {i: {axis: new}}


def _resize(rng: np.random.Generator, leaf: Any, sizes: dict[int, int]) -> Any:
    """A leaf with other lengths: its own entries in turn, moved a little where they are floats."""
    if not sizes:
        return leaf
    x = np.asarray(leaf)
    for axis, n in sizes.items():
        x = np.take(x, np.arange(n) % x.shape[axis], axis=axis)
    if is_differentiable(leaf):
        (step,) = random_step(rng, [x], 0.25)
        x = (np.asarray(x, step.dtype) + step).astype(leaf.dtype)
    return x


def _refit(leaves: Sequence[Any], changed: Sequence[Any]) -> list[Any]:
    """Integers that counted along an axis that has become shorter count along it again."""
    shorter = {
        new: old
        for a, b in zip(leaves, changed, strict=True)
        if _is_array(a)
        for old, new in zip(a.shape, np.shape(b), strict=True)
        if new < old
    }
    found = []
    for leaf in changed:
        if _is_array(leaf) and _has_kind(leaf, np.integer):
            for new, old in shorter.items():
                if new <= np.max(leaf, initial=0) < old:
                    leaf = np.asarray(leaf) % new
        found.append(leaf)
    return found
