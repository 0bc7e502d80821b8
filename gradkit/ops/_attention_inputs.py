"""The arguments of attention, checked."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradkit._errors import describe
from gradkit._trees import describe_type


class Inputs(NamedTuple):
    """What attention is computed from.

    Attributes:
        q: `[B, T, N, H]`.
        k: `[B, S, K, H]`.
        v: As `k`.
        scale: What products are scaled with, a number in at least float32.
        bias: `[B, N, T, S]`, each possibly 1, or None.
        mask: As `bias`.
        q_lengths: `int[B]`, or None.
        k_lengths: As `q_lengths`.
    """

    q: jax.Array
    k: jax.Array
    v: jax.Array
    scale: jax.Array
    bias: jax.Array | None
    mask: jax.Array | None
    q_lengths: jax.Array | None
    k_lengths: jax.Array | None


def as_inputs(
    q: Any, k: Any, v: Any, scale: Any, bias: Any, mask: Any, q_lengths: Any, k_lengths: Any
) -> Inputs:
    """The arguments with all their axes."""
    q, k, v = (jnp.asarray(x) for x in (q, k, v))
    _check_dtypes(q, k, v)
    if q.ndim != k.ndim or q.ndim not in (3, 4) or k.shape != v.shape:
        raise ValueError(_shapes("does not take arrays of these shapes.", q, k, v))
    q, k, v = (x[None] if x.ndim == 3 else x for x in (q, k, v))
    (b, t, n, h), (b_k, s, heads, h_k) = q.shape, k.shape
    if b != b_k or h != h_k:
        raise ValueError(_shapes("needs batch and features to be the same in q, k and v.", q, k, v))
    if heads == 0 or n % heads:
        raise ValueError(_shapes("needs as many query heads for each key head.", q, k, v))
    wide = jnp.promote_types(q.dtype, jnp.float32)
    if scale is None:
        scale = max(h, 1) ** -0.5
    if jnp.ndim(scale):
        raise ValueError(
            describe(
                "gk.ops.attention scales all scores alike.",
                expected="scale of shape ()",
                got=describe_type(jnp.asarray(scale)),
                fix="scale the queries themselves",
            )
        )
    return Inputs(
        q,
        k,
        v,
        jnp.asarray(scale, wide),
        _as_scores("bias", bias, (b, n, t, s), jnp.floating),
        _as_scores("mask", mask, (b, n, t, s), jnp.bool_),
        _as_lengths("query_seq_lengths", q_lengths, b),
        _as_lengths("key_value_seq_lengths", k_lengths, b),
    )


def as_window(window: Any) -> tuple[int, int] | None:
    """The window as its two sides."""
    if window is None:
        return None
    sides = window if isinstance(window, Sequence) else (window, window)
    try:
        left, right = (operator.index(side) for side in sides)
    except (TypeError, ValueError):
        left = right = -1
    if left < 0 or right < 0:
        raise ValueError(
            describe(
                "gk.ops.attention has windows that contain a query's own position.",
                expected="window=(left, right), whole numbers from 0 on, or one number for both",
                got=f"window={window}",
            )
        )
    return left, right


def as_softcap(softcap: Any) -> float | None:
    """The cap, which the program is specialised to."""
    if softcap is not None and not softcap > 0:
        raise ValueError(
            describe(
                "gk.ops.attention caps scores at a positive number.",
                expected="softcap > 0, or None for no cap",
                got=f"softcap={softcap}",
            )
        )
    return None if softcap is None else float(softcap)


def _check_dtypes(q: jax.Array, k: jax.Array, v: jax.Array) -> None:
    if not (jnp.issubdtype(q.dtype, jnp.floating) and q.dtype == k.dtype == v.dtype):
        raise TypeError(
            describe(
                "gk.ops.attention takes q, k and v of one floating-point type.",
                expected="one of float64, float32, bfloat16, float16",
                got=f"{q.dtype}, {k.dtype}, {v.dtype}",
                fix="convert them with astype",
            )
        )


def _shapes(what: str, q: jax.Array, k: jax.Array, v: jax.Array) -> str:
    return describe(
        f"gk.ops.attention {what}",
        expected="q[B, T, N, H], k[B, S, K, H], v[B, S, K, H] with N a multiple of K; or all "
        "without B",
        got=f"q{list(q.shape)}, k{list(k.shape)}, v{list(v.shape)}",
    )


def _as_scores(name: str, x: Any, shape: tuple[int, ...], kind: Any) -> jax.Array | None:
    if x is None:
        return None
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, kind):
        raise TypeError(
            describe(
                f"gk.ops.attention has another use for its argument '{name}'.",
                expected="booleans" if kind is jnp.bool_ else "floating-point numbers",
                got=describe_type(x),
                fix="pass what is added to scores as bias, and what is seen as mask",
            )
        )
    full = x[None] if x.ndim == 3 else x
    fits = full.ndim == 4 and all(n in (1, size) for n, size in zip(full.shape, shape, strict=True))
    if not fits:
        raise ValueError(
            describe(
                f"gk.ops.attention cannot broadcast its argument '{name}' to the scores.",
                expected=f"[B, N, T, S] = {list(shape)}, or 1 instead of any of them",
                got=describe_type(x),
            )
        )
    return full


def _as_lengths(name: str, lengths: ArrayLike | None, b: int) -> jax.Array | None:
    if lengths is None:
        return None
    lengths = jnp.asarray(lengths)
    if lengths.shape != (b,) or not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise ValueError(
            describe(
                f"gk.ops.attention takes one length an example as '{name}'.",
                expected=f"int[{b}]",
                got=describe_type(lengths),
            )
        )
    return lengths.astype(jnp.result_type(int))
