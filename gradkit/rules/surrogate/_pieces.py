"""Surrogate derivatives that are made of straight pieces."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gradkit.rules.surrogate._spike import spike


@spike
def straight_through(v: jax.Array) -> jax.Array:
    r"""Spike with the derivative of the identity.

    $$ y = [v \ge 0], \qquad \bar v = \bar y $$

    Args:
        v: Membrane potential above threshold.

    Returns:
        `y`, 0 or 1, with shape and dtype of `v`.

    Example:
        >>> import jax
        >>> print(straight_through(-7.0), jax.grad(straight_through)(-7.0))
        0.0 1.0

    Source:
        Bengio, Léonard & Courville (2013), arXiv:1308.3432.
    """
    return jnp.ones_like(v)


@spike
def hard_tanh(v: jax.Array) -> jax.Array:
    r"""Spike with the derivative of `clip(v, -1, 1)`.

    $$ y = [v \ge 0], \qquad \bar v = [\,|v| \le 1\,]\;\bar y $$

    Args:
        v: Membrane potential above threshold.

    Returns:
        `y`, 0 or 1, with shape and dtype of `v`.

    At the kink:
        Both ends belong to the window.

    Example:
        >>> import jax
        >>> print(jax.grad(hard_tanh)(1.0), jax.grad(hard_tanh)(1.5))
        1.0 0.0

    Source:
        Courbariaux et al., *Binarized Neural Networks* (2016), arXiv:1602.02830, equation 4.
    """
    return jnp.where(jnp.abs(v) <= 1, 1.0, 0.0)


@spike
def rectangle(v: jax.Array, width: float = 1.0) -> jax.Array:
    r"""Spike with a rectangular slope of area 1.

    $$ y = [v \ge 0], \qquad \bar v = \frac1a\,[\,|v| < a / 2\,]\;\bar y $$

    Args:
        v: Membrane potential above threshold.
        width: `a`. 1 as in the paper.

    Returns:
        `y`, 0 or 1, with shape and dtype of `v`.

    At the kink:
        Both ends are outside.

    Example:
        >>> import jax
        >>> print(jax.grad(rectangle)(0.4), jax.grad(rectangle)(0.4, width=2.0))
        1.0 0.5

    Source:
        Wu et al. (2018), arXiv:1706.02609.
    """
    return jnp.where(jnp.abs(v) < width / 2, 1 / width, 0)


@spike
def triangle(v: jax.Array, gamma: float = 0.3) -> jax.Array:
    r"""Spike with a dampened triangular slope.

    $$ y = [v \ge 0], \qquad \bar v = \gamma \max(0, 1 - |v|)\;\bar y $$

    Args:
        v: Membrane potential above threshold, in units of the threshold.
        gamma: Height. 0.3 as in the paper; 1 is the triangle of Esser et al. (2016),
            arXiv:1603.08270.

    Returns:
        `y`, 0 or 1, with shape and dtype of `v`.

    At the kink:
        Second derivatives jump at the threshold and at the feet, and are 0 there.

    Example:
        >>> import jax
        >>> print(jax.grad(triangle)(0.0), jax.grad(triangle)(0.5), jax.grad(triangle)(2.0))
        0.3 0.15 0.0

    Source:
        Bellec et al., *Long short-term memory and learning-to-learn in networks of spiking neurons*
        (2018), arXiv:1803.09574.
    """
    return gamma * _tent(v)


@spike
def piecewise_linear(v: jax.Array, beta: float = 10.0) -> jax.Array:
    r"""Spike with a triangular slope of height 1 and any width.

    $$ y = [v \ge 0], \qquad \bar v = \max(0, 1 - \beta |v|)\;\bar y $$

    Args:
        v: Membrane potential above threshold.
        beta: Inverse of half the width. 10 as in Zenke & Vogels (2021).

    Returns:
        `y`, 0 or 1, with shape and dtype of `v`.

    At the kink:
        Second derivatives jump at the threshold and at the feet, and are 0 there.

    Example:
        >>> import jax
        >>> print(jax.grad(piecewise_linear)(0.05), jax.grad(piecewise_linear)(0.2))
        0.5 0.0

    Source:
        Zenke & Vogels (2021), Neural Computation 33(4), methods, after Esser et al. (2016),
        arXiv:1603.08270.
    """
    return _tent(beta * v)


@spike
def piecewise_quadratic(v: jax.Array, alpha: float = 1.0) -> jax.Array:
    r"""Spike with a triangular slope of area 1, that of two parabolas.

    $$ y = [v \ge 0], \qquad \bar v = \alpha \max(0, 1 - \alpha |v|)\;\bar y $$

    Args:
        v: Membrane potential above threshold.
        alpha: Height, and inverse of half the width. 1 as in spikingjelly.

    Returns:
        `y`, 0 or 1, with shape and dtype of `v`.

    At the kink:
        Second derivatives jump at the threshold and at the feet, and are 0 there.

    Example:
        >>> import jax
        >>> print(jax.grad(piecewise_quadratic)(0.25, alpha=2.0))
        1.0

    Source:
        Wu et al. (2018), arXiv:1706.02609; `PiecewiseQuadratic` of spikingjelly.
    """
    return alpha * _tent(alpha * v)


def _tent(v: jax.Array) -> jax.Array:
    # jnp.maximum would split the tie at the feet in half.
    size = jnp.abs(v)
    return jnp.where(size < 1, 1 - size, 0)


@spike
def piecewise_leaky_relu(v: jax.Array, w: float = 1.0, c: float = 0.01) -> jax.Array:
    r"""Spike with a rectangular slope of area 1 and a small slope elsewhere.

    $$ y = [v \ge 0], \qquad \bar v = \begin{cases} 1 / (2w) & |v| \le w \\ c & |v| > w
       \end{cases}\;\cdot \bar y $$

    Args:
        v: Membrane potential above threshold.
        w: Half the width. 1 as in spikingjelly.
        c: Slope elsewhere. 0.01 as in spikingjelly.

    Returns:
        `y`, 0 or 1, with shape and dtype of `v`.

    At the kink:
        Both ends belong to the rectangle.

    Example:
        >>> import jax
        >>> print(jax.grad(piecewise_leaky_relu)(0.3), jax.grad(piecewise_leaky_relu)(3.0))
        0.5 0.01

    Source:
        `PiecewiseLeakyReLU` of spikingjelly (Fang et al. 2023, arXiv:2310.16620).
    """
    return jnp.where(jnp.abs(v) <= w, 1 / (2 * w), c)


@spike
def leaky_relu(v: jax.Array, leak: float = 0.1, k: float = 1.0) -> jax.Array:
    r"""Spike with the derivative of a leaky ReLU.

    $$ y = [v \ge 0], \qquad \bar v = \begin{cases} k & v \ge 0 \\ l & v < 0
       \end{cases}\;\cdot \bar y $$

    Args:
        v: Membrane potential above threshold.
        leak: `l`. 0.1 as in snnTorch's `LSO`; 0 in spikingjelly's `LeakyKReLU`.
        k: Slope above the threshold.

    Returns:
        `y`, 0 or 1, with shape and dtype of `v`.

    At the kink:
        The threshold belongs to the upper side.

    Example:
        >>> import jax
        >>> print(jax.grad(leaky_relu)(0.0), jax.grad(leaky_relu)(-2.0))
        1.0 0.1

    Source:
        `LeakySpikeOperator` of snnTorch (Eshraghian et al. 2023, arXiv:2109.12894).
    """
    return jnp.where(v >= 0, k, leak) * jnp.ones_like(v)


@spike
def log_tailed_relu(v: jax.Array, alpha: float = 0.0) -> jax.Array:
    r"""Spike with the derivative of a ReLU that goes on as a logarithm.

    $$ y = [v \ge 0], \qquad \bar v = \begin{cases} \alpha & v \le 0 \\ 1 & 0 < v \le 1 \\
       1 / v & v > 1 \end{cases}\;\cdot \bar y $$

    Args:
        v: Membrane potential above threshold.
        alpha: Slope below the threshold. 0 as in spikingjelly.

    Returns:
        `y`, 0 or 1, with shape and dtype of `v`.

    At the kink:
        The threshold belongs to the lower branch.

    Example:
        >>> import jax
        >>> print(*(jax.grad(log_tailed_relu)(v) for v in (0.0, 0.5, 2.0)))
        0.0 1.0 0.5

    Source:
        Cai et al., *Deep Learning with Low Precision by Half-wave Gaussian Quantization* (2017),
        arXiv:1702.00953.
    """
    return jnp.where(v > 1, 1 / jnp.maximum(v, 1), jnp.where(v > 0, 1, alpha))
