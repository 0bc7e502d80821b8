"""Attention block by block: a running softmax forwards, recomputed scores backwards.

A block has some queries of all heads that share a key head, and some keys. Blocks without a visible
key are never visited. A last block that would reach over the end is moved back, and what it has
in common with the one before is masked: nothing is padded.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from gradkit.ops._attention_inputs import Inputs
from gradkit.ops._attention_scores import Scores, both
from gradkit.ops._blocks import Blocks, transposed_product

# Scores of a block: 64 KiB in float32, which a core's cache holds with what belongs to them.
ROWS = COLS = 128


@partial(jax.jit, static_argnums=0)
def forward(scores: Scores, x: Inputs) -> tuple[jax.Array, jax.Array]:
    """Attention, and the logarithm of each query's sum of exponentials; infinity for no key."""
    one = jax.custom_batching.sequential_vmap(partial(_forward, scores))
    return one(x)


@partial(jax.jit, static_argnums=(0, 1))
def backward(
    scores: Scores,
    wants_bias: bool,
    x: Inputs,
    y: jax.Array,
    logsumexp: jax.Array,
    y_bar: jax.Array,
) -> tuple[Any, ...]:
    """The cotangents of the inputs, as they come in `Inputs`; that of the bias if it is wanted."""
    one = jax.custom_batching.sequential_vmap(partial(_backward, scores, wants_bias))
    return one(x, y, logsumexp, y_bar)


def _forward(scores: Scores, x: Inputs) -> tuple[jax.Array, jax.Array]:
    def over_keys(number, carry):
        y, logsumexp = carry
        block = _Queries(scores, x, number)
        q = block.read(x.q)

        def step(j, state):
            largest, total, mixed = state
            logits, _ = block.logits(q, j)
            new = jnp.maximum(largest, logits.max(-1))
            base = jnp.where(jnp.isneginf(new), 0, new)
            weights, shrink = jnp.exp(logits - base[:, None]), jnp.exp(largest - base)
            mixed = mixed * shrink[:, None] + weights @ block.read_keys(x.v, j)
            return new, total * shrink + weights.sum(-1), mixed

        empty = jnp.zeros_like(q[:, 0])
        state = empty - jnp.inf, empty, jnp.zeros_like(q)
        largest, total, mixed = lax.fori_loop(*block.span(), step, state)
        some = total > 0
        safe = jnp.where(some, total, 1)
        of_rows = jnp.where(some, largest + jnp.log(safe), jnp.inf)
        return block.write(y, mixed / safe[:, None]), block.write(logsumexp, of_rows)

    like = _Queries(scores, x, 0)
    start = jnp.zeros_like(x.q), jnp.zeros_like(x.q[..., 0], like.dtype)
    return lax.fori_loop(0, like.count, over_keys, start)


def _backward(
    scores: Scores,
    wants_bias: bool,
    x: Inputs,
    y: jax.Array,
    logsumexp: jax.Array,
    y_bar: jax.Array,
) -> tuple[Any, ...]:
    like = _Queries(scores, x, 0)

    def over_keys(number, carry):
        block = _Queries(scores, x, number)
        q, of_rows, y_bar_rows = block.read(x.q), block.read(logsumexp), block.read(y_bar)
        # What each query's weights lose through their sum: sum_j w_j w_bar_j = y . y_bar.
        shared = (block.read(y) * y_bar_rows).sum(-1)

        def step(j, state):
            q_bar, k_bar, v_bar, bias_bar = state
            logits, slope = block.logits(q, j, fresh=True)
            weights = jnp.exp(logits - of_rows[:, None])
            weights_bar = y_bar_rows @ block.read_keys(x.v, j).T
            logits_bar = weights * (weights_bar - shared[:, None])
            bias_bar = block.add_to_bias(bias_bar, j, logits_bar)
            products_bar = logits_bar if slope is None else logits_bar * slope
            q_bar = q_bar + products_bar @ block.read_keys(x.k, j)
            k_bar = block.add_to_keys(k_bar, j, transposed_product(products_bar, q))
            v_bar = block.add_to_keys(v_bar, j, transposed_product(weights, y_bar_rows))
            return q_bar, k_bar, v_bar, bias_bar

        q_bar, k_bar, v_bar, bias_bar, scale_bar = carry
        state = jnp.zeros_like(q), k_bar, v_bar, bias_bar
        rows_bar, k_bar, v_bar, bias_bar = lax.fori_loop(*block.span(), step, state)
        # The last block repeats rows of the one before, with zeros here.
        q_bar = block.write(q_bar, block.read(q_bar) + rows_bar)
        return q_bar, k_bar, v_bar, bias_bar, scale_bar + jnp.vdot(rows_bar, q)

    zeros = partial(jnp.zeros_like, dtype=like.dtype)
    bias_bar = None if x.bias is None or not wants_bias else zeros(x.bias)
    start = zeros(x.q), zeros(x.k), zeros(x.v), bias_bar, zeros(x.scale)
    q_bar, k_bar, v_bar, bias_bar, scale_bar = lax.fori_loop(0, like.count, over_keys, start)
    found = q_bar * x.scale, k_bar * x.scale, v_bar, scale_bar, bias_bar, None, None, None
    return tuple(
        None if x_bar is None or primal is None else x_bar.astype(primal.dtype)
        for x_bar, primal in zip(found, x, strict=True)
    )


class _Queries:
    """One block of queries: of one example, and of all heads that share a key head."""

    def __init__(self, scores: Scores, x: Inputs, number: Any):
        examples, n_queries, n_heads, _ = x.q.shape
        n_keys, n_key_heads = x.k.shape[1:3]
        self.heads = n_heads // n_key_heads
        self._queries = Blocks.of(n_queries, ROWS // self.heads)
        self._keys = Blocks.of(n_keys, COLS)
        self.rows, self.cols = self._queries.length, self._keys.length
        self.dtype = jnp.promote_types(x.q.dtype, jnp.float32)
        self.count = examples * n_key_heads * self._queries.count
        self._scores, self._x = scores, x
        number, self.key_head = number // n_key_heads, number % n_key_heads
        self._i, self.example = number // examples, number % examples
        self.first = self._queries.start(self._i)

    def read(self, x: jax.Array) -> jax.Array:
        """Rows of `[B, T, N, ...]`, in an order of their own."""
        shape = (1, self.rows, self.heads, *x.shape[3:])
        block = lax.dynamic_slice(x, self._start(x), shape)
        return block.reshape(-1, *x.shape[3:]).astype(self.dtype)

    def write(self, x: jax.Array, rows: jax.Array) -> jax.Array:
        """`x` with these rows."""
        shaped = rows.reshape(1, self.rows, self.heads, *x.shape[3:])
        return lax.dynamic_update_slice(x, shaped.astype(x.dtype), self._start(x))

    def _start(self, x: jax.Array) -> tuple[Any, ...]:
        return (self.example, self.first, self.key_head * self.heads, *([0] * (x.ndim - 3)))

    def read_keys(self, x: jax.Array, j: Any) -> jax.Array:
        """Block `j` of `[B, S, K, H]`, for these queries."""
        start = (self.example, self._keys.start(j), self.key_head, 0)
        block = lax.dynamic_slice(x, start, (1, self.cols, 1, x.shape[3]))
        return block.reshape(self.cols, x.shape[3]).astype(self.dtype)

    def add_to_keys(self, x: jax.Array, j: Any, block: jax.Array) -> jax.Array:
        """`x` with more in block `j`."""
        start = (self.example, self._keys.start(j), self.key_head, 0)
        new = (self.read_keys(x, j) + block)[None, :, None]
        return lax.dynamic_update_slice(x, new, start)

    def span(self) -> tuple[Any, Any]:
        """From which block of keys, and up to which, these queries see any."""
        x, last = self._x, self.first + self.rows - 1
        start, stop = self._scores.span(self.first, last, self._keys.n)
        if x.k_lengths is not None:
            stop = jnp.minimum(stop, x.k_lengths[self.example])
        if x.q_lengths is not None:
            stop = jnp.where(self.first < x.q_lengths[self.example], stop, start)
        return start // self.cols, (stop + self.cols - 1) // self.cols

    def logits(self, q: jax.Array, j: Any, *, fresh: bool = False) -> tuple[jax.Array, Any]:
        """The scores of block `j`, minus infinity for unseen keys, and the slope of their cap.

        Args:
            q: The queries.
            j: The block of keys.
            fresh: Whether queries that another block had, too, see nothing.
        """
        x = self._x
        logits = (q @ self.read_keys(x.k, j).T) * x.scale.astype(self.dtype)
        logits, slope = self._scores.capped(logits)
        shape = (self.rows, self.heads, self.cols)
        if x.bias is not None:
            bias = self._read_scores(x.bias, j).astype(self.dtype)
            logits = (logits.reshape(shape) + bias).reshape(logits.shape)
        seen = self._seen(j, fresh)
        if seen is not None:
            seen = jnp.broadcast_to(seen, shape).reshape(logits.shape)
            logits = jnp.where(seen, logits, -jnp.inf)
        return logits, slope

    def _seen(self, j: Any, fresh: bool) -> Any:
        x = self._x
        rows, cols = self._queries.positions(self._i), self._keys.positions(j)
        lengths = [None if n is None else n[self.example] for n in (x.q_lengths, x.k_lengths)]
        fresh_rows = self._queries.is_fresh(self._i) if fresh else None
        fresh_cols = self._keys.is_fresh(j)
        return both(
            self._scores.visible(rows[:, None, None], cols[None, None], *lengths),
            None if x.mask is None else self._read_scores(x.mask, j),
            None if fresh_rows is None else fresh_rows[:, None, None],
            None if fresh_cols is None else fresh_cols[None, None],
        )

    def _read_scores(self, x: jax.Array, j: Any) -> jax.Array:
        """A block of `[B, N, T, S]`, each possibly 1, as `[rows, heads, cols]`."""
        start, shape = self._place(x, j)
        return lax.dynamic_slice(x, start, shape)[0].swapaxes(0, 1)

    def _place(self, x: jax.Array, j: Any) -> tuple[tuple[Any, ...], tuple[int, ...]]:
        start = self.example, self.key_head * self.heads, self.first, self._keys.start(j)
        shape = 1, self.heads, self.rows, self.cols
        alone = [n == 1 for n in x.shape]
        return (
            tuple(0 if one else at for one, at in zip(alone, start, strict=True)),
            tuple(1 if one else n for one, n in zip(alone, shape, strict=True)),
        )

    def add_to_bias(self, x: jax.Array | None, j: Any, logits_bar: jax.Array) -> jax.Array | None:
        """The cotangent of the bias with that of a block of scores added."""
        if x is None:
            return None
        start, shape = self._place(x, j)
        block = logits_bar.reshape(self.rows, self.heads, self.cols).swapaxes(0, 1)[None]
        summed = tuple(i for i, n in enumerate(shape) if n == 1)
        block = block.sum(summed, keepdims=True) if summed else block
        return lax.dynamic_update_slice(x, lax.dynamic_slice(x, start, shape) + block, start)
