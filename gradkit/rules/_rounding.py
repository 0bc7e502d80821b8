"""Roundings and steps with straight-through derivatives."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradkit.rules._elementwise import elementwise, through
from gradkit.rules._override_value import instead_of_default


@instead_of_default
def round(x: ArrayLike) -> jax.Array:  # noqa: A001 - the name of jnp.round
    r"""Round to the nearest integer, ties to even; the derivative is that of the identity.

    $$ y = \lfloor x \rceil, \qquad \bar x = \bar y $$

    Args:
        x: Real array.

    Returns:
        `y`, with shape and dtype of `x`.

    Example:
        >>> import jax
        >>> print(round(2.5), jax.grad(round)(2.5))
        2.0 1.0

    Source:
        Bengio, Léonard & Courville (2013), arXiv:1308.3432.
    """
    return elementwise("round", jnp.round, through, x)


@instead_of_default
def floor(x: ArrayLike) -> jax.Array:
    r"""Round down; the derivative is that of the identity.

    $$ y = \lfloor x \rfloor, \qquad \bar x = \bar y $$

    Args:
        x: Real array.

    Returns:
        `y`, with shape and dtype of `x`.

    Example:
        >>> import jax
        >>> print(floor(2.5), jax.grad(floor)(2.5))
        2.0 1.0

    Source:
        Bengio, Léonard & Courville (2013), arXiv:1308.3432.
    """
    return elementwise("floor", jnp.floor, through, x)


@instead_of_default
def ceil(x: ArrayLike) -> jax.Array:
    r"""Round up; the derivative is that of the identity.

    $$ y = \lceil x \rceil, \qquad \bar x = \bar y $$

    Args:
        x: Real array.

    Returns:
        `y`, with shape and dtype of `x`.

    Example:
        >>> import jax
        >>> print(ceil(2.5), jax.grad(ceil)(2.5))
        3.0 1.0

    Source:
        Bengio, Léonard & Courville (2013), arXiv:1308.3432.
    """
    return elementwise("ceil", jnp.ceil, through, x)


@instead_of_default
def sign(x: ArrayLike, *, window: float | None = 1.0) -> jax.Array:
    r"""The sign, with the derivative of a hard tanh.

    $$ y = \operatorname{sgn} x, \qquad \bar x = [\,|x| \le w\,]\;\bar y $$

    Outside of the window the cotangent would push what is settled further out.

    Args:
        x: Real array.
        window: `w`; None for the identity's derivative everywhere.

    Returns:
        `y`, as `jnp.sign`: 0 at 0.

    At the kink:
        Both ends of the window belong to it.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x = jnp.array([-3.0, -0.5, 1.0])
        >>> print(sign(x), jax.vmap(jax.grad(sign))(x))
        [-1. -1.  1.] [0. 1. 1.]

    Source:
        Courbariaux et al., *Binarized Neural Networks* (2016), arXiv:1602.02830, equation 4.
    """
    return elementwise("sign", lambda x, _: jnp.sign(x), _inside, x, window)


@instead_of_default
def step(x: ArrayLike, *, window: float | None = None) -> jax.Array:
    r"""The unit step, with the derivative of the identity.

    $$ y = [\,x \ge 0\,], \qquad \bar x = [\,|x| \le w\,]\;\bar y $$

    `gk.rules.surrogate` has other derivatives for it.

    Args:
        x: Real array.
        window: `w`; None, the default, for no window.

    Returns:
        `y`, 0 or 1, with shape and dtype of `x`; 1 at 0.

    At the kink:
        Both ends of the window belong to it.

    Example:
        >>> import jax
        >>> print(step(-2.0), jax.grad(step)(-2.0))
        0.0 1.0

    Source:
        Bengio, Léonard & Courville (2013), arXiv:1308.3432.
    """
    return elementwise("step", lambda x, _: x >= 0, _inside, x, window)


def _inside(x: jax.Array, y_bar: jax.Array, window: float | None) -> jax.Array:
    if window is None:
        return y_bar
    return jnp.where(jnp.abs(x) <= window, y_bar, jnp.zeros_like(y_bar))


@instead_of_default
def clip(x: ArrayLike, low: ArrayLike, high: ArrayLike) -> jax.Array:
    r"""Clip the value and not the cotangent: what is outside can come back.

    $$ y = \min(\max(x, l), h), \qquad \bar x = \bar y $$

    `clip_by_value` is the opposite: it clips the cotangent and not the value.

    Args:
        x: Real array.
        low: `l`, which broadcasts to `x`. It gets no gradient.
        high: `h`, likewise.

    Returns:
        `y`, with shape and dtype of `x`.

    Example:
        >>> import jax
        >>> print(clip(3.0, 0.0, 1.0), jax.grad(clip)(3.0, 0.0, 1.0))
        1.0 1.0

    Source:
        Bengio, Léonard & Courville (2013), arXiv:1308.3432.
    """
    return elementwise("clip", jnp.clip, through, x, low, high)


@instead_of_default
def threshold(x: ArrayLike, level: ArrayLike = 0.0, fill: ArrayLike = 0.0) -> jax.Array:
    r"""Keep what is above a level; the derivative is that of the identity.

    $$ y = x \text{ where } x > t \text{, else } f, \qquad \bar x = \bar y $$

    Args:
        x: Real array.
        level: `t`, which broadcasts to `x`. It gets no gradient.
        fill: `f`, likewise.

    Returns:
        `y`, with shape and dtype of `x`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x = jnp.array([0.2, 0.9])
        >>> print(threshold(x, 0.5), jax.grad(lambda x: threshold(x, 0.5).sum())(x))
        [0.  0.9] [1. 1.]

    Source:
        Bengio, Léonard & Courville (2013), arXiv:1308.3432.
    """
    return elementwise("threshold", _above, through, x, level, fill)


def _above(x: jax.Array, level: ArrayLike, fill: ArrayLike) -> jax.Array:
    return jnp.where(x > level, x, jnp.asarray(fill, x.dtype))
