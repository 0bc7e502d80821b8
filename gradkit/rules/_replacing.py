"""Identities that put something else in the place of the cotangent, or add something to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradkit._arguments import widen
from gradkit._errors import RuleError, describe
from gradkit._trees import describe_type, is_array
from gradkit.rules._identity import differentiable, identity, leaf_by_leaf, one_per_leaf
from gradkit.rules._override_value import after_default

T = TypeVar("T")


@after_default
def replace(x: T, by: Any) -> T:
    r"""The identity, whose cotangent is what a function makes of it, or a given value.

    $$ y = x, \qquad \bar x = \mathrm{by}(\bar y) \quad\text{or}\quad \bar x = \mathrm{by} $$

    Args:
        x: A pytree of floating-point arrays; other leaves are left alone.
        by: `by(y_bar)`, called for each leaf, returns an array of its shape; or the value: one
            array that broadcasts to every leaf, or a pytree like `x` of such. Forward mode exists
            where the function is linear.

    Returns:
        `x`. Where no cotangent arrives, because the value does not matter, nothing is replaced.

    Raises:
        RuleError: If a value has another structure or shape.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def loss(x, by):
        ...     return jnp.sum(replace(x, by) ** 2)
        >>> x = jnp.array([-3.0, 0.5])
        >>> print(jax.grad(loss)(x, jnp.sign), jax.grad(loss)(x, 7.0))
        [-1.  1.] [7. 7.]
    """
    if callable(by):
        return identity("replace", x, leaf_by_leaf(by))

    def rule(xs, y_bars, *values):
        del xs
        pairs = zip(values, y_bars, strict=True)
        return [jnp.broadcast_to(jnp.asarray(v, bar.dtype), bar.shape) for v, bar in pairs]

    return identity("replace", x, rule, *one_per_leaf("replace", "value", by, x))


@after_default
def zero_nonfinite(x: T) -> T:
    r"""The identity, which puts zero in the place of NaN and infinity.

    $$ y = x, \qquad \bar x_i = \bar y_i \text{ where finite, else } 0 $$

    It hides where a NaN comes from, which `gk.debug.find_nonfinite` tells. There is no forward
    mode.

    Args:
        x: A pytree of floating-point arrays; other leaves are left alone.

    Returns:
        `x`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> print(jax.grad(lambda x: jnp.sum(jnp.sqrt(zero_nonfinite(x))))(jnp.array([0.0, 4.0])))
        [0.   0.25]
    """
    return identity("zero_nonfinite", x, leaf_by_leaf(_finite))


def _finite(y_bar: jax.Array) -> jax.Array:
    return jnp.where(jnp.isfinite(y_bar), y_bar, jnp.zeros_like(y_bar))


def add_noise(x: T, key: jax.Array, stddev: ArrayLike = 1.0) -> T:
    r"""The identity, which adds Gaussian noise to the cotangent.

    $$ y = x, \qquad \bar x = \bar y + \sigma\,\epsilon, \qquad \epsilon \sim \mathcal N(0, 1) $$

    Equal keys give equal noise: split the key for each step of a loop and each example of a
    batch. There is no forward mode.

    Args:
        x: A pytree of floating-point arrays; other leaves are left alone.
        key: A key of `jax.random`.
        stddev: `sigma`; it may be traced. The paper lets its square fall with the step, as
            `eta / (1 + t) ** 0.55`.

    Returns:
        `x`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def gradient(key):
        ...     return jax.grad(lambda x: jnp.sum(add_noise(x, key, 0.1)))(jnp.zeros(10_000))
        >>> print(f"{gradient(jax.random.key(0)).std():.2f}")
        0.10

    Source:
        Neelakantan et al., *Adding Gradient Noise Improves Learning for Very Deep Networks* (2015),
        arXiv:1511.06807, section 3.
    """

    def rule(xs, y_bars, key, stddev):
        del xs
        keys = jax.random.split(key, len(y_bars))
        return [
            y_bar + stddev * jax.random.normal(k, y_bar.shape, widen(y_bar).dtype)
            for k, y_bar in zip(keys, y_bars, strict=True)
        ]

    return identity("add_noise", x, rule, key, stddev)


def penalize(x: T, penalty: Callable[[T], jax.Array], weight: ArrayLike = 1.0) -> T:
    r"""The identity, which adds the gradient of a penalty to the cotangent.

    $$ y = x, \qquad \bar x = \bar y + w\,\nabla p(x) $$

    It is as if `w * p(x)` had been added to a loss, without the loss having to know. It does not
    scale with the loss: where that is multiplied (loss scaling), multiply `weight` too. There is
    no forward mode.

    Args:
        x: A pytree of floating-point arrays; other leaves are left alone.
        penalty: `penalty(x)` returns a real number.
        weight: `w`; it may be traced. It gets no gradient.

    Returns:
        `x`. Where no cotangent arrives, because the value does not matter, there is no penalty.

    Raises:
        RuleError: When differentiated, if the penalty is not one real number.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def loss(x):
        ...     return jnp.sum(penalize(x, lambda x: jnp.sum(x**2), weight=0.5))
        >>> print(jax.grad(loss)(jnp.array([1.0, 3.0])))
        [2. 4.]
    """
    return _penalized("penalize", x, penalty, weight)


def _penalized(name: str, x: T, penalty: Callable[[T], jax.Array], weight: ArrayLike) -> T:
    leaves, structure = jax.tree.flatten(x)
    chosen = differentiable(leaves)

    def rule(xs, y_bars, weight):
        def of(xs):
            full = list(leaves)
            for i, value in zip(chosen, xs, strict=True):
                full[i] = value
            value = penalty(jax.tree.unflatten(structure, full))
            _check_number(value)
            return value

        pairs = zip(jax.grad(of)(xs), y_bars, strict=True)
        return [y_bar + weight * slope for slope, y_bar in pairs]

    return identity(name, x, rule, weight)


def _check_number(value: Any) -> None:
    fits = is_array(value) and jnp.shape(value) == ()
    if not (fits and jnp.issubdtype(jnp.result_type(value), jnp.floating)):
        raise RuleError(
            describe(
                "gk.rules.penalize needs a penalty that is one real number.",
                expected="penalty(x) of type float[]",
                got=describe_type(value),
                fix="reduce it, with jnp.sum or jnp.mean",
            )
        )


def z_loss(x: jax.Array, weight: ArrayLike = 1e-4, axis: int = -1) -> jax.Array:
    r"""The identity on logits, whose cotangent keeps their log-partition near zero.

    $$ y = x, \qquad \bar x = \bar y + w\,\nabla\,\frac1n \sum_{i=1}^n \log^2 Z_i, \qquad
       Z = \sum_j e^{x_j} $$

    `penalize` with the mean over all positions, in float32 or wider.

    Args:
        x: Logits.
        weight: `w`.
        axis: The axis of the classes.

    Returns:
        `x`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x_bar = jax.grad(lambda x: 0 * jnp.sum(z_loss(x)))(jnp.zeros((3, 10)))
        >>> print(f"{x_bar.sum():.3e} = {2e-4 * jnp.log(10):.3e}")
        4.605e-04 = 4.605e-04

    Source:
        Chowdhery et al., *PaLM* (2022), arXiv:2204.02311, section 5.
    """

    def penalty(x):
        return jnp.mean(jax.nn.logsumexp(widen(x), axis=axis) ** 2)

    return _penalized("z_loss", x, penalty, weight)
