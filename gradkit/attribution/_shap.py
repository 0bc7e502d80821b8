"""Gradient SHAP: integrated gradients, in expectation over baselines."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradkit._errors import AttributionInputError, describe
from gradkit._trees import describe_type
from gradkit.attribution._chunks import weighted_sum
from gradkit.attribution._model import (
    Model,
    check_count,
    fix_target,
    gradient,
    hold_fixed,
    matching,
)


def gradient_shap(
    model: Model,
    x: Any,
    target: Any = None,
    *,
    baselines: Any,
    samples: int = 200,
    key: jax.Array | None = None,
    chunk_size: int | None = 8,
) -> Any:
    r"""What every input contributes to the difference between `x` and a set of baselines.

    $$ a = \mathbb{E}_{x_0 \sim D,\; \alpha \sim U(0, 1)}
       \left[ (x - x_0) \odot \frac{\partial f}{\partial x}\bigl(x_0 + \alpha (x - x_0)\bigr)
       \right] $$

    In expectation the attributions of an example sum to $f(x) - \mathbb{E}_{x_0} f(x_0)$; with
    $n$ samples they are off by the order of $1 / \sqrt{n}$. They approach Shapley values if inputs
    are independent of each other and the model is close to linear between them.

    Args:
        model: As for `saliency`.
        x: -
        target: - . None is the largest logit at `x`, for all samples.
        baselines: The background examples $D$, `[M, ...]`: a pytree like `x` with its own number
            of examples. Each sample draws one for each example. Leaves of integers keep the values
            that they have in `x`.
        samples: How many gradients are averaged.
        key: The source of randomness; `jax.random.key(0)` if None. Equal keys, equal results.
        chunk_size: How many of the samples are evaluated together, which bounds the memory; None
            for all.

    Returns:
        Attribution, with `x`'s structure, shapes and dtypes.

    Raises:
        AttributionInputError: If `x` is not of floating-point arrays, the target or the baselines
            do not fit, or `samples` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> model = lambda x: x @ jnp.array([2.0, -1.0])
        >>> background = jnp.array([[1.0, 0.0], [3.0, 0.0]])
        >>> a = gradient_shap(model, jnp.array([[2.0, 5.0]]), baselines=background, samples=1000)
        >>> print(jnp.abs(a - jnp.array([[0.0, -5.0]])) < 0.2)
        [[ True  True]]

    Source:
        Erion et al., *Improving performance of deep learning models with axiomatic attribution
        priors and expected gradients* (2021), equation 3; arXiv:1906.10670. Lundberg, Lee, *A
        unified approach to interpreting model predictions* (2017).
    """
    model, x = hold_fixed(model, x)
    background = _check_baselines(x, baselines)
    n = check_count(samples, "samples")
    target = fix_target(model, x, target)
    examples = jax.tree.leaves(x)[0].shape[0]
    known = jax.tree.leaves(background)[0].shape[0]

    def sample(key: Any) -> Any:
        which, where = jax.random.split(key)
        at = jax.random.randint(which, (examples,), 0, known)
        alpha = jax.random.uniform(where, (examples,))
        x_0 = jax.tree.map(lambda b: b[at], background)
        change = jax.tree.map(jnp.subtract, x, x_0)
        point = jax.tree.map(lambda a, d: a + _column(alpha, d) * d, x_0, change)
        return jax.tree.map(jnp.multiply, change, gradient(model, point, target))

    keys = jax.random.split(jax.random.key(0) if key is None else key, n)
    mean = weighted_sum(sample, keys, jnp.full(n, 1 / n), chunk_size)
    return jax.tree.map(lambda a, x: a.astype(x.dtype), mean, x)


def _column(alpha: Any, like: Any) -> Any:
    """One number per example, in the rank and dtype of `like`."""
    return alpha.astype(like.dtype).reshape(-1, *[1] * (like.ndim - 1))


def _check_baselines(x: Any, baselines: Any) -> Any:
    background = matching(x, baselines)
    pairs = [] if background is None else _pairs(background, x)
    if pairs and all(jnp.shape(b)[1:] == a.shape[1:] and jnp.ndim(b) == a.ndim for b, a in pairs):
        cast = jax.tree.map(lambda b, a: jnp.asarray(b, a.dtype), background, x)
        return hold_fixed(lambda x: x, cast)[1]
    raise AttributionInputError(
        describe(
            "the baselines are not examples like those of the input.",
            expected=", ".join(
                f"{a.dtype.name}[{', '.join(map(str, ('M', *a.shape[1:])))}]"
                for a in jax.tree.leaves(x)
            ),
            got=", ".join(map(describe_type, jax.tree.leaves(baselines))) or "nothing",
            fix="for one baseline alone: baseline[None]",
        )
    )


def _pairs(a: Any, b: Any) -> list[tuple[Any, Any]]:
    return list(zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
