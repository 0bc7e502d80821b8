"""Sums over all paths of a chain: the log-partition function of CRFs and HMMs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

# From this many states on a step is a matrix product; below, a product with broadcasting is faster.
PRODUCT = 64


def log_partition(unary: jax.Array, transitions: jax.Array, lengths: jax.Array) -> jax.Array:
    """`log sum_s exp(sum_t unary[t, b, s_t] + sum_t transitions[s_t, s_(t + 1)])`, `[b]`.

    In probabilities, rescaled at every step, with neither exponential nor logarithm within the
    loop. Where the potentials are so far apart that this rounds paths to 0 that may matter, which
    the two passes tell together, the logarithms themselves are summed.
    """
    # Zeros of the steps' type: under shard_map, JAX batches a `cond` only if its operands vary
    # over the same axes (as of JAX 0.10).
    zero = jnp.zeros_like(unary[0, :, 0])
    transitions = transitions + jnp.sum(zero)
    lengths = lengths + zero.astype(lengths.dtype)
    y, exact = _rescaled(unary, transitions, lengths)
    # The logarithms keep nothing in the forward pass: two sets of residuals would be held.
    return lax.cond(
        jnp.all(exact > 0),
        lambda y, unary, transitions: y,
        lambda y, unary, transitions: jax.checkpoint(_logarithmic)(unary, transitions, lengths),
        y, unary, transitions,
    )  # fmt: skip


def marginals(unary: jax.Array, transitions: jax.Array, lengths: jax.Array) -> jax.Array:
    """The probability of each state at each step, `[t, b, k]`."""
    y, pull = jax.vjp(lambda unary: log_partition(unary, transitions, lengths), unary)
    return pull(jnp.ones_like(y))[0]


def viterbi(unary: jax.Array, transitions: jax.Array, lengths: jax.Array) -> jax.Array:
    """The best path, `[t, b]`, which repeats its last state after its end."""
    count, _, k = unary.shape

    def advance(best, now):
        here, t = now
        through = best[:, :, None] + transitions[None]
        into = jnp.max(through, 1) + here
        ended = (t >= lengths)[:, None]
        came_from = jnp.where(ended, jnp.arange(k)[None], jnp.argmax(through, 1))
        return jnp.where(ended, best, into), came_from

    best, came_from = lax.scan(advance, unary[0], (unary[1:], jnp.arange(1, count)))
    last = jnp.argmax(best, -1)

    def retreat(state, came_from):
        before = jnp.take_along_axis(came_from, state[:, None], 1)[:, 0]
        return before, before

    _, before = lax.scan(retreat, last, came_from, reverse=True)
    return jnp.concatenate([before, last[None]])


# -- in probabilities -------------------------------------------------------------------------


@jax.custom_jvp
def _rescaled(unary, transitions, lengths):
    """The log-partition function, and 1 where no path that matters was rounded to 0, else 0."""
    y, exact, *_ = _passes(unary, transitions, lengths)
    return y, exact.astype(y.dtype)


@_rescaled.defjvp
def _rescaled_jvp(primals, tangents):
    unary, transitions, lengths = primals
    unary_dot, transitions_dot, _ = tangents
    y, exact, states, left, right, matrix = _passes(unary, transitions, lengths)
    y_dot = jnp.einsum("tbk,tbk->b", states, unary_dot)
    # Transposed, this is one matrix product over all steps: no matrix a sequence is made.
    into = jnp.einsum("tbi,ij->tbj", left, matrix * transitions_dot)
    y_dot += jnp.einsum("tbj,tbj->b", into, right)
    exact = exact.astype(y.dtype)
    return (y, exact), (y_dot, jnp.zeros_like(exact))


def _times(rows: jax.Array, matrix: jax.Array) -> jax.Array:
    if matrix.shape[0] >= PRODUCT:
        return jnp.matmul(rows, matrix, precision=lax.Precision.HIGHEST)
    return jnp.sum(rows[:, :, None] * matrix[None], 1)


def _passes(unary, transitions, lengths):
    """The forward and backward pass."""
    count = unary.shape[0]
    highest = jnp.maximum(jnp.max(unary, -1, keepdims=True), jnp.finfo(unary.dtype).min)
    weights = jnp.exp(unary - highest)
    top = jnp.maximum(jnp.max(transitions), jnp.finfo(unary.dtype).min)
    matrix = jnp.exp(transitions - top)
    inside = jnp.arange(count)[:, None] < lengths[None]  # [t, b]
    tiny = jnp.finfo(unary.dtype).tiny

    def advance(forward, now):
        weight, inside = now
        reached = _times(forward, matrix) * weight
        total = jnp.sum(reached, -1)
        forward = jnp.where(inside[:, None], reached / jnp.maximum(total, tiny)[:, None], forward)
        return forward, (forward, total)

    start = jnp.sum(weights[0], -1)
    first = weights[0] / start[:, None]
    _, (rest, totals) = lax.scan(advance, first, (weights[1:], inside[1:]))
    forward = jnp.concatenate([first[None], rest])

    def retreat(backward, now):
        weight, inside = now
        ahead = backward * weight
        before = _times(ahead, matrix.T)
        before = before / jnp.maximum(jnp.max(before, -1, keepdims=True), tiny)
        return jnp.where(inside[:, None], before, backward), (backward, ahead)

    final = jnp.ones_like(first)
    first_backward, (rest, ahead) = lax.scan(
        retreat, final, (weights[1:], inside[1:]), reverse=True
    )
    backward = jnp.concatenate([first_backward[None], rest])

    meeting = jnp.sum(forward * backward, -1)  # [t, b]
    log_total = jnp.where(inside[1:], jnp.log(totals) + top, 0)
    highest = jnp.where(inside, highest[..., 0], 0)
    y = jnp.log(start) + jnp.sum(log_total, 0) + jnp.sum(highest, 0)
    # What was rounded to 0 is below the smallest number times what meets it, which is at most 1.
    enough = tiny**0.4
    exact = jnp.where(inside, meeting > enough, True).all(0)
    exact &= jnp.where(inside[1:], totals > enough, True).all(0)
    # Where the logarithms take over, these are multiplied by 0 and must be finite.
    use = (inside & exact[None])[..., None]
    states = jnp.where(use, forward * backward / meeting[..., None], 0)
    left = jnp.where(use[1:], forward[:-1] / (totals * meeting[1:])[..., None], 0)
    return y, exact, states, left, ahead, matrix


# -- in logarithms ----------------------------------------------------------------------------


@jax.custom_jvp
def _logarithmic(unary, transitions, lengths):
    """The log-partition function, for potentials of any size."""
    return _log_passes(unary, transitions, lengths)[0]


@_logarithmic.defjvp
def _logarithmic_jvp(primals, tangents):
    unary, transitions, lengths = primals
    unary_dot, transitions_dot, _ = tangents
    y, forward = _log_passes(unary, transitions, lengths)
    states, pairs = _log_marginals(unary, transitions, lengths, y, forward)
    y_dot = jnp.einsum("tbk,tbk->b", states, unary_dot)
    return y, y_dot + jnp.einsum("bij,ij->b", pairs, transitions_dot)


def _log_sum(x: jax.Array, axis: int) -> jax.Array:
    return jax.nn.logsumexp(x, axis)


def _log_passes(unary, transitions, lengths):
    def advance(forward, now):
        here, t = now
        reached = _log_sum(forward[:, :, None] + transitions[None], 1) + here
        forward = jnp.where((t < lengths)[:, None], reached, forward)
        return forward, forward

    steps = unary[1:], jnp.arange(1, unary.shape[0])
    last, rest = lax.scan(advance, unary[0], steps)
    return _log_sum(last, -1), jnp.concatenate([unary[:1], rest])


def _log_marginals(unary, transitions, lengths, y, forward):
    y = jnp.where(jnp.isfinite(y), y, 0)

    def retreat(carry, now):
        backward, pairs = carry
        here, before, t = now
        inside = (t < lengths)[:, None]
        ahead = backward + here
        pair = jnp.exp(before[:, :, None] + transitions[None] + (ahead - y[:, None])[:, None])
        pairs = pairs + jnp.where(inside[..., None], pair, 0)
        back = _log_sum(transitions[None] + ahead[:, None], 2)
        return (jnp.where(inside, back, backward), pairs), backward

    final = jnp.zeros_like(unary[0])
    none = jnp.zeros_like(final[:, :, None] + transitions[None])
    steps = unary[1:], forward[:-1], jnp.arange(1, unary.shape[0])
    (first, pairs), rest = lax.scan(retreat, (final, none), steps, reverse=True)
    backward = jnp.concatenate([first[None], rest])
    inside = (jnp.arange(unary.shape[0])[:, None] < lengths[None])[..., None]
    return jnp.where(inside, jnp.exp(forward + backward - y[None, :, None]), 0), pairs
