"""stop_gradient on purpose, surrogates and maps of the cotangent, second order."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

import gradkit
from tests.verify.bank.entry import (
    FINE,
    FLOAT64,
    entry,
    jvp_rule,
    normal,
    registered,
    uniform,
    values,
    vjp_rule,
)

stopped = functools.partial(entry, wrong=False, family="stop_gradient on purpose")
surrogate = functools.partial(entry, wrong=False, family="surrogate")
mapped = functools.partial(entry, wrong=False, family="cotangent map")
second = functools.partial(entry, wrong=False, family="second order", options={"order": 2})


def round_straight_through(x):
    return x + lax.stop_gradient(jnp.round(x) - x)


def bootstrap_loss(params, reward):
    """Temporal difference with a detached target."""
    value, following = jnp.tanh(params["w"]), jnp.tanh(params["v"])
    target = lax.stop_gradient(reward + 0.9 * following)
    return jnp.mean((value - target) ** 2)


def moving_average(mean, x):
    return 0.99 * lax.stop_gradient(mean) + 0.01 * x


def self_distillation(x, w):
    teacher = lax.stop_gradient(jax.nn.softmax(x))
    return -jnp.sum(teacher * jax.nn.log_softmax(w * x))


def score_function(logits, reward):
    """REINFORCE: the probability as a weight is detached."""
    log_p = jax.nn.log_softmax(logits)
    return jnp.sum(lax.stop_gradient(jnp.exp(log_p)) * log_p * reward)


def commitment_loss(z, codebook):
    distances = jnp.sum((z[None, :] - codebook) ** 2, axis=1)
    code = codebook[jnp.argmin(distances)]
    return jnp.sum((lax.stop_gradient(z) - code) ** 2) + 0.25 * jnp.sum(
        (z - lax.stop_gradient(code)) ** 2
    )


def shifted_by_own_maximum(x):
    """The shift has no effect on the value, and none on the gradient."""
    shift = lax.stop_gradient(jnp.max(x))
    return jnp.log(jnp.sum(jnp.exp(x - shift))) + shift


def detached_norm(x):
    return x / lax.stop_gradient(jnp.sqrt(jnp.sum(x**2)))


# --- surrogates


def hard_tanh(x):
    return jnp.clip(x, -1, 1)


def heaviside(x):
    return (x > 0).astype(x.dtype)


def fast_sigmoid(x):
    return x / (1 + jnp.abs(x))


def _fast_sigmoid_slope(x):
    return 1 / (1 + jnp.abs(x)) ** 2


def fake_quantise(x):
    return jnp.clip(jnp.round(4 * x), -8, 7) / 4


def within_quantisation_range(x):
    return jnp.clip(x, -2, 1.75)


def top_two(x):
    threshold = jnp.sort(x)[-2]
    return jnp.where(x >= threshold, x, 0)


def hard_sample(logits):
    return jax.nn.one_hot(jnp.argmax(logits), logits.size, dtype=logits.dtype)


def soft_sample(logits):
    return jax.nn.softmax(logits)


# --- cotangent maps


def tanh_layer(x):
    return jnp.tanh(2 * x)


def _tanh_layer_slope(x):
    return 2 * (1 - jnp.tanh(2 * x) ** 2)


def clip_to_one(y_bar):
    return jnp.clip(y_bar, -1, 1)


def clip_by_norm(y_bar):
    norm = jnp.sqrt(jnp.sum(y_bar**2))
    return y_bar / jnp.maximum(norm, 1).astype(y_bar.dtype)


def identity(x):
    return x * 1


# --- second order


@jax.custom_jvp
def softplus(x):
    return jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


softplus.defjvps(lambda x_dot, y, x: jax.nn.sigmoid(x) * x_dot)


@jax.custom_jvp
def log_sum_exp(x):
    shift = jnp.max(x)
    return jnp.log(jnp.sum(jnp.exp(x - shift))) + shift


@log_sum_exp.defjvp
def _log_sum_exp_jvp(primals, tangents):
    (x,), (x_dot,) = primals, tangents
    y = log_sum_exp(x)
    return y, jnp.sum(jnp.exp(x - y) * x_dot)


@gradkit.custom_gradient
def reciprocal(x):
    return 1 / x, lambda y_bar: -(reciprocal(x) ** 2) * y_bar


@gradkit.custom_gradient
def exponential(x):
    y = jnp.exp(x)
    return y, lambda y_bar: exponential(x) * y_bar


def cubic_form(x, y):
    return jnp.sum(x**2 * y)


def quadratic(a, x):
    return 0.5 * x @ a @ x


def perceptron(w, x):
    return jnp.sum(jnp.tanh(w @ x) ** 2)


ENTRIES = [
    stopped("rounding by x + stop_gradient(round(x) - x)", round_straight_through, normal(4)),
    stopped(
        "temporal difference with a detached target",
        bootstrap_loss,
        {"w": normal(3), "v": normal(3)},
        normal(3),
    ),
    stopped("moving average with a detached mean", moving_average, normal(3), normal(3)),
    stopped("distillation from a detached teacher", self_distillation, normal(4), normal(4)),
    stopped("score function with detached probabilities", score_function, normal(4), normal(4)),
    stopped("commitment loss of a codebook", commitment_loss, normal(3), normal(5, 3)),
    stopped("logsumexp shifted by its detached maximum", shifted_by_own_maximum, normal(4)),
    stopped("vector over its detached norm", detached_norm, normal(4)),
    stopped("everything detached", lambda x: lax.stop_gradient(x**2) + 0 * x, normal(3)),
    stopped(
        "detached inside a jitted function",
        jax.jit(lambda x: jnp.sum(x * lax.stop_gradient(jnp.sin(x)))),
        normal(4),
    ),
    surrogate(
        "round, straight through",
        vjp_rule(lambda x: jnp.round(x), lambda r, g: g),
        normal(4),
        options={"surrogate": identity},
    ),
    surrogate(
        "sign, by the clip to [-1, 1]",
        gradkit.custom_gradient(
            lambda x: (jnp.sign(x), lambda g: jnp.where(jnp.abs(x) <= 1, g, 0))
        ),
        values([0.5, -0.25, 2.0]),
        options={"surrogate": hard_tanh},
    ),
    surrogate(
        "spike, by a fast sigmoid",
        registered("BankSpike", heaviside, lambda op, g: _fast_sigmoid_slope(op.inputs[0]) * g),
        normal(4),
        options={"surrogate": fast_sigmoid},
    ),
    surrogate(
        "quantisation to 4 bits, by its range",
        vjp_rule(fake_quantise, lambda r, g: jnp.where((r[0] >= -2) & (r[0] <= 1.75), g, 0)),
        values([0.3, -1.9, 1.1, 5.0]),
        options={"surrogate": within_quantisation_range},
    ),
    surrogate(
        "sample, by the softmax",
        vjp_rule(hard_sample, lambda r, g: jax.vjp(soft_sample, r[0])[1](g)[0]),
        normal(4),
        options={"surrogate": soft_sample},
    ),
    surrogate(
        "two largest, by all",
        jvp_rule(top_two, lambda x, t: t[0]),
        normal(5),
        options={"surrogate": identity},
    ),
    surrogate(
        "an override of Sign by Identity",
        gradkit.override(jnp.sign, {"Sign": "Identity"}),
        normal(3),
        options={"surrogate": identity},
    ),
    mapped(
        "gradient reversal",
        vjp_rule(identity, lambda r, g: -g),
        normal(4),
        reference=identity,
        options={"cotangent_map": lambda y_bar: -y_bar},
    ),
    mapped(
        "gradient reversal by 0.3 of a layer",
        registered(
            "BankReversedLayer",
            tanh_layer,
            lambda op, g: -0.3 * _tanh_layer_slope(op.inputs[0]) * g,
        ),
        normal(4, scale=0.5),
        reference=tanh_layer,
        options={"cotangent_map": lambda y_bar: -0.3 * y_bar},
    ),
    mapped(
        "clip of the cotangent to one",
        gradkit.custom_gradient(lambda x: (identity(x), clip_to_one)),
        normal(4),
        reference=identity,
        options={"cotangent_map": clip_to_one, "modes": ("reverse",)},
    ),
    mapped(
        "clip of the cotangent to one, before a layer",
        vjp_rule(tanh_layer, lambda r, g: _tanh_layer_slope(r[0]) * clip_to_one(g)),
        normal(4, scale=0.5),
        reference=tanh_layer,
        options={"cotangent_map": clip_to_one, "modes": ("reverse",)},
    ),
    mapped(
        "clip of the cotangent by its norm",
        vjp_rule(identity, lambda r, g: clip_by_norm(g)),
        normal(4),
        reference=identity,
        options={"cotangent_map": clip_by_norm, "modes": ("reverse",)},
        dtypes=FINE,
    ),
    mapped(
        "sign of the cotangent",
        vjp_rule(lambda x: 3 * x, lambda r, g: 3 * jnp.sign(g)),
        normal(4),
        reference=lambda x: 3 * x,
        options={"cotangent_map": jnp.sign, "modes": ("reverse",)},
    ),
    second("softplus by a JVP rule", softplus, normal(4), reference=lambda x: jax.nn.softplus(x)),
    second(
        "logsumexp by a JVP rule of itself",
        log_sum_exp,
        normal(5),
        reference=lambda x: jax.nn.logsumexp(x),
    ),
    second(
        "reciprocal whose rule calls itself",
        reciprocal,
        uniform(3, low=0.5, high=2.0),
        reference=lambda x: 1 / x,
    ),
    second("exponential whose rule calls itself", exponential, normal(3), reference=jnp.exp),
    second(
        "cube by a VJP rule",
        vjp_rule(lambda x: x**3, lambda r, g: 3 * r[0] ** 2 * g),
        normal(3),
        reference=lambda x: x**3,
    ),
    second(
        "x^2 y by a VJP rule, with mixed derivatives",
        vjp_rule(cubic_form, lambda r, g: (2 * r[0] * r[1] * g, r[0] ** 2 * g)),
        normal(3),
        normal(3),
        reference=cubic_form,
    ),
    second(
        "quadratic form, registered",
        registered(
            "BankQuadratic",
            quadratic,
            lambda op, g: (
                0.5 * jnp.outer(op.inputs[1], op.inputs[1]) * g,
                0.5 * (op.inputs[0] + op.inputs[0].T) @ op.inputs[1] * g,
            ),
        ),
        normal(3, 3),
        normal(3),
        reference=quadratic,
    ),
    second("perceptron", perceptron, normal(3, 4, scale=0.5), normal(4), dtypes=FINE),
    second("linear function, whose second derivative is zero", lambda x: 3 * jnp.sum(x), normal(4)),
    second("relu away from zero: no curvature", jax.nn.relu, values([0.5, -1.0, 2.0])),
    second("sine at large scale", lambda x: 1e6 * jnp.sin(x), normal(3), dtypes=(FLOAT64,)),
    second(
        "scan of sines",
        lambda x: lax.scan(lambda c, _: (jnp.sin(c), None), x, None, length=4)[0],
        normal(3),
    ),
]
