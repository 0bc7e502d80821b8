"""Functions of the catalogue as values of an override map.

A rule of a map is called as `rule(op, *y_bars)`, a function of the catalogue as `fn(x, ...)`. What
comes first tells the two apart, so that one name serves both:

    gk.rules.sign(x)                                          {"Sign": gk.rules.sign}

`functools.partial` gives other options: `{"Sign": partial(gk.rules.sign, window=None)}`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from gradkit._errors import RuleError, describe
from gradkit._registry import Op

F = TypeVar("F", bound=Callable[..., Any])


def instead_of_default(fn: F) -> F:
    """Let a function of one array serve in a map: its derivative takes the operation's place.

    The first input gets the cotangent, the others none.
    """
    return _either(fn, _take_place)


def after_default(fn: F) -> F:
    """Let a rule on cotangents serve in a map: it goes on from what JAX would have computed."""
    return _either(fn, _go_on)


def _either(fn: F, rule: Callable[..., Any]) -> F:
    @functools.wraps(fn)
    def function_or_rule(x, *args, **kwargs):
        if isinstance(x, Op):
            return rule(functools.partial(fn, **kwargs), fn.__name__, x, args)
        return fn(x, *args, **kwargs)

    return function_or_rule  # pyright: ignore[reportReturnType] - keeps fn's signature


def _take_place(fn: Callable[..., Any], name: str, op: Op, y_bars: Sequence[Any]) -> Any:
    x, *others = op.inputs
    y, pull = jax.vjp(fn, x)
    if len(y_bars) != 1 or jnp.shape(y) != jnp.shape(y_bars[0]):
        raise RuleError(
            describe(
                f"the derivative of gk.rules.{name} cannot take the place of that of '{op.name}'.",
                expected=f"an operation with one output of the shape of its first input, "
                f"{jnp.shape(x)}",
                got=f"outputs of shape {', '.join(str(jnp.shape(bar)) for bar in y_bars)}",
                fix="write a rule(op, *y_bars)",
            )
        )
    (x_bar,) = pull(y_bars[0].astype(y.dtype))
    return (x_bar, *[None for _ in others])


def _go_on(fn: Callable[..., Any], name: str, op: Op, y_bars: Sequence[Any]) -> Any:
    del name
    x_bars = op.default_vjp(*y_bars)
    if len(op.inputs) == 1:
        x_bars = (x_bars,)
    xs, structure = jax.tree.flatten(op.inputs)
    bars = structure.flatten_up_to(x_bars)
    chosen = [i for i, bar in enumerate(bars) if bar is not None]
    _, pull = jax.vjp(fn, [xs[i] for i in chosen])
    (changed,) = pull([bars[i] for i in chosen])
    for i, bar in zip(chosen, changed, strict=True):
        bars[i] = bar
    return jax.tree.unflatten(structure, bars)
