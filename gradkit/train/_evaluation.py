"""The mean of loss and metrics over data that is not trained on."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from gradkit.train._loss import Loss
from gradkit.train._portion import Data


class Evaluation:
    """Runs a loss function over all of `data`; each example counts the same.

    Args:
        loss: The loss function; what it makes of the model's state is dropped.
        data: The data.
        seed: Of the key that the loss function gets.
    """

    def __init__(self, loss: Loss, data: Data, seed: int):
        self._loss = loss
        self._data = data
        self._seed = seed
        self._sums = functools.cache(self._make_sums)

    def __call__(self, params: Any, model_state: Any) -> dict[str, float]:
        total: dict[str, float] = {}
        examples = 0
        for portion in self._data.portions(0, 0):
            sums = self._sums(portion.pick)(
                params, model_state, *portion.source_at(0), portion.count
            )
            for name, value in sums.items():
                total[name] = total.get(name, 0.0) + float(value) * portion.examples
            examples += portion.count * portion.examples
        return {name: value / max(examples, 1) for name, value in total.items()}

    def _make_sums(self, pick: Any) -> Any:
        def one(params: Any, model_state: Any, batch: Any) -> dict[str, Any]:
            key = jax.random.key(self._seed) if self._loss.takes_key else None
            loss, (metrics, _) = self._loss(params, model_state, batch, key)
            return {"loss": jnp.asarray(loss, jnp.float32), **metrics}

        @jax.jit
        def sums(
            params: Any, model_state: Any, data: Any, first: Any, count: Any
        ) -> dict[str, Any]:
            shapes = jax.eval_shape(lambda: one(params, model_state, pick(data, 0)))
            zeros = {name: jnp.zeros(s.shape, s.dtype) for name, s in shapes.items()}

            def add(i: Any, total: Any) -> Any:
                found = one(params, model_state, pick(data, first + i))
                return jax.tree.map(jnp.add, total, found)

            return jax.lax.fori_loop(0, count, add, zeros)

        return sums
