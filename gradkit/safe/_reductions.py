"""Soft maxima: of entries that may all be masked out, or infinite."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from gradkit._arguments import widen
from gradkit.safe._edges import as_real

Axis = int | Sequence[int] | None


def softmax(x: ArrayLike, axis: Axis = -1, *, where: ArrayLike | None = None) -> jax.Array:
    r"""Softmax that is zero, not NaN, where every entry is masked out.

    $$ p_i = e^{x_i} / \textstyle\sum_j e^{x_j}, \qquad
       \dot p = p \odot (\dot x - \langle p, \dot x \rangle) $$

    Args:
        x: Real array. An entry of `-inf` is masked out, and so is one where `where` is false,
            whatever stands there.
        axis: The axis or axes to sum over. Default: the last.
        where: Boolean mask that broadcasts to the shape of `x`.

    Returns:
        `p`, with shape and dtype of `x`.

    Raises:
        TypeError: If `x` is complex.

    At the kink:
        With every entry masked out, value and derivatives are 0. Entries of `+inf` share the
        weight equally.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x = jnp.full((1, 2), -jnp.inf)
        >>> print(softmax(x), jax.grad(lambda x: softmax(x)[0, 0])(x))
        [[0. 0.]] [[0. 0.]]
    """
    (x,) = as_real("softmax", x)
    weights, total, _, _ = _exponentials(widen(x), where, axis)
    return (weights / total).astype(x.dtype)


def log_softmax(x: ArrayLike, axis: Axis = -1, *, where: ArrayLike | None = None) -> jax.Array:
    r"""Logarithm of `softmax`, `-inf` with a derivative of zero where an entry is masked out.

    $$ y_i = x_i - \log \textstyle\sum_j e^{x_j}, \qquad
       \dot y_i = \dot x_i - \langle p, \dot x \rangle $$

    Args:
        x: Real array, as for `softmax`.
        axis: The axis or axes to sum over. Default: the last.
        where: Boolean mask that broadcasts to the shape of `x`.

    Returns:
        `y`, with shape and dtype of `x`.

    Raises:
        TypeError: If `x` is complex.

    At the kink:
        With every entry masked out, all are `-inf`, and the derivatives 0.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x = jnp.array([0.0, -jnp.inf, 0.0])
        >>> print(jax.grad(lambda x: log_softmax(x)[0])(x))
        [ 0.5  0.  -0.5]
    """
    (x,) = as_real("log_softmax", x)
    _, total, shifted, present = _exponentials(widen(x), where, axis)
    return jnp.where(present, shifted - jnp.log(total), -jnp.inf).astype(x.dtype)


def logsumexp(
    x: ArrayLike, axis: Axis = None, *, where: ArrayLike | None = None, keepdims: bool = False
) -> jax.Array:
    r"""Logarithm of a sum of exponentials, with a derivative where all entries are infinite.

    $$ y = \log \textstyle\sum_i e^{x_i}, \qquad
       \dot y = \langle \operatorname{softmax}(x), \dot x \rangle $$

    Args:
        x: Real array, as for `softmax`.
        axis: The axis or axes to sum over. Default: all.
        where: Boolean mask that broadcasts to the shape of `x`.
        keepdims: Whether they stay, with length 1.

    Returns:
        `y`, in the dtype of `x`; `-inf` with every entry masked out.

    Raises:
        TypeError: If `x` is complex.

    At the kink:
        As for `softmax`: 0 with every entry masked out, equal shares of several `+inf`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x = jnp.full(2, -jnp.inf)
        >>> print(logsumexp(x), jax.grad(logsumexp)(x))
        -inf [0. 0.]
    """
    (x,) = as_real("logsumexp", x)
    wide = widen(x)
    mask = jnp.broadcast_to(True if where is None else where, x.shape)
    y = _logsumexp(axis, wide, mask)
    return (y if keepdims else jnp.squeeze(y, axis)).astype(x.dtype)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _logsumexp(axis, x, mask):
    return jax.nn.logsumexp(x, axis, where=mask, keepdims=True)


@_logsumexp.defjvp
def _logsumexp_jvp(axis, primals, tangents):
    x, mask = primals
    weights = softmax(x, axis, where=mask)
    # What is masked out may have any tangent, NaN included.
    x_dot = jnp.where(weights == 0, 0, tangents[0])
    return _logsumexp(axis, x, mask), jnp.sum(weights * x_dot, axis, keepdims=True)


def logaddexp(x: ArrayLike, y: ArrayLike) -> jax.Array:
    r"""`log(exp(x) + exp(y))`, with a derivative where both are infinite.

    $$ z = \log(e^x + e^y), \qquad \dot z = \sigma(x - y)\,\dot x + \sigma(y - x)\,\dot y $$

    Args:
        x: Real array.
        y: Real array.

    Returns:
        `z`, as `jnp.logaddexp`.

    Raises:
        TypeError: If one is complex.

    At the kink:
        As for `logsumexp`: at `x = y = -inf` the derivatives are 0, at `x = y = inf` one half.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> print(*jax.grad(logaddexp, (0, 1))(-jnp.inf, -jnp.inf))
        0.0 0.0
    """
    x, y = as_real("logaddexp", x, y)
    return _logaddexp(*jnp.broadcast_arrays(x, y))


@jax.custom_jvp
def _logaddexp(x, y):
    return jnp.logaddexp(x, y)


@_logaddexp.defjvp
def _logaddexp_jvp(primals, tangents):
    x, y = primals
    x_dot, y_dot = tangents
    same = jnp.isinf(x) & (x == y)
    gap = jnp.where(same, 0, jnp.where(same, 0, x) - jnp.where(same, 0, y))
    absent = same & (x < 0)
    x_weight = jnp.where(absent, 0, jax.nn.sigmoid(gap))
    y_weight = jnp.where(absent, 0, jax.nn.sigmoid(-gap))
    return _logaddexp(x, y), x_weight * x_dot + y_weight * y_dot


def _exponentials(
    x: jax.Array, where: ArrayLike | None, axis: Axis
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """`exp(x - max)`, its sum (1 if that is empty), `x - max`, and which entries are present."""
    present = x != -jnp.inf
    if where is not None:
        present &= jnp.broadcast_to(where, x.shape)
    top = jnp.max(x, axis, keepdims=True, where=present, initial=-jnp.inf)
    top = lax.stop_gradient(top)
    usual = present & jnp.isfinite(top)
    shifted = jnp.where(usual, x, 0) - jnp.where(jnp.isfinite(top), top, 0)
    # Beside +inf, which is as large as the largest, every finite entry is nothing.
    beside_infinity = jnp.where(x == top, 0, jnp.where(jnp.isnan(x), x, -jnp.inf))
    shifted = jnp.where(usual, shifted, beside_infinity)
    weights = jnp.where(present, jnp.exp(jnp.where(present, shifted, 0)), 0)
    total = jnp.sum(weights, axis, keepdims=True)
    return weights, jnp.where(total == 0, 1, total), shifted, present
