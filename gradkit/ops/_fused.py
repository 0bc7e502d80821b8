"""A function whose value and gradient are computed leanly, and everything else by plain code.

Reverse mode runs the given backward pass. Forward mode and derivatives of higher order, which the
loops of such a pass do not have, differentiate the plain code: they need its memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.interpreters import ad

from gradkit import _jax_compat as compat
from gradkit._pullback import push_forward

Plain = Callable[..., jax.Array]
Forward = Callable[..., tuple[jax.Array, Any]]
Backward = Callable[..., Sequence[Any]]


def fused(plain: Plain, forward: Forward, backward: Backward, *args: Any) -> jax.Array:
    """Call a function with its own forward and backward pass.

    Args:
        plain: `plain(*args) -> y`, the same function in code that JAX can differentiate.
        forward: `forward(*args) -> (y, kept)`, with arrays that the backward pass wants.
        backward: `backward(args, y, kept, y_bar, wanted) -> x_bars`, one for each of `args`. What
            it says where `wanted` is false does not matter: numbers that are not differentiated.
        *args: Arrays, or None.
    """
    given = [i for i, x in enumerate(args) if x is not None]
    xs = [args[i] for i in given]
    axes = frozenset().union(*(compat.varying_axes(jax.typeof(x)) for x in xs))
    xs = [compat.vary_over(x, axes) for x in xs]

    def filled(xs: Sequence[Any]) -> list[Any]:
        places = dict(zip(given, xs, strict=True))
        return [places.get(i) for i in range(len(args))]

    def gradient(xs, y, kept, y_bar, moving):
        wanted = [i in [given[position] for position in moving] for i in range(len(args))]
        x_bars = backward(filled(xs), y, kept, y_bar, wanted)
        return [x_bars[i] for i in given]

    passes = _Passes(lambda *xs: plain(*filled(xs)), lambda *xs: forward(*filled(xs)), gradient)
    return passes.run(*xs)[0]


class _Passes:
    """The three programs on flat lists, and how they hang together."""

    def __init__(self, plain: Plain, forward: Forward, backward: Backward):
        self.plain = plain
        self.backward = backward
        self.run = jax.custom_jvp(lambda *xs: forward(*xs))
        self.run.defjvp(self._jvp, symbolic_zeros=True)

    def _jvp(self, primals, tangents):
        # Called by its own name: a derivative of the value returned here has the rule, too.
        y, kept = self.run(*primals)
        moving = tuple(i for i, x_dot in enumerate(tangents) if type(x_dot) is not SymbolicZero)
        x_dots = [
            x_dot if i in moving else ad.Zero(compat.tangent_aval(primals[i]))
            for i, x_dot in enumerate(tangents)
        ]
        others, treedef = jax.tree.flatten(kept)
        n = len(primals)

        def pull_back(*operands):
            xs, y, y_bar = operands[:n], operands[n], operands[-1]
            kept = jax.tree.unflatten(treedef, operands[n + 1 : -1])
            x_bars = self._pull_back(moving, xs, y, kept, y_bar)
            return [x_bars[i] for i in moving]

        def forwards(*operands):
            xs, x_dots = operands[:n], operands[n + 1 + len(others) :]
            return [jax.jvp(self._of(moving, xs), [xs[i] for i in moving], list(x_dots))[1]]

        rule = _FusedRule(pull_back, forwards, n + 1 + len(others), moving)
        (y_dot,) = push_forward(rule, [*primals, y, *others], x_dots, [compat.tangent_aval(y)])
        # What is kept is a function of the arguments; its part in the derivative is in `y_dot`.
        return (y, kept), (ad.instantiate_zeros(y_dot), jax.tree.map(jnp.zeros_like, kept))

    def _of(self, moving: Sequence[int], xs: Sequence[Any]) -> Plain:
        """The plain code as a function of some of its arguments."""

        def plain(*values):
            every = list(xs)
            for i, value in zip(moving, values, strict=True):
                every[i] = value
            return self.plain(*every)

        return plain

    def _pull_back(self, moving, xs, y, kept, y_bar) -> dict[int, Any]:
        """The backward pass; its own derivatives are those of the plain code's."""

        @jax.custom_jvp
        def run(xs, y, kept, y_bar):
            x_bars = self.backward(xs, y, kept, y_bar, moving)
            return {i: x_bars[i] for i in moving}

        @run.defjvp
        def jvp(primals, tangents):
            xs, y_bar, xs_dot, y_bar_dot = primals[0], primals[3], tangents[0], tangents[3]
            floating = [i for i, x in enumerate(xs) if jnp.issubdtype(x.dtype, jnp.inexact)]

            def plainly(values, y_bar):
                _, pull = jax.vjp(self._of(floating, xs), *values)
                return pull(y_bar)

            at = [xs[i] for i in floating], y_bar
            dots = [xs_dot[i] for i in floating], y_bar_dot
            _, moved = jax.jvp(plainly, at, dots)
            return run(*primals), {i: moved[floating.index(i)] for i in moving}

        return run(xs, y, kept, y_bar)


@compat.cached_weakly
@dataclass(eq=False, repr=False)
class _FusedRule:
    """A rule for `push_forward` that knows how to run forwards, instead of being transposed.

    Attributes:
        pull_back: `(*residuals, y_bar) -> x_bars` of `arguments`.
        forwards: `(*residuals, *x_dots) -> [y_dot]`, with a tangent for each of `arguments`.
        n_residuals: How many residuals there are.
        arguments: The positions of the arguments that are differentiated.
    """

    pull_back: Callable[..., list[Any]]
    forwards: Callable[..., list[Any]]
    n_residuals: int
    arguments: tuple[int, ...]

    def __call__(self, residuals: Sequence[Any], y_bars: Sequence[Any]) -> list[Any]:
        return self.pull_back(*residuals, *y_bars)

    def transposed(
        self, residuals: Sequence[Any], x_dots: Sequence[Any], used: Sequence[int]
    ) -> list[Any]:
        """The tangent of the output; all of `arguments` are used, else they were not among them."""
        del used
        return self.forwards(*residuals, *x_dots)

    def batched(
        self, residual_dims: Sequence[int | None], x_dims: Sequence[int | None], axis: Any
    ) -> _FusedRule:
        """The rule over a batch axis, which every cotangent has in front."""
        over_y = compat.vmap_over(
            self.pull_back, axis, [*residual_dims, 0], [dim or 0 for dim in x_dims]
        )
        forwards = compat.vmap_over(self.forwards, axis, [*residual_dims, *x_dims], 0)

        def pull_back(*operands):
            return [
                x_bar.sum(axis=0) if dim is None else x_bar
                for x_bar, dim in zip(over_y(*operands), x_dims, strict=True)
            ]

        return _FusedRule(pull_back, forwards, self.n_residuals, self.arguments)
