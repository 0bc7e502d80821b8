"""Loops whose state may differ between devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax import lax

from gradkit import _jax_compat as compat

T = TypeVar("T")


def iterate(unfinished: Callable[[T], jax.Array], step: Callable[[T], T], start: T) -> T:
    """`jax.lax.while_loop`; inside `shard_map`, all of the state varies as its first part does.

    A state that starts with zeros, the same on all devices, does not stay so.
    """
    axes = frozenset().union(*map(varying_axes, jax.tree.leaves(start)))
    return lax.while_loop(unfinished, step, vary(start, axes))


def vary(tree: T, axes: frozenset[Any]) -> T:
    """A pytree as one that may differ between devices along mesh axes."""
    return jax.tree.map(lambda x: compat.vary_over(x, axes), tree)


def varying_axes(x: Any) -> frozenset[Any]:
    """The mesh axes along which an array differs between devices."""
    return compat.varying_axes(jax.typeof(x))


def as_result(fn: Callable[[T], Any], x: T) -> T:
    """`x`, varying as `fn(x)` does."""
    avals = jax.make_jaxpr(fn)(x).out_avals
    axes = frozenset().union(*map(compat.varying_axes, avals))
    return vary(x, axes) if axes else x
