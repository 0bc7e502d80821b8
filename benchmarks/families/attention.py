"""Attention beside `jax.nn`'s, and beside flax's."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from families.comparison import Comparison
from gradkit import ops

AIM = "2.4x, 40x less memory"


def comparisons(rng: np.random.Generator) -> Iterator[Comparison]:
    """Sequences from short to long, shared key heads, masks and biases."""
    drawn = int(rng.integers(600, 2600))
    shapes: list[tuple[tuple[int, ...], dict[str, Any], str]] = [
        ((4, 64, 8, 8, 64), {"causal": True}, ""),
        ((2, 256, 8, 8, 64), {"causal": True}, ""),
        ((1, 1536, 4, 4, 64), {}, AIM),
        ((1, 1536, 4, 4, 64), {"causal": True}, AIM),
        ((1, 2048, 8, 2, 64), {"causal": True}, AIM),
        ((1, 2048, 4, 4, 64), {"causal": True, "window": (255, 0)}, AIM),
        ((1, 1537, 3, 3, 80), {"causal": True}, AIM),
        ((1, drawn, 4, 2, 64), {"causal": True}, ""),
    ]
    for (b, t, n, k, h), options, aim in shapes:
        arrays = [rng.standard_normal((b, t, heads, h), np.float32) for heads in (n, k, k)]
        names = {"causal": "is_causal", "window": "local_window_size"}
        theirs = {names[name]: value for name, value in options.items()}
        yield Comparison(
            "ops.attention",
            f"B={b} T=S={t} N={n} K={k} H={h}"
            + "".join(f" {name}={value}" for name, value in options.items()),
            tuple(arrays),
            partial(ops.attention, **options),
            partial(jax.nn.dot_product_attention, **theirs),
            _peers(options, n == k),
            argnums=(0, 1, 2),
            aim=aim,
            drawn=t == drawn,
        )
    yield _biased(rng)


def _biased(rng: np.random.Generator) -> Comparison:
    b, t, n, h = 1, 1024, 4, 64
    arrays = [rng.standard_normal((b, t, n, h), np.float32) for _ in range(3)]
    bias = rng.standard_normal((1, n, t, t), np.float32)

    def capped(q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array) -> jax.Array:
        scores = jnp.einsum("btnh,bsnh->bnts", q, k) / h**0.5
        weights = jax.nn.softmax(30 * jnp.tanh(scores / 30) + bias)
        return jnp.einsum("bnts,bsnh->btnh", weights, v)

    return Comparison(
        "ops.attention",
        f"B={b} T=S={t} N=K={n} H={h}, bias differentiated, soft cap",
        (*arrays, bias),
        lambda q, k, v, bias: ops.attention(q, k, v, bias=bias, softcap=30.0),
        capped,
        argnums=(0, 1, 2, 3),
    )


def _peers(options: dict[str, Any], alike: bool) -> dict[str, Any]:
    try:
        from flax import linen
    except ImportError:
        return {}
    if "window" in options or not alike:
        return {}

    def flax(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        mask = None
        if options.get("causal"):
            mask = linen.make_causal_mask(jnp.ones(q.shape[:2]))
        return linen.dot_product_attention(q, k, v, mask=mask)

    return {"flax": flax}
