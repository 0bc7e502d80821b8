"""The gradient itself, and its product with the input."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradkit.attribution._model import Model, gradient, hold_fixed


def saliency(model: Model, x: Any, target: Any = None, *, absolute: bool = True) -> Any:
    r"""How strongly the output reacts to every input.

    $$ a = \left| \partial f / \partial x \right| $$

    with $f$ the explained scalar of each example.

    Args:
        model: From a batch `x` to logits `[N, K]` or one scalar per example `[N]`. Parameters are
            closed over: `functools.partial(module.apply, params)`, `jax.vmap(equinox_model)`. No
            example may influence another (batch norm at inference).
        x: Real floating-point array `[N, ...]`, or a pytree of such arrays; of leaves of integers
            or booleans among them, which the model sees as they are, the attribution is None.
        target: The class, an integer or one per example `[N]`; a function from the output to one
            scalar per example; None for the largest logit.
        absolute: Whether to take the magnitude, as the paper does; False keeps the sign.

    Returns:
        Attribution, with `x`'s structure, shapes and dtypes.

    Raises:
        AttributionInputError: If `x` is not of floating-point arrays, or the target does not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> model = lambda x: x @ jnp.array([[1.0, -2.0], [3.0, 5.0]])
        >>> print(saliency(model, jnp.array([[1.0, -1.0]])))  # the logits are [-2, -7]
        [[1. 3.]]

    Source:
        Simonyan, Vedaldi, Zisserman, *Deep inside convolutional networks* (2014), section 3;
        arXiv:1312.6034. Its maps are the largest magnitude over the channels.
    """
    x_bar = gradient(*hold_fixed(model, x), target)
    return jax.tree.map(jnp.abs, x_bar) if absolute else x_bar


def input_x_gradient(model: Model, x: Any, target: Any = None) -> Any:
    r"""The first-order estimate of what every input contributes.

    $$ a = x \odot \partial f / \partial x $$

    For a model that is piecewise linear and has no biases, the attributions of an example sum to
    $f(x)$.

    Args:
        model: As for `saliency`, and so the rest.
        x: -
        target: -

    Returns:
        Attribution, with `x`'s structure, shapes and dtypes.

    Raises:
        AttributionInputError: If `x` is not of floating-point arrays, or the target does not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> model = lambda x: x @ jnp.array([[1.0, -2.0], [3.0, 5.0]])
        >>> print(input_x_gradient(model, jnp.array([[1.0, -1.0]])))
        [[ 1. -3.]]

    Source:
        Shrikumar et al., *Not just a black box* (2016); arXiv:1605.01713.
    """
    model, x = hold_fixed(model, x)
    return jax.tree.map(jnp.multiply, x, gradient(model, x, target))
