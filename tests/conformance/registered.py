"""The gradients that TensorFlow's recordings register, translated rule by rule.

What differs is JAX: attributes are those of the primitive, sizes and axes are attributes and not
inputs, and a bias arrives with the rank of what it is added to.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax


def times_10(op, y_bar):
    return y_bar * 10.0


def times_100(op, y_bar):
    return y_bar * 100.0


def times_1000_both(op, y_bar):
    return y_bar * 1000.0, y_bar * 2000.0


def none(op, y_bar):
    return None


def cube(op, y_bar):
    return y_bar * 5.0 * op.inputs[0] ** 2


def times_output(op, y_bar):
    return y_bar * op.outputs[0]


def pass_through(op, y_bar):
    return y_bar


def negated_half(op, y_bar):
    return -0.5 * y_bar


def constant_1000(op, y_bar):
    return [jnp.full_like(x, 1000.0) for x in op.inputs]


def guided_relu(op, y_bar):
    return jnp.where((y_bar > 0) & (op.outputs[0] > 0), y_bar, 0)


def deconvolution_relu(op, y_bar):
    return jnp.maximum(y_bar, 0)


def redirected_relu(op, y_bar):
    """Block what would push a negative pre-activation further down."""
    return jnp.where((op.inputs[0] < 0) & (y_bar > 0), 0, y_bar)


def capped_exp(op, y_bar):
    return y_bar * jnp.minimum(op.outputs[0], 1)


def hard_tanh_sign(op, y_bar):
    return y_bar * (jnp.abs(op.inputs[0]) <= 1)


def linear_tanh(op, y_bar):
    return y_bar * (1 - jnp.abs(op.outputs[0]))


def softplus_step(op, y_bar):
    return y_bar * (op.inputs[0] > 0)


def masked_matmul(op, y_bar):
    a, b = op.inputs
    assert op.get_attr("dimension_numbers") == (((1,), (0,)), ((), ()))
    mask = jnp.abs(b) > 0.5
    return y_bar @ (b * mask).T, (a.T @ y_bar) * mask


def max_pool_as_average(op, y_bar):
    """The backward pass of an average pool."""
    window, strides = op.get_attr("window_dimensions"), op.get_attr("window_strides")

    def average_pool(x):
        total = lax.reduce_window(x, 0.0, lax.add, window, strides, op.get_attr("padding"))
        return total / math.prod(window)

    (x,) = op.inputs
    return jax.vjp(average_pool, x)[1](y_bar)


def weighted_split(op, *y_bars):
    parts = [y_bar * (i + 1) for i, y_bar in enumerate(y_bars)]
    return jnp.concatenate(parts, op.get_attr("axis"))


def spread_top_k(op, values_bar, indices_bar):
    """Spread the cotangent of the k values evenly over the row."""
    assert indices_bar.dtype == jax.dtypes.float0
    (x,) = op.inputs
    return jnp.broadcast_to(values_bar.sum(-1, keepdims=True) / x.shape[-1], x.shape)


def singular_values_only(op, s_bar, u_bar, vh_bar):
    _, u, vh = op.outputs  # TensorFlow's third output is v, JAX's its adjoint
    return (u * s_bar[..., None, :]) @ vh


def scaled_bias(op, y_bar):
    sizes = zip(op.inputs[1].shape, y_bar.shape, strict=True)
    stretched = tuple(axis for axis, (size, full) in enumerate(sizes) if size != full)
    return y_bar, 3.0 * y_bar.sum(stretched, keepdims=True)


def first_factor_only(op, y_bar):
    return y_bar * op.inputs[1], None


def doubled_without_kernel(op, y_bar):
    x_bar, _ = op.default_vjp(y_bar)
    return 2.0 * x_bar, jnp.zeros_like(op.inputs[1])


def one_too_many(op, y_bar):
    return y_bar, y_bar


def wrong_shape(op, y_bar):
    return jnp.ones(5)


def cosine(op, y_bar):
    return y_bar * jnp.cos(op.inputs[0])


RULES = {
    "CzTimes10": times_10,
    "CzTimes100": times_100,
    "CzTimes1000Both": times_1000_both,
    "CzNone": none,
    "CzCube": cube,
    "CzOut": times_output,
    "CzGuidedRelu": guided_relu,
    "CzDeconvRelu": deconvolution_relu,
    "CzRedirectRelu": redirected_relu,
    "CzExpOne": pass_through,
    "CzExpFromOutput": capped_exp,
    "CzSignHardTanh": hard_tanh_sign,
    "CzTanhLinear": linear_tanh,
    "CzMatMulMasked": masked_matmul,
    "CzMaxPoolAvg": max_pool_as_average,
    "CzSoftplusStep": softplus_step,
    "CzIdentityNeg": negated_half,
    "CzSplit": weighted_split,
    "CzTopK": spread_top_k,
    "CzSvd": singular_values_only,
    "CzPass": pass_through,
    "CzBiasScaled": scaled_bias,
    "CzMulFirstOnly": first_factor_only,
    "CzConvNoFilterGrad": doubled_without_kernel,
    "CzConst1000": constant_1000,
    "CzWrongCount": one_too_many,
    "CzWrongShape": wrong_shape,
    "CzPyFuncCos": cosine,
}

NOT_DIFFERENTIABLE = ("CzNotDiff",)
