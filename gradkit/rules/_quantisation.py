"""Fake quantisation: integers in the value, a straight-through derivative."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from gradkit._arguments import widen
from gradkit._errors import describe
from gradkit.rules._elementwise import as_floating, elementwise, parameter, through
from gradkit.rules._override_value import instead_of_default

Axis = int | Sequence[int] | None


@instead_of_default
def fake_quantize(
    x: ArrayLike,
    scale: ArrayLike,
    zero_point: ArrayLike = 0,
    *,
    bits: int = 8,
    signed: bool = True,
    axis: int | None = None,
) -> jax.Array:
    r"""Round to the numbers that an affine integer code has, with a given scale and zero point.

    $$ q = \operatorname{clip}(\lfloor x / s \rceil + z,\; q_\min,\; q_\max), \qquad y = (q - z)\,s,
       \qquad \bar x = [\,q_\min \le \lfloor x / s \rceil + z \le q_\max\,]\;\bar y $$

    Args:
        x: Real array.
        scale: `s > 0`; a number, or one per channel. It gets no gradient: `lsq` learns one.
        zero_point: `z`, an integer of the code; likewise.
        bits: The width of the code.
        signed: Codes from `-2**(bits - 1)` to `2**(bits - 1) - 1`; else from 0 to `2**bits - 1`.
        axis: The axis of the channels, where `scale` has one entry per channel.

    Returns:
        `y`, with shape and dtype of `x`.

    Raises:
        ValueError: If `bits` is no width, or scales do not fit the axis.

    At the kink:
        Ties are rounded to even. What is rounded to an end of the range still gets the cotangent.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x = jnp.array([0.26, -0.4, 9.0])
        >>> print(fake_quantize(x, 0.25, bits=4))
        [ 0.25 -0.5   1.75]
        >>> print(jax.grad(lambda x: fake_quantize(x, 0.25, bits=4).sum())(x))
        [1. 1. 0.]

    Source:
        Jacob et al., *Quantization and Training of Neural Networks for Efficient
        Integer-Arithmetic-Only Inference* (2018), arXiv:1712.05877, section 3.
    """
    x = as_floating("fake_quantize", x)
    low, high = code_range(bits, signed)
    scale, zero_point = (_per_channel(v, x, axis) for v in (scale, zero_point))

    def value(x, scale, zero_point):
        code = jnp.clip(jnp.round(widen(x) / scale) + zero_point, low, high)
        return (code - zero_point) * scale

    def rule(x, y_bar, scale, zero_point):
        code = jnp.round(widen(x) / scale) + zero_point
        return jnp.where((code >= low) & (code <= high), y_bar, jnp.zeros_like(y_bar))

    return elementwise("fake_quantize", value, rule, x, scale, zero_point)


@instead_of_default
def fake_quantize_symmetric(x: ArrayLike, *, bits: int = 8, axis: Axis = None) -> jax.Array:
    r"""`fake_quantize` around zero, with a scale from the largest absolute value.

    $$ s = \max|x| \,/\, (2^{b-1} - 1), \qquad y = s\,\lfloor x / s \rceil, \qquad
       \bar x = \bar y $$

    For weights. Nothing is out of range, and the scale counts as a constant.

    Args:
        x: Real array.
        bits: `b`, from 2.
        axis: The axis or axes of the channels, each with a scale of its own. Default: one for all.

    Returns:
        `y`, with shape and dtype of `x`.

    Raises:
        ValueError: If `bits` is no width.

    At the kink:
        Ties are rounded to even. Zeros alone stay zero.

    Example:
        >>> import jax.numpy as jnp
        >>> print(fake_quantize_symmetric(jnp.array([[0.9, -3.0], [30.0, 9.0]]), bits=3, axis=0))
        [[ 1. -3.]
         [30. 10.]]

    Source:
        Krishnamoorthi, *Quantizing deep convolutional networks for efficient inference* (2018),
        arXiv:1806.08342, section 2.
    """
    x = as_floating("fake_quantize_symmetric", x)
    _, high = code_range(bits, True, least=2)
    size = jnp.max(
        jnp.abs(widen(lax.stop_gradient(x))), other_axes(x, axis), keepdims=True, initial=0
    )
    return fake_quantize(x, jnp.where(size > 0, size / high, 1), bits=bits)


@instead_of_default
def fake_quantize_affine(x: ArrayLike, *, bits: int = 8, axis: Axis = None) -> jax.Array:
    r"""`fake_quantize` between smallest and largest value, zero among the numbers of the code.

    $$ s = (h - l) / (2^b - 1), \quad z = \lfloor -l / s \rceil, \quad
       l = \min(x, 0), \; h = \max(x, 0), \qquad \bar x = \bar y $$

    For activations. The range counts as a constant, and is moved so that zero is met exactly; what
    that leaves out at one end, by at most half a step, is clipped and still gets the cotangent.

    Args:
        x: Real array.
        bits: `b`.
        axis: The axis or axes of the channels, each with a range of its own. Default: one for all.

    Returns:
        `y`, with shape and dtype of `x`.

    Raises:
        ValueError: If `bits` is no width.

    At the kink:
        Ties are rounded to even. Zeros alone stay zero.

    Example:
        >>> import jax.numpy as jnp
        >>> print(fake_quantize_affine(jnp.array([-1.0, 0.0, 0.4, 2.0]), bits=2))
        [-1.  0.  0.  2.]

    Source:
        Jacob et al. (2018), arXiv:1712.05877, section 3.
    """
    x = as_floating("fake_quantize_affine", x)
    _, high = code_range(bits, False)
    held, others = widen(lax.stop_gradient(x)), other_axes(x, axis)
    top = jnp.max(held, others, keepdims=True, initial=0)
    bottom = jnp.min(held, others, keepdims=True, initial=0)
    scale = jnp.where(top > bottom, (top - bottom) / high, 1)
    zero_point = jnp.round(-bottom / scale)

    def value(x, scale, zero_point):
        code = jnp.clip(jnp.round(widen(x) / scale) + zero_point, 0, high)
        return (code - zero_point) * scale

    return elementwise("fake_quantize_affine", value, through, x, scale, zero_point)


def code_range(bits: int, signed: bool, least: int = 1) -> tuple[int, int]:
    """The smallest and the largest integer of a code.

    Raises:
        ValueError: If there is no such code.
    """
    if not isinstance(bits, int) or not least <= bits <= 24:
        raise ValueError(
            describe("bits= is the width of a code.", expected=f"{least} to 24", got=repr(bits))
        )
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def _per_channel(value: ArrayLike, x: jax.Array, axis: int | None) -> jax.Array:
    """One entry per channel, to broadcast against `x`, in float32 or wider."""
    value = parameter("fake_quantize", value, x)
    if axis is None or value.ndim == 0:
        return value
    if value.ndim != 1 or not -x.ndim <= axis < x.ndim or value.shape[0] != x.shape[axis]:
        raise ValueError(
            describe(
                "gk.rules.fake_quantize takes one scale per channel.",
                expected=f"as many as the length of axis {axis} of x, of shape {x.shape}",
                got=f"shape {value.shape}",
            )
        )
    shape = [1] * x.ndim
    shape[axis] = -1
    return value.reshape(shape)


def other_axes(x: jax.Array, axis: Axis) -> tuple[int, ...]:
    """The axes that are not of channels."""
    channels = () if axis is None else (axis,) if isinstance(axis, int) else tuple(axis)
    return tuple(set(range(x.ndim)) - {a % x.ndim for a in channels})
