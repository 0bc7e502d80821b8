"""Functions that are flat, saturated, constant, or ignore some of their arguments."""

import functools

import jax
import jax.numpy as jnp

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
)

right = functools.partial(entry, wrong=False, family="flat or saturated")


def ignores_second(x, y):
    return jnp.sum(x**2) + 0 * jnp.sum(y)


@gradkit.custom_gradient
def ignores_second_by_rule(x, y):
    return jnp.sum(x**2), lambda y_bar: (2 * x * y_bar, None)


def scale_invariant(x):
    return jnp.sum(x) ** 2 / jnp.sum(x**2)


def shift_invariant(x):
    return jax.nn.softmax(x)


def permutation_invariant(x):
    return jnp.sum(jnp.sort(x) ** 2)


def rotation_invariant(x, y):
    return jnp.sum((x - y) ** 2)


def deep_sets(points, w):
    return jnp.tanh(jnp.tanh(points @ w).sum(axis=0))


def saddle(x):
    return x[0] ** 2 - x[1] ** 2


def smooth_step(x):
    t = jnp.clip(x, 0, 1)
    return t * t * t * (t * (6 * t - 15) + 10)


def flat_bottom(x):
    return jnp.maximum(jnp.abs(x) - 1, 0) ** 2


def gated_off(x, gate):
    return jax.nn.sigmoid(gate) * jnp.sin(x)


def cancelling(x):
    return jnp.sum(jnp.sin(x) ** 2 + jnp.cos(x) ** 2)


ENTRIES = [
    right("constant of the right shape", lambda x: jnp.ones_like(x) * 3, normal(3)),
    right("constant that reads its argument", lambda x: 0 * x + 1, normal(3)),
    right("an argument that is ignored", ignores_second, normal(3), normal(2)),
    right(
        "an argument that is ignored, None in the rule",
        ignores_second_by_rule,
        normal(3),
        normal(2),
        reference=ignores_second,
    ),
    right(
        "an unused leaf of a dict",
        lambda p: p["used"] ** 3,
        {"used": normal(2), "unused": normal(3)},
    ),
    right("x^2 at its minimum", lambda x: x**2, values([0.0, 0.0])),
    right("x^4 at its minimum", lambda x: jnp.sum(x**4), values([0.0, 0.0, 0.0])),
    right("saddle at its centre", saddle, values([0.0, 0.0])),
    right("product of zeros", lambda x, y: x * y, values([0.0, 0.0]), values([0.0, 1.0])),
    right(
        "cosine at its maximum, by a rule",
        jvp_rule(jnp.cos, lambda x, t: -jnp.sin(x[0]) * t[0]),
        values([0.0, 0.5]),
        reference=jnp.cos,
    ),
    right("sigmoid at 40 and -40", jax.nn.sigmoid, values([40.0, -40.0, 0.5]), dtypes=FINE),
    right(
        "sigmoid at 800, by a rule",
        registered(
            "BankSigmoid", jax.nn.sigmoid, lambda op, g: op.outputs[0] * (1 - op.outputs[0]) * g
        ),
        values([800.0, -800.0, 0.5]),
        reference=jax.nn.sigmoid,
    ),
    right("tanh at 20 and -20", jnp.tanh, values([20.0, -20.0, 0.1])),
    right("saturated softmax", jax.nn.softmax, values([100.0, 0.0, -50.0])),
    right("erf far out", jax.scipy.special.erf, values([6.0, -7.0])),
    right("Gaussian far out: underflow", lambda x: jnp.exp(-(x**2)), values([30.0, -40.0, 0.5])),
    right("step that is smooth, on its plateaus", smooth_step, values([-1.0, 2.0, 0.5])),
    right("loss with a flat bottom", flat_bottom, values([0.5, 0.0, 2.0])),
    right(
        "dead relu units", lambda w, x: jnp.sum(jax.nn.relu(w @ x - 10)), uniform(3, 4), uniform(4)
    ),
    right("gate that is shut", gated_off, normal(3), values([-60.0, -30.0, 0.0])),
    right("sine^2 + cosine^2", cancelling, normal(4), dtypes=FINE),
    right("independent of the scale", scale_invariant, normal(4)),
    right("independent of a shift", shift_invariant, normal(4)),
    right("independent of the order", permutation_invariant, normal(5)),
    right(
        "independent of a common shift, at equal points",
        rotation_invariant,
        values([1.0, 2.0]),
        values([1.0, 2.0]),
    ),
    right("set of points", deep_sets, normal(6, 2), normal(2, 3)),
    right(
        "clip far outside its bounds, by a rule",
        vjp_rule(lambda x: jnp.clip(x, -1, 1), lambda r, g: jnp.where(jnp.abs(r[0]) <= 1, g, 0)),
        values([50.0, -30.0]),
        reference=lambda x: jnp.clip(x, -1, 1),
    ),
]
