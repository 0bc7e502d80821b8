"""Norms of one example's gradients, from what they are products of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import JaxprEqn

Residuals = Any
NormSquared = Callable[[Residuals, jax.Array], jax.Array]

# Rows up to which all pairs of them are compared; a sort takes over above.
_PAIRS_UP_TO = 512


def find_norm(eqn: JaxprEqn, position: int) -> NormSquared | None:
    """The squared norm of the gradient of one operand of an operation, if there is a short way.

    Args:
        eqn: The operation.
        position: Which operand.

    Returns:
        A function of the other operand and of the cotangent of the output; None for operations
        whose gradient is better computed.
    """
    find = _FINDERS.get(eqn.primitive.name)
    return find(eqn, position) if find is not None else None


def norm_squared(xs: Sequence[jax.Array], y_bar: jax.Array) -> jax.Array:
    r"""The sum of squares of `x.T @ y_bar`, over all `xs` and all groups.

    $$ \|X^\top \bar Y\|^2 = \sum_{ts} (X X^\top)_{ts} (\bar Y \bar Y^\top)_{ts} $$

    The right-hand side is cheaper where there are few rows.

    Args:
        xs: Arrays of shape `(groups, rows, inputs)`.
        y_bar: Shape `(groups, rows, outputs)`.

    Source:
        Goodfellow, *Efficient per-example gradient computations* (2015), arXiv:1510.01799, for one
        row; Li et al., *Large language models can be strong differentially private learners*
        (2021), arXiv:2110.05679, for several.
    """
    _, rows, outputs = y_bar.shape
    inputs = len(xs) * xs[0].shape[-1]
    if rows * (inputs + outputs) <= inputs * outputs:
        gram = sum(map(_gram, xs), jnp.zeros(()))
        return jnp.sum(gram * _gram(y_bar))
    squares = (jnp.sum(jnp.square(_dot("gti,gto->gio", x, y_bar))) for x in xs)
    return sum(squares, jnp.zeros(()))


def _gram(x: jax.Array) -> jax.Array:
    return _dot("gti,gsi->gts", x, x)


def _dot(spec: str, a: jax.Array, b: jax.Array) -> jax.Array:
    dtype = jnp.result_type(a, b, jnp.float32)
    return jnp.einsum(spec, a, b, preferred_element_type=dtype)


def _find_dot(eqn: JaxprEqn, position: int) -> NormSquared:
    (contract, batch) = eqn.params["dimension_numbers"]
    other = 1 - position
    avals: list[Any] = [atom.aval for atom in eqn.invars]
    ndims = [aval.ndim for aval in avals]
    free = [
        [i for i in range(ndims[k]) if i not in contract[k] and i not in batch[k]] for k in (0, 1)
    ]

    def norm(x: jax.Array, y_bar: jax.Array) -> jax.Array:
        n = len(batch[0])
        groups = prod(x.shape[i] for i in batch[other])
        rows = prod(x.shape[i] for i in free[other])
        x = lax.transpose(x, (*batch[other], *free[other], *contract[other]))
        # The output's axes: groups, then what is free of the first operand, then of the second.
        first = range(n, n + len(free[0]))
        second = range(n + len(free[0]), y_bar.ndim)
        mine, others = (first, second) if position == 0 else (second, first)
        y_bar = lax.transpose(y_bar, (*range(n), *others, *mine))
        size = x.size // max(groups * rows, 1)
        return norm_squared(
            [x.reshape(groups, rows, size)],
            y_bar.reshape(groups, rows, y_bar.size // max(groups * rows, 1)),
        )

    return norm


def _find_convolution(eqn: JaxprEqn, position: int) -> NormSquared | None:
    params = eqn.params
    if position != 1 or params["batch_group_count"] != 1:
        return None
    lhs_spec, rhs_spec, out_spec = params["dimension_numbers"]
    weights: Any = eqn.invars[1].aval
    kernel = [weights.shape[i] for i in rhs_spec[2:]]
    groups = params["feature_group_count"]
    strides, dilation = params["window_strides"], params["rhs_dilation"]
    padding = [(0, 0, 0)] * 2 + [
        (low, high, step - 1)
        for (low, high), step in zip(params["padding"], params["lhs_dilation"], strict=True)
    ]

    def rows_of(x: jax.Array) -> jax.Array:
        """From `(images, channels, *places)` to `(groups, images * places, channels / groups)`."""
        x = x.reshape(x.shape[0], groups, x.shape[1] // groups, -1)
        return lax.transpose(x, (1, 0, 3, 2)).reshape(groups, -1, x.shape[2])

    def norm(x: jax.Array, y_bar: jax.Array) -> jax.Array:
        x = lax.pad(lax.transpose(x, lhs_spec), jnp.zeros((), x.dtype), padding)
        y_bar = lax.transpose(y_bar, out_spec)
        places = y_bar.shape[2:]
        shifted = []
        for offset in product(*map(range, kernel)):
            start = [k * step for k, step in zip(offset, dilation, strict=True)]
            stop = [
                a + (n - 1) * step + 1 for a, n, step in zip(start, places, strides, strict=True)
            ]
            window = lax.slice(x, (0, 0, *start), (*x.shape[:2], *stop), (1, 1, *strides))
            shifted.append(rows_of(window))
        return norm_squared(shifted, rows_of(y_bar))

    return norm


def _find_gather(eqn: JaxprEqn, position: int) -> NormSquared | None:
    avals: list[Any] = [atom.aval for atom in eqn.invars]
    table, indices = avals
    numbers, mode = eqn.params["dimension_numbers"], eqn.params["mode"]
    n = indices.ndim - 1
    takes_rows = (
        position == 0
        and indices.shape[-1:] == (1,)
        and numbers.start_index_map == numbers.collapsed_slice_dims == (0,)
        and numbers.offset_dims == tuple(range(n, n + table.ndim - 1))
        and not numbers.operand_batching_dims
        and eqn.params["slice_sizes"] == (1, *table.shape[1:])
    )
    if not takes_rows or mode is lax.GatherScatterMode.ONE_HOT:
        return None

    def norm(indices: jax.Array, y_bar: jax.Array) -> jax.Array:
        indices = indices.ravel()
        y_bar = y_bar.reshape(indices.size, -1)
        y_bar = y_bar.astype(jnp.result_type(y_bar, jnp.float32))
        if mode is lax.GatherScatterMode.CLIP:
            indices = jnp.clip(indices, 0, table.shape[0] - 1)
        else:
            inside = (indices >= 0) & (indices < table.shape[0])
            y_bar = jnp.where(inside[:, None], y_bar, 0)
        if indices.size <= _PAIRS_UP_TO:
            same = indices[:, None] == indices[None, :]
            return jnp.sum(jnp.where(same, y_bar @ y_bar.T, 0))
        order = jnp.argsort(indices)
        indices = indices[order]
        new = jnp.concatenate([jnp.zeros(1, bool), indices[1:] != indices[:-1]])
        sums = jax.ops.segment_sum(
            y_bar[order], jnp.cumsum(new), indices.size, indices_are_sorted=True
        )
        return jnp.sum(jnp.square(sums))

    return norm


def _find_slice(eqn: JaxprEqn, position: int) -> NormSquared | None:
    del eqn
    if position:
        return None

    def norm(start: jax.Array, y_bar: jax.Array) -> jax.Array:
        del start
        return jnp.sum(jnp.square(y_bar.astype(jnp.result_type(y_bar, jnp.float32))))

    return norm


_FINDERS: dict[str, Callable[[JaxprEqn, int], NormSquared | None]] = {
    "dot_general": _find_dot,
    "conv_general_dilated": _find_convolution,
    "dynamic_slice": _find_slice,  # table[i], of one index
    "gather": _find_gather,
}
