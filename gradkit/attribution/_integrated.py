"""Integrated gradients: the gradient along the way from a baseline."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._errors import AttributionInputError, describe
from gradkit.attribution._chunks import weighted_sum
from gradkit.attribution._model import (
    Model,
    check_count,
    explained,
    fix_target,
    gradient,
    hold_fixed,
    like,
)


class Integrated(NamedTuple):
    r"""What `integrated_gradients` returns.

    Attributes:
        attribution: The attribution, with the input's structure, shapes and dtypes.
        error: $\sum a - (f(x) - f(x_0))$ per example, `[N]`: how far the quadrature (and float
            rounding) is from completeness.
    """

    attribution: Any
    error: jax.Array


def integrated_gradients(
    model: Model,
    x: Any,
    target: Any = None,
    *,
    baseline: Any = 0.0,
    steps: int = 50,
    quadrature: Literal["gauss_legendre", "trapezoid"] = "gauss_legendre",
    chunk_size: int | None = 8,
) -> Integrated:
    r"""What every input contributes to the difference between `x` and a baseline.

    $$ a = (x - x_0) \odot \int_0^1
       \frac{\partial f}{\partial x}\bigl(x_0 + \alpha (x - x_0)\bigr)\, d\alpha $$

    The attributions of an example sum to $f(x) - f(x_0)$ (completeness), as closely as the
    quadrature is exact; the `error` that is returned says how closely.

    Args:
        model: As for `saliency`.
        x: -
        target: - . None is the largest logit at `x`, all along the way.
        baseline: $x_0$; one for all of `x`, or a pytree of its structure. Broadcasts.
        steps: How many gradients are taken.
        quadrature: `"gauss_legendre"`, exact for polynomials of degree below `2 * steps`, or
            `"trapezoid"`, at equal distances with both ends.
        chunk_size: How many of the steps are evaluated together, which bounds the memory; None
            for all.

    Returns:
        `(attribution, error)`.

    Raises:
        AttributionInputError: If `x` is not of floating-point arrays, the target or the baseline
            does not fit, or there are too few steps.

    Example:
        >>> import jax.numpy as jnp
        >>> model = lambda x: x[:, 0] * x[:, 1] ** 2
        >>> a, error = integrated_gradients(model, jnp.array([[3.0, 2.0]]))
        >>> print(a.round(4), jnp.abs(error) < 1e-5)  # of f = 12, a third and two thirds
        [[4. 8.]] [ True]

    Source:
        Sundararajan, Taly, Yan, *Axiomatic attribution for deep networks* (2017), equation 1;
        arXiv:1703.01365.
    """
    model, x = hold_fixed(model, x)
    x_0 = like(x, baseline, "baseline")
    nodes, weights = _quadrature(quadrature, check_count(steps, "steps"))
    target = fix_target(model, x, target)
    change = jax.tree.map(jnp.subtract, x, x_0)

    def slope(alpha: Any) -> Any:
        point = jax.tree.map(lambda a, d: a + alpha.astype(a.dtype) * d, x_0, change)
        return gradient(model, point, target)

    wide = jnp.result_type(jnp.float32, *jax.tree.leaves(x))
    mean = weighted_sum(slope, jnp.asarray(nodes, wide), jnp.asarray(weights, wide), chunk_size)
    contributions = jax.tree.map(lambda d, g: d.astype(g.dtype) * g, change, mean)
    total = sum(_per_example(leaf) for leaf in jax.tree.leaves(contributions))
    difference = explained(model(x), target) - explained(model(x_0), target)
    attribution = jax.tree.map(lambda a, x: a.astype(x.dtype), contributions, x)
    return Integrated(attribution, total - difference)


def _per_example(a: Any) -> jax.Array:
    return jnp.sum(a.reshape(a.shape[0], -1), axis=1)


def _quadrature(name: str, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes in [0, 1] and their weights."""
    if name == "gauss_legendre":
        nodes, weights = np.polynomial.legendre.leggauss(steps)
        return (nodes + 1) / 2, weights / 2
    if name == "trapezoid" and steps > 1:
        weights = np.full(steps, 1 / (steps - 1))
        weights[[0, -1]] /= 2
        return np.linspace(0, 1, steps), weights
    raise AttributionInputError(
        describe(
            "there is no such quadrature.",
            expected='"gauss_legendre", or "trapezoid" with two steps or more',
            got=f"{name!r} with {steps} steps",
        )
    )
