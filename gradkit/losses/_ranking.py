"""Losses on the order of a list: smooth forms and bounds of NDCG."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from gradkit.losses._reals import as_reals, check_fits, check_positive
from gradkit.safe import divide


def approx_ndcg_loss(
    scores: ArrayLike,
    relevance: ArrayLike,
    *,
    temperature: ArrayLike = 0.1,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""One minus NDCG with smooth ranks.

    $$ L = 1 - \frac1M \sum_i \frac{2^{r_i} - 1}{\log_2(1 + \pi_i)}, \qquad
       \pi_i = 1 + \sum_{j \ne i} \sigma\Bigl( \frac{s_j - s_i}{T} \Bigr) $$

    `M` is the same sum in the best order. (`optax.losses.ranking_softmax_loss` is the listwise
    cross-entropy.)

    Args:
        scores: `s`, real `[..., n]`, one row a list.
        relevance: `r`, not negative, `[..., n]`.
        temperature: `T`: as it falls to 0, NDCG itself. 0.1 is the value of the 2019 paper.
        where: Boolean mask `[..., n]`; items where it is false are not in the list.

    Returns:
        `L`, `[...]`, from 0 to 1; 0 for a list without relevant items. Half precision is computed
        in float32.

    Raises:
        TypeError: If an argument is complex.
        ValueError: If shapes do not fit, or `temperature` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> print(f"{approx_ndcg_loss(jnp.array([0.0, 5.0]), jnp.array([1, 0])):.4f}")
        0.3691

    Source:
        Qin, Liu & Li, *A General Approximation Framework for Direct Optimization of Information
        Retrieval Measures* (2010); Bruch et al. (2019), doi:10.1145/3331184.3331347.
    """
    name = "losses.approx_ndcg_loss"
    check_positive(name, "temperature", temperature)
    s, r, where, dtype = _lists(name, scores, relevance, where)
    t = jnp.asarray(temperature, s.dtype)
    above = jax.nn.sigmoid((s[..., None, :] - s[..., :, None]) / t)
    # An item is half above itself, which is left out.
    rank = 0.5 + jnp.sum(jnp.where(where[..., None, :], above, 0), -1)
    gain = jnp.where(where, 2**r - 1, 0)
    return jnp.where(
        jnp.any(gain > 0, -1), 1 - divide(jnp.sum(gain / jnp.log2(1 + rank), -1), _best(gain)), 0
    ).astype(dtype)


def lambda_loss(
    scores: ArrayLike,
    relevance: ArrayLike,
    *,
    mu: ArrayLike = 10.0,
    sigma: ArrayLike = 1.0,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""NDCG-Loss2++: logistic loss of pairs, by what swapping them in the ranking would change.

    $$ L = \sum_{r_i > r_j} (\rho_{ij} + \mu\,\delta_{ij})\,|G_i - G_j| \log_2(1 + e^{-\sigma
       (s_i - s_j)}), \qquad G_i = (2^{r_i} - 1) / M $$

    $$ \rho_{ij} = \Bigl| \tfrac{1}{D(\pi_i)} - \tfrac{1}{D(\pi_j)} \Bigr|, \quad \delta_{ij} =
       \Bigl| \tfrac{1}{D(|\pi_i - \pi_j|)} - \tfrac{1}{D(|\pi_i - \pi_j| + 1)} \Bigr|, \quad
       D(\pi) = \log_2(1 + \pi) $$

    The ranks `pi` are those of the current scores, and the weights count as constants. `mu = 0` is
    LambdaRank.

    Args:
        scores: `s`, real `[..., n]`, one row a list.
        relevance: `r`, not negative, `[..., n]`.
        mu: Weight of the bound's own term; the paper's is 10.
        sigma: Steepness.
        where: Boolean mask `[..., n]`; items where it is false are not in the list.

    Returns:
        `L`, `[...]`, a sum over pairs; 0 for a list without relevant items. Half precision is
        computed in float32.

    Raises:
        TypeError: If an argument is complex.
        ValueError: If shapes do not fit.

    At the kink:
        Equal scores are ranked in the order of the list.

    Example:
        >>> import jax.numpy as jnp
        >>> print(f"{lambda_loss(jnp.array([1.0, 2.0]), jnp.array([1, 0])):.4f}")
        7.6918

    Source:
        Wang et al., *The LambdaLoss Framework for Ranking Metric Optimization* (2018),
        doi:10.1145/3269206.3271784, section 5.
    """
    name = "losses.lambda_loss"
    s, r, where, dtype = _lists(name, scores, relevance, where)
    gain = jnp.where(where, 2**r - 1, 0)
    share = divide(gain, _best(gain)[..., None])
    held = lax.stop_gradient(jnp.where(where, s, -jnp.inf))
    rank = (jnp.argsort(jnp.argsort(-held, -1), -1) + 1).astype(s.dtype)
    discount = 1 / jnp.log2(1 + rank)
    apart = jnp.maximum(jnp.abs(_differences(rank)), 1)
    delta = 1 / jnp.log2(1 + apart) - 1 / jnp.log2(2 + apart)
    weight = (jnp.abs(_differences(discount)) + mu * delta) * jnp.abs(_differences(share))
    counts = (_differences(r) > 0) & where[..., :, None] & where[..., None, :]
    weight = lax.stop_gradient(jnp.where(counts, weight, 0))
    price = jax.nn.softplus(-(sigma * _differences(jnp.where(where, s, 0)))) / jnp.log(2.0)
    return jnp.sum(weight * price, (-2, -1)).astype(dtype)


def _lists(name, scores, relevance, where):
    (s, r), dtype = as_reals(name, scores, relevance)
    if s.ndim == 0:
        check_fits(name, "scores", s.shape, ("...", "n"), "a row a list")
    check_fits(name, "relevance", r.shape, s.shape, "as the scores")
    where = jnp.ones(s.shape, bool) if where is None else jnp.broadcast_to(where, s.shape)
    return s, lax.stop_gradient(r), where, dtype


def _differences(x: jax.Array) -> jax.Array:
    return x[..., :, None] - x[..., None, :]


def _best(gain: jax.Array) -> jax.Array:
    """The discounted cumulative gain of the best order."""
    ordered = jnp.flip(jnp.sort(gain, -1), -1)
    place = lax.broadcasted_iota(gain.dtype, gain.shape, gain.ndim - 1)
    return jnp.sum(ordered / jnp.log2(place + 2), -1)
