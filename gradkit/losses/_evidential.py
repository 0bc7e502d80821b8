"""Evidential losses: networks that say how much they know."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma, gammaln, polygamma
from jax.typing import ArrayLike

from gradkit.losses._reals import as_reals, check_fits


def evidential_classification_loss(
    evidence: ArrayLike, labels: ArrayLike, *, kl_weight: ArrayLike = 1.0
) -> jax.Array:
    r"""Expected squared error under a Dirichlet distribution, with a price for wrong evidence.

    $$ L = \sum_k (y_k - p_k)^2 + \frac{p_k (1 - p_k)}{S + 1} + \lambda \operatorname{KL}\bigl(
       \mathrm{Dir}(\tilde\alpha) \,\|\, \mathrm{Dir}(\mathbf 1) \bigr), \qquad
       \alpha = e + 1,\; S = \sum_k \alpha_k,\; p = \alpha / S $$

    with `alpha~ = y + (1 - y) alpha`, the evidence without that for the true class. The divergence
    and its gradient, `(alpha~_k - 1) psi'(alpha~_k) - (S~ - K) psi'(S~)`, have closed forms that do
    not subtract large numbers.

    Args:
        evidence: `e`, real `[..., k]`, not negative: `jax.nn.softplus(logits)`, say.
        labels: `y`: integers `[...]`, which name classes, or one-hot rows `[..., k]`.
        kl_weight: `lambda`; the paper raises it from 0 to 1 over the first 10 epochs.

    Returns:
        `L`, `[...]`, not reduced. Half precision is computed in float32.

    Raises:
        TypeError: If an argument is complex.
        ValueError: If shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> print(f"{evidential_classification_loss(jnp.array([0.0, 0.0]), 0):.4f}")
        0.6667

    Source:
        Sensoy, Kaplan & Kandemir, *Evidential Deep Learning to Quantify Classification
        Uncertainty* (2018), arXiv:1806.01768, equation 5 and the divergence after it.
    """
    name = "losses.evidential_classification_loss"
    (e,), dtype = as_reals(name, evidence)
    if e.ndim == 0:
        check_fits(name, "evidence", e.shape, ("...", "k"), "one for each class")
    y = jnp.asarray(labels)
    if jnp.issubdtype(y.dtype, jnp.integer) and y.ndim == e.ndim - 1:
        check_fits(name, "labels", y.shape, e.shape[:-1], "a class for each row")
        y = jax.nn.one_hot(y, e.shape[-1], dtype=e.dtype)
    check_fits(name, "labels", y.shape, e.shape, "a one-hot row, or one integer, for each row")
    y = y.astype(e.dtype)
    total = jnp.sum(e, -1, keepdims=True) + e.shape[-1]
    p = (e + 1) / total
    error = jnp.sum((y - p) ** 2 + p * (1 - p) / (total + 1), -1)
    return (error + kl_weight * _divergence_from_flat((1 - y) * e)).astype(dtype)


@jax.custom_jvp
def _divergence_from_flat(e):
    """`KL(Dir(e + 1) || Dir(1))`."""
    k, total = e.shape[-1], jnp.sum(e, -1)
    # Each term is zero without evidence.
    of_all = gammaln(total + k) - math.lgamma(k) - total * digamma(total + k)
    return of_all + jnp.sum(e * digamma(e + 1) - gammaln(e + 1), -1)


@_divergence_from_flat.defjvp
def _divergence_from_flat_jvp(primals, tangents):
    (e,) = primals
    total = jnp.sum(e, -1, keepdims=True)
    slope = e * polygamma(1, e + 1) - total * polygamma(1, total + e.shape[-1])
    return _divergence_from_flat(e), jnp.sum(slope * tangents[0], -1)


def evidential_regression_loss(
    mean: ArrayLike,
    nu: ArrayLike,
    alpha: ArrayLike,
    beta: ArrayLike,
    targets: ArrayLike,
    *,
    weight: ArrayLike = 0.01,
) -> jax.Array:
    r"""Negative log-likelihood under a normal-inverse-gamma prior, with a price for wrong evidence.

    $$ L = \tfrac12 \log \frac\pi\nu + \alpha \log\Bigl(1 + \frac{\nu d^2}{\Omega}\Bigr) + \tfrac12
       \log(\Omega + \nu d^2) - \log \frac{\Gamma(\alpha + 1/2)}{\Gamma(\alpha)} +
       \lambda\,|d|\,(2 \nu + \alpha), \quad d = y - \gamma,\; \Omega = 2 \beta (1 + \nu) $$

    The terms of the paper's form that grow with `alpha` and cancel are taken together, so that
    float32 holds from small to very large evidence.

    Args:
        mean: `gamma`, real array.
        nu: Above 0, of a shape that broadcasts with it.
        alpha: Above 1 for a finite variance; any positive number here.
        beta: Above 0.
        targets: `y`.
        weight: `lambda`; the paper's experiments take 0.01.

    Returns:
        `L`, one for each element. Half precision is computed in float32.

    Raises:
        TypeError: If an argument is complex.

    At the kink:
        At `y = gamma` the price has derivative 0.

    Example:
        >>> print(f"{evidential_regression_loss(0.0, 1.0, 2.0, 1.0, 0.0):.4f}")
        0.9808

    Source:
        Amini et al., *Deep Evidential Regression* (2020), arXiv:1910.02600, equations 8 and 9.
    """
    arrays, dtype = as_reals("losses.evidential_regression_loss", mean, nu, alpha, beta, targets)
    mean, nu, alpha, beta, y = arrays
    d = y - mean
    omega = 2 * beta * (1 + nu)
    square = nu * d**2
    fit = alpha * jnp.log1p(square / omega) + jnp.log(omega + square) / 2
    loss = (math.log(math.pi) - jnp.log(nu)) / 2 + fit - _half_step(alpha)
    price = jnp.where(d == 0, 0, jnp.abs(d)) * (2 * nu + alpha)
    return (loss + weight * price).astype(dtype)


def _half_step(alpha: jax.Array) -> jax.Array:
    """`log(Gamma(alpha + 1/2) / Gamma(alpha))`, by its series where the difference would cancel."""
    large = alpha > 16
    small, big = jnp.where(large, 1, alpha), jnp.where(large, alpha, 16)
    v = 1 / big**2
    series = (-1 / 8 + v * (1 / 192 + v * (-1 / 640 + v * (17 / 14336 - v * 31 / 18432)))) / big
    direct = gammaln(small + 0.5) - gammaln(small)
    return jnp.where(large, jnp.log(big) / 2 + series, direct)
