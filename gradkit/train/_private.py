"""Gradients in which no single example counts for much: clipped one by one, and noise added."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax


def clipped_mean(
    of_part: Callable[[Any, Any, Any], Any], most: float
) -> Callable[[Any, Any, Any], Any]:
    r"""Value and gradient of a batch, from those of its examples.

    $$ g = \frac1n \sum_i g_i \, \min(1, C / \|g_i\|_2) $$

    Args:
        of_part: From model state, batch and key to `(state, (loss, metrics, grads))`.
        most: The norm `C` that the gradient of an example is clipped to.

    Returns:
        The same for a batch, each example of which `of_part` sees as a batch of one. The state
        stays as it was.

    Source:
        Abadi et al., *Deep Learning with Differential Privacy* (2016), algorithm 1.
    """

    def of_batch(model_state: Any, batch: Any, key: Any) -> Any:
        n = len(jax.tree.leaves(batch)[0])
        ones = jax.tree.map(lambda x: x[:, None], batch)
        keys = None if key is None else jax.random.split(key, n)

        def of_one(one: Any, key: Any) -> Any:
            _, (loss, metrics, grads) = of_part(model_state, one, key)
            norm = optax.tree.norm(grads)
            factor = jnp.minimum(1.0, most / jnp.maximum(norm, jnp.finfo(norm.dtype).tiny))
            clipped = jax.tree.map(lambda g: (g * factor).astype(g.dtype), grads)
            return loss, metrics, clipped

        found = jax.vmap(of_one)(ones, keys)
        return model_state, jax.tree.map(lambda x: x.mean(axis=0), found)

    return of_batch


def add_noise(grads: Any, deviation: float, key: Any) -> Any:
    """Independent normal noise on each number."""
    leaves, structure = jax.tree.flatten(grads)
    keys = jax.random.split(key, len(leaves))
    noisy = [
        g + (deviation * jax.random.normal(k, g.shape, jnp.float32)).astype(g.dtype)
        for g, k in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(structure, noisy)
