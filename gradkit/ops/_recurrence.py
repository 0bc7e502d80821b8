"""Linear recurrences, whose gradient is the recurrence that runs backwards."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from gradkit._arguments import axis_index, widen
from gradkit._errors import describe


def linear_recurrence(
    a: ArrayLike,
    x: ArrayLike,
    h0: ArrayLike | None = None,
    *,
    axis: int = 0,
    reverse: bool = False,
) -> jax.Array:
    r"""All states of a linear recurrence; its gradient stores nothing but them.

    $$ h_t = a_t h_{t-1} + x_t, \qquad
       \lambda_t = \bar h_t + a_{t+1} \lambda_{t+1}, \quad
       \bar x_t = \lambda_t, \quad \bar a_t = \lambda_t h_{t-1}, \quad \bar h_0 = a_1 \lambda_1 $$

    The gradient of `lax.associative_scan` stores every level of its tree. On a CPU, where small
    loops are fast, this runs step by step; elsewhere it runs `lax.associative_scan`, whose number
    of steps grows as the logarithm of the length.

    Args:
        a: The factors, real or complex, of a shape that broadcasts to that of `x`.
        x: The inputs, `[time, ...]`.
        h0: The state before the first, of a shape that broadcasts to that of `x` without time.
            Default: zero.
        axis: Where time is in `x`. Of an `a` with fewer axes, the last ones are meant.
        reverse: Whether time runs from the end: `h_t = a_t h_{t+1} + x_t`, and `h0` is behind the
            last.

    Returns:
        `h`, shape of `x`, in the common dtype. Half precision is computed in float32.

    Raises:
        ValueError: If the shapes do not fit.

    Keeps:
        `a` and `h`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> a, x = jnp.array([0.5, 0.5, 2.0]), jnp.ones(3)
        >>> print(linear_recurrence(a, x), jax.grad(lambda x: linear_recurrence(a, x)[-1])(x))
        [1.  1.5 4. ] [1. 2. 1.]

    Source:
        Martin & Cundy, *Parallelizing Linear Recurrent Neural Nets Over Sequence Length* (2018),
        arXiv:1709.04057.
    """
    name = "ops.linear_recurrence"
    given = [a, x] if h0 is None else [a, x, h0]
    dtype = jnp.result_type(*given)
    dtype = dtype if jnp.issubdtype(dtype, jnp.inexact) else jnp.result_type(dtype, float)
    a, x, *state = (widen(jnp.asarray(g, dtype)) for g in given)
    axis = axis_index(name, x, axis)
    shape = x.shape[:axis] + x.shape[axis + 1 :]
    _check_fits("a", a, x.shape)
    a = jnp.moveaxis(jnp.broadcast_to(a, x.shape), axis, 0)
    x = jnp.moveaxis(x, axis, 0)
    if state:
        _check_fits("h0", state[0], shape)
        first = slice(-1, None) if reverse else slice(0, 1)
        x = x.at[first].add(a[first] * jnp.broadcast_to(state[0], shape)[None])
    return jnp.moveaxis(recur(a, x, reverse), 0, axis).astype(dtype)


def _check_fits(argument: str, value: jax.Array, shape: tuple[int, ...]) -> None:
    try:
        fits = jnp.broadcast_shapes(value.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            describe(
                f"gk.ops.linear_recurrence got a {argument!r} that does not fit x.",
                expected=f"a shape that broadcasts to {shape}",
                got=f"shape {value.shape}",
            )
        )


def recur(a: jax.Array, x: jax.Array, reverse: bool) -> jax.Array:
    """The recurrence along the first axis, from a state of zero.

    Stated as the linear system `h - a shift(h) = x`, which JAX can differentiate in both modes and
    to any order from how it and its transpose are solved.
    """
    if not x.size:
        return x
    on_cpu = jax.default_backend() == "cpu"
    solve, solve_transposed = (_by_steps, _back_by_steps) if on_cpu else (_in_tree, _back_in_tree)
    return lax.custom_linear_solve(
        lambda h: h - a * shift(h, reverse),
        x,
        lambda _, x: solve(a, x, reverse),
        transpose_solve=lambda _, y: solve_transposed(a, y, reverse),
    )


def shift(h: jax.Array, reverse: bool, fill: float = 0) -> jax.Array:
    """What was there one step before."""
    along = (-1, 1, 0) if reverse else (1, -1, 0)
    return lax.pad(h, jnp.asarray(fill, h.dtype), [along] + [(0, 0, 0)] * (h.ndim - 1))


def _by_steps(a: jax.Array, x: jax.Array, reverse: bool) -> jax.Array:
    def step(h, inputs):
        a, x = inputs
        h = a * h + x
        return h, h

    return lax.scan(step, jnp.zeros_like(x[0]), (a, x), reverse=reverse)[1]


def _back_by_steps(a: jax.Array, y: jax.Array, reverse: bool) -> jax.Array:
    # Carries a_{t+1} lambda_{t+1}, so that no shifted copy of a is needed.
    def step(carried, inputs):
        a, y = inputs
        adjoint = y + carried
        return a * adjoint, adjoint

    return lax.scan(step, jnp.zeros_like(y[0]), (a, y), reverse=not reverse)[1]


def _in_tree(a: jax.Array, x: jax.Array, reverse: bool) -> jax.Array:
    def then(before, after):
        return before[0] * after[0], after[0] * before[1] + after[1]

    return lax.associative_scan(then, (a, x), reverse=reverse)[1]


def _back_in_tree(a: jax.Array, y: jax.Array, reverse: bool) -> jax.Array:
    return _in_tree(shift(a, not reverse), y, not reverse)
