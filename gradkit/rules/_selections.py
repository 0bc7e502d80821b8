"""Selections of the largest elements, with straight-through derivatives."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from gradkit._arguments import widen
from gradkit._errors import describe
from gradkit.rules._elementwise import as_floating, elementwise, through
from gradkit.rules._override_value import instead_of_default


@instead_of_default
def argmax_one_hot(
    x: ArrayLike, axis: int = -1, *, temperature: ArrayLike | None = 1.0
) -> jax.Array:
    r"""One-hot of the largest element, with the derivative of a softmax.

    $$ y = \operatorname{onehot}(\arg\max x), \qquad
       \bar x = J_s^\top \bar y, \quad s = \operatorname{softmax}(x / \tau) $$

    Args:
        x: Real array.
        axis: The axis of the choice.
        temperature: `tau`, which may be traced and gets no gradient; None for the derivative of
            the identity.

    Returns:
        `y`, with shape and dtype of `x`. Of equal elements the first is taken.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x = jnp.log(jnp.array([1.0, 3.0]))
        >>> print(argmax_one_hot(x), jnp.round(jax.jacrev(argmax_one_hot)(x), 4))
        [0. 1.] [[ 0.1875 -0.1875]
         [-0.1875  0.1875]]

    Source:
        Jang, Gu & Poole (2017), arXiv:1611.01144, section 2.2, without the noise.
    """

    def rule(x, y_bar, temperature):
        if temperature is None:
            return y_bar
        y, pull = jax.vjp(lambda x: jax.nn.softmax(x / temperature, axis=axis), widen(x))
        return pull(y_bar.astype(y.dtype))[0]

    return elementwise("argmax_one_hot", lambda x, _: _one_hot(x, axis), rule, x, temperature)


def _one_hot(x: jax.Array, axis: int) -> jax.Array:
    axis = axis % x.ndim
    return jax.nn.one_hot(jnp.argmax(x, axis), x.shape[axis], axis=axis, dtype=x.dtype)


@instead_of_default
def top_k_mask(x: ArrayLike, k: int, axis: int = -1) -> jax.Array:
    r"""A mask of the `k` largest elements; the derivative is that of the identity.

    $$ y_i = [\,x_i \text{ is among the } k \text{ largest}\,], \qquad \bar x = \bar y $$

    Args:
        x: Real array.
        k: How many, at most the length of the axis.
        axis: The axis of the choice.

    Returns:
        `y`, 0 or 1, with shape and dtype of `x`; of equal elements the first are taken.

    Raises:
        ValueError: If `k` is no number of elements along the axis.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x = jnp.array([0.1, 0.7, 0.4])
        >>> print(top_k_mask(x, 2), jax.grad(lambda x: top_k_mask(x, 2) @ x)(x))
        [0. 1. 1.] [0.1 1.7 1.4]

    Source:
        Ramanujan et al., *What's Hidden in a Randomly Weighted Neural Network?* (2020),
        arXiv:1911.13299, section 3.
    """
    x = as_floating("top_k_mask", x)
    if not (isinstance(k, int) and 0 <= k <= x.shape[axis]):
        raise ValueError(
            describe(
                "gk.rules.top_k_mask takes k of the elements along an axis.",
                expected=f"k from 0 to {x.shape[axis]}, the length of axis {axis}",
                got=repr(k),
            )
        )

    def value(x):
        front = jnp.moveaxis(x, axis, -1)
        _, chosen = lax.top_k(front, k)
        none = jnp.zeros_like(front)
        taken = jnp.put_along_axis(none, chosen, jnp.ones((), x.dtype), -1, inplace=False)
        return jnp.moveaxis(taken, -1, axis)

    return elementwise("top_k_mask", value, through, x)
