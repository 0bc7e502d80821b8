"""Sparse softmax: the maps that give unlikely classes a probability of exactly zero."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike

from gradkit._arguments import as_floating, axis_index, widen
from gradkit._errors import describe
from gradkit.ops._entmax_top import Alpha, top_by_newton, top_by_sort, weights


def sparsemax(z: ArrayLike, axis: int = -1) -> jax.Array:
    r"""The point of the probability simplex that is nearest to `z`; most entries are exactly 0.

    $$ p = \arg\min_{p \in \Delta} \|p - z\|_2^2 = [z - \tau]_+, \qquad
       \dot p = s \odot (\dot z - \langle s, \dot z \rangle / k), \quad s = [p > 0],\; k = |s| $$

    On a CPU the threshold is found by Newton's method, which ends on the exact support after some
    five to ten passes over `z`, instead of by a sort, which is what other platforms use.

    Args:
        z: Real array; `-inf` masks an entry out.
        axis: The axis that is summed to 1.

    Returns:
        `p`, with shape and dtype of `z`. Half precision is computed in float32.

    Raises:
        TypeError: If `z` is complex.
        ValueError: If the axis has no entries.

    At the kink:
        An entry that stands exactly at the threshold has probability 0 and counts as outside of the
        support. Second derivatives are 0.

    Keeps:
        `p`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> z = jnp.array([1.5, 1.0, -1.0])
        >>> print(sparsemax(z), jax.grad(lambda z: sparsemax(z)[0])(z))
        [0.75 0.25 0.  ] [ 0.5 -0.5  0. ]

    Source:
        Martins & Astudillo, *From Softmax to Sparsemax* (2016), arXiv:1602.02068. The iteration:
        Michelot, *A finite algorithm for finding the projection of a point onto the canonical
        simplex of R^n* (1986).
    """
    return _along("ops.sparsemax", z, 2.0, axis)


def entmax(z: ArrayLike, alpha: ArrayLike = 1.5, axis: int = -1) -> jax.Array:
    r"""Softmax at `alpha = 1`, `sparsemax` at 2, and in between sparse with smooth borders.

    $$ p = \arg\max_{p \in \Delta} \langle p, z \rangle + \sum_i \frac{p_i - p_i^\alpha}
       {\alpha (\alpha - 1)} = [1 + (\alpha - 1)(z - \sigma)]_+^{1 / (\alpha - 1)} $$

    $$ \dot p = s \odot (\dot z - \langle s, \dot z \rangle / \textstyle\sum_i s_i) +
       (r - s \sum_i r_i / \sum_i s_i)\,\dot\alpha, \qquad s = p^{2 - \alpha}, \quad
       r = \frac{p - s - (\alpha - 1) p \log p}{(\alpha - 1)^2} $$

    `sigma` is found by Newton's method on the norm of the right-hand side, which takes one step at
    `alpha = 1` and five to ten elsewhere. Numbers 1.5 and 2 have paths of their own without
    logarithms; on platforms other than the CPU these sort.

    Args:
        z: Real array; `-inf` masks an entry out.
        alpha: From 1 to 2: a number, or an array that broadcasts with `z` and has length 1 along
            `axis` (one per attention head, say). It may be traced, and is differentiated.
        axis: The axis that is summed to 1.

    Returns:
        `p`, with shape and dtype of `z`. Half precision is computed in float32. NaN for a traced
        `alpha` outside its range.

    Raises:
        TypeError: If an argument is complex.
        ValueError: If `alpha` is a number outside its range, or does not fit `z`; if the axis has
            no entries.

    At the kink:
        An entry that stands exactly at the threshold has probability 0 and counts as outside of the
        support.

    Keeps:
        `p`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> z = jnp.array([1.0, 0.0, -3.0])
        >>> print(jnp.array_str(entmax(z), precision=3))
        [0.831 0.169 0.   ]
        >>> print(f"{jax.grad(lambda alpha: entmax(z, alpha)[0])(1.5):.4f}")
        0.2485

    Source:
        Peters, Niculae & Martins, *Sparse Sequence-to-Sequence Models* (2019), arXiv:1905.05702;
        the derivative in `alpha`: Correia, Niculae & Martins, *Adaptively Sparse Transformers*
        (2019), arXiv:1909.00015, proposition 1.
    """
    return _along("ops.entmax", z, alpha, axis)


def _along(name: str, z: ArrayLike, alpha: ArrayLike, axis: int) -> jax.Array:
    z = as_floating(name, z)
    axis = axis_index(name, z, axis)
    if z.shape[axis] == 0:
        raise ValueError(
            describe(
                f"gk.{name} needs an entry to give the probability to.",
                expected=f"at least one along axis {axis}",
                got=f"shape {z.shape}",
            )
        )
    x = jnp.moveaxis(widen(z), axis, -1)
    alpha = checked_alpha(name, alpha, z.shape, axis)
    if isinstance(alpha, float):
        p = jax.nn.softmax(x) if alpha == 1 else _fixed(alpha, x)
    else:
        p = _general(x, jnp.moveaxis(alpha, axis, -1).astype(x.dtype))
    return jnp.moveaxis(p, -1, axis).astype(z.dtype)


def checked_alpha(name: str, alpha: ArrayLike, shape: tuple[int, ...], axis: int) -> Alpha:
    """A number as it is, an array with as many axes as `shape`."""
    if isinstance(alpha, (int, float)):
        if not 1 <= alpha <= 2:
            raise ValueError(
                describe(
                    f"gk.{name} interpolates between softmax and sparsemax.",
                    expected="alpha from 1 to 2",
                    got=f"alpha = {alpha}",
                )
            )
        return float(alpha)
    alpha = as_floating(name, alpha)
    alpha = alpha.reshape((1,) * (len(shape) - alpha.ndim) + alpha.shape)
    fits = alpha.ndim == len(shape) and alpha.shape[axis] == 1
    if not fits or any(a not in (1, n) for a, n in zip(alpha.shape, shape, strict=True)):
        raise ValueError(
            describe(
                f"gk.{name} takes one alpha for each slice along axis {axis}.",
                expected=f"a shape that broadcasts to {shape}, with length 1 along the axis",
                got=f"shape {alpha.shape}",
            )
        )
    return alpha


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _fixed(alpha, z):
    """Entmax over the last axis, for a number `alpha`."""
    x = z - jnp.max(z, -1, keepdims=True)
    if alpha in (1.5, 2):
        # Libraries for accelerators sort well, and a loop waits for the host at every step.
        top = lax.platform_dependent(
            x, cpu=partial(top_by_newton, alpha=alpha), default=partial(top_by_sort, alpha=alpha)
        )
    else:
        top = top_by_newton(x, alpha)
    return weights(x, top, alpha)[0]


@_fixed.defjvp
def _fixed_jvp(alpha, primals, tangents):
    ((z,), (z_dot,)) = primals, tangents
    p = _fixed(alpha, z)
    slope = _slope(p, alpha)
    return p, slope * (z_dot - _mean(slope, z_dot))


@jax.custom_jvp
def _general(z, alpha):
    """Entmax over the last axis, for an array `alpha` with one entry there."""
    x = z - jnp.max(z, -1, keepdims=True)
    alpha = jnp.where((alpha >= 1) & (alpha <= 2), alpha, jnp.nan)
    return weights(x, top_by_newton(x, alpha), alpha)[0]


@partial(_general.defjvp, symbolic_zeros=True)
def _general_jvp(primals, tangents):
    z, alpha = primals
    z_dot, alpha_dot = tangents
    p = _general(z, alpha)
    slope = _slope(p, alpha)
    p_dot = jnp.zeros_like(p)
    if not isinstance(z_dot, SymbolicZero):
        p_dot += slope * (z_dot - _mean(slope, z_dot))
    if not isinstance(alpha_dot, SymbolicZero):
        held = -slope * log_in_alpha(p, alpha)  # r: sigma is not moved yet
        share = jnp.sum(held, -1, keepdims=True) / jnp.sum(slope, -1, keepdims=True)
        p_dot += (held - slope * share) * alpha_dot
    return p, p_dot


def log_in_alpha(p: jax.Array, alpha: jax.Array) -> jax.Array:
    r"""The derivative in `alpha` of `(p^(alpha - 1) - 1) / (alpha - 1)`; 0 where `p` is 0."""
    log = jnp.log(jnp.where(p > 0, p, 1))
    t = (alpha - 1) * log
    near = t > -0.5  # where the quotient below would cancel: (exp(-t) - 1 + t) / t^2 as a series
    series = jnp.ones_like(t)
    for n in range(17, 2, -1):
        series = 1 - jnp.where(near, t, 0) * series / n
    gap = jnp.where(near, 1, alpha - 1)
    return jnp.where(near, log**2 * jnp.exp(t) * series / 2, ((t - 1) * jnp.exp(t) + 1) / gap**2)


def _mean(weights: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.sum(weights * x, -1, keepdims=True) / jnp.sum(weights, -1, keepdims=True)


def _slope(p: jax.Array, alpha: Alpha) -> jax.Array:
    """`s = p^(2 - alpha)`, 0 outside of the support for every alpha."""
    inside = p > 0
    if isinstance(alpha, float) and alpha == 2:
        return inside.astype(p.dtype)
    base = jnp.where(inside, p, 1)
    power = jnp.sqrt(base) if isinstance(alpha, float) and alpha == 1.5 else base ** (2 - alpha)
    return jnp.where(inside, power, 0)
