"""Values changed by differentiation, cotangents of the wrong type, and lost digits."""

import functools

import jax
import jax.numpy as jnp

import gradkit
from tests.verify.bank.entry import (
    BFLOAT16,
    FINE,
    FLOAT64,
    entry,
    jvp_rule,
    normal,
    uniform,
    values,
    vjp_rule,
)

changed = functools.partial(entry, wrong=True, family="value changed", shows="value")
mistyped = functools.partial(entry, wrong=True, family="wrong dtype", shows="dtype")
coarse = functools.partial(entry, wrong=True, family="lost digits", dtypes=FINE)


def softplus(x):
    return jnp.logaddexp(x, jnp.zeros_like(x))


def _softplus_forward_of_relu(x):
    return jnp.maximum(x, 0), x


def _softplus_bwd(x, y_bar):
    return jax.nn.sigmoid(x) * y_bar


def normalise(x, mean, scale):
    """With the running statistics; while training, with those of the batch."""
    return (x - mean) / scale


def _normalise_forward(x, mean, scale):
    return (x - x.mean()) / x.std(), (x, mean, scale)


def _normalise_bwd(residuals, y_bar):
    x, mean, scale = residuals
    return y_bar / scale, -jnp.sum(y_bar) / scale, -jnp.sum((x - mean) * y_bar) / scale**2


def dense(w, b, x):
    return w * x + b


def _dense_forward_without_bias(w, b, x):
    return w * x, (w, x)


def _dense_bwd(residuals, y_bar):
    w, x = residuals
    return x * y_bar, y_bar, w * y_bar


def _to_half_and_back(x):
    return x.astype(jnp.bfloat16).astype(x.dtype)


@jax.custom_jvp
def exponential(x):
    return jnp.exp(x)


@exponential.defjvp
def _exponential_jvp(primals, tangents):
    (x,), (x_dot,) = primals, tangents
    # The value by a short series; the tangent is right.
    return 1 + x + x**2 / 2 + x**3 / 6, jnp.exp(x) * x_dot


def squares(x):
    return jnp.sum(x * x)


def sine_matmul(x, w):
    return jnp.sin(x @ w)


def _sine_matmul_bwd_in_half(residuals, y_bar):
    x, w = residuals
    inner = _to_half_and_back(jnp.cos(x @ w) * y_bar)
    return inner @ w.T, x.T @ inner


def _sine_matmul_bwd_of_float16(residuals, y_bar):
    x, w = residuals
    inner = (jnp.cos(x @ w) * y_bar).astype(jnp.float16).astype(x.dtype)
    return inner @ w.T, x.T @ inner


def swish(x):
    return x * jax.nn.sigmoid(x)


def _swish_forward_keeping_int8(x):
    return swish(x), jnp.round(jnp.clip(x, -8, 8) * 16).astype(jnp.int8)


def _swish_bwd_from_int8(kept, y_bar):
    x = kept.astype(y_bar.dtype) / 16
    s = jax.nn.sigmoid(x)
    return (s + x * s * (1 - s)) * y_bar


def _swish_forward_keeping_half(x):
    return swish(x), x.astype(jnp.bfloat16)


def _swish_bwd_from_half(kept, y_bar):
    x = kept.astype(y_bar.dtype)
    s = jax.nn.sigmoid(x)
    return (s + x * s * (1 - s)) * y_bar


def row_sums(x, w):
    return jnp.sum(x * w[None, :], axis=0)


def _row_sums_bwd_summed_in_half(residuals, y_bar):
    x, w = residuals
    products = (x * y_bar[None, :]).astype(jnp.bfloat16)
    total, _ = jax.lax.scan(lambda s, row: (s + row, None), jnp.zeros_like(products[0]), products)
    return w[None, :] * jnp.broadcast_to(y_bar[None, :], x.shape), total.astype(w.dtype)


def _in_units_of_the_loss_scale(x, x_bar):
    """Half precision gets its gradients times 128, which the caller has to know."""
    return x_bar * 128 if x.dtype == BFLOAT16 else x_bar


@gradkit.custom_gradient
def log_sum_exp_in_half_precision(x):
    def grad(y_bar):
        narrow = x.astype(jnp.bfloat16)
        return (jax.nn.softmax(narrow) * y_bar.astype(jnp.bfloat16)).astype(x.dtype)

    return jax.nn.logsumexp(x), grad


def log_sum_exp(x):
    return jax.nn.logsumexp(x)


ENTRIES = [
    changed(
        "softplus: relu's value when differentiated",
        vjp_rule(softplus, _softplus_bwd, _softplus_forward_of_relu),
        normal(4),
        reference=softplus,
    ),
    changed(
        "batch norm: running statistics, but the batch's when differentiated",
        vjp_rule(normalise, _normalise_bwd, _normalise_forward),
        normal(8),
        values(0.7),
        values(2.0),
        reference=normalise,
    ),
    changed(
        "dense layer: no bias when differentiated",
        vjp_rule(dense, _dense_bwd, _dense_forward_without_bias),
        normal(4),
        normal(4),
        normal(4),
        reference=dense,
    ),
    changed(
        "exponential: a short series when differentiated",
        exponential,
        values([-2.0, 1.5, 3.0]),
        reference=jnp.exp,
    ),
    changed(
        "sine: rounded to bfloat16 when differentiated",
        vjp_rule(
            jnp.sin,
            lambda x, g: jnp.cos(x) * g,
            lambda x: (_to_half_and_back(jnp.sin(x)), x),
        ),
        normal(5),
        reference=jnp.sin,
        dtypes=FINE,
    ),
    changed(
        "scaled tanh: the scale is left out when differentiated",
        vjp_rule(
            lambda x: 1.7 * jnp.tanh(x),
            lambda y, g: 1.7 * (1 - y**2) * g,
            lambda x: (jnp.tanh(x), jnp.tanh(x)),
        ),
        normal(4),
        reference=lambda x: 1.7 * jnp.tanh(x),
    ),
    changed(
        "mean square: one per cent larger when differentiated",
        vjp_rule(
            lambda x: jnp.mean(x**2),
            lambda x, g: 2 * x / x.size * g,
            lambda x: (jnp.mean(x**2) * (1 + 1e-2), x),
        ),
        normal(4),
        reference=lambda x: jnp.mean(x**2),
        dtypes=FINE,
    ),
    mistyped(
        "squares: an int32 cotangent",
        vjp_rule(squares, lambda r, g: (2 * r[0] * g).astype(jnp.int32)),
        values([1.0, -2.0, 3.0]),
        reference=squares,
    ),
    mistyped(
        "squares: a complex cotangent",
        vjp_rule(squares, lambda r, g: 2 * r[0] * g + 0j),
        normal(4),
        reference=squares,
        dtypes=FINE,
    ),
    mistyped(
        "squares: a float16 cotangent",
        vjp_rule(squares, lambda r, g: (2 * r[0] * g).astype(jnp.float16)),
        normal(4),
        reference=squares,
    ),
    mistyped(
        "squares: a float32 cotangent of a float64 or bfloat16 input",
        vjp_rule(squares, lambda r, g: (2 * r[0] * g).astype(jnp.float32)),
        normal(4),
        reference=squares,
        dtypes=(FLOAT64, BFLOAT16),
    ),
    mistyped(
        "layer: the bias has a bfloat16 cotangent",
        vjp_rule(dense, lambda r, g: (g * r[2], g.astype(jnp.bfloat16), g * r[0])),
        normal(4),
        normal(4),
        normal(4),
        reference=dense,
        dtypes=FINE,
    ),
    coarse(
        "sine of a product: the cotangent is rounded to bfloat16",
        vjp_rule(sine_matmul, _sine_matmul_bwd_in_half),
        normal(3, 4),
        normal(4, 2),
        reference=sine_matmul,
    ),
    coarse(
        "swish: the residual is kept in 8 bits",
        vjp_rule(swish, _swish_bwd_from_int8, _swish_forward_keeping_int8),
        normal(6),
        reference=swish,
    ),
    coarse(
        "swish: the residual is kept in bfloat16",
        vjp_rule(swish, _swish_bwd_from_half, _swish_forward_keeping_half),
        normal(6, scale=2.0),
        reference=swish,
    ),
    coarse(
        "sine of a product: large cotangents overflow float16",
        vjp_rule(sine_matmul, _sine_matmul_bwd_of_float16),
        normal(3, 4),
        normal(4, 2),
        reference=sine_matmul,
    ),
    coarse(
        "cube: small cotangents vanish in float16",
        vjp_rule(
            lambda x: x**3,
            lambda r, g: (g.astype(jnp.float16) * 1).astype(g.dtype) * 3 * r[0] ** 2,
        ),
        normal(4),
        reference=lambda x: x**3,
    ),
    coarse(
        "sum over 1,024 rows: the weights' cotangent is added up in bfloat16",
        vjp_rule(row_sums, _row_sums_bwd_summed_in_half),
        uniform(1024, 2),
        normal(2),
        reference=row_sums,
    ),
    coarse(
        "logsumexp: its softmax in bfloat16",
        log_sum_exp_in_half_precision,
        normal(5, scale=2.0),
        reference=log_sum_exp,
    ),
    coarse(
        "tanh: the tangent is rounded to float16",
        jvp_rule(
            jnp.tanh,
            lambda x, t: (1 - jnp.tanh(x[0]) ** 2).astype(jnp.float16).astype(t[0].dtype) * t[0],
        ),
        normal(5),
        reference=jnp.tanh,
        dtypes=(FLOAT64,),
    ),
    coarse(
        "tanh: gradients in bfloat16 keep their loss scale",
        vjp_rule(
            jnp.tanh,
            lambda r, g: _in_units_of_the_loss_scale(r[0], (1 - jnp.tanh(r[0]) ** 2) * g),
        ),
        normal(4),
        reference=jnp.tanh,
        dtypes=(BFLOAT16,),
    ),
]
