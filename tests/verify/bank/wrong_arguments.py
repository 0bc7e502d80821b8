"""Arguments that a rule forgets, and outputs whose cotangents it forgets."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

import gradkit
from tests.verify.bank.entry import entry, normal, registered, uniform, values, vjp_rule

wrong = functools.partial(entry, wrong=True, family="ignored argument or output")


def huber(x, delta):
    size = jnp.abs(x)
    return jnp.where(size <= delta, 0.5 * x**2, delta * (size - 0.5 * delta))


def _huber_gradient(op, y_bar):
    x, delta = op.inputs
    return jnp.clip(x, -delta, delta) * y_bar, jnp.zeros_like(delta)


def interpolate(x, table):
    """A table's value at x, in units of its spacing."""
    left = jnp.clip(jnp.floor(lax.stop_gradient(x)), 0, table.size - 2).astype(int)
    t = x - left
    return table[left] * (1 - t) + table[left + 1] * t


@gradkit.custom_gradient
def interpolate_of_fixed_table(x, table):
    left = jnp.clip(jnp.floor(x), 0, table.size - 2).astype(int)

    def grad(y_bar):
        return (table[left + 1] - table[left]) * y_bar, None

    return interpolate(x, table), grad


def layer_norm(x, gain, bias):
    centred = x - x.mean(-1, keepdims=True)
    y = centred * lax.rsqrt(jnp.mean(centred**2, -1, keepdims=True) + 1e-5)
    return y * gain[None, :] + bias[None, :]


@gradkit.custom_gradient
def layer_norm_without_bias_gradient(x, gain, bias):
    y, pull = jax.vjp(layer_norm, x, gain, bias)

    def grad(y_bar):
        x_bar, gain_bar, _ = pull(y_bar)
        return x_bar, gain_bar, None

    return y, grad


def blur(x, width):
    offsets = jnp.arange(-3, 4).astype(x.dtype)
    kernel = jnp.exp(-0.5 * (offsets / width) ** 2)
    return jnp.convolve(x, kernel / kernel.sum(), mode="same")


def _blur_bwd_of_fixed_width(residuals, y_bar):
    x, width = residuals
    return jax.vjp(lambda x: blur(x, width), x)[1](y_bar)[0], jnp.zeros_like(width)


def embed(table, ids):
    return table[ids]


def weighted_loss(logits, labels, weights):
    log_p = jax.nn.log_softmax(logits)
    picked = jnp.take_along_axis(log_p, labels[:, None], axis=1)[:, 0]
    return -jnp.sum(weights * picked) / jnp.sum(weights)


def _weighted_loss_bwd_of_fixed_weights(residuals, y_bar):
    logits, labels, weights = residuals
    _, pull = jax.vjp(lambda logits: weighted_loss(logits, labels, weights), logits)
    return *pull(y_bar), None, jnp.zeros_like(weights)


def moments(x):
    return x.mean(), x.var()


def _moments_bwd_of_mean(residuals, y_bar):
    (x,) = residuals
    mean_bar, _ = y_bar
    return jnp.full_like(x, 1 / x.size) * mean_bar


def dense(params, x):
    y = jnp.tanh(x @ params["w"] + params["b"][None, :])
    return y * params["temperature"]


@gradkit.custom_gradient
def dense_without_temperature_gradient(params, x):
    y, pull = jax.vjp(dense, params, x)

    def grad(y_bar):
        params_bar, x_bar = pull(y_bar)
        return {**params_bar, "temperature": None}, x_bar

    return y, grad


def even_and_odd(x):
    return {"even": x[::2] ** 2, "odd": jnp.sin(x[1::2])}


def _even_and_odd_bwd_of_even(residuals, y_bar):
    (x,) = residuals
    return jnp.zeros_like(x).at[::2].set(2 * x[::2] * y_bar["even"])


def power(x, exponent):
    return x**exponent


def recurrent_cell(c, h, x):
    gate = jax.nn.sigmoid(h + x)
    c = gate * c + (1 - gate) * jnp.tanh(x - h)
    return c, gate * jnp.tanh(c)


def _recurrent_cell_bwd_without_hidden_path(residuals, y_bar):
    c, h, x = residuals
    _, pull = jax.vjp(lambda c, x: recurrent_cell(c, h, x), c, x)
    c_bar, x_bar = pull(y_bar)
    return c_bar, jnp.zeros_like(h), x_bar


def distance_to_centres(x, centres):
    return jnp.sum((x[:, None, :] - centres[None, :, :]) ** 2, axis=2)


def _distances_gradient(op, y_bar):
    x, centres = op.inputs
    differences = x[:, None, :] - centres[None, :, :]
    return 2 * jnp.sum(differences * y_bar[:, :, None], axis=1), None


def value_and_norm(x):
    y = jnp.tanh(x)
    return y, jnp.sqrt(jnp.sum(y**2) + 1)


def _value_and_norm_bwd_negated(residuals, y_bar):
    (x,) = residuals
    _, pull = jax.vjp(value_and_norm, x)
    return pull((y_bar[0], -y_bar[1]))[0]


ENTRIES = [
    wrong(
        "Huber loss: the threshold has no gradient",
        registered("BankHuber", huber, _huber_gradient),
        values([-3.0, 0.5, 2.0]),
        values([1.0, 1.0, 1.5]),
        reference=huber,
    ),
    wrong(
        "interpolation: the table has no gradient",
        interpolate_of_fixed_table,
        values(2.3),
        normal(6),
        reference=interpolate,
    ),
    wrong(
        "layer norm: None for the bias",
        layer_norm_without_bias_gradient,
        normal(3, 5),
        normal(5),
        normal(5),
        reference=layer_norm,
    ),
    wrong(
        "blur: the width has no gradient",
        vjp_rule(blur, _blur_bwd_of_fixed_width),
        normal(12),
        values(1.2),
        reference=blur,
    ),
    wrong(
        "embedding: the table is frozen by mistake",
        vjp_rule(embed, lambda r, g: (jnp.zeros_like(r[0]), None)),
        normal(7, 3),
        jnp.array([1, 4, 4, 0]),
        reference=embed,
    ),
    wrong(
        "weighted cross entropy: the weights have no gradient",
        vjp_rule(weighted_loss, _weighted_loss_bwd_of_fixed_weights),
        normal(4, 3),
        jnp.array([0, 2, 1, 1]),
        uniform(4, low=0.5, high=2.0),
        reference=weighted_loss,
    ),
    wrong(
        "moments: the variance's cotangent is ignored",
        vjp_rule(moments, _moments_bwd_of_mean),
        normal(6),
        reference=moments,
    ),
    wrong(
        "dense layer: None for one leaf of a dict",
        dense_without_temperature_gradient,
        {"w": normal(4, 3), "b": normal(3), "temperature": values(1.5)},
        normal(2, 4),
        reference=dense,
    ),
    wrong(
        "dict of outputs: one of two is ignored",
        vjp_rule(even_and_odd, _even_and_odd_bwd_of_even),
        normal(6),
        reference=even_and_odd,
    ),
    wrong(
        "power: the exponent counts as a constant",
        vjp_rule(power, lambda r, g: (r[1] * r[0] ** (r[1] - 1) * g, None)),
        uniform(4, low=0.5, high=2.0),
        uniform(4, low=1.0, high=3.0),
        reference=power,
    ),
    wrong(
        "recurrent cell: nothing flows to the hidden state",
        vjp_rule(recurrent_cell, _recurrent_cell_bwd_without_hidden_path),
        normal(4),
        normal(4),
        normal(4),
        reference=recurrent_cell,
    ),
    wrong(
        "distances to centres: the centres have no gradient",
        registered("BankDistances", distance_to_centres, _distances_gradient),
        normal(5, 2),
        normal(3, 2),
        reference=distance_to_centres,
    ),
    wrong(
        "value and norm: the second output's cotangent has the wrong sign",
        vjp_rule(value_and_norm, _value_and_norm_bwd_negated),
        normal(4),
        reference=value_and_norm,
    ),
]
