"""Right gradients of scans, windows and look-ups."""

import jax.numpy as jnp
import numpy as np
from jax import lax

from tests.verify.mutation.rule import Rule, integers, nonzero, normal, row


def cumsum(x):
    return jnp.cumsum(x, axis=0)


def cumsum_fwd(x):
    return cumsum(x), ()


def cumsum_bwd(residuals, y_bar):
    return (jnp.cumsum(y_bar[::-1], axis=0)[::-1],)


def cumprod(x):
    return jnp.cumprod(x)


def cumprod_fwd(x):
    y = cumprod(x)
    return y, (x, y)


def cumprod_bwd(residuals, y_bar):
    x, y = residuals
    return (jnp.cumsum((y * y_bar)[::-1])[::-1] / x,)


def embedding(table, tokens):
    return table[tokens]


def embedding_fwd(table, tokens):
    return embedding(table, tokens), (table, tokens)


def embedding_bwd(residuals, y_bar):
    table, tokens = residuals
    return jnp.zeros_like(table).at[tokens].add(y_bar), None


def scatter_add(x, index, updates):
    return x.at[index].add(updates)


def scatter_add_fwd(x, index, updates):
    return scatter_add(x, index, updates), (index,)


def scatter_add_bwd(residuals, y_bar):
    (index,) = residuals
    return y_bar, None, y_bar[index]


def segment_mean(x, segments):
    counts = jnp.zeros(3, x.dtype).at[segments].add(1.0)
    return jnp.zeros(3, x.dtype).at[segments].add(x) / jnp.maximum(counts, 1.0)


def segment_mean_fwd(x, segments):
    return segment_mean(x, segments), (segments,)


def segment_mean_bwd(residuals, y_bar):
    (segments,) = residuals
    counts = jnp.zeros_like(y_bar).at[segments].add(1.0)
    return (y_bar / jnp.maximum(counts, 1.0))[segments], None


def max_pool(x):
    return jnp.max(x.reshape(-1, 2), axis=1)


def max_pool_fwd(x):
    return max_pool(x), (jnp.argmax(x.reshape(-1, 2), axis=1),)


def max_pool_bwd(residuals, y_bar):
    (winners,) = residuals
    hit = winners[:, None] == jnp.arange(2)[None, :]
    return (jnp.where(hit, y_bar[:, None], 0.0).reshape(-1),)


def window_mean(x):
    return (x[:-2] + x[1:-1] + x[2:]) / 3


def window_mean_fwd(x):
    return window_mean(x), (jnp.zeros_like(x),)


def window_mean_bwd(residuals, y_bar):
    (zeros,) = residuals
    share = y_bar / 3
    return (zeros.at[:-2].add(share).at[1:-1].add(share).at[2:].add(share),)


def difference(x):
    return x[1:] - x[:-1]


def difference_fwd(x):
    return difference(x), ()


def difference_bwd(residuals, y_bar):
    return (jnp.pad(y_bar, (1, 0)) - jnp.pad(y_bar, (0, 1)),)


def sort(x):
    return jnp.sort(x)


def sort_fwd(x):
    return sort(x), (jnp.argsort(x),)


def sort_bwd(residuals, y_bar):
    (order,) = residuals
    return (jnp.zeros_like(y_bar).at[order].set(y_bar),)


def linear_recurrence(decay, x, start):
    def step(h, inputs):
        a, b = inputs
        h = a * h + b
        return h, h

    return lax.scan(step, start, (decay, x))[1]


def linear_recurrence_fwd(decay, x, start):
    h = linear_recurrence(decay, x, start)
    return h, (decay, jnp.concatenate([start[None], h[:-1]]))


def linear_recurrence_bwd(residuals, y_bar):
    decay, before = residuals

    def step(h_bar, inputs):
        a, h, out_bar = inputs
        total = h_bar + out_bar
        return a * total, (total * h, total)

    zero = jnp.zeros_like(y_bar[0])
    start_bar, (decay_bar, x_bar) = lax.scan(step, zero, (decay, before, y_bar), reverse=True)
    return decay_bar, x_bar, start_bar


def leaky_integrator(x):
    def step(h, x):
        h = 0.9 * h + 0.1 * jnp.tanh(x)
        return h, h

    return lax.scan(step, jnp.zeros_like(x[0]), x)[1]


def leaky_integrator_fwd(x):
    return leaky_integrator(x), (x,)


def leaky_integrator_bwd(residuals, y_bar):
    (x,) = residuals

    def step(h_bar, out_bar):
        total = h_bar + out_bar
        return 0.9 * total, total

    _, totals = lax.scan(step, jnp.zeros_like(y_bar[0]), y_bar, reverse=True)
    return (0.1 * totals * (1 - jnp.tanh(x) ** 2),)


_KNOTS = np.array([-2.0, -0.5, 0.5, 1.0, 3.0])


def interpolate(x, values):
    return jnp.interp(x, jnp.asarray(_KNOTS, values.dtype), values)


def interpolate_fwd(x, values):
    knots = jnp.asarray(_KNOTS, values.dtype)
    left = jnp.clip(jnp.searchsorted(knots, x, side="right") - 1, 0, 3)
    weight = jnp.clip((x - knots[left]) / (knots[left + 1] - knots[left]), 0, 1)
    return interpolate(x, values), (left, weight, values)


def interpolate_bwd(residuals, y_bar):
    left, weight, values = residuals
    knots = jnp.asarray(_KNOTS, values.dtype)
    slope = (values[left + 1] - values[left]) / (knots[left + 1] - knots[left])
    x_bar = jnp.where((weight > 0) & (weight < 1), slope, 0.0) * y_bar
    lower = jnp.zeros_like(values).at[left].add((1 - weight) * y_bar)
    return x_bar, lower.at[left + 1].add(weight * y_bar)


def trapezoid(y, x):
    return jnp.sum((y[1:] + y[:-1]) * (x[1:] - x[:-1])) / 2


def trapezoid_fwd(y, x):
    return trapezoid(y, x), (y, x)


def trapezoid_bwd(residuals, area_bar):
    y, x = residuals
    widths = (x[1:] - x[:-1]) / 2
    heights = (y[1:] + y[:-1]) / 2
    y_bar = jnp.pad(widths, (0, 1)) + jnp.pad(widths, (1, 0))
    x_bar = jnp.pad(heights, (1, 0)) - jnp.pad(heights, (0, 1))
    return y_bar * area_bar, x_bar * area_bar


_SEGMENTS = (row(1, -2, 0.5, 3, -1, 2), np.array([0, 1, 2, 0, 2, 2], np.int32))

RULES = (
    Rule(cumsum, cumsum_fwd, cumsum_bwd, (normal(4, 3),)),
    Rule(cumprod, cumprod_fwd, cumprod_bwd, (nonzero(4),), domain=lambda x: np.all(x != 0)),
    Rule(embedding, embedding_fwd, embedding_bwd, (normal(5, 3), integers(4, below=5))),
    Rule(
        scatter_add, scatter_add_fwd, scatter_add_bwd, (normal(5), integers(4, below=5), normal(4))
    ),
    Rule(
        segment_mean,
        segment_mean_fwd,
        segment_mean_bwd,
        (normal(6), integers(6, below=3)),
        at=_SEGMENTS,
    ),
    Rule(max_pool, max_pool_fwd, max_pool_bwd, (normal(6),), (row(1, 2, 0.5, 0.5, 3, -1),), True),
    Rule(window_mean, window_mean_fwd, window_mean_bwd, (normal(6),)),
    Rule(difference, difference_fwd, difference_bwd, (normal(5),)),
    Rule(sort, sort_fwd, sort_bwd, (normal(5),)),
    Rule(
        linear_recurrence,
        linear_recurrence_fwd,
        linear_recurrence_bwd,
        (normal(4, 2), normal(4, 2), normal(2)),
    ),
    Rule(leaky_integrator, leaky_integrator_fwd, leaky_integrator_bwd, (normal(4, 2),)),
    Rule(
        interpolate,
        interpolate_fwd,
        interpolate_bwd,
        (normal(5), normal(5)),
        at=(row(-3, -1, 0.25, 0.75, 4), row(0.5, -1, 2, 1, -0.25)),
    ),
    Rule(trapezoid, trapezoid_fwd, trapezoid_bwd, (normal(4), normal(4))),
)
