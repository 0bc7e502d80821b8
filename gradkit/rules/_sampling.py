"""Samples that are discrete forwards and differentiable backwards."""

from __future__ import annotations

import jax
from jax.typing import ArrayLike

from gradkit._arguments import widen
from gradkit.rules._elementwise import as_floating, parameter
from gradkit.rules._selections import argmax_one_hot
from gradkit.rules._straight_through import straight_through


def gumbel_softmax(
    key: jax.Array,
    logits: ArrayLike,
    temperature: ArrayLike = 1.0,
    *,
    hard: bool = False,
    axis: int = -1,
) -> jax.Array:
    r"""A relaxed sample of a categorical distribution, differentiable in logits and temperature.

    $$ y = \operatorname{softmax}\bigl((x + g) / \tau\bigr), \qquad
       g_i \sim \operatorname{Gumbel}(0, 1) $$

    Args:
        key: A key of `jax.random`.
        logits: `x`, unnormalised log-probabilities.
        temperature: `tau > 0`. Small ones give almost one-hot samples and derivatives of high
            variance.
        hard: Whether the value is the one-hot of the largest element. The derivative stays that of
            the relaxed sample: the straight-through Gumbel estimator.
        axis: The axis of the classes.

    Returns:
        `y`, with shape and dtype of the logits. Sums to one along the axis.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> key, logits = jax.random.key(0), jnp.log(jnp.array([0.1, 0.2, 0.7]))
        >>> print(gumbel_softmax(key, logits, 0.5).argmax(), gumbel_softmax(key, logits, hard=True))
        1 [0. 1. 0.]

    Source:
        Jang, Gu & Poole, *Categorical Reparameterization with Gumbel-Softmax* (2017),
        arXiv:1611.01144; Maddison, Mnih & Teh (2017), arXiv:1611.00712.
    """
    logits = as_floating("gumbel_softmax", logits)
    temperature = parameter("gumbel_softmax", temperature, logits)
    soft = jax.nn.softmax(_with_noise(key, logits) / temperature, axis=axis).astype(logits.dtype)
    return argmax_one_hot(soft, axis, temperature=None) if hard else soft


def categorical(key: jax.Array, logits: ArrayLike, axis: int = -1) -> jax.Array:
    r"""A one-hot sample of a categorical distribution, with the derivative of its probabilities.

    $$ y \sim \operatorname{Cat}(p), \quad p = \operatorname{softmax}(x), \qquad
       \bar x = J_p^\top \bar y $$

    The straight-through estimator: exact where what follows is linear in `y`, else biased.

    Args:
        key: A key of `jax.random`.
        logits: `x`, unnormalised log-probabilities.
        axis: The axis of the classes.

    Returns:
        `y`, one-hot along the axis, with shape and dtype of the logits.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> value = jnp.array([1.0, 2.0, 4.0])
        >>> def expected(logits):
        ...     return categorical(jax.random.key(0), logits) @ value
        >>> print(jax.grad(expected)(jnp.log(jnp.array([0.5, 0.25, 0.25]))))
        [-0.5 0. 0.5]

    Source:
        Bengio, Léonard & Courville (2013), arXiv:1308.3432; as used for categorical
        variables by Hafner et al., *Mastering Atari with Discrete World Models* (2021),
        arXiv:2010.02193, algorithm 1.
    """

    def sample(logits, key):
        return argmax_one_hot(_with_noise(key, logits), axis).astype(logits.dtype)

    def probabilities(logits, key):
        del key
        return jax.nn.softmax(widen(logits), axis=axis).astype(logits.dtype)

    return straight_through(sample, probabilities)(as_floating("categorical", logits), key)


def _with_noise(key: jax.Array, logits: jax.Array) -> jax.Array:
    """Gumbel noise added; in half precision its few numbers would bias the choice."""
    wide = widen(logits)
    return wide + jax.random.gumbel(key, wide.shape, wide.dtype)


def bernoulli(key: jax.Array, p: ArrayLike) -> jax.Array:
    r"""A sample of 0 or 1, with the derivative of its mean.

    $$ y \sim \operatorname{Bernoulli}(p), \qquad \bar p = \bar y $$

    Args:
        key: A key of `jax.random`.
        p: The probability of 1, within 0 and 1.

    Returns:
        `y`, with shape and dtype of `p`.

    Example:
        >>> import jax
        >>> print(jax.grad(lambda p: 3 * bernoulli(jax.random.key(0), p))(0.25))
        3.0

    Source:
        Bengio, Léonard & Courville (2013), arXiv:1308.3432.
    """

    def sample(p, key):
        return jax.random.bernoulli(key, widen(p)).astype(p.dtype)

    return straight_through(sample)(as_floating("bernoulli", p), key)
