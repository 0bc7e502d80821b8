"""Rules that do not follow the surrogate or cotangent map they are meant to, or the intent."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

import gradkit
from tests.verify.bank.entry import FINE, entry, normal, registered, uniform, values, vjp_rule

surrogate = functools.partial(entry, wrong=True, family="surrogate not followed")
mapped = functools.partial(entry, wrong=True, family="cotangent map not followed")
intent = functools.partial(entry, wrong=True, family="intent", needs_reference=True)


def identity(x):
    return x


def hard_tanh(x):
    return jnp.clip(x, -1, 1)


def heaviside(x):
    return (x > 0).astype(x.dtype)


def steep_sigmoid(x):
    return jax.nn.sigmoid(4 * x)


def quantise(x, step):
    return jnp.round(x / step) * step


def quantise_linearly(x, step):
    """The surrogate of a learned step size (LSQ): the rounding error is held still."""
    error = lax.stop_gradient(jnp.round(x / step) - x / step)
    return (x / step + error) * step


def binarise(w):
    """Signs times the mean size, as in XNOR networks."""
    return jnp.sign(w) * jnp.mean(jnp.abs(w))


def hard_sample(logits):
    return jax.nn.one_hot(jnp.argmax(logits), logits.size, dtype=logits.dtype)


def soft_sample(logits):
    return jax.nn.softmax(logits)


# --- cotangent maps


def negate(y_bar):
    return -y_bar


def negate_by_half(y_bar):
    return -0.5 * y_bar


def clip_to_one(y_bar):
    return jnp.clip(y_bar, -1, 1)


def clip_by_norm(y_bar):
    norm = jnp.sqrt(jnp.sum(y_bar**2))
    return y_bar / jnp.maximum(norm, 1).astype(y_bar.dtype)


def tanh_layer(x):
    return jnp.tanh(2 * x)


def _tanh_layer_slope(x):
    return 2 * (1 - jnp.tanh(2 * x) ** 2)


# --- intent that only a reference tells


def contrastive_loss(x, y):
    return jnp.sum((x - y) ** 2) / (1 + jnp.sum(x**2))


def contrastive_loss_with_stopped_normaliser(x, y):
    return jnp.sum((x - y) ** 2) / (1 + lax.stop_gradient(jnp.sum(x**2)))


def softmax_with_stopped_temperature(x, temperature):
    return jax.nn.softmax(x / lax.stop_gradient(temperature))


def tempered_softmax(x, temperature):
    return jax.nn.softmax(x / temperature)


def interpolate(x):
    table = jnp.asarray([0.0, 1.0, 0.5, 2.0], x.dtype)
    left = jnp.clip(lax.stop_gradient(jnp.floor(x)), 0, 2).astype(int)
    return table[left] + (x - left) * (table[left + 1] - table[left])


def nearest(x):
    table = jnp.asarray([0.0, 1.0, 0.5, 2.0], x.dtype)
    return table[jnp.clip(jnp.round(x), 0, 3).astype(int)]


def soft_gate(x):
    return jnp.where(x > 1, (x - 1) ** 2, 0) + x


def hard_gate(x):
    return jnp.where(x > 1, (lax.stop_gradient(x) - 1) ** 2, 0) + x


def momentum_target(w, mean):
    return jnp.sum((w - (0.9 * mean + 0.1 * w)) ** 2)


def momentum_target_stopped(w, mean):
    return jnp.sum((w - lax.stop_gradient(0.9 * mean + 0.1 * w)) ** 2)


def attention_with_stopped_keys(q, k, v):
    return jax.nn.softmax(q @ lax.stop_gradient(k).T) @ v


def attention(q, k, v):
    return jax.nn.softmax(q @ k.T) @ v


def rate_of_spikes(x):
    """Counts, where the intended model has expected counts."""
    return jnp.mean((x[:, None] > jnp.linspace(-1, 1, 5).astype(x.dtype)[None, :]).astype(x.dtype))


def expected_rate(x):
    return jnp.mean(
        jax.nn.sigmoid(8 * (x[:, None] - jnp.linspace(-1, 1, 5).astype(x.dtype)[None, :]))
    )


ENTRIES = [
    surrogate(
        "round, straight through: doubled",
        vjp_rule(lambda x: jnp.round(x), lambda r, g: 2 * g),
        normal(4),
        options={"surrogate": identity},
    ),
    surrogate(
        "sign, by the clip to [-1, 1]: passed through everywhere",
        registered("BankSign", jnp.sign, lambda op, g: g),
        values([0.5, -0.25, 2.0]),
        options={"surrogate": hard_tanh},
    ),
    surrogate(
        "sign, by the clip to [-1, 1]: passed through up to 2",
        gradkit.custom_gradient(
            lambda x: (jnp.sign(x), lambda g: jnp.where(jnp.abs(x) <= 2, g, 0))
        ),
        values([0.5, -0.25, 0.75]),
        options={"surrogate": hard_tanh},
        where=(values([0.5, -1.5, 0.75]),),
    ),
    surrogate(
        "spike, by a steep sigmoid: its steepness is forgotten",
        vjp_rule(
            heaviside,
            lambda r, g: steep_sigmoid(r[0]) * (1 - steep_sigmoid(r[0])) * g,
        ),
        normal(4, scale=0.5),
        options={"surrogate": steep_sigmoid},
    ),
    surrogate(
        "learned quantisation step: the step's gradient lacks the rounding error",
        vjp_rule(
            quantise,
            lambda r, g: (g, jnp.sum(jnp.round(r[0] / r[1]) * g)),
        ),
        normal(6),
        values(0.3),
        options={"surrogate": quantise_linearly},
    ),
    surrogate(
        "binary weights: straight through, without the mean size",
        vjp_rule(binarise, lambda r, g: g),
        normal(6),
        options={"surrogate": lambda w: hard_tanh(w) * jnp.mean(jnp.abs(w))},
        dtypes=FINE,
    ),
    surrogate(
        "sample, by the softmax: straight through",
        vjp_rule(hard_sample, lambda r, g: g),
        normal(4),
        options={"surrogate": soft_sample},
    ),
    surrogate(
        "floor, straight through: no gradient at all",
        jnp.floor,
        normal(4),
        options={"surrogate": identity},
    ),
    mapped(
        "gradient reversal: not reversed",
        vjp_rule(lambda x: x * 1, lambda r, g: g),
        normal(4),
        reference=identity,
        options={"cotangent_map": negate},
    ),
    mapped(
        "gradient reversal by a half: reversed in full",
        registered("BankReversal", lambda x: x * 1, lambda op, g: -g),
        normal(4),
        reference=identity,
        options={"cotangent_map": negate_by_half},
    ),
    mapped(
        "clip of the cotangent to one: at a half",
        gradkit.custom_gradient(lambda x: (x * 1, lambda g: jnp.clip(g, -0.5, 0.5))),
        normal(4),
        reference=identity,
        options={"cotangent_map": clip_to_one, "modes": ("reverse",)},
    ),
    mapped(
        "clip of the cotangent to one: after the layer instead of before",
        vjp_rule(tanh_layer, lambda r, g: jnp.clip(_tanh_layer_slope(r[0]) * g, -1, 1)),
        normal(4, scale=0.5),
        reference=tanh_layer,
        options={"cotangent_map": clip_to_one, "modes": ("reverse",)},
    ),
    mapped(
        "clip of the cotangent to one: from below only",
        vjp_rule(tanh_layer, lambda r, g: _tanh_layer_slope(r[0]) * jnp.maximum(g, -1)),
        normal(4, scale=0.5),
        reference=tanh_layer,
        options={"cotangent_map": clip_to_one, "modes": ("reverse",)},
    ),
    mapped(
        "clip by the norm: element by element",
        vjp_rule(lambda x: 3 * x, lambda r, g: 3 * jnp.clip(g, -1, 1)),
        normal(4),
        reference=lambda x: 3 * x,
        options={"cotangent_map": clip_by_norm, "modes": ("reverse",)},
    ),
    mapped(
        "clip of the cotangent to one: the layer's slope is left out",
        vjp_rule(tanh_layer, lambda r, g: jnp.clip(g, -1, 1)),
        normal(4, scale=0.5),
        reference=tanh_layer,
        options={"cotangent_map": clip_to_one, "modes": ("reverse",)},
    ),
    intent(
        "contrastive loss: the normaliser is stopped by mistake",
        contrastive_loss_with_stopped_normaliser,
        normal(4),
        normal(4),
        reference=contrastive_loss,
    ),
    intent(
        "softmax at a temperature: the temperature is stopped by mistake",
        softmax_with_stopped_temperature,
        normal(5, scale=2.0),
        values(1.5),
        reference=tempered_softmax,
    ),
    intent(
        "table: the nearest entry where interpolation is meant",
        nearest,
        uniform(4, low=0.2, high=2.8),
        reference=interpolate,
    ),
    intent(
        "gate: its square is stopped, flat where the point is",
        hard_gate,
        values([0.5, -1.0]),
        reference=soft_gate,
        where=(values([0.5, 3.0]),),
    ),
    intent(
        "momentum target: not stopped, though meant to be",
        momentum_target,
        normal(4),
        normal(4),
        reference=momentum_target_stopped,
        dtypes=FINE,
    ),
    intent(
        "attention: the keys are stopped by mistake",
        attention_with_stopped_keys,
        normal(3, 4),
        normal(5, 4),
        normal(5, 2),
        reference=attention,
    ),
    intent(
        "spike rate: counts where expected counts are meant",
        rate_of_spikes,
        uniform(5, low=-1.0, high=1.0),
        reference=expected_rate,
    ),
]
