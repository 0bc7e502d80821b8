"""Rules that are not linear in the cotangent, or do not use it as they should."""

import functools
import math

import jax
import jax.numpy as jnp

import gradkit
from tests.verify.bank.entry import FINE, entry, normal, registered, uniform, vjp_rule

wrong = functools.partial(entry, wrong=True, family="cotangent")


def half_square(x):
    return 0.5 * jnp.sum(x**2)


def square(x):
    return x * x


def tanh(x):
    return jnp.tanh(x)


def cumulative_sum(x):
    return jnp.cumsum(x)


def weighted_sum(w, x):
    return jnp.sum(w * x)


def softmax(x):
    return jax.nn.softmax(x)


def matmul(x, w):
    return x @ w


def _clip_by_norm(x_bar, limit):
    norm = jnp.sqrt(jnp.sum(x_bar**2))
    return x_bar * jnp.minimum(1, limit / jnp.maximum(norm, 1e-12)).astype(x_bar.dtype)


def _largest(x_bar):
    size = jnp.abs(x_bar)
    return jnp.where(size >= 0.7 * size.max(), x_bar, 0)


def pair(x):
    return jnp.sin(x), jnp.cos(x)


def _pair_bwd_of_product(residuals, y_bar):
    (x,) = residuals
    sine_bar, cosine_bar = y_bar
    return jnp.cos(x) * sine_bar - jnp.sin(x) * cosine_bar + 0.5 * sine_bar * cosine_bar


def scaled(x):
    return 3 * x


ENTRIES = [
    wrong(
        "half square: the cotangent is not multiplied",
        vjp_rule(half_square, lambda r, g: r[0]),
        normal(4),
        reference=half_square,
    ),
    wrong(
        "square: elementwise, the cotangent is not multiplied",
        registered("BankSquareAlone", square, lambda op, g: 2 * op.inputs[0]),
        normal(4),
        reference=square,
    ),
    wrong(
        "tanh: the mean of the cotangent for every element",
        vjp_rule(tanh, lambda r, g: (1 - jnp.tanh(r[0]) ** 2) * jnp.full_like(g, g.mean())),
        normal(5),
        reference=tanh,
    ),
    wrong(
        "tanh: the cotangent is added",
        vjp_rule(tanh, lambda r, g: (1 - jnp.tanh(r[0]) ** 2) + g),
        normal(3),
        reference=tanh,
    ),
    wrong(
        "weighted sum: weight decay in the rule",
        vjp_rule(weighted_sum, lambda r, g: (r[1] * g + 0.5 * r[0], r[0] * g)),
        normal(5),
        normal(5),
        reference=weighted_sum,
    ),
    wrong(
        "softmax: a hundredth is added to every cotangent",
        vjp_rule(softmax, lambda r, g: jax.vjp(softmax, r[0])[1](g)[0] + 0.01),
        normal(6),
        reference=softmax,
    ),
    wrong(
        "tanh: the cotangent is clipped to [-1, 1]",
        vjp_rule(tanh, lambda r, g: (1 - jnp.tanh(r[0]) ** 2) * jnp.clip(g, -1, 1)),
        normal(4),
        reference=tanh,
    ),
    wrong(
        "scaling: the cotangent is clipped to [-100, 100]",
        gradkit.custom_gradient(lambda x: (scaled(x), lambda g: 3 * jnp.clip(g, -100, 100))),
        normal(4),
        reference=scaled,
    ),
    wrong(
        "tanh: only the sign of the cotangent",
        vjp_rule(tanh, lambda r, g: (1 - jnp.tanh(r[0]) ** 2) * jnp.sign(g)),
        normal(4),
        reference=tanh,
    ),
    wrong(
        "matmul: the weights' cotangent is clipped by its norm",
        gradkit.custom_gradient(
            lambda x, w: (x @ w, lambda g: (g @ w.T, _clip_by_norm(x.T @ g, 10.0)))
        ),
        normal(3, 4),
        normal(4, 2),
        reference=matmul,
    ),
    wrong(
        "square: the cotangent times its size",
        vjp_rule(square, lambda r, g: 2 * r[0] * g * jnp.abs(g)),
        normal(3),
        reference=square,
    ),
    wrong(
        "guided backpropagation: negative cotangents are dropped",
        registered("BankGuided", tanh, lambda op, g: (1 - op.outputs[0] ** 2) * jax.nn.relu(g)),
        normal(4),
        reference=tanh,
    ),
    wrong(
        "matmul: cotangents under a thousandth count as zero",
        vjp_rule(
            matmul,
            lambda r, g: (jnp.where(jnp.abs(g) < 1e-3, 0, g) @ r[1].T, r[0].T @ g),
        ),
        normal(3, 4),
        normal(4, 2),
        reference=matmul,
    ),
    wrong(
        "cumulative sum: only the largest cotangents are sent",
        vjp_rule(cumulative_sum, lambda r, g: jnp.cumsum(_largest(g)[::-1])[::-1]),
        normal(9),
        reference=cumulative_sum,
    ),
    wrong(
        "two outputs: a product of their cotangents",
        vjp_rule(pair, _pair_bwd_of_product),
        normal(3),
        reference=pair,
    ),
    wrong(
        "square root: the cotangent divided by its own norm",
        vjp_rule(
            jnp.sqrt,
            lambda r, g: g / (jnp.sqrt(jnp.sum(g**2)) + 1e-6).astype(g.dtype) / jnp.sqrt(r[0]) / 2,
        ),
        uniform(4, low=0.5, high=2.0),
        reference=jnp.sqrt,
    ),
    wrong(
        "sine: a quadratic term of one part in a thousand",
        vjp_rule(jnp.sin, lambda r, g: jnp.cos(r[0]) * g + 1e-3 * g**2),
        normal(4),
        reference=jnp.sin,
        dtypes=FINE,
    ),
    wrong(
        "cumulative sum: a constant cotangent is assumed",
        vjp_rule(cumulative_sum, lambda r, g: jnp.arange(g.size, 0, -1).astype(g.dtype) * g[0]),
        normal(6),
        reference=cumulative_sum,
    ),
    wrong(
        "tempered cotangent: too large by exp(1) for large ones",
        vjp_rule(square, lambda r, g: 2 * r[0] * jnp.where(jnp.abs(g) > 50, math.e * g, g)),
        normal(4),
        reference=square,
    ),
]
