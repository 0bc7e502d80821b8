"""Surrogate derivatives that fall off as a power of the distance from the threshold."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gradkit.rules.surrogate._spike import spike


@spike
def superspike(v: jax.Array, beta: float = 100.0) -> jax.Array:
    r"""Spike with the slope of a fast sigmoid, 1 at the threshold.

    $$ y = [v \ge 0], \qquad \bar v = \frac{1}{(1 + \beta |v|)^2}\;\bar y $$

    Args:
        v: Membrane potential above threshold.
        beta: Steepness. 100 as in norse; Zenke & Vogels (2021) have 10.

    Returns:
        `y`, 0 or 1, with shape and dtype of `v`.

    At the kink:
        The second derivative jumps at the threshold, and is 0 there.

    Example:
        >>> import jax
        >>> print(jax.grad(superspike)(0.01), jax.grad(superspike)(0.1, beta=10.0))
        0.25 0.25

    Source:
        Zenke & Ganguli, *SuperSpike* (2018), arXiv:1705.11146.
    """
    return 1 / (1 + beta * jnp.abs(v)) ** 2


@spike
def fast_sigmoid(v: jax.Array, slope: float = 25.0) -> jax.Array:
    r"""`superspike` by the name and with the default that it has in snnTorch.

    $$ y = [v \ge 0], \qquad \bar v = \frac{1}{(1 + k |v|)^2}\;\bar y $$

    Args:
        v: Membrane potential above threshold.
        slope: `k`. 25 as in snnTorch.

    Returns:
        `y`, 0 or 1, with shape and dtype of `v`.

    At the kink:
        The second derivative jumps at the threshold, and is 0 there.

    Example:
        >>> import jax
        >>> print(jax.grad(fast_sigmoid)(0.04))
        0.25

    Source:
        Zenke & Ganguli (2018), arXiv:1705.11146.
    """
    return 1 / (1 + slope * jnp.abs(v)) ** 2


@spike
def sparse_fast_sigmoid(v: jax.Array, slope: float = 25.0, bound: float = 1.0) -> jax.Array:
    r"""`fast_sigmoid` near the threshold, and zero elsewhere.

    $$ y = [v \ge 0], \qquad \bar v = \frac{[\,|v| < B\,]}{(1 + k |v|)^2}\;\bar y $$

    Args:
        v: Membrane potential above threshold.
        slope: `k`. 25 as in snnTorch.
        bound: `B`. 1 as in snnTorch.

    Returns:
        `y`, 0 or 1, with shape and dtype of `v`.

    At the kink:
        The bound itself is outside.

    Example:
        >>> import jax
        >>> print(jax.grad(sparse_fast_sigmoid)(0.04), jax.grad(sparse_fast_sigmoid)(1.0))
        0.25 0.0

    Source:
        Perez-Nieves & Goodman, *Sparse Spiking Gradient Descent* (2021), arXiv:2105.08810.
    """
    return jnp.where(jnp.abs(v) < bound, 1 / (1 + slope * jnp.abs(v)) ** 2, 0)


@spike
def softsign(v: jax.Array, alpha: float = 2.0) -> jax.Array:
    r"""Spike with the slope of a soft sign from 0 to 1.

    $$ y = [v \ge 0], \qquad \bar v = \frac{\alpha}{2\,(1 + \alpha |v|)^2}\;\bar y $$

    The shape of `superspike`, with an area of 1.

    Args:
        v: Membrane potential above threshold.
        alpha: Steepness. 2 as in spikingjelly.

    Returns:
        `y`, 0 or 1, with shape and dtype of `v`.

    At the kink:
        The second derivative jumps at the threshold, and is 0 there.

    Example:
        >>> import jax
        >>> print(jax.grad(softsign)(0.0), jax.grad(softsign)(0.5))
        1.0 0.25

    Source:
        Zenke & Ganguli (2018), arXiv:1705.11146; `SoftSign` of spikingjelly.
    """
    return alpha / (2 * (1 + alpha * jnp.abs(v)) ** 2)


@spike
def q_pseudo_spike(v: jax.Array, alpha: float = 2.0) -> jax.Array:
    r"""Spike with a slope whose tails have any power.

    $$ y = [v \ge 0], \qquad \bar v = \Bigl(1 + \frac{2 |v|}{\alpha - 1}\Bigr)^{-\alpha}\;\bar y $$

    Args:
        v: Membrane potential above threshold.
        alpha: Power of the tails, above 1. 2 as in spikingjelly.

    Returns:
        `y`, 0 or 1, with shape and dtype of `v`.

    At the kink:
        The second derivative jumps at the threshold, and is 0 there.

    Example:
        >>> import jax
        >>> print(jax.grad(q_pseudo_spike)(0.5), jax.grad(q_pseudo_spike)(1.0, alpha=3.0))
        0.25 0.125

    Source:
        Herranz-Celotti & Rouat, *Stabilizing Spiking Neuron Training* (2022), arXiv:2202.00282.
    """
    return (1 + 2 * jnp.abs(v) / (alpha - 1)) ** -alpha


@spike
def log_abs(v: jax.Array, alpha: float = 1.0) -> jax.Array:
    r"""Spike with a slope that falls off as the inverse of the distance.

    $$ y = [v \ge 0], \qquad \bar v = \frac{\alpha}{1 + \alpha |v|}\;\bar y $$

    Args:
        v: Membrane potential above threshold.
        alpha: Steepness. 1 as in spikingjelly, whose name is `NonzeroSignLogAbs`.

    Returns:
        `y`, 0 or 1, with shape and dtype of `v`.

    At the kink:
        The second derivative jumps at the threshold, and is 0 there.

    Example:
        >>> import jax
        >>> print(jax.grad(log_abs)(0.0), jax.grad(log_abs)(-1.0))
        1.0 0.5

    Source:
        `NonzeroSignLogAbs` of spikingjelly (Fang et al. 2023, arXiv:2310.16620).
    """
    return alpha / (1 + alpha * jnp.abs(v))


@spike
def clipped_inverse(v: jax.Array, alpha: float = 0.3) -> jax.Array:
    r"""Spike with the slope of the secant to the threshold, clipped.

    $$ y = [v \ge 0], \qquad \bar v = \min(\alpha, 1 / |v|)\;\bar y $$

    Args:
        v: Membrane potential above threshold.
        alpha: Largest slope. 0.3 as in spikingjelly, whose name is `FakeNumericalGradient`.

    Returns:
        `y`, 0 or 1, with shape and dtype of `v`.

    At the kink:
        At `|v| = 1 / alpha` the second derivative is that from the inside, 0.

    Example:
        >>> import jax
        >>> print(jax.grad(clipped_inverse)(0.0), jax.grad(clipped_inverse)(-5.0))
        0.3 0.2

    Source:
        `FakeNumericalGradient` of spikingjelly (Fang et al. 2023, arXiv:2310.16620).
    """
    far = jnp.abs(v) * alpha > 1
    return jnp.where(far, 1 / jnp.where(far, jnp.abs(v), 1), alpha)


@spike
def s2nn(v: jax.Array, alpha: float = 4.0, beta: float = 1.0) -> jax.Array:
    r"""Spike with a logistic slope below the threshold and an inverse one above.

    $$ y = [v \ge 0], \qquad \bar v = \begin{cases}
       \alpha\,\sigma(\alpha v)\,(1 - \sigma(\alpha v)) & v < 0 \\
       \beta / (1 + v) & v \ge 0 \end{cases}\;\cdot \bar y $$

    Args:
        v: Membrane potential above threshold.
        alpha: Steepness below. 4 as in spikingjelly.
        beta: Height above. 1 as in spikingjelly.

    Returns:
        `y`, 0 or 1, with shape and dtype of `v`.

    At the kink:
        The threshold belongs to the upper branch.

    Example:
        >>> import jax
        >>> print(jax.grad(s2nn)(0.0), jax.grad(s2nn)(1.0), f"{jax.grad(s2nn)(-0.25):.4f}")
        1.0 0.5 0.7864

    Source:
        Suetake et al., *S2NN: Time Step Reduction of Spiking Surrogate Gradients for Training
        Energy Efficient Single-Step Neural Networks* (2022), arXiv:2201.10879.
    """
    below = alpha * jax.nn.sigmoid(alpha * v) * jax.nn.sigmoid(-alpha * v)
    return jnp.where(v < 0, below, beta / (1 + jnp.maximum(v, 0)))
