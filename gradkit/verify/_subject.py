"""A user's function, seen as a function of its differentiable leaves alone, at one precision."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Leaves = list[Any]


@dataclass(frozen=True)
class Subject:
    """What is being checked.

    Attributes:
        call: Maps the differentiable leaves of the arguments to those of the result.
        point: The leaves at which the check happens.
        names: The path of each leaf, such as `"args[0]['w']"`.
        wide: Is it to run in float64, whatever the process runs in?
    """

    call: Callable[[Leaves], Leaves]
    point: Leaves
    names: tuple[str, ...]
    wide: bool

    def precision_scope(self) -> contextlib.AbstractContextManager[Any]:
        """Everything that runs `call` runs in here."""
        return jax.enable_x64(True) if self.wide else contextlib.nullcontext()

    def moved(self, step: Sequence[Any]) -> Subject:
        """The same function at another point."""
        pairs = zip(self.point, step, strict=True)
        with self.precision_scope():
            point = [_like(x, as_numpy(x) + d, x.dtype) for x, d in pairs]
        return replace(self, point=point)


def name_of(f: Any) -> str:
    """The name by which a report calls a function."""
    while isinstance(f, functools.partial):
        f = f.func
    return getattr(f, "__qualname__", None) or getattr(f, "__name__", None) or type(f).__name__


def is_differentiable(leaf: Any) -> bool:
    """Is `leaf` a real or complex floating-point array or scalar?"""
    if isinstance(leaf, float | complex):
        return True
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jnp.inexact)


def widest(dtype: Any) -> Any:
    """float64, or complex128 for complex types."""
    return jnp.complex128 if jnp.issubdtype(dtype, jnp.complexfloating) else jnp.float64


def make_subject(f: Callable[..., Any], args: Sequence[Any], *, wide: bool) -> Subject:
    """See `f` at `args` as a function of the differentiable leaves.

    Integers, booleans, PRNG keys, `None`, strings, callables and other objects keep their values.

    Args:
        f: Any function of pytrees.
        args: Its positional arguments.
        wide: Promote the leaves to float64. Call within `jax.enable_x64(True)` then.

    Raises:
        TypeError: If no argument is differentiable.
    """
    paths, structure = jax.tree_util.tree_flatten_with_path(tuple(args))
    slots = [i for i, (_, leaf) in enumerate(paths) if is_differentiable(leaf)]
    everything = [leaf for _, leaf in paths]
    point = [jnp.asarray(everything[i]) for i in slots]
    if wide:
        point = [_like(x, np.asarray(x), widest(x.dtype)) for x in point]

    def call(leaves: Leaves) -> Leaves:
        merged = list(everything)
        for slot, leaf in zip(slots, leaves, strict=True):
            merged[slot] = leaf
        result = f(*jax.tree.unflatten(structure, merged))
        return [jnp.asarray(y) for y in jax.tree.leaves(result) if is_differentiable(y)]

    names = tuple("args" + jax.tree_util.keystr(paths[i][0]) for i in slots)
    return Subject(call, point, names, wide)


def _like(x: Any, values: np.ndarray, dtype: Any) -> jax.Array:
    """`values`, on the devices of `x`."""
    array = jnp.asarray(values.astype(dtype))
    return jax.device_put(array, x.sharding) if len(x.sharding.device_set) > 1 else array


def cast(values: Sequence[Any], like: Sequence[Any]) -> list[Any]:
    """`values` in the types of `like`, converted by NumPy: nothing to compile."""
    pairs = zip(values, like, strict=True)
    return [v if v is x else np.asarray(v).astype(x.dtype) for v, x in pairs]


def as_numpy(x: Any) -> np.ndarray:
    """`x` in float64 or complex128, for the arithmetic of the check itself."""
    x = np.asarray(x)
    return x.astype(np.complex128 if jnp.issubdtype(x.dtype, jnp.complexfloating) else np.float64)


def pair(u: Sequence[Any], v: Sequence[Any]) -> float:
    r"""JAX's pairing of a cotangent with a tangent, $\Re \sum u v$ without conjugation."""
    with np.errstate(invalid="ignore", over="ignore"):  # infinities are found elsewhere
        return float(sum(np.sum(terms).real for terms in _products(u, v)))


def pair_size(u: Sequence[Any], v: Sequence[Any]) -> float:
    """The size that `pair(u, v)` has when its terms do not cancel: their Euclidean norm."""
    with np.errstate(invalid="ignore", over="ignore"):
        return float(np.sqrt(sum(np.sum(np.abs(terms) ** 2) for terms in _products(u, v))))


def _products(u: Sequence[Any], v: Sequence[Any]) -> Iterator[np.ndarray]:
    return (as_numpy(a) * as_numpy(b) for a, b in zip(u, v, strict=True))


def all_finite(leaves: Sequence[Any]) -> bool:
    """Is every number in `leaves` finite?"""
    return all(bool(np.isfinite(as_numpy(leaf)).all()) for leaf in leaves)
