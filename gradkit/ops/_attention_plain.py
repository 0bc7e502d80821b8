"""Attention by whole matrices: for short sequences, and for derivatives of any kind."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradkit.ops._attention_scores import Scores, both


def plain_attention(
    scores: Scores,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    scale: jax.Array,
    bias: jax.Array | None,
    mask: jax.Array | None,
    q_lengths: jax.Array | None,
    k_lengths: jax.Array | None,
) -> jax.Array:
    """Attention in the layout of `attention`, with every score in memory at once."""
    b, t, n, h = q.shape
    s, heads = k.shape[1:3]
    each = n // heads
    wide = jnp.promote_types(q.dtype, jnp.float32)
    # The queries that share a key head are rows of one matrix, in the order in which the product
    # leaves the scores: XLA would copy them all to put heads before queries.
    rows = (q.astype(wide) * scale.astype(wide)).reshape(b, t, heads, each, h)
    rows = rows.swapaxes(2, 3).reshape(b, t * each, heads, h)
    logits = jnp.einsum("brkh,bskh->bkrs", rows, k.astype(wide))
    logits, _ = scores.capped(logits)
    logits = logits.reshape(b, heads, t, each, s)
    if bias is not None:
        logits = logits + _by_key_head(bias, heads).astype(wide)
    seen = visible_keys(scores, t, s, q_lengths, k_lengths)
    seen = both(
        None if seen is None else seen[:, None, :, None],
        None if mask is None else _by_key_head(mask, heads),
    )
    if seen is not None:
        logits = jnp.where(seen, logits, -jnp.inf)
    weights = _softmax(logits).reshape(b, heads, t * each, s)
    y = jnp.einsum("bkrs,bskh->brkh", weights, v.astype(wide))
    return y.reshape(b, t, each, heads, h).swapaxes(2, 3).reshape(q.shape).astype(q.dtype)


def visible_keys(scores: Scores, t: int, s: int, q_lengths: Any, k_lengths: Any) -> Any:
    """Whether queries see keys, as far as positions tell: `[B or 1, T, S]`; None for always."""
    rows, cols = jnp.arange(t)[None, :, None], jnp.arange(s)[None, None, :]
    lengths = [None if n is None else n[:, None, None] for n in (q_lengths, k_lengths)]
    return scores.visible(rows, cols, *lengths)


@jax.custom_jvp
def _softmax(logits: jax.Array) -> jax.Array:
    """Softmax over keys, with zeros where a query sees none."""
    largest = logits.max(-1, keepdims=True)
    e = jnp.exp(logits - jnp.where(jnp.isneginf(largest), 0, largest))
    total = e.sum(-1, keepdims=True)
    return e / jnp.where(total > 0, total, 1)


@_softmax.defjvp
def _softmax_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (logits,), (logits_dot,) = primals, tangents
    y = _softmax(logits)  # all that is kept, where plain differentiation keeps `e`, too
    return y, y * (logits_dot - (y * logits_dot).sum(-1, keepdims=True))


def _by_key_head(x: jax.Array, heads: int) -> jax.Array:
    """`[B, N, T, S]`, each possibly 1, as `[B, K, T, N / K, S]`."""
    b, n, t, s = x.shape
    x = x.reshape((b, 1, 1, t, s) if n == 1 else (b, heads, n // heads, t, s))
    return x.swapaxes(2, 3)
