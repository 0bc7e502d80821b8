"""The identity whose cotangents go through a rule: what every rule on the backward pass is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from gradkit._errors import RuleError, describe
from gradkit._function import is_differentiable
from gradkit._rules import Call
from gradkit._trees import is_array

T = TypeVar("T")
Leaves = Sequence[Any]


def identity(name: str, x: T, rule: Callable[..., Leaves], *operands: Any) -> T:
    """`x`, whose cotangents are what `rule` makes of them.

    Args:
        name: The user's name of the function, for messages.
        x: A pytree. Leaves that have no gradient are left alone, and the rule does not see them.
        rule: `rule(xs, y_bars, *operands)` returns one cotangent per leaf, in any float type.
        operands: What else the rule needs. Traced values may be among them; their cotangent is
            zero.
    """
    leaves, structure = jax.tree.flatten(x)
    chosen = differentiable(leaves)
    if not chosen:
        return x

    def body(xs, operands):
        def grad(*y_bars):
            x_bars = rule(xs, y_bars, *operands)
            pairs = zip(x_bars, y_bars, strict=True)
            return [x_bar.astype(y_bar.dtype) for x_bar, y_bar in pairs], None

        return xs, grad

    args = [leaves[i] for i in chosen], operands
    ys = Call(name, body, args, ("x", "operands"), (0, 1))()
    for i, y in zip(chosen, ys, strict=True):
        leaves[i] = y
    return jax.tree.unflatten(structure, leaves)


def differentiable(leaves: Leaves) -> list[int]:
    """Which leaves have a gradient."""
    return [i for i, leaf in enumerate(leaves) if is_array(leaf) and is_differentiable(leaf)]


def leaf_by_leaf(rule: Callable[..., Any]) -> Callable[..., Leaves]:
    """A rule for all leaves from `rule(y_bar, *operands)` for one."""

    def of_all(xs: Leaves, y_bars: Leaves, *operands: Any) -> Leaves:
        del xs
        return [rule(y_bar, *operands) for y_bar in y_bars]

    return of_all


def one_per_leaf(name: str, what: str, value: Any, x: Any) -> Leaves:
    """What belongs to each differentiable leaf of `x`: one for all, or a pytree like `x`.

    Raises:
        RuleError: If the structure is another, or a shape does not fit its leaf.
    """
    leaves, structure = jax.tree.flatten(x)
    chosen = differentiable(leaves)
    if is_array(value):
        values = [value] * len(leaves)
    else:
        values, given = jax.tree.flatten(value)
        if given != structure:
            raise RuleError(
                describe(
                    f"gk.rules.{name} got a {what} of another structure than x.",
                    expected=f"one array for all leaves, or {structure}",
                    got=str(given),
                )
            )
    for i in chosen:
        shape = jnp.shape(leaves[i])
        if not broadcasts(jnp.shape(values[i]), shape):
            raise RuleError(
                describe(
                    f"gk.rules.{name} got a {what} that does not fit x.",
                    expected=f"a shape that broadcasts to {shape}",
                    got=f"shape {jnp.shape(values[i])}",
                )
            )
    return [values[i] for i in chosen]


def broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    """Whether an array of one shape broadcasts to another."""
    try:
        return jnp.broadcast_shapes(shape, to) == to
    except ValueError:
        return False
