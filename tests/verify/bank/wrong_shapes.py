"""Right for the shape it was tried on, wrong for another."""

import functools
import math

import jax
import jax.numpy as jnp

import gradkit
from tests.verify.bank.entry import entry, normal, registered, uniform, values, vjp_rule

wrong = functools.partial(entry, wrong=True, family="another shape")


def mean_square(x):
    return jnp.mean(x**2)


def log_loss(logits, labels):
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
    return -picked.mean()


def _log_loss_bwd_special_for_one_example(residuals, y_bar):
    logits, labels = residuals
    one_hot = jax.nn.one_hot(labels, logits.shape[1], dtype=logits.dtype)
    if logits.shape[0] == 1:
        return -one_hot * y_bar, None  # the softmax was squeezed away
    return (jax.nn.softmax(logits) - one_hot) * y_bar / logits.shape[0], None


def pairwise_sums(x):
    """Sums of neighbours; an odd last element is alone."""
    return jnp.pad(x, (0, x.size % 2)).reshape(-1, 2).sum(1)


def _pairwise_sums_bwd_of_even(residuals, y_bar):
    (x,) = residuals
    x_bar = jnp.repeat(y_bar, 2)
    return x_bar[: x.size] if x.size % 2 == 0 else x_bar[1 : x.size + 1].at[-1].set(0)


def flatten_transposed(x):
    return x.T.reshape(-1)


@gradkit.custom_gradient
def flatten_transposed_for_square(x):
    def grad(y_bar):
        return y_bar.reshape(x.shape).T if x.shape[0] == x.shape[1] else y_bar.reshape(x.shape)

    return flatten_transposed(x), grad


def features_mean(x):
    return x.mean(axis=1)


def add_bias(x, bias):
    return jnp.tanh(x) + bias[None, :]


def running_sum(x):
    return jnp.cumsum(x, axis=0)


def _running_sum_bwd_in_blocks(residuals, y_bar):
    """Blocks of four rows; a last incomplete block does not reach the others."""
    (x,) = residuals
    whole = x.shape[0] // 4 * 4
    head = jnp.cumsum(y_bar[:whole][::-1], axis=0)[::-1]
    tail = jnp.cumsum(y_bar[whole:][::-1], axis=0)[::-1]
    return jnp.concatenate([head, tail])


def scores(q, k):
    return q @ k.T / math.sqrt(q.shape[1])


def standardise(x):
    centred = x - x.mean(axis=0, keepdims=True)
    return centred / jnp.sqrt(jnp.mean(centred**2, axis=0, keepdims=True) + 0.1)


def _standardise_bwd_of_many(residuals, y_bar):
    (x,) = residuals
    if x.shape[0] == 1:
        return y_bar / math.sqrt(0.1)  # the mean is the only example itself: it should be zero
    return jax.vjp(standardise, x)[1](y_bar)[0]


def moving_average(x, kernel):
    return jnp.convolve(x, kernel, mode="same")


def _moving_average_bwd_of_odd_kernel(residuals, y_bar):
    x, kernel = residuals
    _, pull = jax.vjp(moving_average, x, kernel)
    return jnp.convolve(y_bar, kernel[::-1], mode="same"), pull(y_bar)[1]


def multiply(x, gain):
    return x * gain


def _multiply_bwd_of_full_gain(residuals, y_bar):
    x, gain = residuals
    gain_bar = (x * y_bar).sum(0, keepdims=True) if gain.shape[0] == 1 else x * y_bar
    # A gain of one row and one column is broadcast twice, and summed once.
    return gain * y_bar, gain_bar[:, : gain.shape[1]]


def diagonal(x):
    return jnp.diagonal(x) ** 2


@gradkit.custom_gradient
def diagonal_of_tall(x):
    def grad(y_bar):
        n = x.shape[0] if x.shape[0] <= x.shape[1] else x.shape[1] - 1
        rows = jnp.arange(n)
        return jnp.zeros_like(x).at[rows, rows].set(2 * jnp.diagonal(x)[:n] * y_bar[:n])

    return diagonal(x), grad


def hinge_of_classes(scores, labels):
    """Multi-class hinge; two classes are a special case of the rule."""
    right = jnp.take_along_axis(scores, labels[:, None], axis=1)
    margins = jnp.maximum(0, 1 + scores - right)
    return margins.sum() - scores.shape[0]


def _hinge_bwd_of_two_classes(residuals, y_bar):
    scores, labels = residuals
    factor = 0.5 if scores.shape[1] == 2 else 1.0
    return jax.vjp(lambda s: hinge_of_classes(s, labels), scores)[1](y_bar)[0] * factor, None


ENTRIES = [
    wrong(
        "mean square: a batch of four is built into the rule",
        vjp_rule(mean_square, lambda r, g: 2 * r[0] * g / 12),
        normal(4, 3),
        reference=mean_square,
        where=(normal(2, 3),),
    ),
    wrong(
        "cross entropy: a special case for one example",
        vjp_rule(log_loss, _log_loss_bwd_special_for_one_example),
        normal(3, 4),
        jnp.array([0, 3, 1]),
        reference=log_loss,
        where=(normal(1, 4), jnp.array([1])),
    ),
    wrong(
        "sums of pairs: an odd length shifts them",
        vjp_rule(pairwise_sums, _pairwise_sums_bwd_of_even),
        normal(6),
        reference=pairwise_sums,
        where=(normal(5),),
    ),
    wrong(
        "flattened transpose: undone for square matrices only",
        flatten_transposed_for_square,
        normal(3, 3),
        reference=flatten_transposed,
        where=(normal(2, 3),),
    ),
    wrong(
        "mean over features: divided by the number of rows",
        registered(
            "BankFeaturesMean",
            features_mean,
            lambda op, g: jnp.broadcast_to(g[:, None] / op.inputs[0].shape[0], op.inputs[0].shape),
        ),
        normal(4, 4),
        reference=features_mean,
        where=(normal(2, 4),),
    ),
    wrong(
        "bias: a batch of one is not reduced with the right sign",
        vjp_rule(
            add_bias,
            lambda r, g: (
                (1 - jnp.tanh(r[0]) ** 2) * g,
                -g.sum(0) if r[0].shape[0] == 1 else g.sum(0),
            ),
        ),
        normal(3, 2),
        normal(2),
        reference=add_bias,
        where=(normal(1, 2), normal(2)),
    ),
    wrong(
        "running sum: the last incomplete block of four is cut off",
        vjp_rule(running_sum, _running_sum_bwd_in_blocks),
        normal(4, 2),
        reference=running_sum,
        where=(normal(6, 2),),
    ),
    wrong(
        "attention scores: scaled for a head of four features",
        vjp_rule(scores, lambda r, g: (g @ r[1] / 2, g.T @ r[0] / 2)),
        normal(3, 4),
        normal(5, 4),
        reference=scores,
        where=(normal(3, 9), normal(5, 9)),
    ),
    wrong(
        "standardisation: a batch of one is passed through",
        vjp_rule(standardise, _standardise_bwd_of_many),
        normal(4, 3),
        reference=standardise,
        where=(normal(1, 3),),
    ),
    wrong(
        "moving average: right for kernels of odd length only",
        vjp_rule(moving_average, _moving_average_bwd_of_odd_kernel),
        normal(9),
        normal(3),
        reference=moving_average,
        where=(normal(9), normal(4)),
    ),
    wrong(
        "gain: broadcast along both axes, summed along one",
        vjp_rule(multiply, _multiply_bwd_of_full_gain),
        normal(3, 4),
        normal(1, 4),
        reference=multiply,
        where=(normal(3, 4), normal(1, 1)),
    ),
    wrong(
        "diagonal: the last element is lost in tall matrices",
        diagonal_of_tall,
        uniform(3, 3, low=0.5, high=1.5),
        reference=diagonal,
        where=(values([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]),),
    ),
    wrong(
        "multi-class hinge: halved for two classes",
        vjp_rule(hinge_of_classes, _hinge_bwd_of_two_classes),
        normal(3, 4),
        jnp.array([0, 3, 1]),
        reference=hinge_of_classes,
        where=(values([[0.5, 0.0], [0.25, 0.5]]), jnp.array([1, 0])),
    ),
]
