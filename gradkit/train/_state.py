"""Everything that training carries from one step to the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """A pytree; with the data and the seed, it determines the rest of a run.

    Attributes:
        step: Steps taken, skipped ones included; int32.
        params: The trainable part of the model.
        model_state: What the model carries and nobody differentiates.
        opt_state: State of the optimizer.
        ema: Exponential moving average of `params`; `None` without one.
        scale: The factor of the loss and the good steps since it changed, for float16.
        skipped: Steps skipped so far, and in a row, because a number was not finite; int32[2].
        halted: Is nothing to be done any more?
    """

    step: jax.Array
    params: Any
    model_state: Any
    opt_state: optax.OptState
    ema: Any
    scale: tuple[jax.Array, ...]
    skipped: jax.Array
    halted: jax.Array


_FIRST_SCALE = 2.0**15


def first_state(
    params: Any,
    model_state: Any,
    optimizer: optax.GradientTransformation,
    *,
    ema: bool,
    scaled: bool,
) -> State:
    """The state before the first step."""
    return State(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=model_state,
        opt_state=jax.tree.map(jnp.array, optimizer.init(params)),
        ema=jax.tree.map(jnp.copy, params) if ema else None,
        scale=(jnp.float32(_FIRST_SCALE), jnp.zeros((), jnp.int32)) if scaled else (),
        skipped=jnp.zeros(2, jnp.int32),
        halted=jnp.zeros((), bool),
    )
