"""The mean of loss and metrics over data that is not trained on."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from gradkit.train._loops import is_slow_in_loops
from gradkit.train._loss import Loss
from gradkit.train._portion import Data, Portion


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
            for name, value in self._sum(params, model_state, portion).items():
                total[name] = total.get(name, 0.0) + float(value) * portion.examples
            examples += portion.count * portion.examples
        return {name: value / max(examples, 1) for name, value in total.items()}

    def _sum(self, params: Any, model_state: Any, portion: Portion) -> dict[str, Any]:
        one, sums = self._sums(portion.pick)
        program = jax.make_jaxpr(one)(params, model_state, portion.data, 0)
        if not is_slow_in_loops(program):
            return sums(params, model_state, *portion.source_at(0), portion.count)
        found = [one(params, model_state, *portion.source_at(n)) for n in range(portion.count)]
        return jax.tree.map(lambda *values: sum(map(float, values)), *found)

    def _make_sums(self, pick: Any) -> Any:
        @jax.jit
        def one(params: Any, model_state: Any, data: Any, i: Any) -> dict[str, Any]:
            key = jax.random.key(self._seed) if self._loss.takes_key else None
            loss, (metrics, _) = self._loss(params, model_state, pick(data, i), key)
            return {"loss": jnp.asarray(loss, jnp.float32), **metrics}

        @jax.jit
        def sums(
            params: Any, model_state: Any, data: Any, first: Any, count: Any
        ) -> dict[str, Any]:
            shapes = jax.eval_shape(one, params, model_state, data, 0)
            zeros = {name: jnp.zeros(s.shape, s.dtype) for name, s in shapes.items()}

            def add(i: Any, total: Any) -> Any:
                return jax.tree.map(jnp.add, total, one(params, model_state, data, first + i))

            return jax.lax.fori_loop(0, count, add, zeros)

        return one, sums
