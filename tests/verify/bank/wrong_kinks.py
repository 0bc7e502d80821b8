"""Wrong at a kink or a tie, or on the other side of it."""

import functools

import jax
import jax.numpy as jnp

import gradkit
from tests.verify.bank.entry import entry, jvp_rule, registered, values, vjp_rule

kink = functools.partial(entry, wrong=True, family="kink or tie", kink=True)
side = functools.partial(entry, wrong=True, family="other side")


def maximum(x, y):
    return jnp.maximum(x, y)


def relu(x):
    return jnp.maximum(x, 0)


def leaky_relu(x):
    return jnp.where(x > 0, x, 0.25 * x)


def largest(x):
    return jnp.max(x)


def ordered(x):
    return jnp.sort(x)


def _ordered_bwd_by_search(residuals, y_bar):
    (x,) = residuals
    # searchsorted finds the first of equal elements, for each of them.
    return y_bar[jnp.searchsorted(jnp.sort(x), x)]


def max_pool(x):
    return x.reshape(-1, 2).max(axis=1)


def _max_pool_bwd_for_all_ties(residuals, y_bar):
    (x,) = residuals
    windows = x.reshape(-1, 2)
    at_maximum = (windows == windows.max(axis=1, keepdims=True)).astype(x.dtype)
    return (at_maximum * y_bar[:, None]).reshape(x.shape)


def hinge(margin):
    return jnp.sum(jnp.maximum(0, 1 - margin))


def absolute(x):
    return jnp.abs(x)


def soft_threshold(x):
    return jnp.sign(x) * jnp.maximum(jnp.abs(x) - 1, 0)


def clip(x):
    return jnp.clip(x, -1, 1)


def two_largest(x):
    return jax.lax.top_k(x, 2)[0]


def _two_largest_bwd_by_threshold(residuals, y_bar):
    (x,) = residuals
    y = two_largest(x)
    first, second = (x == y[0]).astype(x.dtype), (x == y[1]).astype(x.dtype)
    return first * y_bar[0] + second * y_bar[1]


def distance(x, y):
    apart = jnp.any(x != y)
    return jnp.where(apart, jnp.linalg.norm(jnp.where(apart, x - y, 1)), 0)


def _distance_bwd_of_ones(residuals, y_bar):
    x, y = residuals
    apart = jnp.any(x != y)
    unit = jnp.where(apart, (x - y) / jnp.where(apart, distance(x, y), 1), 1)
    return unit * y_bar, -unit * y_bar


def elu(x):
    return jnp.where(x > 0, x, jnp.expm1(jnp.minimum(x, 0)))


def cubed_size(x):
    return jnp.abs(x) ** 3


def pinball(x):
    return jnp.where(x > 0, 0.875 * x, -0.125 * x)


def cube_root(x):
    return jnp.sign(x) * jnp.abs(x) ** (1 / 3)


def softsign(x):
    return x / (1 + jnp.abs(x))


def selu(x):
    return 1.0507 * jnp.where(x > 0, x, 1.67326 * jnp.expm1(jnp.minimum(x, 0)))


def angle(y, x):
    return jnp.arctan2(y, x)


def tied(*numbers):
    return values([float(x) for x in numbers])


ENTRIES = [
    kink(
        "maximum: at a tie both arguments get the whole cotangent",
        vjp_rule(
            maximum,
            lambda r, g: (jnp.where(r[0] >= r[1], g, 0), jnp.where(r[1] >= r[0], g, 0)),
        ),
        tied(1, 2, -1),
        tied(1, 0, 3),
        reference=maximum,
    ),
    kink(
        "relu: slope 2 at zero",
        vjp_rule(relu, lambda r, g: jnp.where(r[0] > 0, g, 0) + jnp.where(r[0] == 0, 2 * g, 0)),
        tied(0, 1, -1),
        reference=relu,
    ),
    kink(
        "leaky relu: at zero both slopes are added",
        gradkit.custom_gradient(
            lambda x: (
                leaky_relu(x),
                lambda g: jnp.where(x >= 0, g, 0) + jnp.where(x <= 0, 0.25 * g, 0),
            )
        ),
        tied(0, 2, -3),
        reference=leaky_relu,
    ),
    kink(
        "largest of a vector: every tie gets the whole cotangent",
        vjp_rule(largest, lambda r, g: jnp.where(r[0] == largest(r[0]), g, 0)),
        tied(2, -1, 2, 0),
        reference=largest,
    ),
    kink(
        "sort: tied elements all get the first one's cotangent",
        vjp_rule(ordered, _ordered_bwd_by_search),
        tied(1, 3, 1, -2),
        reference=ordered,
    ),
    kink(
        "max pooling: ties in a window are counted twice",
        vjp_rule(max_pool, _max_pool_bwd_for_all_ties),
        tied(1, 1, 0, 2, -1, -3),
        reference=max_pool,
    ),
    kink(
        "hinge: slope -3 at the margin",
        registered(
            "BankHinge",
            hinge,
            lambda op, g: (-g * (1 + 2 * (op.inputs[0] == 1)) * (op.inputs[0] <= 1)).astype(
                op.inputs[0].dtype
            ),
        ),
        tied(1, 0.5, 2),
        reference=hinge,
    ),
    kink(
        "absolute value: x / |x| at zero",
        jvp_rule(absolute, lambda x, t: x[0] / absolute(x[0]) * t[0]),
        tied(0, 2, -3),
        reference=absolute,
    ),
    kink(
        "soft threshold: slope -1 at the threshold",
        vjp_rule(
            soft_threshold,
            lambda r, g: jnp.where(absolute(r[0]) > 1, g, jnp.where(absolute(r[0]) == 1, -g, 0)),
        ),
        tied(1, 3, 0.5, -1),
        reference=soft_threshold,
    ),
    kink(
        "two largest: a tie gets both cotangents",
        vjp_rule(two_largest, _two_largest_bwd_by_threshold),
        tied(4, 1, 4, 0),
        reference=two_largest,
    ),
    kink(
        "distance: every coordinate has slope one where the points coincide",
        vjp_rule(
            distance,
            _distance_bwd_of_ones,
        ),
        tied(1, 2),
        tied(1, 2),
        reference=distance,
    ),
    side(
        "elu: the slope below zero is that of exp(x) - 1, less one",
        vjp_rule(elu, lambda r, g: jnp.where(r[0] > 0, g, elu(r[0]) * g)),
        tied(0.5, 2, 1),
        reference=elu,
        where=(tied(-0.5, 2, 1),),
    ),
    side(
        "leaky relu: zero below zero",
        vjp_rule(leaky_relu, lambda r, g: jnp.where(r[0] > 0, g, 0)),
        tied(0.5, 2, 1),
        reference=leaky_relu,
        where=(tied(-0.5, 2, 1),),
    ),
    side(
        "cubed size: the sign is lost below zero",
        vjp_rule(cubed_size, lambda r, g: 3 * r[0] ** 2 * g),
        tied(0.5, 2, 1),
        reference=cubed_size,
        where=(tied(-0.5, 2, 1),),
    ),
    side(
        "pinball loss: the two slopes agree",
        registered(
            "BankPinball", pinball, lambda op, g: jnp.where(op.inputs[0] > 0, 0.875, 0.125) * g
        ),
        tied(0.5, 2, 1),
        reference=pinball,
        where=(tied(0.5, -2, 1),),
    ),
    side(
        "cube root: the slope below zero is negative",
        jvp_rule(cube_root, lambda x, t: cube_root(x[0]) / (3 * jnp.abs(x[0])) * t[0]),
        tied(0.5, 2),
        reference=cube_root,
        where=(tied(0.5, -2),),
    ),
    side(
        "softsign: 1 / (1 + x)^2 below zero as well",
        vjp_rule(softsign, lambda r, g: g / (1 + r[0]) ** 2),
        tied(0.5, 2, 1),
        reference=softsign,
        where=(tied(-0.25, 2, 1),),
    ),
    side(
        "selu: its outer factor is lost below zero",
        vjp_rule(
            selu,
            lambda r, g: jnp.where(
                r[0] > 0, 1.0507 * g, 1.67326 * jnp.exp(jnp.minimum(r[0], 0)) * g * 0.5
            ),
        ),
        tied(0.5, 2, 1),
        reference=selu,
        where=(tied(-0.25, 2, 1),),
    ),
    side(
        "angle: right in the first quadrant only",
        vjp_rule(
            angle,
            lambda r, g: (
                r[1] / (r[0] ** 2 + r[1] ** 2) * g,
                -jnp.abs(r[0]) / (r[0] ** 2 + r[1] ** 2) * g,
            ),
        ),
        tied(0.5, 2),
        tied(1, 0.25),
        reference=angle,
        where=(tied(-0.5, 2), tied(1, 0.25)),
    ),
    side(
        "relu6: the gradient leaks below zero",
        gradkit.override(jax.nn.relu6, {"relu6": lambda op, g: jnp.where(op.inputs[0] < 6, g, 0)}),
        tied(0.5, 2, 7),
        reference=jax.nn.relu6,
        where=(tied(0.5, -2, 7),),
    ),
]
