"""Quantiles by counting instead of sorting."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from gradkit._arguments import as_floating, axis_index
from gradkit._errors import describe

Axis = int | Sequence[int] | None

METHODS = ("linear", "lower", "higher", "midpoint", "nearest")


def quantile(
    x: ArrayLike,
    q: ArrayLike,
    axis: Axis = None,
    *,
    method: str = "linear",
    keepdims: bool = False,
) -> jax.Array:
    r"""Quantiles, found on a CPU by counting instead of sorting; ties share the cotangent.

    $$ y = (1 - w)\,x_{(k)} + w\,x_{(k + 1)}, \qquad k + w = q (n - 1), \qquad
       \dot x_{(k)} = \operatorname{mean}_{i:\; x_i = x_{(k)}} \dot x_i $$

    On a CPU bisection finds `x_(k)`, the k-th smallest entry, in a pass over `x` for each of
    the bits of its type. Other platforms sort, and so does the CPU for more than four `q`, or more
    than one of fewer than 32 entries.

    Args:
        x: Real array.
        q: From 0 to 1, of any shape; it may be traced, and is differentiated.
        axis: The axis or axes that are reduced. Default: all.
        method: What stands between two entries, as in `jnp.quantile`: "linear", "lower", "higher",
            "midpoint" or "nearest".
        keepdims: Whether the reduced axes stay, with length 1.

    Returns:
        `y`, the shape of `q` and then that of the reduced `x`, in the dtype of `x`. NaN for a slice
        with one, and for `q` outside its range. Beside `jnp.quantile`, infinite entries that have
        no weight do not make it NaN.

    Raises:
        TypeError: If `x` is complex.
        ValueError: If there is no such axis or method, or nothing along the axes.

    At the kink:
        Where entries tie, every convex combination of theirs is a subgradient. The rule takes the
        mean, the smallest; `jnp.quantile` takes the one that its sort puts there. Second
        derivatives in `x` are 0.

    Keeps:
        `x` and the entries found.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x = jnp.array([3.0, 1.0, 1.0, 7.0])
        >>> print(quantile(x, 0.5), jax.grad(quantile)(x, 0.5))
        2.0 [0.5 0.25 0.25 0. ]

    Source:
        Hyndman & Fan, *Sample Quantiles in Statistical Packages* (1996), definition 7.
    """
    name = "ops.quantile"
    x = as_floating(name, x)
    if method not in METHODS:
        raise ValueError(
            describe(
                "gk.ops.quantile has no such method.",
                expected="one of " + ", ".join(map(repr, METHODS)),
                got=repr(method),
            )
        )
    axes = range(x.ndim) if axis is None else [axis] if isinstance(axis, int) else axis
    axes = sorted({axis_index(name, x, a) for a in axes})
    kept = [a for a in range(x.ndim) if a not in axes]
    rows = x.transpose(*kept, *axes).reshape(*(x.shape[a] for a in kept), -1)
    n = rows.shape[-1]
    if not n:
        raise ValueError(
            describe(
                "gk.ops.quantile needs an entry to choose.",
                expected=f"at least one along axes {tuple(axes)}",
                got=f"shape {x.shape}",
            )
        )
    q = jnp.asarray(q, jnp.promote_types(jnp.float32, x.dtype))
    y = _between(rows, q.reshape(-1), method).reshape(*q.shape, *rows.shape[:-1])
    return (jnp.expand_dims(y, [q.ndim + a for a in axes]) if keepdims else y).astype(x.dtype)


def median(x: ArrayLike, axis: Axis = None, *, keepdims: bool = False) -> jax.Array:
    r"""The median, found on a CPU by counting instead of sorting; ties share the cotangent.

    It is `quantile(x, 0.5)`, with its policies.

    Args:
        x: Real array.
        axis: The axis or axes that are reduced. Default: all.
        keepdims: Whether they stay, with length 1.

    Returns:
        The middle entry, or the mean of the two; NaN for a slice with one.

    Raises:
        TypeError: If `x` is complex.
        ValueError: If there is no such axis, or nothing along the axes.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> print(median(jnp.array([[3.0, 1.0, 2.0], [5.0, 9.0, 5.0]]), axis=1))
        [2. 5.]
    """
    return quantile(x, 0.5, axis, keepdims=keepdims)


def _between(x: jax.Array, q: jax.Array, method: str) -> jax.Array:
    """The quantiles of the last axis, those of each `q[m]` at `[m, ...]`."""
    n = x.shape[-1]
    place = jnp.clip(q, 0, 1) * (n - 1)
    below = lax.stop_gradient(jnp.floor(place))
    weight = place - below
    if method == "lower":
        weight = jnp.zeros_like(place)
    elif method == "higher":
        weight = lax.stop_gradient(jnp.ceil(weight))
    elif method == "nearest":  # the lower one of two that are as near, as in jnp
        weight = (weight > 0.5).astype(place.dtype)
    elif method == "midpoint":
        weight = lax.stop_gradient(jnp.ceil(weight)) / 2
    k = below.astype(jnp.int32)
    k = jnp.stack([k, jnp.minimum(k + 1, n - 1)], 1)
    low, high = jnp.moveaxis(_smallest(x, k).astype(weight.dtype), 1, 0)
    weight = weight.reshape(-1, *(1,) * (x.ndim - 1))
    # What has no weight may be infinite.
    low = jnp.where((weight == 1) & jnp.isinf(low), 0, low)
    high = jnp.where((weight == 0) & jnp.isinf(high), 0, high)
    y = low * (1 - weight) + high * weight
    valid = ((q >= 0) & (q <= 1)).reshape(weight.shape) & ~jnp.any(jnp.isnan(x), -1)[None]
    return jnp.where(valid, y, jnp.nan)


@jax.custom_jvp
def _smallest(x: jax.Array, k: jax.Array) -> jax.Array:
    """The entries `x_(k[m, 0])` and `x_(k[m, 1])`, `[m, 2, ...]`; they are equal or neighbours."""
    worth_counting = k.shape[0] <= (4 if x.shape[-1] >= 32 else 1)
    if jax.default_backend() != "cpu" or not worth_counting:
        ordered = jnp.moveaxis(jnp.sort(x, -1), -1, 0)
        return ordered[k]
    return lax.map(partial(_by_counting, x), k)


@_smallest.defjvp
def _smallest_jvp(primals, tangents):
    (x, k), (x_dot, _) = primals, tangents
    found = _smallest(x, k)

    def along(value):
        ties = (x == value[..., None]).astype(x.dtype)
        return jnp.sum(ties * x_dot, -1) / jnp.maximum(jnp.sum(ties, -1), 1)

    return found, jax.vmap(jax.vmap(along))(found)


def _by_counting(x: jax.Array, k: jax.Array) -> jax.Array:
    x_keys, bits = _keys(x), jnp.finfo(x.dtype).bits

    def halve(_, ends):
        low, high = ends
        middle = (low & high) + ((low ^ high) >> 1)  # rounded down, without overflow
        enough = jnp.sum(x_keys <= middle, -1, keepdims=True) > k[0]
        stop = low >= high
        return (
            jnp.where(stop | enough, low, middle + 1),
            jnp.where(stop | ~enough, high, middle),
        )

    ends = (jnp.min(x_keys, -1, keepdims=True), jnp.max(x_keys, -1, keepdims=True))
    key, _ = lax.fori_loop(0, bits, halve, ends)
    # The next entry: the same again, or the smallest of the larger ones.
    again = jnp.sum(x_keys <= key, -1, keepdims=True) > k[1]
    largest = jnp.iinfo(x_keys.dtype).max
    larger = jnp.min(jnp.where(x_keys > key, x_keys, largest), -1, keepdims=True)
    keys = jnp.stack([key, jnp.where(again, key, larger)])
    return _from_keys(keys[..., 0], x.dtype)


def _keys(x: jax.Array) -> jax.Array:
    """Integers in the order of the numbers: of negative ones, all bits but the sign are flipped."""
    integer = {16: jnp.int16, 32: jnp.int32, 64: jnp.int64}[jnp.finfo(x.dtype).bits]
    return _flip(lax.bitcast_convert_type(x, integer))


def _from_keys(keys: jax.Array, dtype: jnp.dtype) -> jax.Array:
    return lax.bitcast_convert_type(_flip(keys), dtype)


def _flip(bits: jax.Array) -> jax.Array:
    return jnp.where(bits < 0, bits ^ jnp.iinfo(bits.dtype).max, bits)
