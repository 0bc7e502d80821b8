"""Gradients at noisy copies of the input: their mean and their variance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradkit._errors import AttributionInputError, describe
from gradkit.attribution._chunks import weighted_sum
from gradkit.attribution._model import (
    Method,
    Model,
    check_count,
    fix_target,
    gradient,
    hold_fixed,
)


def smooth_grad(
    model: Model,
    x: Any,
    target: Any = None,
    *,
    noise: float = 0.15,
    samples: int = 50,
    key: jax.Array | None = None,
    method: Method = gradient,
    chunk_size: int | None = 8,
) -> Any:
    r"""The gradient, averaged over noisy copies of the input.

    $$ a = \frac{1}{n} \sum_{i=1}^n \frac{\partial f}{\partial x}(x + \sigma \epsilon_i),
       \qquad \epsilon_i \sim \mathcal{N}(0, 1) $$

    Args:
        model: As for `saliency`.
        x: -
        target: - . None is the largest logit at `x`, for all copies.
        noise: $\sigma$, as a part of what lies between the smallest and the largest value of an
            example (0.1 to 0.2 in the paper). In a pytree, of each leaf by itself.
        samples: $n$.
        key: The source of randomness; `jax.random.key(0)` if None. Equal keys, equal results.
        method: What is averaged, instead of the gradient: a function of `(model, x, target)`
            such as `guided_backprop`.
        chunk_size: How many of the copies are evaluated together, which bounds the memory; None
            for all.

    Returns:
        Attribution, with `x`'s structure, shapes and dtypes.

    Raises:
        AttributionInputError: If `x` is not of floating-point arrays, the target does not fit, or
            `samples` or `noise` cannot be.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> model = lambda x: jnp.sum(jnp.maximum(x, 0), axis=1)
        >>> x = jnp.array([[0.0, 4.0, -4.0]])  # a kink, and both sides of it
        >>> print(smooth_grad(model, x, noise=0.1, samples=1000).round(1))
        [[0.5 1.  0. ]]

    Source:
        Smilkov et al., *SmoothGrad: removing noise by adding noise* (2017); arXiv:1706.03825.
    """
    model, x = hold_fixed(model, x)
    noisy = _noisy(model, x, target, noise, method)
    mean = weighted_sum(noisy, *_keys(key, samples), chunk_size)
    return jax.tree.map(lambda a, x: a.astype(x.dtype), mean, x)


def var_grad(
    model: Model,
    x: Any,
    target: Any = None,
    *,
    noise: float = 0.15,
    samples: int = 50,
    key: jax.Array | None = None,
    method: Method = gradient,
    chunk_size: int | None = 8,
) -> Any:
    r"""The variance of the gradient over noisy copies of the input.

    $$ a = \frac{1}{n} \sum_{i=1}^n (g_i - \bar g)^2,
       \qquad g_i = \frac{\partial f}{\partial x}(x + \sigma \epsilon_i) $$

    Args:
        model: As for `smooth_grad`, and so the rest.
        x: -
        target: -
        noise: -
        samples: -
        key: -
        method: -
        chunk_size: -

    Returns:
        Attribution, with `x`'s structure, shapes and dtypes; never negative.

    Raises:
        AttributionInputError: As for `smooth_grad`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> model = lambda x: jnp.sum(jnp.maximum(x, 0), axis=1)
        >>> x = jnp.array([[0.0, 4.0, -4.0]])  # the gradient is 0 or 1 at the kink
        >>> print(var_grad(model, x, noise=0.1, samples=1000).round(2))
        [[0.25 0.   0.  ]]

    Source:
        Adebayo et al., *Local explanation methods for deep neural networks lack sensitivity to
        parameter values* (2018); arXiv:1810.03307.
    """
    model, x = hold_fixed(model, x)
    noisy = _noisy(model, x, target, noise, method)
    # Around the attribution at x itself, or the difference of two large numbers would be noise.
    centre = method(model, x, fix_target(model, x, target))

    def moments(key: Any) -> Any:
        wide = lambda a: a.astype(jnp.promote_types(a.dtype, jnp.float32))  # noqa: E731
        distance = jax.tree.map(lambda a, c: wide(a) - wide(c), noisy(key), centre)
        return distance, jax.tree.map(jnp.square, distance)

    mean, square = weighted_sum(moments, *_keys(key, samples), chunk_size)
    return jax.tree.map(lambda m, s, x: jnp.maximum(s - m**2, 0).astype(x.dtype), mean, square, x)


def _noisy(model: Model, x: Any, target: Any, noise: Any, method: Method) -> Callable[[Any], Any]:
    """The attribution at a copy of the input, as a function of the key."""
    if not isinstance(noise, (int, float, jax.Array)) or jnp.ndim(noise) != 0:
        raise AttributionInputError(
            describe(
                "noise is a part of the input's range.",
                expected="a number such as 0.15",
                got=type(noise).__name__,
            )
        )
    target = fix_target(model, x, target)
    leaves, structure = jax.tree.flatten(x)
    ranges = [_range(leaf) for leaf in leaves]

    def at(key: Any) -> Any:
        keys = jax.random.split(key, len(leaves))
        copies = [
            leaf + noise * r * jax.random.normal(k, leaf.shape, leaf.dtype)
            for leaf, r, k in zip(leaves, ranges, keys, strict=True)
        ]
        return method(model, jax.tree.unflatten(structure, copies), target)

    return at


def _range(x: Any) -> Any:
    """Largest less smallest value of each example, in the rank of `x`."""
    axes = tuple(range(1, x.ndim))
    return jnp.max(x, axes, keepdims=True) - jnp.min(x, axes, keepdims=True)


def _keys(key: jax.Array | None, samples: int) -> tuple[jax.Array, jax.Array]:
    """One key and the weight of each sample."""
    n = check_count(samples, "samples")
    return jax.random.split(jax.random.key(0) if key is None else key, n), jnp.full(n, 1 / n)
