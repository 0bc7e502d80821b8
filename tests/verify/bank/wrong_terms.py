"""Rules that lack a term of a product, or a factor of the chain rule."""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

import gradkit
from tests.verify.bank.entry import (
    FINE,
    entry,
    jvp_rule,
    normal,
    registered,
    uniform,
    values,
    vjp_rule,
    well_conditioned,
)

wrong = functools.partial(entry, wrong=True, family="dropped term")


def softmax(x):
    return jax.nn.softmax(x, axis=-1)


def _softmax_bwd_of_diagonal(residuals, y_bar):
    y = softmax(residuals[0])
    return y * (1 - y) * y_bar


def layer_norm(x):
    centred = x - x.mean(-1, keepdims=True)
    return centred * lax.rsqrt(jnp.mean(centred**2, -1, keepdims=True) + 1e-5)


def _layer_norm_bwd_of_fixed_variance(residuals, y_bar):
    (x,) = residuals
    rstd = lax.rsqrt(jnp.var(x, -1, keepdims=True) + 1e-5)
    return rstd * (y_bar - y_bar.mean(-1, keepdims=True))


def _layer_norm_bwd_of_fixed_mean(residuals, y_bar):
    (x,) = residuals
    rstd = lax.rsqrt(jnp.var(x, -1, keepdims=True) + 1e-5)
    y = layer_norm(x)
    return rstd * (y_bar - y * jnp.mean(y * y_bar, -1, keepdims=True))


def rms_norm(x, gain):
    return x * lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-6) * gain[None, :]


@gradkit.custom_gradient
def rms_norm_of_fixed_scale(x, gain):
    rms = lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-6)

    def grad(y_bar):
        return y_bar * gain[None, :] * rms, jnp.sum(y_bar * x * rms, axis=0)

    return rms_norm(x, gain), grad


def log_softmax(x):
    return jax.nn.log_softmax(x, axis=-1)


def modulated_sine(x):
    return x * jnp.sin(3 * x)


def swish(x):
    return x * jax.nn.sigmoid(x)


def gelu(x):
    return jax.nn.gelu(x, approximate=True)


def _gelu_tangent_without_cubic(primals, tangents):
    (x,), (x_dot,) = primals, tangents
    c = math.sqrt(2 / math.pi)
    t = jnp.tanh(c * (x + 0.044715 * x**3))
    return (0.5 * (1 + t) + 0.5 * x * (1 - t**2) * c) * x_dot


def quadratic_form(x, a):
    return jnp.einsum("i,ij,j->", x, a, x)


def unit_vector(x):
    return x / jnp.linalg.norm(x)


def weight_norm(v, gain):
    return gain * v / jnp.linalg.norm(v)


def _weight_norm_gradient(op, y_bar):
    v, gain = op.inputs
    norm = jnp.linalg.norm(v)
    return gain * y_bar / norm, jnp.sum(y_bar * v) / norm


def recurrence(h, xs):
    def step(h, x):
        return jnp.tanh(0.9 * h + x), None

    return lax.scan(step, h, xs)[0]


def _recurrence_bwd_of_last_step(residuals, h_bar):
    h, xs = residuals
    before_last = recurrence(h, xs[:-1])
    slope = (1 - jnp.tanh(0.9 * before_last + xs[-1]) ** 2) * h_bar
    return jnp.zeros_like(h) + 0.9 * slope, jnp.zeros_like(xs).at[-1].set(slope)


def cumulative_product(x):
    return jnp.cumprod(x)


def _cumulative_product_bwd_of_own_factor(residuals, y_bar):
    (x,) = residuals
    return jnp.cumprod(x) / x * y_bar


def _cosine_step(theta, z):
    return jnp.cos(theta * z)


def fixed_point(theta):
    return lax.fori_loop(0, 200, lambda _, z: _cosine_step(theta, z), jnp.full_like(theta, 0.7))


def fixed_point_unrolled(theta):
    z = jnp.full_like(theta, 0.7)
    return lax.scan(lambda z, _: (_cosine_step(theta, z), None), z, None, length=200)[0]


def _fixed_point_bwd_without_inverse(residuals, z_bar):
    (theta,) = residuals
    z = fixed_point(theta)
    return -z * jnp.sin(theta * z) * z_bar


def attention(q, k, v):
    return softmax(q @ k.T / math.sqrt(q.shape[1])) @ v


def _attention_bwd_of_independent_weights(residuals, y_bar):
    q, k, v = residuals
    scale = 1 / math.sqrt(q.shape[1])
    weights = softmax(q @ k.T * scale)
    # The softmax couples the keys; this treats it as an exponential of each.
    scores_bar = weights * (y_bar @ v.T)
    return scores_bar @ k * scale, scores_bar.T @ q * scale, weights.T @ y_bar


def matrix_exponential(a):
    return jax.scipy.linalg.expm(a)


def gated_linear_unit(x, gate):
    return x * jax.nn.sigmoid(gate)


def _gated_linear_unit_bwd(residuals, y_bar):
    _, gate = residuals
    s = jax.nn.sigmoid(gate)
    return s * y_bar, s * (1 - s) * y_bar


def tempered_entropy(logits, temperature):
    log_p = log_softmax(logits / temperature)
    return -jnp.sum(jnp.exp(log_p) * log_p)


def _tempered_entropy_bwd(residuals, y_bar):
    logits, temperature = residuals
    _, pull = jax.vjp(
        lambda z: tempered_entropy(z, jnp.ones_like(temperature)), logits / temperature
    )
    (z_bar,) = pull(y_bar)
    return z_bar / temperature, -jnp.sum(z_bar * logits) / temperature


def soft_cap(x):
    return 5 * jnp.tanh(x / 5)


def residual_block(x, w):
    return x + jnp.tanh(x @ w)


@gradkit.custom_gradient
def residual_block_without_skip(x, w):
    y = jnp.tanh(x @ w)

    def grad(y_bar):
        inner = (1 - y**2) * y_bar
        return inner @ w.T, x.T @ inner

    return x + y, grad


def log_determinant(a):
    return jnp.linalg.slogdet(a)[1]


def mlp(params, x):
    hidden = jnp.tanh(x @ params["w1"])
    return hidden @ params["w2"]


def _mlp_bwd_without_activation(residuals, y_bar):
    params, x = residuals
    hidden = jnp.tanh(x @ params["w1"])
    hidden_bar = y_bar @ params["w2"].T
    return {"w1": x.T @ hidden_bar, "w2": hidden.T @ y_bar}, hidden_bar @ params["w1"].T


ENTRIES = [
    wrong(
        "softmax: only the diagonal of its Jacobian",
        vjp_rule(softmax, _softmax_bwd_of_diagonal),
        normal(3, 5),
        reference=softmax,
    ),
    wrong(
        "layer norm: the path through the variance is dropped",
        vjp_rule(layer_norm, _layer_norm_bwd_of_fixed_variance),
        normal(3, 6),
        reference=layer_norm,
    ),
    wrong(
        "layer norm: the path through the mean is dropped",
        vjp_rule(layer_norm, _layer_norm_bwd_of_fixed_mean),
        normal(3, 6),
        reference=layer_norm,
    ),
    wrong(
        "RMS norm: the scale counts as a constant",
        rms_norm_of_fixed_scale,
        normal(4, 6),
        normal(6, shift=1.0, scale=0.1),
        reference=rms_norm,
    ),
    wrong(
        "log-softmax: the sum of the cotangents is dropped",
        vjp_rule(log_softmax, lambda r, g: g),
        normal(2, 5),
        reference=log_softmax,
    ),
    wrong(
        "x sin 3x: the chain rule's 3 and the product rule's first term",
        jvp_rule(modulated_sine, lambda x, t: x[0] * jnp.cos(3 * x[0]) * t[0]),
        normal(3),
        reference=modulated_sine,
    ),
    wrong(
        "swish: only the sigmoid's share of the product",
        registered("BankSwish", swish, lambda op, g: jax.nn.sigmoid(op.inputs[0]) * g),
        normal(5, scale=2.0),
        reference=swish,
    ),
    wrong(
        "gelu: the cubic term of tanh's argument is not differentiated",
        jvp_rule(gelu, _gelu_tangent_without_cubic),
        normal(6, scale=1.5),
        reference=gelu,
        dtypes=FINE,
    ),
    wrong(
        "quadratic form: A counts as symmetric",
        vjp_rule(quadratic_form, lambda r, g: (2 * r[1] @ r[0] * g, jnp.outer(r[0], r[0]) * g)),
        normal(4),
        normal(4, 4),
        reference=quadratic_form,
    ),
    wrong(
        "unit vector: the projection is dropped",
        vjp_rule(unit_vector, lambda r, g: g / jnp.linalg.norm(r[0])),
        normal(4),
        reference=unit_vector,
    ),
    wrong(
        "weight norm: the direction's gradient is not projected",
        registered("BankWeightNorm", weight_norm, _weight_norm_gradient),
        normal(5),
        values(1.3),
        reference=weight_norm,
    ),
    wrong(
        "recurrence: backpropagated through its last step only",
        vjp_rule(recurrence, _recurrence_bwd_of_last_step),
        normal(2),
        normal(6, 2),
        reference=recurrence,
    ),
    wrong(
        "cumulative product: later products are left out",
        vjp_rule(cumulative_product, _cumulative_product_bwd_of_own_factor),
        uniform(6, low=0.5, high=1.5),
        reference=cumulative_product,
    ),
    wrong(
        "fixed point: one step instead of the implicit function theorem",
        vjp_rule(fixed_point, _fixed_point_bwd_without_inverse),
        values([0.6, 0.9]),
        reference=fixed_point_unrolled,
        dtypes=FINE,
    ),
    wrong(
        "attention: the softmax counts as an exponential",
        vjp_rule(attention, _attention_bwd_of_independent_weights),
        normal(3, 4),
        normal(5, 4),
        normal(5, 2),
        reference=attention,
    ),
    wrong(
        "matrix exponential: as if direction and matrix commuted",
        vjp_rule(matrix_exponential, lambda r, g: matrix_exponential(r[0]).T @ g),
        normal(3, 3),
        reference=matrix_exponential,
        dtypes=FINE,
    ),
    wrong(
        "gated linear unit: the gate's gradient lacks x",
        vjp_rule(gated_linear_unit, _gated_linear_unit_bwd),
        normal(6),
        normal(6),
        reference=gated_linear_unit,
    ),
    wrong(
        "entropy at a temperature: 1 / T instead of 1 / T^2",
        vjp_rule(tempered_entropy, _tempered_entropy_bwd),
        normal(5),
        values(2.5),
        reference=tempered_entropy,
    ),
    wrong(
        "soft cap of logits: passed through below the cap",
        vjp_rule(soft_cap, lambda r, g: jnp.where(jnp.abs(r[0]) < 5, g, 0)),
        normal(5, scale=6.0),
        reference=soft_cap,
    ),
    wrong(
        "residual block: the skip connection is forgotten",
        residual_block_without_skip,
        normal(3, 4),
        normal(4, 4, scale=0.5),
        reference=residual_block,
    ),
    wrong(
        "log-determinant: only the diagonal of the inverse",
        vjp_rule(log_determinant, lambda r, g: jnp.diag(1 / jnp.diag(r[0])) * g),
        well_conditioned(4),
        reference=log_determinant,
        dtypes=FINE,
    ),
    wrong(
        "two-layer network: the activation's slope is left out",
        vjp_rule(mlp, _mlp_bwd_without_activation),
        {"w1": normal(4, 6), "w2": normal(6, 2)},
        normal(3, 4),
        reference=mlp,
    ),
]
