"""The user's loss function, seen as one of trainable part, state, batch and key."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from gradkit._errors import describe
from gradkit.train._model import Model

_MASK = "mask"
Metrics = dict[str, jax.Array]


@dataclass(frozen=True)
class Loss:
    """`loss(trainable, state, batch, key) -> (loss, (metrics, state))`.

    Args:
        fn: `fn(params, batch)` or `fn(params, batch, rng)`; with `has_state`,
            `fn(params, state, batch)` or `fn(params, state, batch, rng)`. Returns the loss or
            `(loss, metrics)`; with `has_state`, `(loss, state)` or `(loss, metrics, state)`. If it
            has a parameter `mask`, batches are pairs of batch and mask, and it gets the mask by
            this name.
        model: The model that `params` is.
        has_state: Does it take and return a state?
        compute_dtype: The type in which it computes; `None` for that of its arguments.
    """

    fn: Callable[..., Any]
    model: Model
    has_state: bool = False
    compute_dtype: Any = None

    @property
    def takes_key(self) -> bool:
        """Has `fn` a parameter for a PRNG key?"""
        places = [
            p
            for p in _parameters(self.fn)
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
        key = places[2 + self.has_state : 3 + self.has_state]
        return any(
            p.name != _MASK and (p.default is p.empty or p.name in ("rng", "key")) for p in key
        )

    @property
    def takes_mask(self) -> bool:
        """Has `fn` a parameter for the mask of a batch?"""
        return any(p.name == _MASK for p in _parameters(self.fn))

    def __call__(
        self, trainable: Any, state: Any, batch: Any, key: Any
    ) -> tuple[jax.Array, tuple[Metrics, Any]]:
        if self.compute_dtype is not None:
            trainable, batch = (_cast(x, self.compute_dtype) for x in (trainable, batch))
        mask = {}
        if self.takes_mask:
            batch, mask[_MASK] = batch
        params = self.model.merge(trainable, state)
        args = (params, state, batch) if self.has_state else (params, batch)
        result = self.fn(*args, key, **mask) if self.takes_key else self.fn(*args, **mask)
        loss, metrics, new_state = self._read(result)
        if not self.has_state:
            new_state = self.model.read_state(params)
        _check_scalar(loss, "loss")
        for name, value in metrics.items():
            _check_scalar(value, f"metric {name!r}")
        metrics = {name: jnp.asarray(value, jnp.float32) for name, value in metrics.items()}
        return jnp.asarray(loss), (metrics, new_state)

    def _read(self, result: Any) -> tuple[Any, Mapping[str, Any], Any]:
        count = len(result) if isinstance(result, tuple) else 1
        if not self.has_state and count == 1:
            return result, {}, None
        if not self.has_state and count == 2 and isinstance(result[1], Mapping):
            return result[0], result[1], None
        if self.has_state and count == 2:
            return result[0], {}, result[1]
        if self.has_state and count == 3 and isinstance(result[1], Mapping):
            return result
        expected = "the loss, or (loss, metrics) with metrics a dict of scalars"
        if self.has_state:
            expected = "(loss, state) or (loss, metrics, state) with metrics a dict of scalars"
        got = f"({', '.join(type(r).__name__ for r in result)})" if count > 1 else "one value"
        raise TypeError(describe("loss_fn of fit", expected=expected, got=got))


def _parameters(fn: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(fn).parameters.values())
    except ValueError:
        return []


def _cast(tree: Any, dtype: Any) -> Any:
    def cast(x: Any) -> Any:
        return x.astype(dtype) if jnp.issubdtype(jnp.result_type(x), jnp.floating) else x

    return jax.tree.map(cast, tree)


def _check_scalar(value: Any, what: str) -> None:
    shape, dtype = jnp.shape(value), jnp.result_type(value)
    if shape != () or jnp.issubdtype(dtype, jnp.complexfloating):
        raise TypeError(
            describe(
                f"the {what} that loss_fn of fit returned is no number",
                expected="a real scalar, shape ()",
                got=f"{dtype}{list(shape)}",
                fix="return a mean or a sum over the batch",
            )
        )
