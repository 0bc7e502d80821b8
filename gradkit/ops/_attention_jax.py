"""Attention through `jax.nn`, on the devices that it has kernels for."""

from __future__ import annotations

from typing import Any, Literal, cast

import jax
import jax.numpy as jnp

from gradkit._errors import describe
from gradkit.ops._attention_inputs import Inputs
from gradkit.ops._attention_plain import visible_keys
from gradkit.ops._attention_scores import Scores, both

Way = Literal["blocks", "plain", "xla", "cudnn"]

# Up to so many scores a head, starting the loops takes longer than whole matrices do.
FEW = 96 * 96


def best_implementation(scores: Scores, x: Inputs, scale: Any) -> Way:
    """The way to compute attention on the default backend."""
    if any(_is_sharded(array) for array in x[:3]):
        return "plain"
    platform = jax.default_backend()
    if platform == "cpu":
        return "plain" if x.q.shape[1] * x.k.shape[1] <= FEW else "blocks"
    device = jax.devices()[0]
    capability = float(getattr(device, "compute_capability", 0) or 0) if platform == "gpu" else 0
    if scores.softcap is not None:
        return "plain"
    return "cudnn" if capability >= 8 and fits_cudnn(scores, x, scale) else "xla"


def _is_sharded(x: jax.Array) -> bool:
    """Whether the type says how `x` is spread over a mesh: such axes cannot be cut into blocks."""
    return any(axis is not None for axis in jax.typeof(x).sharding.spec)


def fits_cudnn(scores: Scores, x: Inputs, scale: Any) -> bool:
    """Whether cuDNN is sure to take these inputs, with every query seeing a key."""
    _, t, _, h = x.q.shape
    plain = x[4:] == (None,) * 4 and scores.softcap is None
    halves = x.q.dtype in (jnp.bfloat16, jnp.float16)
    fixed = scale is None or isinstance(scale, (int, float))
    windowed = scores.window is None or scores.causal
    return plain and halves and fixed and windowed and t == x.k.shape[1] and h <= 128 and not h % 8


def through_jax(
    scores: Scores, x: Inputs, scale: Any, implementation: Literal["xla", "cudnn"]
) -> jax.Array:
    """`jax.nn.dot_product_attention`, with zeros where a query sees no key.

    Args:
        scores: What is known before the arrays are.
        x: The inputs.
        scale: The scale as the caller gave it: cuDNN takes no array.
        implementation: "xla" or "cudnn".
    """
    if scores.softcap is not None:
        raise ValueError(
            describe(
                f"implementation={implementation!r} of gk.ops.attention has no cap on scores.",
                expected="softcap=None",
                got=f"softcap={scores.softcap}",
                fix="leave implementation out",
            )
        )
    lengths = [None if n is None else n.astype(jnp.int32) for n in (x.q_lengths, x.k_lengths)]
    y = jax.nn.dot_product_attention(
        x.q,
        x.k,
        x.v,
        x.bias,
        x.mask,
        # An array will do for XLA, whatever the annotation says.
        scale=scale if implementation == "cudnn" else cast(float, x.scale),
        is_causal=scores.causal,
        query_seq_lengths=lengths[0],
        key_value_seq_lengths=lengths[1],
        local_window_size=scores.window,
        implementation=implementation,
    )
    some = _sees_some(scores, x)
    return y if some is None else jnp.where(some, y, 0)


def _sees_some(scores: Scores, x: Inputs) -> jax.Array | None:
    """Whether queries see a key, `[B or 1, T, N or 1, 1]`; None if all do for certain."""
    t, s = x.q.shape[1], x.k.shape[1]
    left, _ = scores.reach
    if x[5:] == (None, None, None) and (left is None or t <= s + left):
        return None
    seen = visible_keys(scores, t, s, x.q_lengths, x.k_lengths)
    seen = both(None if seen is None else seen[:, None], x.mask)
    return jnp.broadcast_to(seen, (*seen.shape[:2], t, s)).any(-1).swapaxes(1, 2)[..., None]
