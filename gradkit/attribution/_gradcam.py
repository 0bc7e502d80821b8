"""Grad-CAM: where in a layer the evidence is, and its product with guided backpropagation."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradkit._errors import AttributionInputError, describe
from gradkit._trees import describe_type
from gradkit.attribution._guided import guided_backprop
from gradkit.attribution._layer import activation_and_cotangent
from gradkit.attribution._model import Model, fix_target
from gradkit.attribution._target import check_input


def grad_cam(
    model: Model,
    x: Any,
    target: Any = None,
    *,
    layer: Any,
    index: int | None = None,
    channel_axis: int = -1,
    positive: bool = True,
    resize: bool = True,
) -> jax.Array:
    r"""Where in an image a layer sees what speaks for the output.

    $$ \alpha_k = \frac{1}{HW} \sum_{hw} \frac{\partial f}{\partial A_{khw}}, \qquad
       a_{hw} = \max\Bigl(\sum_k \alpha_k A_{khw},\; 0\Bigr) $$

    with $A$ the output of a layer. The model is not edited; activation and cotangent leave it as
    ordinary outputs, so that this can be jitted and vectorised.

    Args:
        model: As for `saliency`.
        x: Real floating-point array `[N, ..., C]`, or without the channels.
        target: As for `saliency`.
        layer: Whose output $A$ is:

            - a module, by its named scopes: `"Conv_1"`, `"encoder/Conv_*"` (flax and equinox set
              them, `jax.named_scope` too);
            - an operation, by a key of an override map: `"Relu"`, `"block2:Relu"`, `jax.nn.relu`;
            - the name of a `gradkit.rules.tap`.
        index: Which, if several values are called so, in the order of the model; -1 is the last.
        channel_axis: The axis of the channels, in the layer and in `x`: -1 in flax, 1 in equinox.
        positive: Whether to cut off what speaks against the output, as the paper does.
        resize: Whether to scale the map up to the image's size, linearly.

    Returns:
        Attribution of places, `[N, ...]`: `x`'s shape without the channel axis, or the layer's if
        `resize` is False. In the layer's dtype.

    Raises:
        OverrideKeyError: If nothing in the model is called so.
        AttributionInputError: If several values are, or the value is not of the shape
            `[N, places, channels]`; if `x` is not a floating-point array, or the target does not
            fit.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def model(image):  # a bright spot (channel 0) is for it, a dark one (1) against it
        ...     features = jax.nn.relu(jnp.concatenate([image, -image], axis=-1))
        ...     return features.mean(axis=(1, 2)) @ jnp.array([8.0, -8.0])
        >>> image = jnp.array([[[0.0, 1.0], [0.0, -1.0]]])[..., None]
        >>> print(grad_cam(model, image, layer="Relu"))
        [[[0. 2.]
          [0. 0.]]]

    Source:
        Selvaraju et al., *Grad-CAM: visual explanations from deep networks via gradient-based
        localization* (2017), equations 1 and 2; arXiv:1610.02391.
    """
    x = check_input(x)
    a, a_bar = activation_and_cotangent(model, x, target, layer, index)
    if a.ndim < 3 or a.shape[0] != x.shape[0]:
        raise AttributionInputError(
            describe(
                f"the layer {layer!r} is not a map of places.",
                expected=f"an output [{x.shape[0]}, places, channels]",
                got=describe_type(a),
                fix="choose a layer before places are averaged or flattened",
            )
        )
    a, a_bar = jnp.moveaxis(a, channel_axis, -1), jnp.moveaxis(a_bar, channel_axis, -1)
    alpha = jnp.mean(a_bar, axis=tuple(range(1, a.ndim - 1)), keepdims=True)
    places = jnp.sum(alpha * a, axis=-1)
    if positive:
        places = jnp.maximum(places, 0)
    if not resize:
        return places
    image = jnp.moveaxis(x, channel_axis, -1).shape[:-1] if x.ndim == a.ndim else x.shape
    if len(image) != places.ndim:
        raise AttributionInputError(
            describe(
                f"the map of the layer {layer!r} cannot be laid over the input.",
                expected="as many axes of places in the layer as in the input",
                got=f"a layer {describe_type(a)}, an input {describe_type(x)}",
                fix="pass resize=False for the layer's own map",
            )
        )
    return jax.image.resize(places, image, "linear")


def guided_grad_cam(
    model: Model,
    x: Any,
    target: Any = None,
    *,
    layer: Any,
    index: int | None = None,
    channel_axis: int = -1,
    relu: Any = "Relu",
) -> jax.Array:
    r"""Guided backpropagation, where Grad-CAM sees evidence.

    $$ a = \text{guided backprop} \odot \text{Grad-CAM} $$

    Args:
        model: As for `grad_cam` and `guided_backprop`, and so the rest.
        x: -
        target: -
        layer: -
        index: -
        channel_axis: -
        relu: -

    Returns:
        Attribution, with `x`'s shape and dtype.

    Raises:
        OverrideKeyError: As for `grad_cam`.
        AttributionInputError: As for `grad_cam` and `guided_backprop`.

    Source:
        Selvaraju et al. (2017), section 3.2; arXiv:1610.02391.
    """
    x = check_input(x)
    target = fix_target(model, x, target)
    places = grad_cam(model, x, target, layer=layer, index=index, channel_axis=channel_axis)
    if places.ndim < x.ndim:
        places = jnp.expand_dims(places, channel_axis)
    return guided_backprop(model, x, target, relu=relu) * places.astype(x.dtype)
