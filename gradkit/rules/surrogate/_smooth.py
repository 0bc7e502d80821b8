"""Surrogate derivatives that are smooth bumps: slopes of sigmoids and of sums of Gaussians."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from gradkit.rules.surrogate._spike import spike


@spike
def sigmoid(v: jax.Array, alpha: float = 4.0) -> jax.Array:
    r"""Spike with the slope of a logistic function.

    $$ y = [v \ge 0], \qquad \bar v = \alpha\,\sigma(\alpha v)\,(1 - \sigma(\alpha v))\;\bar y $$

    Args:
        v: Membrane potential above threshold.
        alpha: Steepness. 4 as in spikingjelly; snnTorch has 25, Zenke & Vogels 10.

    Returns:
        `y`, 0 or 1, with shape and dtype of `v`.

    Example:
        >>> import jax
        >>> print(sigmoid(0.0), jax.grad(sigmoid)(0.0))
        1.0 1.0

    Source:
        Zenke & Vogels, *The Remarkable Robustness of Surrogate Gradient Learning* (2021), Neural
        Computation 33(4), methods.
    """
    # 1 - sigmoid(z) would lose all digits where it is small.
    return alpha * jax.nn.sigmoid(alpha * v) * jax.nn.sigmoid(-alpha * v)


@spike
def tanh(v: jax.Array, alpha: float = 1.0) -> jax.Array:
    r"""Spike with the slope of a hyperbolic tangent, 1 at the threshold.

    $$ y = [v \ge 0], \qquad \bar v = (1 - \tanh^2 \alpha v)\;\bar y $$

    Args:
        v: Membrane potential above threshold.
        alpha: Steepness.

    Returns:
        `y`, 0 or 1, with shape and dtype of `v`.

    Example:
        >>> import jax
        >>> print(f"{jax.grad(tanh)(0.5):.4f}")
        0.7864

    Source:
        Woźniak et al., *Deep learning incorporating biologically inspired neural dynamics and
        in-memory computing* (2020), Nature Machine Intelligence 2, methods.
    """
    # 1 - tanh(z)**2 would lose all digits where it is small.
    return 4 * jax.nn.sigmoid(2 * alpha * v) * jax.nn.sigmoid(-2 * alpha * v)


@spike
def arctan(v: jax.Array, alpha: float = 2.0) -> jax.Array:
    r"""Spike with the slope of an arc tangent.

    $$ y = [v \ge 0], \qquad \bar v = \frac{\alpha}{2\,(1 + (\pi \alpha v / 2)^2)}\;\bar y $$

    Args:
        v: Membrane potential above threshold.
        alpha: Steepness. 2 as in spikingjelly and snnTorch.

    Returns:
        `y`, 0 or 1, with shape and dtype of `v`.

    Example:
        >>> import jax
        >>> print(jax.grad(arctan)(0.0), f"{jax.grad(arctan)(1 / jnp.pi):.4f}")
        1.0 0.5000

    Source:
        Fang et al., *Incorporating Learnable Membrane Time Constant* (2021), arXiv:2007.05785.
    """
    return alpha / (2 * (1 + (math.pi / 2 * alpha * v) ** 2))


@spike
def erf(v: jax.Array, alpha: float = 2.0) -> jax.Array:
    r"""Spike with the slope of an error function.

    $$ y = [v \ge 0], \qquad \bar v = \frac{\alpha}{\sqrt\pi}\,e^{-\alpha^2 v^2}\;\bar y $$

    Args:
        v: Membrane potential above threshold.
        alpha: Steepness. 2 as in spikingjelly. With `sigma = 1 / (alpha * sqrt(2))` it is
            `gaussian`.

    Returns:
        `y`, 0 or 1, with shape and dtype of `v`.

    Example:
        >>> import jax
        >>> print(f"{jax.grad(erf)(0.0):.4f}")
        1.1284

    Source:
        Wu et al., *Spatio-Temporal Backpropagation for Training High-Performance Spiking Neural
        Networks* (2018), arXiv:1706.02609.
    """
    return alpha / math.sqrt(math.pi) * jnp.exp(-((alpha * v) ** 2))


@spike
def gaussian(v: jax.Array, sigma: float = 0.5) -> jax.Array:
    r"""Spike with the density of a normal distribution.

    $$ y = [v \ge 0], \qquad \bar v = \mathcal N(v \mid 0, \sigma^2)\;\bar y $$

    Args:
        v: Membrane potential above threshold.
        sigma: Standard deviation.

    Returns:
        `y`, 0 or 1, with shape and dtype of `v`.

    Example:
        >>> import jax
        >>> print(f"{jax.grad(gaussian)(0.5):.4f}")
        0.4839

    Source:
        Yin, Corradi & Bohté, *Effective and Efficient Computation with Multiple-timescale Spiking
        Recurrent Neural Networks* (2020), arXiv:2005.11633.
    """
    return _normal(v, 0.0, sigma)


@spike
def multi_gaussian(v: jax.Array, h: float = 0.15, s: float = 6.0, sigma: float = 0.5) -> jax.Array:
    r"""Spike with a Gaussian bump between two wide shallow dips.

    $$ y = [v \ge 0], \qquad \bar v = \bigl((1 + h)\,\mathcal N(v \mid 0, \sigma^2)
       - h\,\mathcal N(v \mid \sigma, (s\sigma)^2) - h\,\mathcal N(v \mid -\sigma, (s\sigma)^2)
       \bigr)\;\bar y $$

    Args:
        v: Membrane potential above threshold.
        h: Depth of the dips.
        s: Their width, as a multiple of `sigma`.
        sigma: Standard deviation of the bump.

    Returns:
        `y`, 0 or 1, with shape and dtype of `v`.

    Example:
        >>> import jax
        >>> print(f"{jax.grad(multi_gaussian)(0.0):.4f} {jax.grad(multi_gaussian)(2.0):.4f}")
        0.8782 -0.0314

    Source:
        Yin, Corradi & Bohté, *Accurate and efficient time-domain classification with adaptive
        spiking recurrent neural networks* (2021), arXiv:2103.12593, methods.
    """
    dips = _normal(v, sigma, s * sigma) + _normal(v, -sigma, s * sigma)
    return (1 + h) * _normal(v, 0.0, sigma) - h * dips


def _normal(v: jax.Array, mean: float, sigma: float) -> jax.Array:
    z = (v - mean) / sigma
    return jnp.exp(-(z**2) / 2) / (math.sqrt(2 * math.pi) * sigma)


@spike
def exponential(v: jax.Array, alpha: float = 1.0) -> jax.Array:
    r"""Spike with a slope that decays exponentially on both sides.

    $$ y = [v \ge 0], \qquad \bar v = \frac\alpha2\,e^{-\alpha |v|}\;\bar y $$

    Args:
        v: Membrane potential above threshold.
        alpha: Steepness. 1 as in spikingjelly, whose name is `PiecewiseExp`.

    Returns:
        `y`, 0 or 1, with shape and dtype of `v`.

    Example:
        >>> import jax
        >>> print(jax.grad(exponential)(0.0), f"{jax.grad(exponential)(1.0):.4f}")
        0.5 0.1839

    Source:
        Shrestha & Orchard, *SLAYER: Spike Layer Error Reassignment in Time* (2018),
        arXiv:1810.08646.
    """
    return alpha / 2 * jnp.exp(-alpha * jnp.abs(v))


@spike
def square_wave_fourier(v: jax.Array, n: int = 2, period: float = 8.0) -> jax.Array:
    r"""Spike with the slope of a square wave's Fourier series.

    $$ y = [v \ge 0], \qquad
       \bar v = \frac4T \sum_{i=1}^n \cos\frac{2\pi(2i - 1)v}{T}\;\bar y $$

    The slope is periodic and takes both signs: keep `|v|` below a quarter of the period.

    Args:
        v: Membrane potential above threshold.
        n: How many terms, at least 1. 2 as in spikingjelly.
        period: `T`. 8 as in spikingjelly.

    Returns:
        `y`, 0 or 1, with shape and dtype of `v`.

    Example:
        >>> import jax
        >>> print(jax.grad(square_wave_fourier)(0.0), jax.grad(square_wave_fourier)(4.0))
        1.0 -1.0

    Source:
        `SquarewaveFourierSeries` of spikingjelly (Fang et al. 2023, arXiv:2310.16620).
    """
    terms = [jnp.cos(2 * math.pi * (2 * i - 1) * v / period) for i in range(1, n + 1)]
    return 4 / period * sum(terms[1:], terms[0])
