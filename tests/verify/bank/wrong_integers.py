"""Right for the integers, masks and flags of the point, wrong for others."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

import gradkit
from tests.verify.bank.entry import entry, normal, registered, uniform, vjp_rule

wrong = functools.partial(entry, wrong=True, family="another integer, mask or flag")


def cross_entropy(logits, labels):
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
    return -picked[:, 0]


def _cross_entropy_bwd_with_label_zero_ignored(residuals, y_bar):
    logits, labels = residuals
    one_hot = jax.nn.one_hot(labels, logits.shape[1], dtype=logits.dtype)
    used = (labels != 0).astype(logits.dtype)
    return (jax.nn.softmax(logits) - one_hot) * (used * y_bar)[:, None], None


@gradkit.custom_gradient
def power_with_special_case(x, n):
    """For n = 1 somebody has returned the value."""

    def grad(y_bar):
        return jnp.where(n == 1, x, n * x ** (n - 1)).astype(x.dtype) * y_bar, None

    return x**n, grad


def plain_power(x, n):
    return x**n


def shift(x, by):
    return jnp.roll(x, by)


def _shift_bwd_of_size(residuals, y_bar):
    _, by = residuals
    return jnp.roll(y_bar, -jnp.abs(by)), None


def segment_sum(x, ids):
    return jnp.zeros(4, x.dtype).at[ids].add(x)


def _segment_sum_bwd_with_clipped_ids(residuals, y_bar):
    _, ids = residuals
    return y_bar[jnp.clip(ids, 0, 2)], None


def select_branch(x, index):
    return lax.switch(index, [jnp.sin, jnp.cos, jnp.tanh], x)


def _select_bwd_with_wrong_third(residuals, y_bar):
    x, index = residuals
    slopes = [jnp.cos, lambda x: -jnp.sin(x), lambda x: 1 - jnp.tanh(x)]
    return lax.switch(index, slopes, x) * y_bar, None


def masked_mean(x, mask):
    count = jnp.maximum(mask.sum(), 1).astype(x.dtype)
    return jnp.sum(jnp.where(mask, x**2, 0)) / count


def _masked_mean_bwd_of_full_mask(residuals, y_bar):
    x, mask = residuals
    return jnp.where(mask, 2 * x / x.size, 0) * y_bar, None


def pick(table, row, column):
    return table[row, column] ** 2


def _pick_bwd_of_diagonal(residuals, y_bar):
    table, row, column = residuals
    slope = 2 * table[row, column] * y_bar
    return jnp.zeros_like(table).at[column, row].add(slope), None, None


def relu_or_square(x, squared):
    y = jnp.maximum(x, 0)
    return jnp.where(squared, y**2, y)


def window_mean(x, start):
    return lax.dynamic_slice(x, (start,), (3,)).mean()


def _window_mean_gradient(op, y_bar):
    x, start = op.inputs
    places = start + jnp.arange(3)
    # dynamic_slice moves a window that reaches over the end back inside; scatter drops it.
    return jnp.zeros_like(x).at[places].add(y_bar / 3, mode="drop"), None


def bag_of_words(table, ids, lengths):
    """Sums of the first `lengths` rows of each bag."""
    used = jnp.arange(ids.shape[1])[None, :] < lengths[:, None]
    return jnp.sum(jnp.where(used[:, :, None], table[ids], 0), axis=1)


def _bag_of_words_bwd_of_full_bags(residuals, y_bar):
    table, ids, _ = residuals
    spread = jnp.broadcast_to(y_bar[:, None, :], (*ids.shape, table.shape[1]))
    return jnp.zeros_like(table).at[ids].add(spread), None, None


ENTRIES = [
    wrong(
        "cross entropy: label 0 is ignored",
        vjp_rule(cross_entropy, _cross_entropy_bwd_with_label_zero_ignored),
        normal(3, 4),
        jnp.array([1, 3, 2]),
        reference=cross_entropy,
        where=(normal(3, 4), jnp.array([1, 0, 2])),
    ),
    wrong(
        "integer power: the first power's slope is x",
        power_with_special_case,
        uniform(4, low=0.5, high=1.5),
        3,
        reference=plain_power,
        where=(uniform(4, low=0.5, high=1.5), 1),
    ),
    wrong(
        "shift: one to the left is undone as if to the right",
        vjp_rule(shift, _shift_bwd_of_size),
        normal(5),
        1,
        reference=shift,
        where=(normal(5), -1),
    ),
    wrong(
        "segment sum: the last segment's cotangent is the one before it",
        vjp_rule(segment_sum, _segment_sum_bwd_with_clipped_ids),
        normal(5),
        jnp.array([0, 2, 1, 2, 0]),
        reference=segment_sum,
        where=(normal(5), jnp.array([0, 3, 1, 2, 0])),
    ),
    wrong(
        "switch: the third branch's slope lacks a square",
        vjp_rule(select_branch, _select_bwd_with_wrong_third),
        normal(3),
        jnp.array(0),
        reference=select_branch,
        where=(normal(3), jnp.array(2)),
    ),
    wrong(
        "masked mean: divided by the length as if all were present",
        vjp_rule(masked_mean, _masked_mean_bwd_of_full_mask),
        normal(4),
        jnp.array([True, True, True, True]),
        reference=masked_mean,
        where=(normal(4), jnp.array([True, False, False, True])),
    ),
    wrong(
        "table entry: row and column are exchanged off the diagonal",
        vjp_rule(pick, _pick_bwd_of_diagonal),
        normal(4, 4),
        2,
        2,
        reference=pick,
        where=(normal(4, 4), 2, 1),
    ),
    wrong(
        "relu or its square: the flag is not looked at",
        vjp_rule(relu_or_square, lambda r, g: (jnp.where(r[0] > 0, g, 0), None)),
        normal(5),
        jnp.array(False),
        reference=relu_or_square,
        where=(normal(5), jnp.array(True)),
    ),
    wrong(
        "window: a start that reaches over the end",
        registered("BankWindow", window_mean, _window_mean_gradient),
        normal(6),
        1,
        reference=window_mean,
        where=(normal(6), 5),
    ),
    wrong(
        "bag of words: the lengths are not looked at",
        vjp_rule(bag_of_words, _bag_of_words_bwd_of_full_bags),
        normal(6, 2),
        jnp.array([[0, 1, 5], [2, 2, 3]]),
        jnp.array([3, 3]),
        reference=bag_of_words,
        where=(normal(6, 2), jnp.array([[0, 1, 5], [2, 2, 3]]), jnp.array([2, 1])),
    ),
]
