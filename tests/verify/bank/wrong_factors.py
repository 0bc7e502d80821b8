"""Gradients of the wrong sign, or off by a constant factor."""

import functools
import math

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

wrong = functools.partial(entry, wrong=True, family="sign or factor")


def cross_entropy(logits, labels):
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
    return -picked.mean()


def _cross_entropy_bwd_of_wrong_sign(residuals, y_bar):
    logits, labels = residuals
    one_hot = jax.nn.one_hot(labels, logits.shape[1], dtype=logits.dtype)
    return y_bar * (one_hot - jax.nn.softmax(logits)) / logits.shape[0], None


def _cross_entropy_bwd_summed(residuals, y_bar):
    logits, labels = residuals
    one_hot = jax.nn.one_hot(labels, logits.shape[1], dtype=logits.dtype)
    return y_bar * (jax.nn.softmax(logits) - one_hot), None


def gaussian_nll(mean, log_scale, x):
    return jnp.sum(log_scale + 0.5 * ((x - mean) * jnp.exp(-log_scale)) ** 2)


@gradkit.custom_gradient
def gaussian_nll_with_log_scale_reversed(mean, log_scale, x):
    z = (x - mean) * jnp.exp(-log_scale)

    def grad(y_bar):
        mean_bar = -z * jnp.exp(-log_scale) * y_bar
        return mean_bar, (1 + z**2) * y_bar, -mean_bar

    return gaussian_nll(mean, log_scale, x), grad


def variance(x):
    return jnp.var(x)


def average_pool(x):
    return x.reshape(x.shape[0] // 2, 2, x.shape[1] // 2, 2).mean((1, 3))


def _average_pool_bwd_without_area(residuals, y_bar):
    return jnp.repeat(jnp.repeat(y_bar, 2, axis=0), 2, axis=1)


def dropout(x, key):
    return jnp.where(jax.random.bernoulli(key, jnp.float32(0.5), x.shape), x / 0.5, 0)


def _dropout_bwd_without_keep_rate(residuals, y_bar):
    x, key = residuals
    return jnp.where(jax.random.bernoulli(key, jnp.float32(0.5), x.shape), y_bar, 0), None


def frobenius_norm(x):
    return jnp.sqrt(jnp.sum(x**2))


def attention(q, k, v):
    return jax.nn.softmax(q @ k.T / math.sqrt(q.shape[1])) @ v


@gradkit.custom_gradient
def attention_with_unscaled_query_gradient(q, k, v):
    weights = jax.nn.softmax(q @ k.T / math.sqrt(q.shape[1]))

    def grad(y_bar):
        weights_bar = y_bar @ v.T
        shifted = weights_bar - jnp.sum(weights * weights_bar, axis=1, keepdims=True)
        scores_bar = weights * shifted
        return scores_bar @ k, scores_bar.T @ q / math.sqrt(q.shape[1]), weights.T @ y_bar

    return weights @ v, grad


def rbf_kernel(x, y, length):
    return jnp.exp(-0.5 * jnp.sum((x - y) ** 2) / length**2)


def _rbf_kernel_bwd_of_fixed_length(residuals, y_bar):
    x, y, length = residuals
    k = rbf_kernel(x, y, length) * y_bar
    # The derivative by the length is that of exp(-r^2 / length^2): the half is lost.
    return (
        -(x - y) * k / length**2,
        (x - y) * k / length**2,
        2 * jnp.sum((x - y) ** 2) * k / (length**3),
    )


def low_pass(x):
    spectrum = jnp.fft.rfft(x)
    return jnp.fft.irfft(spectrum.at[3:].set(0), x.size)


def _low_pass_bwd_without_normalisation(residuals, y_bar):
    return low_pass(y_bar) * y_bar.size


def sine_of_degrees(x):
    return jnp.sin(x * (math.pi / 180))


def cube(x):
    return x**3


def _square_gradient_without_two(op, y_bar):
    (x,) = op.inputs[:1]
    return x * y_bar


def energy(x):
    return jnp.sum(jnp.square(jnp.sin(x)))


energy_overridden = gradkit.override(energy, {"Square": _square_gradient_without_two})


def layer_scale(x, gain):
    return gain * x


def mean_over_batch(x):
    return jnp.tanh(x).mean(axis=0)


ENTRIES = [
    wrong(
        "sine: the sign of its derivative is flipped",
        vjp_rule(jnp.sin, lambda r, g: -jnp.cos(r[0]) * g),
        normal(4),
        reference=jnp.sin,
    ),
    wrong(
        "cross entropy: labels minus probabilities",
        vjp_rule(cross_entropy, _cross_entropy_bwd_of_wrong_sign),
        normal(4, 5),
        jnp.array([0, 3, 1, 1]),
        reference=cross_entropy,
    ),
    wrong(
        "Gaussian log-likelihood: one sign in the derivative by the log-scale",
        gaussian_nll_with_log_scale_reversed,
        normal(3),
        normal(3, scale=0.5),
        normal(3),
        reference=gaussian_nll,
    ),
    wrong(
        "squared norm: the factor 2 is missing",
        vjp_rule(lambda x: jnp.sum(x * x), lambda r, g: r[0] * g),
        normal(5),
        reference=lambda x: jnp.sum(x * x),
    ),
    wrong(
        "half squared error: twice too large",
        registered(
            "BankHalfSquare",
            lambda x, y: 0.5 * jnp.sum((x - y) ** 2),
            lambda op, g: (
                2 * (op.inputs[0] - op.inputs[1]) * g,
                2 * (op.inputs[1] - op.inputs[0]) * g,
            ),
        ),
        normal(2, 3),
        normal(2, 3),
        reference=lambda x, y: 0.5 * jnp.sum((x - y) ** 2),
    ),
    wrong(
        "mean square: a sum in the rule",
        vjp_rule(lambda x: jnp.mean(x**2), lambda r, g: 2 * r[0] * g),
        normal(6),
        reference=lambda x: jnp.mean(x**2),
    ),
    wrong(
        "cross entropy: not divided by the batch",
        vjp_rule(cross_entropy, _cross_entropy_bwd_summed),
        normal(4, 5),
        jnp.array([2, 0, 4, 1]),
        reference=cross_entropy,
    ),
    wrong(
        "mean over the batch: divided by the number of features",
        vjp_rule(
            mean_over_batch,
            lambda r, g: (1 - jnp.tanh(r[0]) ** 2) * g[None, :] / r[0].shape[1],
        ),
        normal(8, 3),
        reference=mean_over_batch,
    ),
    wrong(
        "variance: divides by n - 1",
        vjp_rule(variance, lambda r, g: 2 * (r[0] - r[0].mean()) / (r[0].size - 1) * g),
        normal(9),
        reference=variance,
        dtypes=FINE,
    ),
    wrong(
        "average pooling: each cell gets the whole cotangent",
        vjp_rule(average_pool, _average_pool_bwd_without_area),
        normal(4, 6),
        reference=average_pool,
    ),
    wrong(
        "dropout: the keep rate is forgotten",
        vjp_rule(dropout, _dropout_bwd_without_keep_rate),
        normal(12),
        jax.random.key(3),
        reference=dropout,
    ),
    wrong(
        "logarithm to base 2: ln 2 is forgotten",
        jvp_rule(jnp.log2, lambda primals, tangents: tangents[0] / primals[0]),
        uniform(4, low=0.5, high=3.0),
        reference=jnp.log2,
    ),
    wrong(
        "Frobenius norm: doubled",
        registered(
            "BankFrobenius", frobenius_norm, lambda op, g: 2 * op.inputs[0] / op.outputs[0] * g
        ),
        normal(3, 4),
        reference=frobenius_norm,
    ),
    wrong(
        "attention: the gradient of the queries lacks 1 / sqrt(d)",
        attention_with_unscaled_query_gradient,
        normal(3, 4),
        normal(5, 4),
        normal(5, 2),
        reference=attention,
    ),
    wrong(
        "Gaussian kernel: twice the derivative by the length scale",
        vjp_rule(rbf_kernel, _rbf_kernel_bwd_of_fixed_length),
        normal(4),
        normal(4),
        values(1.7),
        reference=rbf_kernel,
    ),
    wrong(
        "low-pass filter: the inverse transform's 1 / n is forgotten",
        vjp_rule(low_pass, _low_pass_bwd_without_normalisation),
        normal(16),
        reference=low_pass,
        dtypes=FINE,
    ),
    wrong(
        "sine of degrees: differentiated as if of radians",
        jvp_rule(
            sine_of_degrees,
            lambda primals, tangents: jnp.cos(primals[0] * (math.pi / 180)) * tangents[0],
        ),
        uniform(3, low=-90.0, high=90.0),
        reference=sine_of_degrees,
    ),
    wrong(
        "cube: 2 x^2 in place of 3 x^2",
        jvp_rule(cube, lambda primals, tangents: 2 * primals[0] ** 2 * tangents[0]),
        normal(),
        reference=cube,
    ),
    wrong(
        "an override of Square forgets the 2",
        energy_overridden,
        normal(4),
        reference=energy,
    ),
    wrong(
        "layer scale: the gain's gradient is a thousandth too large",
        vjp_rule(layer_scale, lambda r, g: (g * r[1], g * r[0] * (1 + 1e-3))),
        normal(6),
        normal(6),
        reference=layer_scale,
        dtypes=FINE,
    ),
]
