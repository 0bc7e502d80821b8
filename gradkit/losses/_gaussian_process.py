"""Likelihood of a Gaussian process."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from gradkit.losses._reals import as_reals, check_fits

_LEAF = 64  # up to this size a block of the factor is inverted by substitution
_matmul = partial(jnp.matmul, precision=lax.Precision.HIGHEST)


def gp_log_likelihood(kernel: ArrayLike, y: ArrayLike, noise: ArrayLike = 0.0) -> jax.Array:
    r"""Log marginal likelihood of a Gaussian process; the loss is its negative.

    $$ L = -\tfrac{1}{2} \langle y, \alpha \rangle - \tfrac{m}{2} \log \det A
           - \tfrac{n m}{2} \log 2 \pi, \qquad A = K + \mathrm{diag}(s), \quad A \alpha = y $$

    $$ \bar K = \tfrac{1}{2} (\alpha \alpha^\top - m A^{-1})\,\bar L, \qquad
       \bar s = \mathrm{diag}(\bar K), \qquad \bar y = -\alpha\,\bar L $$

    One Cholesky factor serves value and gradient, and on a CPU its inverse is put together from
    blocks by matrix products; automatic differentiation solves three triangular systems of full
    size instead. Higher derivatives are products with the inverse.

    Args:
        kernel: `K`, real `[n, n]`. Its symmetric part counts.
        y: Observations less their mean, real `[n]`, or `[n, m]` for `m` independent outputs of one
            kernel.
        noise: `s`, the variance of the noise on all observations, or on each, `[n]`.

    Returns:
        `L`, a scalar: a sum over observations and outputs. Half precision is computed in float32.
        NaN where `A` is not positive definite to rounding: add to `noise` what is missing.

    Raises:
        TypeError: If an argument is complex.
        ValueError: If shapes do not fit.

    Keeps:
        The inverse of `A`, and `alpha`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x = jnp.linspace(0.0, 3.0, 10)
        >>> def loss(log_scale, log_noise):
        ...     distance = (x[:, None] - x[None]) / jnp.exp(log_scale)
        ...     kernel = jnp.exp(-(distance**2) / 2)
        ...     return -gp_log_likelihood(kernel, jnp.sin(2 * x), jnp.exp(log_noise))
        >>> value, slopes = jax.jit(jax.value_and_grad(loss, (0, 1)))(0.0, -4.0)
        >>> print(f"{value:.3f}", *(f"{slope:.3f}" for slope in slopes))
        2.014 6.225 2.313

    Source:
        Rasmussen & Williams, *Gaussian Processes for Machine Learning* (2006), equations 2.30 and
        5.9.
    """
    name = "losses.gp_log_likelihood"
    (kernel, y, noise), dtype = as_reals(name, kernel, y, noise)
    y = y[:, None] if y.ndim == 1 else y
    check_fits(name, "y", y.shape, ("n", "m"), "or [n] for one output")
    n = len(y)
    check_fits(name, "kernel", kernel.shape, (n, n), "a row and a column for each observation")
    if noise.ndim:
        check_fits(name, "noise", noise.shape, (n,), "one for each observation, or a scalar")
    a = (kernel + kernel.T) / 2 + jnp.diag(jnp.broadcast_to(noise, (n,)))
    return _log_likelihood(a, y).astype(dtype)


@jax.custom_jvp
def _log_likelihood(a, y):
    factor = lax.linalg.cholesky(a, symmetrize_input=False)
    return _value(factor, _substitute(factor, y))


@_log_likelihood.defjvp
def _log_likelihood_jvp(primals, tangents):
    value, alpha, inverse = _solved(*primals)
    return value, _slope(alpha, inverse, *tangents)


# A function of its own, so that derivatives of the gradient need no derivative of the factor.
@jax.custom_jvp
def _solved(a, y):
    """The value, `alpha`, and the inverse of `a`."""
    factor = lax.linalg.cholesky(a, symmetrize_input=False)
    # A GPU is kept busy by one large call, and not by many small ones.
    leaf = max(_LEAF, len(a) // 8) if jax.default_backend() == "cpu" else len(a)
    of_factor, inverse = _inverses(factor, leaf)
    z = _matmul(of_factor, y)
    return _value(factor, z), _matmul(of_factor.T, z), inverse


@_solved.defjvp
def _solved_jvp(primals, tangents):
    value, alpha, inverse = _solved(*primals)
    a_dot, y_dot = tangents
    alpha_dot = _matmul(inverse, y_dot - _matmul(a_dot, alpha))
    inverse_dot = -_matmul(inverse, _matmul(a_dot, inverse))
    slope = _slope(alpha, inverse, a_dot, y_dot)
    return (value, alpha, inverse), (slope, alpha_dot, inverse_dot)


def _value(factor: jax.Array, z: jax.Array) -> jax.Array:
    n, m = z.shape
    log_det = 2 * jnp.sum(jnp.log(jnp.diag(factor)))
    return -(jnp.sum(z**2) + m * (log_det + n * math.log(2 * math.pi))) / 2


def _slope(alpha, inverse, a_dot, y_dot) -> jax.Array:
    a_slope = (_matmul(alpha, alpha.T) - alpha.shape[1] * inverse) / 2
    return jnp.sum(a_slope * a_dot) - jnp.sum(alpha * y_dot)


def _substitute(factor: jax.Array, b: jax.Array) -> jax.Array:
    return lax.linalg.triangular_solve(factor, b, left_side=True, lower=True)


def _inverses(factor: jax.Array, leaf: int) -> tuple[jax.Array, jax.Array]:
    """The inverse `X` of a triangular factor, and `X.T @ X`: two thirds of `n^3` products each."""
    n = len(factor)
    if n <= leaf:
        x = _substitute(factor, jnp.eye(n, dtype=factor.dtype))
        return x, _matmul(x.T, x)
    m = max(leaf, n // 2 // leaf * leaf)
    top, top_gram = _inverses(factor[:m, :m], leaf)
    low, low_gram = _inverses(factor[m:, m:], leaf)
    side = -_matmul(low, _matmul(factor[m:, :m], top))
    corner = _matmul(side.T, low)
    x = jnp.block([[top, jnp.zeros_like(side.T)], [side, low]])
    gram = jnp.block([[top_gram + _matmul(side.T, side), corner], [corner.T, low_gram]])
    return x, gram
