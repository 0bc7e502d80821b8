"""The losses that belong to sparse softmax."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike

from gradkit._arguments import as_floating, widen
from gradkit._errors import describe
from gradkit.ops._entmax import checked_alpha, entmax, log_in_alpha
from gradkit.ops._entmax_top import Alpha


def sparsemax_loss(logits: ArrayLike, labels: ArrayLike) -> jax.Array:
    r"""The loss whose gradient is `sparsemax(logits) - labels`: 0 from a margin of 1 on.

    $$ L = \langle p - y, z \rangle + \tfrac12 (\|y\|_2^2 - \|p\|_2^2), \qquad
       \bar z = (p - y)\,\bar L, \qquad p = \operatorname{sparsemax}(z) $$

    Nothing is reduced, and the loss at the best logits is 0. With class labels it is
    `optax.losses.multiclass_sparsemax_loss`, without its sort on a CPU.

    Args:
        logits: `z`, real, `[..., n]`.
        labels: `y`: integers `[...]`, which name classes (a one-hot row; all zeros for one out of
            range), or probabilities `[..., n]`.

    Returns:
        `L`, `[...]`, in the dtype of `logits`. Half precision is computed in float32.

    Raises:
        TypeError: If an argument is complex.
        ValueError: If the labels have another shape, or there are no classes.

    Keeps:
        `p` and the labels.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> z = jnp.array([1.5, 1.0, -1.0])
        >>> print(sparsemax_loss(z, 0), jax.grad(sparsemax_loss)(z, 0))
        0.0625 [-0.25  0.25  0.  ]

    Source:
        Martins & Astudillo, *From Softmax to Sparsemax* (2016), arXiv:1602.02068, equation 15 (for
        one class).
    """
    return _from_labels("losses.sparsemax_loss", logits, labels, 2.0)


def entmax_loss(logits: ArrayLike, labels: ArrayLike, alpha: ArrayLike = 1.5) -> jax.Array:
    r"""The loss whose gradient is `entmax(logits) - labels`: cross-entropy at `alpha = 1`.

    $$ L = \langle p - y, z \rangle + \Omega(y) - \Omega(p), \qquad
       \Omega(p) = \sum_i \frac{p_i^\alpha - p_i}{\alpha (\alpha - 1)}, \qquad
       \bar z = (p - y)\,\bar L, \qquad p = \operatorname{entmax}_\alpha(z) $$

    Nothing is reduced. The loss at the best logits is 0; above `alpha = 1` it is so from a margin
    of `1 / (alpha - 1)` on. For probabilities at `alpha = 1` it is the divergence from them, which
    is cross-entropy less their entropy.

    Args:
        logits: `z`, real, `[..., n]`.
        labels: `y`: integers `[...]`, which name classes (a one-hot row; all zeros for one out of
            range), or probabilities `[..., n]`.
        alpha: From 1 to 2, as for `entmax`: a number, or an array that broadcasts with `logits` and
            has length 1 along the last axis. It may be traced, and is differentiated.

    Returns:
        `L`, `[...]`, in the dtype of `logits`. Half precision is computed in float32.

    Raises:
        TypeError: If an argument is complex.
        ValueError: If the labels have another shape, or there are no classes; if `alpha` is a
            number outside its range, or does not fit.

    Keeps:
        `p` and the labels.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> z = jnp.array([3.0, 0.5, 0.0])
        >>> for alpha in 1.0, 1.5, 2.0:
        ...     print(f"{entmax_loss(z, 0, alpha):.4f}")
        0.1239
        0.0000
        0.0000

    Source:
        Peters, Niculae & Martins (2019), arXiv:1905.05702, equation 9; Blondel, Martins & Niculae,
        *Learning with Fenchel-Young Losses* (2020), arXiv:1901.02324.
    """
    return _from_labels("losses.entmax_loss", logits, labels, alpha)


def _from_labels(name: str, logits: ArrayLike, labels: ArrayLike, alpha: ArrayLike) -> jax.Array:
    logits = as_floating(name, logits)
    z, y = widen(logits), jnp.asarray(labels)
    if z.ndim and jnp.issubdtype(y.dtype, jnp.integer) and y.shape == z.shape[:-1]:
        y = jax.nn.one_hot(y, z.shape[-1], dtype=z.dtype)
    if z.ndim == 0 or y.shape != z.shape:
        raise ValueError(
            describe(
                f"gk.{name} takes the labels of its logits.",
                expected=f"integers of shape {z.shape[:-1]} or probabilities of shape {z.shape}",
                got=f"logits of shape {z.shape}, labels {y.dtype}{list(y.shape)}",
            )
        )
    y = as_floating(name, y).astype(z.dtype)
    alpha = checked_alpha(name, alpha, z.shape, z.ndim - 1)
    if isinstance(alpha, float):
        loss = _fixed(alpha, z, y)
    else:
        loss = _general(z, y, jnp.asarray(alpha, z.dtype))
    return loss.astype(logits.dtype)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _fixed(alpha, z, y):
    return _value(z, y, alpha)


@partial(_fixed.defjvp, symbolic_zeros=True)
def _fixed_jvp(alpha, primals, tangents):
    (z, y), (z_dot, y_dot) = primals, tangents
    return _fixed(alpha, z, y), jnp.sum(_terms_along(z, y, alpha, z_dot, y_dot), -1)


@jax.custom_jvp
def _general(z, y, alpha):
    return _value(z, y, alpha)


@partial(_general.defjvp, symbolic_zeros=True)
def _general_jvp(primals, tangents):
    z, y, alpha = primals
    z_dot, y_dot, alpha_dot = tangents
    loss_dot = _terms_along(z, y, alpha, z_dot, y_dot)
    if not isinstance(alpha_dot, SymbolicZero):
        # p is where its own part of L is largest, so only the entropies change at first order.
        p = entmax(z, alpha)
        change = y * log_in_alpha(y, alpha) - p * log_in_alpha(p, alpha)
        change -= _entropies(y, alpha) - _entropies(p, alpha)
        loss_dot += change / alpha * alpha_dot
    return _general(z, y, alpha), jnp.sum(loss_dot, -1)


def _terms_along(z, y, alpha, z_dot, y_dot):
    """The terms of the loss's tangent along `z_dot` and `y_dot`."""
    loss_dot = jnp.zeros_like(z)
    if not isinstance(z_dot, SymbolicZero):
        loss_dot += (entmax(z, alpha) - y) * z_dot
    if not isinstance(y_dot, SymbolicZero):
        loss_dot += (_log(y, alpha) + 1 / alpha - z) * y_dot
    return loss_dot


def _value(z, y, alpha):
    p = entmax(z, alpha)
    off = p - y
    # Measured from the largest; off sums to 0 as far as y sums to 1. A class that is masked out by
    # -inf and not meant counts 0.
    top = jnp.max(z, -1, keepdims=True)
    products = jnp.where(off == 0, 0, off * jnp.where(off == 0, 0, z - top))
    missing = 1 - jnp.sum(y, -1)
    shift = jnp.where(missing == 0, 0, missing * jnp.squeeze(top, -1))
    return jnp.sum(products + _entropies(y, alpha) - _entropies(p, alpha), -1) + shift


def _entropies(p: jax.Array, alpha: Alpha) -> jax.Array:
    """The terms of `Omega`."""
    if isinstance(alpha, float) and alpha == 1.5:
        return p * (jnp.sqrt(p) - 1) / 0.75
    return p * _log(p, alpha) / alpha


def _log(p: jax.Array, alpha: Alpha) -> jax.Array:
    """`(p^(alpha - 1) - 1) / (alpha - 1)`, the logarithm at `alpha = 1`; there 0 at `p = 0`."""
    if isinstance(alpha, float) and alpha == 2:
        return p - 1
    return _general_log(p, jnp.asarray(alpha, p.dtype))


@jax.custom_jvp
def _general_log(p, alpha):
    gap = alpha - 1
    scaled = jnp.where(gap == 0, 1, gap)
    log = jnp.log(jnp.where(p > 0, p, 1))
    inside = jnp.where(gap == 0, log, jnp.expm1(gap * log) / scaled)
    return jnp.where(p > 0, inside, jnp.where(gap == 0, 0, -1 / scaled))


@_general_log.defjvp
def _general_log_jvp(primals, tangents):
    (p, alpha), (p_dot, alpha_dot) = primals, tangents
    slope = jnp.where(p > 0, jnp.where(p > 0, p, 1) ** (alpha - 2), 0)
    return _general_log(p, alpha), slope * p_dot + log_in_alpha(p, alpha) * alpha_dot
