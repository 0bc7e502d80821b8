"""Identities that scale the cotangent, turn it round, or stop it."""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from gradkit._trees import is_array
from gradkit.rules._identity import identity, leaf_by_leaf, one_per_leaf
from gradkit.rules._norms import norm_of_all
from gradkit.rules._override_value import after_default

T = TypeVar("T")


@after_default
def scale(x: T, factor: ArrayLike) -> T:
    r"""The identity, which multiplies the cotangent by a factor.

    $$ y = x, \qquad \bar x = c\,\bar y $$

    Values are those of `optax.scale_gradient`, which has no forward mode and takes no traced
    factor.

    Args:
        x: A pytree of floating-point arrays; other leaves are left alone.
        factor: `c`, a number or an array that broadcasts to every leaf; it may be traced. It gets
            no gradient.

    Returns:
        `x`.

    Example:
        >>> import jax
        >>> print(jax.grad(lambda x: 3 * scale(x, 0.5))(1.0))
        1.5
    """
    return identity("scale", x, leaf_by_leaf(_times), factor)


def _times(y_bar: jax.Array, factor: Any) -> jax.Array:
    return factor * y_bar


@after_default
def reverse(x: T, factor: ArrayLike = 1.0) -> T:
    r"""The identity, which turns the cotangent round: the gradient reversal layer.

    $$ y = x, \qquad \bar x = -\lambda\,\bar y $$

    Args:
        x: A pytree of floating-point arrays; other leaves are left alone.
        factor: `lambda`, a number or an array; it may be traced, such as an optax schedule at the
            current step. The paper raises it with the progress `p` of training, from 0 to 1, as
            `2 / (1 + exp(-10 * p)) - 1`.

    Returns:
        `x`.

    Example:
        >>> import jax, optax
        >>> schedule = optax.linear_schedule(0.0, 1.0, transition_steps=100)
        >>> gradient = jax.jit(jax.grad(lambda x, step: reverse(3 * x, schedule(step))))
        >>> print(gradient(1.0, 0), gradient(1.0, 50))
        -0.0 -1.5

    Source:
        Ganin & Lempitsky, *Unsupervised Domain Adaptation by Backpropagation* (2015),
        arXiv:1409.7495, section 3.
    """
    return identity("reverse", x, leaf_by_leaf(_times_minus), factor)


def _times_minus(y_bar: jax.Array, factor: Any) -> jax.Array:
    return -factor * y_bar


@after_default
def stop(x: T) -> T:
    r"""The identity without a derivative: `jax.lax.stop_gradient`, as a value of override maps too.

    $$ y = x, \qquad \bar x = 0 $$

    Args:
        x: A pytree.

    Returns:
        `x`.

    Example:
        >>> import gradkit as gk, jax, jax.numpy as jnp
        >>> print(jax.grad(gk.override(lambda x: x + jnp.sin(x), {"Sin": stop}))(0.0))
        1.0
    """
    return jax.tree.map(lambda leaf: lax.stop_gradient(leaf) if is_array(leaf) else leaf, x)


@after_default
def mask(x: T, mask: Any) -> T:
    r"""The identity, which lets the cotangent through where a mask is true.

    $$ y = x, \qquad \bar x = [m]\,\bar y $$

    What is masked is zero also where the cotangent is NaN or infinite.

    Args:
        x: A pytree of floating-point arrays; other leaves are left alone.
        mask: Booleans: one array that broadcasts to every leaf, or a pytree like `x` of such.

    Returns:
        `x`.

    Raises:
        RuleError: If the mask has another structure or does not broadcast.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> trainable = jnp.array([True, False])
        >>> print(jax.grad(lambda x: jnp.sum(mask(x, trainable) ** 2))(jnp.array([1.0, 2.0])))
        [2. 0.]
    """

    def rule(xs, y_bars, *masks):
        del xs
        pairs = zip(masks, y_bars, strict=True)
        return [jnp.where(keep, y_bar, jnp.zeros_like(y_bar)) for keep, y_bar in pairs]

    return identity("mask", x, rule, *one_per_leaf("mask", "mask", mask, x))


@after_default
def normalize(x: T) -> T:
    r"""The identity, which brings the cotangent to length one.

    $$ y = x, \qquad \bar x = \bar y / \|\bar y\|_2 $$

    The norm is of all leaves together. There is no forward mode.

    Args:
        x: A pytree of floating-point arrays; other leaves are left alone.

    Returns:
        `x`.

    At the kink:
        A cotangent of zero has no direction; it stays zero, and so does its derivative.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> print(jax.grad(lambda x: 10 * jnp.sum(normalize(x)))(jnp.ones(4)))
        [0.5 0.5 0.5 0.5]

    Source:
        Hazan, Levy & Shalev-Shwartz, *Beyond Convexity* (2015), arXiv:1507.02030, algorithm 1.
    """

    def rule(xs, y_bars):
        del xs
        size = norm_of_all(y_bars)
        return [y_bar / jnp.where(size == 0, 1, size) for y_bar in y_bars]

    return identity("normalize", x, rule)
