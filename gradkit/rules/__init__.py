"""Rules for gradients: what to do with a cotangent on its way through the backward pass.

Functions act where they are called, and most of them serve as values of an override map too:
`gk.rules.sign(x)`, or `{"Sign": gk.rules.sign}` for a model that you did not write.
"""

from gradkit.rules import surrogate
from gradkit.rules._catalogue import CATALOGUE
from gradkit.rules._clipping import (
    clip_adaptive,
    clip_by_global_norm,
    clip_by_norm,
    clip_by_value,
    clip_per_example,
)
from gradkit.rules._hooks import cotangent_norm, on_cotangent, print_cotangent, tap
from gradkit.rules._learned_range import lsq, pact
from gradkit.rules._low_bits import (
    binarize,
    dorefa_activations,
    dorefa_gradients,
    dorefa_weights,
)
from gradkit.rules._quantisation import (
    fake_quantize,
    fake_quantize_affine,
    fake_quantize_symmetric,
)
from gradkit.rules._replacing import add_noise, penalize, replace, z_loss, zero_nonfinite
from gradkit.rules._rounding import (
    ceil,
    clip,
    floor,
    round,  # noqa: A004 - the name of jnp.round
    sign,
    step,
    threshold,
)
from gradkit.rules._sampling import bernoulli, categorical, gumbel_softmax
from gradkit.rules._scaling import mask, normalize, reverse, scale, stop
from gradkit.rules._selections import argmax_one_hot, top_k_mask
from gradkit.rules._straight_through import straight_through
from gradkit.rules._vq import VectorQuantized, vector_quantize

__all__ = [
    "CATALOGUE",
    "VectorQuantized",
    "add_noise",
    "argmax_one_hot",
    "bernoulli",
    "binarize",
    "categorical",
    "ceil",
    "clip",
    "clip_adaptive",
    "clip_by_global_norm",
    "clip_by_norm",
    "clip_by_value",
    "clip_per_example",
    "cotangent_norm",
    "dorefa_activations",
    "dorefa_gradients",
    "dorefa_weights",
    "fake_quantize",
    "fake_quantize_affine",
    "fake_quantize_symmetric",
    "floor",
    "gumbel_softmax",
    "lsq",
    "mask",
    "normalize",
    "on_cotangent",
    "pact",
    "penalize",
    "print_cotangent",
    "replace",
    "reverse",
    "round",
    "scale",
    "sign",
    "step",
    "stop",
    "straight_through",
    "surrogate",
    "tap",
    "threshold",
    "top_k_mask",
    "vector_quantize",
    "z_loss",
    "zero_nonfinite",
]
