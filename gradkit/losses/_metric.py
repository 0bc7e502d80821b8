"""Losses on distances within a batch: circle, and triplets of the hardest."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from gradkit.losses._distances import squared_distances
from gradkit.losses._reals import as_reals, check_fits
from gradkit.safe import logsumexp, norm, normalize


def circle_loss(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    margin: ArrayLike = 0.25,
    scale: ArrayLike = 256.0,
) -> jax.Array:
    r"""Pairs by cosine similarity, each weighed by how far it is from its optimum.

    $$ L_i = \log \Bigl( 1 + \sum_n e^{\gamma \alpha_n (s_n - m)} \sum_p e^{-\gamma \alpha_p (s_p -
       1 + m)} \Bigr), \qquad \alpha_n = [s_n + m]_+, \quad \alpha_p = [1 + m - s_p]_+ $$

    `p` runs over the other examples of the anchor's class, `n` over those of other classes. The
    weights count as constants, as in the paper's gradient.

    Args:
        embeddings: Real `[b, d]`; their lengths do not matter, and one of zeros has similarity 0.
        labels: Of one class or not, `[b]`.
        margin: `m`; the paper's is 0.25 for faces, 0.4 for retrieval.
        scale: `gamma`; 256 for faces, 64 to 80 for retrieval.

    Returns:
        `L`, `[b]`, one for each anchor; 0, with a derivative of 0, for one that has no positive or
        no negative. Half precision is computed in float32.

    Raises:
        TypeError: If the embeddings are complex.
        ValueError: If shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [1.0, 1.0]])
        >>> print(*(f"{y:.2f}" for y in circle_loss(x, jnp.array([0, 0, 1, 1]), scale=8.0)))
        3.07 3.82 0.92 4.86

    Source:
        Sun et al., *Circle Loss: A Unified Perspective of Pair Similarity Optimization* (2020),
        arXiv:2002.10857, equations 6 to 9.
    """
    name = "losses.circle_loss"
    x, positive, negative, dtype = _pairs(name, embeddings, labels)
    unit = normalize(x)
    s = jnp.einsum("id,jd->ij", unit, unit, precision=lax.Precision.HIGHEST)
    held = lax.stop_gradient(s)
    pull = jax.nn.relu(1 + margin - held) * (1 - margin - s)
    push = jax.nn.relu(held + margin) * (s - margin)
    positives = logsumexp(scale * pull, 1, where=positive)
    negatives = logsumexp(scale * push, 1, where=negative)
    both = jnp.any(positive, 1) & jnp.any(negative, 1)
    exponent = jnp.where(both, positives, 0) + jnp.where(both, negatives, 0)
    return jnp.where(both, jax.nn.softplus(exponent), 0).astype(dtype)


def batch_hard_triplet_loss(
    embeddings: ArrayLike, labels: ArrayLike, *, margin: ArrayLike | None = None
) -> jax.Array:
    r"""Each anchor against the farthest example of its class and the nearest of another.

    $$ L_i = \log(1 + e^{d_{ip} - d_{in}}) \quad\text{or}\quad [d_{ip} - d_{in} + m]_+, \qquad
       p = \arg\max_{y_j = y_i} d_{ij}, \; n = \arg\min_{y_j \ne y_i} d_{ij} $$

    with Euclidean distances, not squared. All pairs are compared by one matrix product, without a
    gradient; the chosen distances are computed anew from differences, which also makes them exact
    where examples nearly coincide. (For given triplets: `optax.losses.triplet_margin_loss`.)

    Args:
        embeddings: Real `[b, d]`, normalised or not.
        labels: Of one class or not, `[b]`.
        margin: `m`. Default: the soft form.

    Returns:
        `L`, `[b]`, one for each anchor; 0, with a derivative of 0, for one that has no positive or
        no negative. Half precision is computed in float32.

    Raises:
        TypeError: If the embeddings are complex.
        ValueError: If shapes do not fit.

    At the kink:
        Two that coincide have a distance with derivative 0. Among equally hard ones the first is
        taken.

    Keeps:
        The chosen indices.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.array([[0.0], [1.0], [3.0], [4.0]])
        >>> print(batch_hard_triplet_loss(x, jnp.array([0, 0, 1, 1]), margin=1.5))
        [0.  0.5 0.5 0. ]

    Source:
        Hermans, Beyer & Leibe, *In Defense of the Triplet Loss for Person Re-Identification*
        (2017), arXiv:1703.07737, equation 5.
    """
    name = "losses.batch_hard_triplet_loss"
    x, positive, negative, dtype = _pairs(name, embeddings, labels)
    apart = squared_distances(*lax.stop_gradient((x, x)))
    farthest = jnp.argmax(jnp.where(positive, apart, -jnp.inf), 1)
    nearest = jnp.argmin(jnp.where(negative, apart, jnp.inf), 1)
    gap = norm(x - x[farthest], 1) - norm(x - x[nearest], 1)
    loss = jax.nn.softplus(gap) if margin is None else jax.nn.relu(gap + margin)
    both = jnp.any(positive, 1) & jnp.any(negative, 1)
    return jnp.where(both, loss, 0).astype(dtype)


def _pairs(name, embeddings, labels):
    """The embeddings, and which pairs are of one class and of two."""
    (x,), dtype = as_reals(name, embeddings)
    labels = jnp.asarray(labels)
    if x.ndim != 2:
        check_fits(name, "embeddings", x.shape, ("b", "d"), "a row an example")
    check_fits(name, "labels", labels.shape, x.shape[:1], "one for each example")
    alike = labels[:, None] == labels[None]
    return x, alike & ~jnp.eye(len(labels), dtype=bool), ~alike, dtype
