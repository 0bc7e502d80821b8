"""Square roots of numbers and of sums of squares."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradkit._arguments import widen
from gradkit.safe._edges import as_real, held, power_of_two

Axis = int | Sequence[int] | None


def sqrt(x: ArrayLike) -> jax.Array:
    r"""Square root whose derivative at zero is zero instead of infinite.

    $$ y = \sqrt x, \qquad \dot y = \dot x / (2 y) $$

    Args:
        x: Real array.

    Returns:
        `y`, as `jnp.sqrt`: NaN where `x` is negative.

    Raises:
        TypeError: If `x` is complex.

    At the kink:
        At `x = 0` the slope is infinite, and every finite number is as far off. The rule picks 0:
        it is what a square under the root asks for (`sqrt(t**2)` is `|t|`, with 0 among its
        subgradients), and leaves masked entries alone. Below 0 all derivatives are 0.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> print(jax.vmap(jax.grad(sqrt))(jnp.array([0.0, 4.0])))
        [0.   0.25]
    """
    (x,) = as_real("sqrt", x)
    return _sqrt(x)


_sqrt = held(jnp.sqrt, lambda x: x <= 0, inside=1.0)


def norm(x: ArrayLike, axis: Axis = None, *, keepdims: bool = False) -> jax.Array:
    r"""Euclidean norm with a derivative at the origin, for numbers of any size.

    $$ y = \|x\|_2, \qquad \dot y = \langle x / y, \dot x \rangle $$

    Squares are taken of `x / s` with a power of two `s` near the largest `|x|`, so that they
    neither overflow nor vanish: `norm([3e30, 4e30])` is `5e30` in float32.

    Args:
        x: Real array.
        axis: The axis or axes summed over. Default: all.
        keepdims: Whether they stay, with length 1.

    Returns:
        `y`, in the dtype of `x`. Half precision is summed in float32.

    Raises:
        TypeError: If `x` is complex.

    At the kink:
        At `x = 0` every vector of norm at most 1 is a subgradient. The rule picks 0, the smallest.
        Second derivatives are 0 there too; next to it they grow as `1 / y`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> print(jax.grad(norm)(jnp.zeros(2)), norm(jnp.array([3e30, 4e30])))
        [0. 0.] 5e+30

    Source:
        Rockafellar, *Convex Analysis* (1970), section 23.
    """
    (x,) = as_real("norm", x)
    scaled, scale = _scaled(widen(x), axis)
    y = sqrt(jnp.sum(scaled**2, axis, keepdims=True)) * scale
    return (y if keepdims else jnp.squeeze(y, axis)).astype(x.dtype)


def normalize(x: ArrayLike, axis: Axis = -1) -> jax.Array:
    r"""The vector of length one in the direction of `x`; zero for the zero vector.

    $$ y = x / \|x\|_2, \qquad \dot y = (\dot x - y \langle y, \dot x \rangle) / \|x\|_2 $$

    Args:
        x: Real array.
        axis: The axis or axes that hold one vector. Default: the last.

    Returns:
        `y`, with shape and dtype of `x`.

    Raises:
        TypeError: If `x` is complex.

    At the kink:
        The zero vector has no direction. Value and derivatives are 0 there.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> print(normalize(jnp.array([[3.0, 4.0], [0.0, 0.0]])))
        [[0.6 0.8]
         [0.  0. ]]
        >>> print(jax.jacobian(normalize)(jnp.zeros(2)))
        [[0. 0.]
         [0. 0.]]
    """
    (x,) = as_real("normalize", x)
    scaled, _ = _scaled(widen(x), axis)
    size = sqrt(jnp.sum(scaled**2, axis, keepdims=True))
    zero = size == 0
    return jnp.where(zero, 0, scaled / jnp.where(zero, 1, size)).astype(x.dtype)


def cosine_similarity(x: ArrayLike, y: ArrayLike, axis: Axis = -1) -> jax.Array:
    r"""Cosine of the angle between two vectors; zero where one of them is zero.

    $$ c = \langle x, y \rangle / (\|x\|_2 \|y\|_2) $$

    An `epsilon` in the denominator, the usual cure, changes the value for short vectors and has a
    slope of `1 / epsilon` at zero. This one depends on the directions alone.

    Args:
        x: Real array.
        y: Real array of the same shape, or of one that broadcasts with it.
        axis: The axis or axes that hold one vector. Default: the last.

    Returns:
        `c`, without those axes.

    Raises:
        TypeError: If one is complex.

    At the kink:
        Where one vector is zero, value and derivatives are 0.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> print(jax.grad(cosine_similarity)(jnp.zeros(2), jnp.ones(2)))
        [0. 0.]
    """
    x, y = as_real("cosine_similarity", x, y)
    cosine = jnp.sum(normalize(widen(x), axis) * normalize(widen(y), axis), axis)
    return cosine.astype(x.dtype)


def _scaled(x: jax.Array, axis: Axis) -> tuple[jax.Array, jax.Array]:
    """`x / s` and `s`: the norm does not depend on `s`, which may thus count as a constant."""
    scale = power_of_two(jnp.max(jnp.abs(x), axis, keepdims=True, initial=0))
    return x / scale, scale
