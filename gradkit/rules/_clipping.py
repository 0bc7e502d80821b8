"""Identities that clip the cotangent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradkit._errors import RuleError, describe
from gradkit.rules._identity import differentiable, identity, leaf_by_leaf
from gradkit.rules._norms import at_most, norm_of_all, norm_over
from gradkit.rules._override_value import after_default

T = TypeVar("T")


@after_default
def clip_by_value(x: T, low: ArrayLike, high: ArrayLike) -> T:
    r"""The identity, which clips each element of the cotangent.

    $$ y = x, \qquad \bar x_i = \min(\max(\bar y_i, l), h) $$

    There is no forward mode.

    Args:
        x: A pytree of floating-point arrays; other leaves are left alone.
        low: `l`, a number or an array that broadcasts to every leaf; it may be traced.
        high: `h`, likewise.

    Returns:
        `x`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def loss(x):
        ...     return jnp.sum(clip_by_value(x, -1.0, 1.0) ** 3)
        >>> print(jax.grad(loss)(jnp.array([0.1, 2.0])))
        [0.03 1.  ]

    Source:
        Mikolov, *Statistical Language Models Based on Neural Networks* (2012), PhD thesis, Brno.
    """
    return identity("clip_by_value", x, leaf_by_leaf(jnp.clip), low, high)


@after_default
def clip_by_norm(x: T, max_norm: ArrayLike) -> T:
    r"""The identity, which scales each leaf's cotangent down to a norm.

    $$ y = x, \qquad \bar x = \bar y \min(1, M / \|\bar y\|_2) $$

    There is no forward mode. NaN stays NaN.

    Args:
        x: A pytree of floating-point arrays; other leaves are left alone.
        max_norm: `M`; it may be traced.

    Returns:
        `x`.

    At the kink:
        At `|y_bar| = M` the derivative is that from below, the identity.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def loss(x):
        ...     return jnp.vdot(clip_by_norm(x, 1.0), jnp.array([3.0, 4.0]))
        >>> print(jax.grad(loss)(jnp.zeros(2)))
        [0.6 0.8]

    Source:
        Pascanu, Mikolov & Bengio, *On the difficulty of training recurrent neural networks* (2013),
        arXiv:1211.5063, algorithm 1.
    """

    def rule(xs, y_bars, max_norm):
        del xs
        return [y_bar * at_most(norm_of_all([y_bar]), max_norm) for y_bar in y_bars]

    return identity("clip_by_norm", x, rule, max_norm)


@after_default
def clip_by_global_norm(x: T, max_norm: ArrayLike) -> T:
    r"""The identity, which scales the cotangents of all leaves down to one joint norm.

    $$ y = x, \qquad \bar x = \bar y \min\Bigl(1, M \Big/ \sqrt{\sum_k \|\bar y_k\|_2^2}\Bigr) $$

    The same number as `optax.clip_by_global_norm`, at any place of the backward pass. There is no
    forward mode. NaN in one leaf makes all leaves NaN.

    Args:
        x: A pytree of floating-point arrays; other leaves are left alone.
        max_norm: `M`; it may be traced.

    Returns:
        `x`.

    At the kink:
        At the limit the derivative is that from below, the identity.

    Example:
        >>> import jax
        >>> def loss(x):
        ...     x = clip_by_global_norm(x, 1.0)
        ...     return 3 * x["a"] + 4 * x["b"]
        >>> for name, x_bar in jax.grad(loss)({"a": 0.0, "b": 0.0}).items():
        ...     print(name, x_bar)
        a 0.6
        b 0.8

    Source:
        Pascanu, Mikolov & Bengio (2013), arXiv:1211.5063, algorithm 1.
    """

    def rule(xs, y_bars, max_norm):
        del xs
        factor = at_most(norm_of_all(y_bars), max_norm)
        return [y_bar * factor for y_bar in y_bars]

    return identity("clip_by_global_norm", x, rule, max_norm)


@after_default
def clip_adaptive(
    x: T, clipping: ArrayLike, *, eps: ArrayLike = 1e-3, axis: Sequence[int] | None = None
) -> T:
    r"""The identity, which scales the cotangent of each unit down relative to its weights.

    $$ y = x, \qquad \bar x_u = \bar y_u \min\bigl(1,
       \lambda \max(\|x_u\|_2, \epsilon) / \|\bar y_u\|_2\bigr) $$

    Adaptive gradient clipping. There is no forward mode.

    Args:
        x: A pytree of floating-point arrays, the weights; other leaves are left alone.
        clipping: `lambda`; it may be traced.
        eps: `epsilon`, which lets weights leave zero.
        axis: The axes that one unit's weights lie along. Default: all but the last, the features
            that a dense layer or convolution in JAX's layout puts out; all of a vector.

    Returns:
        `x`.

    Keeps:
        The norms of the units.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def loss(x):
        ...     return jnp.vdot(clip_adaptive(x, 0.1), jnp.array([[3.0, 3.0], [4.0, 4.0]]))
        >>> print(jax.grad(loss)(jnp.array([[6.0, 0.0], [8.0, 5.0]])))
        [[0.6 0.3]
         [0.8 0.4]]

    Source:
        Brock et al., *High-Performance Large-Scale Image Recognition Without Normalization* (2021),
        arXiv:2102.06171, equation 3.
    """

    def rule(xs, y_bars, clipping, eps):
        clipped = []
        for value, y_bar in zip(xs, y_bars, strict=True):
            over = _unit_axes(jnp.ndim(y_bar)) if axis is None else axis
            limit = clipping * jnp.maximum(norm_over(jnp.asarray(value), over), eps)
            clipped.append(y_bar * at_most(norm_over(y_bar, over), limit))
        return clipped

    return identity("clip_adaptive", x, rule, clipping, eps)


def _unit_axes(ndim: int) -> Sequence[int]:
    return range(ndim - 1) if ndim > 1 else range(ndim)


@after_default
def clip_per_example(x: T, max_norm: ArrayLike, axis: int = 0) -> T:
    r"""The identity, which scales the cotangent of each example down to a norm.

    $$ y = x, \qquad \bar x_i = \bar y_i \min(1, M / \|\bar y_i\|_2) $$

    The norm of an example is of all leaves together. It bounds what one example contributes; it
    is not private by itself, since activations are clipped and not the gradients of parameters.
    There is no forward mode.

    Args:
        x: A pytree of floating-point arrays whose `axis` counts examples; other leaves are left
            alone.
        max_norm: `M`, a number or one per example; it may be traced.
        axis: The axis of the examples.

    Returns:
        `x`.

    Raises:
        RuleError: If the leaves have no such axis, or of different lengths.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> slopes = jnp.array([[3.0, 4.0], [0.3, 0.4]])
        >>> print(jax.grad(lambda x: jnp.vdot(clip_per_example(x, 1.0), slopes))(jnp.zeros((2, 2))))
        [[0.6 0.8]
         [0.3 0.4]]

    Source:
        Abadi et al., *Deep Learning with Differential Privacy* (2016), arXiv:1607.00133,
        algorithm 1.
    """
    leaves = jax.tree.leaves(x)
    _check_examples([jnp.shape(leaves[i]) for i in differentiable(leaves)], axis)

    def rule(xs, y_bars, max_norm):
        del xs
        fronts = [jnp.moveaxis(y_bar, axis, 0) for y_bar in y_bars]
        factor = at_most(norm_of_all(fronts, 1), max_norm)
        scaled = [f * jnp.expand_dims(factor, tuple(range(1, f.ndim))) for f in fronts]
        return [jnp.moveaxis(f, 0, axis) for f in scaled]

    return identity("clip_per_example", x, rule, max_norm)


def _check_examples(shapes: Sequence[tuple[int, ...]], axis: int) -> None:
    has_axis = all(-len(shape) <= axis < len(shape) for shape in shapes)
    if not has_axis or len({shape[axis] for shape in shapes}) > 1:
        raise RuleError(
            describe(
                "gk.rules.clip_per_example needs an axis of examples.",
                expected=f"leaves of one length along axis {axis}",
                got=f"shapes {', '.join(map(str, shapes))}",
            )
        )
