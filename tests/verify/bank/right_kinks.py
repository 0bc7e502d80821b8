"""Points that are exactly at a kink, a tie or a jump."""

import functools

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
    values,
    vjp_rule,
)

kink = functools.partial(entry, wrong=False, family="kink or tie", kink=True)
jump = functools.partial(entry, wrong=False, family="jump", kink=True)


def maximum(x, y):
    return jnp.maximum(x, y)


def _maximum_bwd_first(residuals, y_bar):
    """At a tie the first argument gets all of it."""
    x, y = residuals
    return jnp.where(x >= y, y_bar, 0), jnp.where(x >= y, 0, y_bar)


def largest(x):
    return jnp.max(x)


def _largest_bwd_at_last(residuals, y_bar):
    (x,) = residuals
    last = x.size - 1 - jnp.argmax(x[::-1])
    return jnp.zeros_like(x).at[last].set(y_bar)


def _largest_bwd_evenly(residuals, y_bar):
    (x,) = residuals
    tied = (x == jnp.max(x)).astype(x.dtype)
    return tied / tied.sum() * y_bar


def max_pool(x):
    return lax.reduce_window(x, -jnp.inf, lax.max, (2, 2), (2, 2), "VALID")


def hinge(scores, labels):
    right = jnp.take_along_axis(scores, labels[:, None], axis=1)
    return jnp.sum(jnp.maximum(0, 1 + scores - right))


def elastic_net(w):
    return 0.5 * jnp.sum(w**2) + 0.3 * jnp.sum(jnp.abs(w))


def soft_threshold(x):
    return jnp.sign(x) * jnp.maximum(jnp.abs(x) - 0.5, 0)


def _soft_threshold_bwd(residuals, y_bar):
    return jnp.where(jnp.abs(residuals[0]) >= 0.5, y_bar, 0)


def safe_norm(x):
    return jnp.sqrt(jnp.sum(x**2))


@gradkit.custom_gradient
def norm_with_zero_at_origin(x):
    norm = safe_norm(x)

    def grad(y_bar):
        return jnp.where(norm > 0, x / jnp.where(norm > 0, norm, 1), 0) * y_bar

    return norm, grad


def pinball(x):
    return jnp.maximum(0.875 * x, -0.125 * x)


def ranking_loss(scores):
    differences = scores[:, None] - scores[None, :]
    return jnp.sum(jnp.maximum(0, differences))


def dead_network(params, x):
    hidden = jax.nn.relu(x @ params["w"] + params["b"][None, :])
    return hidden @ params["out"]


def sparsemax(z):
    """Projection to the simplex, at a point where one more element is about to join."""
    ordered = jnp.sort(z)[::-1]
    count = jnp.arange(1, z.size + 1)
    sums = jnp.cumsum(ordered)
    support = jnp.sum(jnp.where(1 + count * ordered > sums, 1, 0))
    threshold = (sums[support - 1] - 1) / support.astype(z.dtype)
    return jnp.where(z > threshold, z - threshold, 0)


def triangle_wave(x):
    return jnp.abs(x - 2 * jnp.floor(x / 2 + 0.5))


def detached_choice(x, y):
    """The larger of two, chosen by a comparison."""
    return jnp.where(x > y, x, y)


def step_table(x):
    return jnp.asarray([1.0, 4.0, 2.0, 0.5], x.dtype)[jnp.clip(x, 0, 3).astype(int)]


def ranks(x):
    return jnp.argsort(jnp.argsort(x)).astype(x.dtype)


def one_hot_of_largest(x):
    return jax.nn.one_hot(jnp.argmax(x), x.size, dtype=x.dtype)


def accuracy(scores, labels):
    return jnp.mean((jnp.argmax(scores, axis=1) == labels).astype(scores.dtype))


ENTRIES = [
    kink("relu at zero", jax.nn.relu, values([0.0, 0.0, 1.0, -1.0])),
    kink("absolute value at zero", jnp.abs, values([0.0, 1.0, -2.0])),
    kink(
        "l1 norm of a sparse vector", lambda x: jnp.sum(jnp.abs(x)), values([0.0, 2.0, 0.0, -1.0])
    ),
    kink("maximum of an array and itself", lambda x: jnp.maximum(x, x), normal(4)),
    kink(
        "maximum at a tie: all to the first argument",
        vjp_rule(maximum, _maximum_bwd_first),
        values([1.0, 2.0]),
        values([1.0, 3.0]),
        reference=maximum,
    ),
    kink(
        "largest of a vector at a tie: all to the last",
        vjp_rule(largest, _largest_bwd_at_last),
        values([2.0, 1.0, 2.0, 2.0]),
        reference=largest,
    ),
    kink(
        "largest of a vector at a tie: evenly",
        registered("BankLargestEvenly", largest, lambda op, g: _largest_bwd_evenly(op.inputs, g)),
        values([2.0, 1.0, 2.0, 2.0]),
        reference=largest,
    ),
    kink("largest of equal numbers", jnp.max, values([3.0, 3.0, 3.0])),
    kink("sort with ties", jnp.sort, values([1.0, 3.0, 1.0, -2.0, 3.0])),
    kink(
        "two largest of four, three tied",
        lambda x: lax.top_k(x, 2)[0],
        values([4.0, 1.0, 4.0, 4.0]),
    ),
    kink("median of an even number, tied", jnp.median, values([1.0, 2.0, 2.0, 3.0]), dtypes=FINE),
    kink(
        "clip at both of its bounds",
        lambda x: jnp.clip(x, -1, 2),
        values([-1.0, 2.0, 0.5, 3.0]),
    ),
    kink(
        "max pooling with ties in its windows",
        max_pool,
        values([[1.0, 1.0, 0.0, 2.0], [1.0, 1.0, 2.0, -1.0]]),
    ),
    kink(
        "max pooling of a blank image",
        max_pool,
        values([[0.0] * 4] * 4),
    ),
    kink(
        "multi-class hinge at the margin",
        hinge,
        values([[0.0, 1.0, 0.0], [2.0, 0.0, 1.0]]),
        jnp.array([1, 0]),
    ),
    kink("elastic net at zero weights", elastic_net, values([0.0, 0.0, 0.5])),
    kink(
        "soft threshold at its threshold: slope one",
        vjp_rule(soft_threshold, _soft_threshold_bwd),
        values([0.5, -0.5, 0.0, 2.0]),
        reference=soft_threshold,
    ),
    kink(
        "norm at the origin: zero",
        norm_with_zero_at_origin,
        values([0.0, 0.0, 0.0]),
        reference=safe_norm,
    ),
    kink("leaky relu at zero", jax.nn.leaky_relu, values([0.0, -1.0, 2.0])),
    kink("relu6 at zero and six", jax.nn.relu6, values([0.0, 6.0, 3.0, 7.0])),
    kink("hard swish at its corners", jax.nn.hard_swish, values([-3.0, 3.0, 0.0, 1.0])),
    kink("elu at zero, where its slope bends", jax.nn.elu, values([0.0, -1.0, 1.0])),
    kink("pinball loss at zero residuals", pinball, values([0.0, 1.0, -1.0])),
    kink(
        "Huber loss at its threshold",
        lambda x: jnp.where(jnp.abs(x) <= 1, 0.5 * x**2, jnp.abs(x) - 0.5),
        values([1.0, -1.0, 0.5, 2.0]),
    ),
    kink("pairwise ranking loss with equal scores", ranking_loss, values([0.5, 0.5, 1.0, 0.5])),
    kink(
        "relu network whose units are all at zero",
        dead_network,
        {"w": normal(3, 4), "b": values([0.0] * 4), "out": normal(4, 2)},
        values([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]),
    ),
    kink("sparsemax where an element joins the support", sparsemax, values([1.5, 0.5, -1.0])),
    kink("triangle wave at its corners", triangle_wave, values([0.0, 1.0, 2.5])),
    kink("choice by comparison, tied", detached_choice, values([1.0, 2.0]), values([1.0, 0.0])),
    kink(
        "absolute value: the slope at zero is that of the right side",
        jvp_rule(jnp.abs, lambda x, t: jnp.where(x[0] >= 0, t[0], -t[0])),
        values([0.0, 1.0, -2.0]),
        reference=jnp.abs,
    ),
    kink(
        "smallest distance to two equally near points",
        lambda x: jnp.min(jnp.abs(x - jnp.asarray([-1.0, 1.0, 4.0], x.dtype))),
        values(0.0),
    ),
    jump("floor at integers and between", jnp.floor, values([1.0, 0.5, -2.0])),
    jump("round at halves", lambda x: jnp.round(x), values([0.5, 1.5, -0.25])),
    jump("sign at zero", jnp.sign, values([0.0, 1.0, -1.0])),
    jump(
        "step by comparison at its threshold",
        lambda x: (x > 1).astype(x.dtype) * x**2,
        values([0.5, 2.0, 1.5]),
    ),
    jump("remainder next to its jump", lambda x: jnp.remainder(x, 1.0), values([0.25, 1.5, -0.75])),
    jump("fractional part of x^2", lambda x: x**2 - jnp.floor(x**2), values([0.5, 1.25, -0.25])),
    jump("table by truncated index", step_table, values([0.5, 1.0, 2.75])),
    jump("ranks, which have no slope", ranks, values([0.5, -1.0, 2.0])),
    jump("one-hot of the largest", one_hot_of_largest, values([0.5, -1.0, 2.0])),
    jump("accuracy", accuracy, normal(4, 3), jnp.array([0, 2, 1, 1])),
    jump(
        "quantised weights times inputs",
        lambda w, x: jnp.sum(jnp.round(4 * w) / 4 * x),
        values([0.3, -0.7, 0.125]),
        normal(3),
    ),
]
