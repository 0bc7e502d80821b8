"""The identity that carries a hook on its cotangent: one primitive for every kind of hook.

    ys = hook(xs)                    the value, which a compiler removes
    y_dots = observe(x_dots)         where the hook has an observer, else the tangents themselves

`observe` is linear. *Evaluated* (forward mode, which has no cotangent) it is the identity;
*transposed* (reverse mode) it shows the cotangents to the observer and passes them on. A hook
with a name is what `_perturb` looks for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from gradkit import _jax_compat as compat
from gradkit._pullback import move_to_front
from gradkit._trees import is_array

Observer = Callable[..., None]


@compat.cached_weakly
@dataclass(frozen=True, eq=False)
class Hook:
    """What is to happen with the cotangent of a value.

    Attributes:
        name: The name to collect it under; None for one that is not collected.
        structure: The structure of the value, whose leaves without a gradient are missing.
        scoped: Does the name start with the named scopes around it?
        norm: Is only the norm to be collected?
        batch_axes: How many leading axes of each leaf are those of `vmap`, each example of which
            has a norm of its own; none if empty.
        observer: Called with the cotangents, in reverse mode, where nobody collects them.
    """

    name: str | None
    structure: Any
    scoped: bool = False
    norm: bool = False
    batch_axes: tuple[int, ...] = ()
    observer: Observer | None = None

    def __repr__(self) -> str:
        return self.name or "observer"


def attach(x: Any, hook: Callable[[Any], Hook]) -> Any:
    """A pytree whose differentiable leaves carry a hook; the others are left as they are.

    Args:
        x: The pytree.
        hook: Makes the hook from the structure of the differentiable leaves.
    """
    leaves, structure = jax.tree.flatten(x)
    chosen = [i for i, leaf in enumerate(leaves) if is_array(leaf) and _has_gradient(leaf)]
    kept = jax.tree.unflatten(structure, [i if i in chosen else None for i in range(len(leaves))])
    made = hook(jax.tree.structure(kept))
    for i, y in zip(chosen, hook_p.bind(*(leaves[i] for i in chosen), hook=made), strict=True):
        leaves[i] = y
    return jax.tree.unflatten(structure, leaves)


def _has_gradient(leaf: Any) -> bool:
    return compat.tangent_aval(leaf).dtype != jax.dtypes.float0


hook_p = Primitive("gradkit_hook")
observe_p = Primitive("gradkit_observe")


def _identity(*xs: Any, **_: Any) -> list[Any]:
    return list(xs)


def _lowered(context: Any, *xs: Any, **_: Any) -> list[Any]:
    del context
    return list(xs)


for _p in (hook_p, observe_p):
    _p.multiple_results = True
    _p.def_impl(_identity)
    _p.def_abstract_eval(_identity)
    mlir.register_lowering(_p, _lowered)


def _hook_jvp(xs, x_dots, *, hook: Hook):
    ys = hook_p.bind(*xs, hook=hook)
    if hook.observer is None or all(type(x_dot) is ad.Zero for x_dot in x_dots):
        return ys, list(x_dots)
    x_dots = [ad.instantiate_zeros(x_dot) for x_dot in x_dots]
    return ys, observe_p.bind(*x_dots, observer=hook.observer)


def _observe_jvp(xs, x_dots, *, observer: Observer):
    bind = functools.partial(observe_p.bind, observer=observer)
    return bind(*xs), bind(*(ad.instantiate_zeros(x_dot) for x_dot in x_dots))


ad.primitive_jvps[hook_p] = _hook_jvp
ad.primitive_jvps[observe_p] = _observe_jvp


def _hook_transpose(y_bars, *xs, hook: Hook):
    """`jax.linear_transpose` of a function with a hook in it."""
    del xs
    return _observed(hook.observer, y_bars)


def _observe_transpose(y_bars, *x_dots, observer: Observer):
    del x_dots
    return _observed(observer, y_bars)


def _observed(observer: Observer | None, y_bars: Sequence[Any]) -> list[Any]:
    """The cotangents, having been observed. Where all are zero, nothing has arrived."""
    if observer is not None and not all(type(y_bar) is ad.Zero for y_bar in y_bars):
        y_bars = [ad.instantiate_zeros(y_bar) for y_bar in y_bars]
        observer(*y_bars)
    return list(y_bars)


ad.primitive_transposes[hook_p] = _hook_transpose
ad.primitive_transposes[observe_p] = _observe_transpose


def _batched(observer: Observer | None, axis: Any, dims: Sequence[int | None]) -> Observer | None:
    """An observer that is called once per example."""
    if observer is None:
        return None

    def of_one(*y_bars):
        observer(*y_bars)
        return ()

    return compat.vmap_over(of_one, axis, tuple(dims), None)


def _hook_batch(axis, xs, dims, *, hook: Hook):
    xs, dims = move_to_front(xs, dims)
    before = hook.batch_axes or (0,) * len(xs)
    axes = tuple(n + (dim is not None) for n, dim in zip(before, dims, strict=True))
    hook = replace(hook, batch_axes=axes, observer=_batched(hook.observer, axis, dims))
    return hook_p.bind(*xs, hook=hook), dims


def _observe_batch(axis, xs, dims, *, observer: Observer):
    xs, dims = move_to_front(xs, dims)
    return observe_p.bind(*xs, observer=_batched(observer, axis, dims)), dims


batching.fancy_primitive_batchers[hook_p] = _hook_batch
batching.fancy_primitive_batchers[observe_p] = _observe_batch
