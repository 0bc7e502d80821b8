"""Guided backpropagation and deconvolution: other gradients for the ReLUs of a model."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from gradkit._errors import AttributionInputError, describe
from gradkit._operations import is_called
from gradkit._override import override
from gradkit._registry import Op, Rule
from gradkit._targets import resolve
from gradkit.attribution._model import Model, gradient, hold_fixed, trace


def guided_backprop(model: Model, x: Any, target: Any = None, *, relu: Any = "Relu") -> Any:
    r"""The gradient, which ReLUs let through only where it speaks for the output.

    $$ \bar x = \mathbb{1}[x > 0] \max(\bar y, 0) \qquad \text{at each } y = \mathrm{relu}(x) $$

    The model is not edited: this is `gradkit.override(model, {"Relu": ...})`, and its gradient.

    Args:
        model: As for `saliency`. Its ReLUs are calls of `jax.nn.relu`, which is also
            `flax.linen.relu` and `flax.nnx.relu`.
        x: -
        target: -
        relu: What counts as a ReLU, if that is something else: a key of an override map, or a list
            of them. For a model that writes `jnp.maximum(x, 0)` or `lax.max(x, 0)`, `"max"`; that
            is every maximum of two arrays in the model, so limit it to a named scope
            (`"block*:max"`) where some are no ReLU (flax's layer norm has one).

    Returns:
        Attribution, with `x`'s structure, shapes and dtypes.

    Raises:
        AttributionInputError: If nothing in the model is such a ReLU, `x` is not of floating-point
            arrays, or the target does not fit.
        OverrideKeyError: If `relu` names no operation.

    At the kink:
        At `x = 0` what the operation itself has: `jax.nn.relu` 0, a maximum half.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> model = lambda x: jax.nn.relu(x) @ jnp.array([[3.0], [-2.0], [1.0]])
        >>> x = jnp.array([[1.0, 1.0, -1.0]])
        >>> print(guided_backprop(model, x))  # the gradient is [3, -2, 0]
        [[3. 0. 0.]]

    Source:
        Springenberg et al., *Striving for simplicity: the all convolutional net* (2015), section
        3.4; arXiv:1412.6806.
    """
    return _with_relu(_guided, model, x, target, relu)


def deconvnet(model: Model, x: Any, target: Any = None, *, relu: Any = "Relu") -> Any:
    r"""The gradient, in which ReLUs are applied to it in place of their own derivative.

    $$ \bar x = \max(\bar y, 0) \qquad \text{at each } y = \mathrm{relu}(x) $$

    Args:
        model: As for `guided_backprop`, and so the rest.
        x: -
        target: -
        relu: -

    Returns:
        Attribution, with `x`'s structure, shapes and dtypes.

    Raises:
        AttributionInputError: As for `guided_backprop`.
        OverrideKeyError: If `relu` names no operation.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> model = lambda x: jax.nn.relu(x) @ jnp.array([[3.0], [-2.0]])
        >>> print(deconvnet(model, jnp.array([[-1.0, 1.0]])))  # also where relu is flat
        [[3. 0.]]

    Source:
        Zeiler, Fergus, *Visualizing and understanding convolutional networks* (2014), section 2.1;
        arXiv:1311.2901.
    """
    return _with_relu(_deconvolved, model, x, target, relu)


def _guided(op: Op, y_bar: Any) -> Any:
    return op.default_vjp(jnp.maximum(y_bar, 0))


def _deconvolved(op: Op, y_bar: Any) -> Any:
    clipped = jnp.maximum(y_bar, 0)
    x_bars = tuple(clipped if jnp.shape(x) == clipped.shape else None for x in op.inputs)
    return x_bars[0] if len(x_bars) == 1 else x_bars


def _with_relu(rule: Rule, model: Model, x: Any, target: Any, relu: Any) -> Any:
    model, x = hold_fixed(model, x)
    keys = relu if isinstance(relu, (list, tuple)) else [relu]
    # Not left to the map's own warning: it is about a map's lifetime, which a model may share.
    program, _ = trace(model, x)
    found = [key for key in keys if is_called(program.jaxpr.jaxpr, resolve(key))]
    if not found:
        raise AttributionInputError(
            describe(
                "no ReLU was found in the model, so there is nothing to guide.",
                expected=f"a call of {' or '.join(map(repr, keys))}",
                fix="if the model writes jnp.maximum(x, 0), pass relu='max'; "
                "gradkit.overridable_ops(model, x) lists what it calls",
            )
        )
    return gradient(override(model, dict.fromkeys(found, rule)), x, target)
