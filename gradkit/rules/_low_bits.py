"""Schemes that train networks with few bits and nothing else to learn: DoReFa, XNOR."""

from __future__ import annotations

from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradkit._arguments import widen
from gradkit.rules._elementwise import as_floating, elementwise, through
from gradkit.rules._identity import identity
from gradkit.rules._quantisation import Axis, code_range, other_axes
from gradkit.rules._rounding import round as round_through

T = TypeVar("T")


def dorefa_weights(w: ArrayLike, *, bits: int) -> jax.Array:
    r"""DoReFa's weights of `bits` bits, between -1 and 1.

    $$ y = 2\,Q_k\Bigl(\frac{\tanh w}{2\max|\tanh w|} + \frac12\Bigr) - 1, \qquad
       Q_k(r) = \frac{\lfloor (2^k - 1)\,r \rceil}{2^k - 1} $$

    The derivative is the natural one with that of `Q_k` straight through. One bit is another
    formula: `y = mean(|w|) * sgn(w)` with `w_bar = y_bar`.

    Args:
        w: Weights.
        bits: `k`.

    Returns:
        `y`, with shape and dtype of `w`.

    Raises:
        ValueError: If `bits` is no width.

    At the kink:
        `sgn(0) = 1`. Weights that are all zero become those of the middle of the code.

    Example:
        >>> import jax.numpy as jnp
        >>> w = jnp.array([-1.0, 0.1, 2.0])
        >>> print(dorefa_weights(w, bits=2), dorefa_weights(w, bits=1))
        [-1.          0.33333337  1.        ] [-1.0333333  1.0333333  1.0333333]

    Source:
        Zhou et al., *DoReFa-Net* (2016), arXiv:1606.06160, section 2.3.
    """
    w = as_floating("dorefa_weights", w)
    dtype, w = w.dtype, widen(w)
    code_range(bits, False)
    if bits == 1:
        value = lambda w: jnp.mean(jnp.abs(w)) * _sign(w)  # noqa: E731
        return elementwise("dorefa_weights", value, through, w).astype(dtype)
    curved = jnp.tanh(w)
    size = jnp.max(jnp.abs(curved), initial=0)
    r = curved / (2 * jnp.where(size > 0, size, 1)) + 0.5
    return (2 * _to_bits(r, bits) - 1).astype(dtype)


def dorefa_activations(x: ArrayLike, *, bits: int) -> jax.Array:
    r"""DoReFa's activations of `bits` bits, between 0 and 1.

    $$ y = Q_k(\operatorname{clip}(x, 0, 1)), \qquad \bar x = [0 \le x \le 1]\;\bar y $$

    Args:
        x: Real array.
        bits: `k`.

    Returns:
        `y`, with shape and dtype of `x`.

    Raises:
        ValueError: If `bits` is no width.

    At the kink:
        Both ends belong to the range. Ties are rounded to even.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x = jnp.array([-0.2, 0.4, 1.5])
        >>> print(dorefa_activations(x, bits=2))
        [0.        0.33333334 1.        ]
        >>> print(jax.vmap(jax.grad(lambda x: dorefa_activations(x, bits=2)))(x))
        [0. 1. 0.]

    Source:
        Zhou et al. (2016), arXiv:1606.06160, section 2.4.
    """
    code_range(bits, False)

    def rule(x, y_bar):
        return jnp.where((x >= 0) & (x <= 1), y_bar, jnp.zeros_like(y_bar))

    return elementwise(
        "dorefa_activations", lambda x: _to_bits(jnp.clip(widen(x), 0, 1), bits), rule, x
    )


def dorefa_gradients(x: T, key: jax.Array, *, bits: int) -> T:
    r"""The identity, whose cotangent DoReFa rounds to `bits` bits, with noise instead of bias.

    $$ y = x, \qquad
       \bar x = 2m\Bigl(Q_k\Bigl(\frac{\bar y}{2m} + \frac12 + \nu\Bigr) - \frac12\Bigr), \qquad
       m = \max|\bar y|, \quad \nu \sim \frac{U(-\frac12, \frac12)}{2^k - 1} $$

    The largest value is that of each example. There is no forward mode.

    Args:
        x: A pytree of floating-point arrays whose first axis counts examples; other leaves are
            left alone.
        key: A key of `jax.random`.
        bits: `k`.

    Returns:
        `x`.

    Raises:
        ValueError: If `bits` is no width.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> slopes = jnp.array([[1.0, -0.3, 0.2]])
        >>> def loss(x):
        ...     return jnp.vdot(dorefa_gradients(x, jax.random.key(0), bits=2), slopes)
        >>> print(jnp.round(3 * jax.grad(loss)(jnp.zeros((1, 3)))))
        [[ 3. -1.  1.]]

    Source:
        Zhou et al. (2016), arXiv:1606.06160, section 2.5.
    """
    code_range(bits, False)
    highest = 2**bits - 1

    def rule(xs, y_bars, key):
        del xs
        return [
            _rounded_with_noise(k, y_bar, highest)
            for k, y_bar in zip(jax.random.split(key, len(y_bars)), y_bars, strict=True)
        ]

    return identity("dorefa_gradients", x, rule, key)


def _rounded_with_noise(key: jax.Array, y_bar: jax.Array, highest: int) -> jax.Array:
    wide = widen(y_bar)
    size = jnp.max(jnp.abs(wide), axis=tuple(range(1, wide.ndim)), keepdims=True, initial=0)
    size = jnp.where(size == 0, 1, size)
    noise = jax.random.uniform(key, wide.shape, wide.dtype, -0.5, 0.5) / highest
    code = jnp.round(highest * jnp.clip(wide / (2 * size) + 0.5 + noise, 0, 1))
    return 2 * size * (code / highest - 0.5)


def _to_bits(r: jax.Array, bits: int) -> jax.Array:
    highest = 2**bits - 1
    return round_through(highest * r) / highest


def _sign(w: jax.Array) -> jax.Array:
    return jnp.where(w >= 0, 1, -1).astype(w.dtype)


def binarize(w: ArrayLike, *, axis: Axis = None) -> jax.Array:
    r"""Binary weights with the scale that fits them best: XNOR-Net.

    $$ y = \alpha \operatorname{sgn} w, \quad \alpha = \frac1n \sum |w|, \qquad
       \bar w = \alpha\,[\,|w| \le 1\,]\;\bar y + \frac{\operatorname{sgn} w}{n}
       \sum \operatorname{sgn}(w)\,\bar y $$

    The second term is the derivative of the scale. The paper keeps only its diagonal, `y_bar / n`.

    Args:
        w: Weights.
        axis: The axis or axes of the channels, each with a scale of its own: -1 for a dense layer
            or convolution in JAX's layout. Default: one for all.

    Returns:
        `y`, with shape and dtype of `w`; `sgn(0) = 1`.

    At the kink:
        Both ends of the window belong to it.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> w = jnp.array([0.5, -1.5])
        >>> print(binarize(w), jax.grad(lambda w: binarize(w)[0])(w))
        [ 1. -1.] [ 1.5 -0.5]

    Source:
        Rastegari et al., *XNOR-Net* (2016), arXiv:1603.05279, section 3.1.
    """
    w = as_floating("binarize", w)
    shared = other_axes(w, axis)

    def value(w):
        return jnp.mean(jnp.abs(w), shared, keepdims=True) * _sign(w)

    def rule(w, y_bar):
        w, y_bar = widen(w), widen(y_bar)
        alpha = jnp.mean(jnp.abs(w), shared, keepdims=True)
        of_scale = _sign(w) * jnp.mean(_sign(w) * y_bar, shared, keepdims=True)
        return alpha * jnp.where(jnp.abs(w) <= 1, y_bar, jnp.zeros_like(y_bar)) + of_scale

    return elementwise("binarize", value, rule, w)
