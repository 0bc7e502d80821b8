"""Grad-CAM: where in a layer the evidence is, and its product with guided backpropagation."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradkit._errors import AttributionInputError, describe
from gradkit._trees import describe_aval, describe_type
from gradkit.attribution._guided import guided_backprop
from gradkit.attribution._layer import activation_and_cotangent
from gradkit.attribution._model import Model, fix_target, hold_fixed


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
        x: Real floating-point array `[N, ..., C]`, or without the channels; or a pytree with one.
        target: As for `saliency`.
        layer: Whose output $A$ is (inside a `scan`, of each step):

            - a module, by its named scopes: `"Conv_1"`, `"encoder/Conv_*"` (flax and equinox set
              them, `jax.named_scope` too);
            - an operation, by a key of an override map: `"Relu"`, `"block2:Relu"`, `jax.nn.relu`;
            - the name of a `gradkit.rules.tap`.
        index: Which, if several values are called so, in the order of the model; -1 is the last.
        channel_axis: The axis of the channels, in the layer and in `x`: -1 in flax, 1 in equinox.
        positive: Whether to cut off what speaks against the output, as the paper does.
        resize: Whether to scale the map up to the image's size, linearly.

    Returns:
        Attribution of places, `[N, ...]`: the image's shape without the channel axis, or the
        layer's if `resize` is False. In the layer's dtype. For a layer inside a `scan` one map a
        step, stacked along the front; for one in the branch of a `cond` that is not taken, zeros.

    Raises:
        OverrideKeyError: If nothing in the model is called so.
        AttributionInputError: If several values are, or the value is not of the shape
            `[N, places, channels]`; if `x` is not of floating-point arrays, or the target does not
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
    model, x = hold_fixed(model, x)
    return _maps(model, x, target, layer, index, channel_axis, positive, resize)[0]


def _maps(
    model: Model,
    x: Any,
    target: Any,
    layer: Any,
    index: int | None,
    channel_axis: int,
    positive: bool = True,
    resize: bool = True,
) -> tuple[jax.Array, int]:
    """Grad-CAM, and how many of its leading axes are loops."""
    examples = jax.tree.leaves(x)[0].shape[0]
    a, a_bar, loops = activation_and_cotangent(model, x, target, layer, index)
    own = jax.ShapeDtypeStruct(a.shape[loops:], a.dtype)
    if len(own.shape) < 3 or own.shape[0] != examples:
        raise AttributionInputError(
            describe(
                f"the layer {layer!r} is not a map of places.",
                expected=f"an output [{examples}, places, channels]",
                got=describe_aval(own),
                fix="choose a layer before places are averaged or flattened",
            )
        )
    image = _image(x, own, channel_axis, layer) if resize else None

    def places(a: jax.Array, a_bar: jax.Array) -> jax.Array:
        a, a_bar = jnp.moveaxis(a, channel_axis, -1), jnp.moveaxis(a_bar, channel_axis, -1)
        alpha = jnp.mean(a_bar, axis=tuple(range(1, a.ndim - 1)), keepdims=True)
        weighted = jnp.sum(alpha * a, axis=-1)
        if positive:
            weighted = jnp.maximum(weighted, 0)
        return weighted if image is None else jax.image.resize(weighted, image, "linear")

    for _ in range(loops):
        places = jax.vmap(places)
    return places(a, a_bar), loops


def _image(x: Any, layer_type: Any, channel_axis: int, layer: Any) -> tuple[int, ...]:
    """The places of the image among the inputs that a layer's map is laid over."""
    ndim = len(layer_type.shape)
    leaves = jax.tree.leaves(x)
    for image in (
        *[jnp.moveaxis(leaf, channel_axis, -1).shape[:-1] for leaf in leaves if leaf.ndim == ndim],
        *[leaf.shape for leaf in leaves if leaf.ndim == ndim - 1],
    ):
        return image
    raise AttributionInputError(
        describe(
            f"the map of the layer {layer!r} cannot be laid over the input.",
            expected="as many axes of places in the layer as in the input",
            got=f"a layer {describe_aval(layer_type)}, an input "
            + ", ".join(map(describe_type, leaves)),
            fix="pass resize=False for the layer's own map",
        )
    )


def guided_grad_cam(
    model: Model,
    x: Any,
    target: Any = None,
    *,
    layer: Any,
    index: int | None = None,
    channel_axis: int = -1,
    relu: Any = "Relu",
) -> Any:
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
        Attribution, with `x`'s structure, shapes and dtypes, stacked like the maps for a layer
        inside a `scan`; None for inputs that the map cannot be laid over.

    Raises:
        OverrideKeyError: As for `grad_cam`.
        AttributionInputError: As for `grad_cam` and `guided_backprop`.

    Source:
        Selvaraju et al. (2017), section 3.2; arXiv:1610.02391.
    """
    model, x = hold_fixed(model, x)
    target = fix_target(model, x, target)
    places, loops = _maps(model, x, target, layer, index, channel_axis)
    guided = guided_backprop(model, x, target, relu=relu)
    return jax.tree.map(lambda g: _times(g, places, loops, channel_axis), guided)


def _times(g: jax.Array, places: jax.Array, loops: int, channel_axis: int) -> jax.Array | None:
    """The product with an input's attribution, or None if the map is of another image."""
    image = places.shape[loops:]
    stacked = g[(None,) * loops]
    if g.ndim == len(image) + 1:
        channels_last = jnp.moveaxis(stacked, channel_axis % g.ndim + loops, -1)
        if channels_last.shape[loops:-1] == image:
            product = channels_last * places[..., None].astype(g.dtype)
            return jnp.moveaxis(product, -1, channel_axis % g.ndim + loops)
    return stacked * places.astype(g.dtype) if g.shape == image else None
