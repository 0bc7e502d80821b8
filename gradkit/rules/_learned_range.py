"""Quantisers that learn their range: LSQ's step, PACT's ceiling."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradkit._arguments import widen
from gradkit._errors import describe
from gradkit._rules import Call
from gradkit.rules._elementwise import as_floating, parameter
from gradkit.rules._identity import broadcasts
from gradkit.rules._quantisation import code_range


def lsq(
    x: ArrayLike,
    step: ArrayLike,
    *,
    bits: int,
    signed: bool = True,
    elements: int | None = None,
) -> jax.Array:
    r"""Learned step size quantisation: the step has a gradient.

    $$ y = s\,\lfloor \operatorname{clip}(x / s, -Q_N, Q_P) \rceil, \qquad
       \bar x = [-Q_N < x/s < Q_P]\;\bar y, $$
    $$ \bar s = g \sum \bar y \cdot \begin{cases} \lfloor x/s \rceil - x/s & -Q_N < x/s < Q_P \\
       -Q_N & x/s \le -Q_N \\ Q_P & x/s \ge Q_P \end{cases}, \qquad
       g = 1 / \sqrt{N\,Q_P} $$

    Args:
        x: Weights or activations.
        step: `s > 0`, a number or an array that broadcasts to `x`, such as one step per channel.
            The paper starts it at `2 * mean(|x|) / sqrt(Q_P)`.
        bits: The width of the code, from 2 if signed.
        signed: `Q_N = 2**(bits - 1)`, `Q_P = 2**(bits - 1) - 1`; else 0 and `2**bits - 1`.
        elements: `N`. Default: how many elements of `x` share a step, as for weights. For
            activations the paper counts those of one example.

    Returns:
        `y`, with shape and dtype of `x`.

    Raises:
        ValueError: If `bits` is no width, or `step` does not broadcast to `x`.

    At the kink:
        Both ends of the range count as clipped. Ties are rounded to even.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x = jnp.array([0.3, 5.0])
        >>> print(lsq(x, 0.5, bits=3))
        [0.5 1.5]
        >>> x_bar, step_bar = jax.grad(lambda x, s: lsq(x, s, bits=3).sum(), (0, 1))(x, 0.5)
        >>> print(x_bar, f"{step_bar:.4f} = {(0.4 + 3) / jnp.sqrt(2 * 3):.4f}")
        [1. 0.] 1.3880 = 1.3880

    Source:
        Esser et al., *Learned Step Size Quantization* (2020), arXiv:1902.08153, section 2.
    """
    x = as_floating("lsq", x)
    low, high = code_range(bits, signed, least=2 if signed else 1)

    def body(x, step):
        ratio = widen(x) / step
        code = jnp.round(jnp.clip(ratio, low, high))

        def grad(y_bar):
            inside = (ratio > low) & (ratio < high)
            slopes = weight * jnp.where(inside, code - ratio, code)
            step_bar = _unbroadcast(slopes * y_bar, step)
            return jnp.where(inside, y_bar, jnp.zeros_like(y_bar)), step_bar

        return (code * step).astype(x.dtype), grad

    step = _beside(x, "lsq", "step", step)
    weight = 1 / math.sqrt((elements or max(1, x.size // max(1, step.size))) * high)
    return Call("lsq", body, (x, step), ("x", "step"), (0, 1))()


def pact(x: ArrayLike, alpha: ArrayLike, *, bits: int) -> jax.Array:
    r"""Parameterised clipping activation: a ReLU with a learned ceiling, quantised.

    $$ c = \operatorname{clip}(x, 0, \alpha), \qquad
       y = \lfloor c\,(2^k - 1) / \alpha \rceil\,\alpha / (2^k - 1), $$
    $$ \bar x = [0 < x < \alpha]\;\bar y, \qquad \bar\alpha = \sum_{x \ge \alpha} \bar y $$

    Args:
        x: Real array.
        alpha: The ceiling, positive: a number, or an array that broadcasts to `x`.
        bits: `k`.

    Returns:
        `y`, with shape and dtype of `x`.

    Raises:
        ValueError: If `bits` is no width, or `alpha` does not broadcast to `x`.

    At the kink:
        At 0 the cotangent is 0, as for ReLU; at `alpha` it goes to the ceiling.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x = jnp.array([-1.0, 0.6, 3.0])
        >>> print(pact(x, 2.0, bits=2))
        [0.        0.6666667 2.       ]
        >>> print(*jax.grad(lambda x, a: pact(x, a, bits=2).sum(), (0, 1))(x, 2.0))
        [0. 1. 0.] 1.0

    Source:
        Choi et al., *PACT: Parameterized Clipping Activation for Quantized Neural Networks* (2018),
        arXiv:1805.06085, section 3.
    """
    x = as_floating("pact", x)
    _, high = code_range(bits, False)

    def body(x, alpha):
        wide = widen(x)
        unit = alpha / high

        def grad(y_bar):
            zero = jnp.zeros_like(y_bar)
            above = wide >= alpha
            alpha_bar = _unbroadcast(jnp.where(above, y_bar, zero), alpha)
            return jnp.where((wide > 0) & ~above, y_bar, zero), alpha_bar

        return (jnp.round(jnp.clip(wide, 0, alpha) / unit) * unit).astype(x.dtype), grad

    alpha = _beside(x, "pact", "alpha", alpha)
    return Call("pact", body, (x, alpha), ("x", "alpha"), (0, 1))()


def _beside(x: jax.Array, name: str, what: str, value: ArrayLike) -> jax.Array:
    """A learned parameter, which has one entry or one for each of some axes of `x`."""
    value = parameter(name, value, x)
    if not broadcasts(value.shape, x.shape):
        raise ValueError(
            describe(
                f"the {what} of gk.rules.{name} does not fit x.",
                expected=f"a shape that broadcasts to {x.shape}",
                got=f"shape {value.shape}",
                fix="give it an axis of length 1 for each axis of x that shares an entry",
            )
        )
    return value


def _unbroadcast(y_bar: jax.Array, like: jax.Array) -> jax.Array:
    """Sum over the axes that broadcasting added."""
    lead = y_bar.ndim - like.ndim
    stretched = [i + lead for i, n in enumerate(like.shape) if n == 1 and y_bar.shape[i + lead] > 1]
    axes = (*range(lead), *stretched)
    return jnp.sum(widen(y_bar), axis=axes).reshape(like.shape).astype(like.dtype)
