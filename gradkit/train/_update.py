"""One step: from state and batch to state and what is logged of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gradkit.train._loops import is_slow_in_loops
from gradkit.train._loss import Loss
from gradkit.train._private import add_noise, clipped_mean
from gradkit.train._state import State

Logs = dict[str, jax.Array]

_STEPS_TO_DOUBLE = 2_000  # good steps after which the factor of the loss is doubled
_HALVINGS = 16  # steps that may be skipped while the first factor is brought down
_NOISE = 0x6E6F6973  # noise has keys that no loss function sees
RAISE, SKIP, ROLLBACK, IGNORE = "raise", "skip", "rollback", "ignore"


@dataclass(frozen=True)
class Update:
    """`update(state, batch) -> (state, logs)`.

    Args:
        loss: The loss function.
        optimizer: An optax transformation.
        seed: Of the keys that the loss function gets: step `i` has `fold_in(key(seed), i)`.
        accumulate: How many equal parts a batch is divided into, one after the other.
        ema_decay: Decay of the average of the parameters; `None` for no average.
        on_nonfinite: What to do when loss or gradient is not finite.
        most_skipped: Steps skipped in a row after which training halts.
        log_gradient_norm: Log `grad_norm`, the global norm of the gradient.
        clip_per_example: The norm that the gradient of each example is clipped to; `None` to take
            the gradient of the batch.
        noise: Deviation of the noise on the sum of clipped gradients, in units of that norm.
    """

    loss: Loss
    optimizer: optax.GradientTransformationExtraArgs
    seed: int
    accumulate: int = 1
    ema_decay: float | None = None
    on_nonfinite: str = RAISE
    most_skipped: int = 10
    log_gradient_norm: bool = False
    clip_per_example: float | None = None
    noise: float = 0.0

    def __call__(self, state: State, batch: Any) -> tuple[State, Logs]:
        key = None
        if self.loss.takes_key:
            key = jax.random.fold_in(jax.random.key(self.seed), state.step)
        factor = state.scale[0] if state.scale else None
        (loss, (metrics, model_state)), grads = self._differentiate(state, batch, key, factor)
        if self.clip_per_example is not None and self.noise:
            deviation = self.noise * self.clip_per_example / len(jax.tree.leaves(batch)[0])
            noise_key = jax.random.fold_in(jax.random.key(self.seed ^ _NOISE), state.step)
            grads = add_noise(grads, deviation, noise_key)
        logs = {"loss": jnp.asarray(loss, jnp.float32), **metrics}
        if self.log_gradient_norm:
            logs["grad_norm"] = jnp.asarray(optax.tree.norm(grads), jnp.float32)

        def apply() -> State:
            extra = {"value": loss, "grad": grads}
            updates, opt_state = self.optimizer.update(
                grads, state.opt_state, state.params, **extra
            )
            params = optax.apply_updates(state.params, updates)
            ema = state.ema
            if self.ema_decay is not None:
                ema = optax.incremental_update(params, ema, 1 - self.ema_decay)
            return replace(
                state, params=params, opt_state=opt_state, model_state=model_state, ema=ema
            )

        if self.on_nonfinite == IGNORE and factor is None:
            return replace(apply(), step=state.step + 1), logs
        good = jnp.isfinite(loss) & _all_finite(grads)
        new = jax.lax.cond(good, apply, lambda: state)
        return self._count(new, good), logs

    def _differentiate(
        self, state: State, batch: Any, key: Any, factor: Any
    ) -> tuple[tuple[jax.Array, tuple[Logs, Any]], Any]:
        """Value and gradient, averaged over the parts of a batch."""

        def scaled(params: Any, model_state: Any, part: Any, key: Any) -> Any:
            loss, rest = self.loss(params, model_state, part, key)
            return (loss if factor is None else loss * factor.astype(loss.dtype)), (loss, rest)

        value_and_grad = jax.value_and_grad(scaled, has_aux=True)

        def whole(model_state: Any, part: Any, key: Any) -> Any:
            (_, (loss, (metrics, new_state))), grads = value_and_grad(
                state.params, model_state, part, key
            )
            if factor is not None:
                grads = jax.tree.map(lambda g: g / factor.astype(g.dtype), grads)
            return new_state, (jnp.asarray(loss, jnp.float32), metrics, grads)

        most = self.clip_per_example
        of_part = whole if most is None else clipped_mean(whole, most)
        if self.accumulate == 1:
            model_state, (loss, metrics, grads) = of_part(state.model_state, batch, key)
            return (loss, (metrics, model_state)), grads
        n = self.accumulate
        parts = jax.tree.map(lambda x: x.reshape(n, x.shape[0] // n, *x.shape[1:]), batch)
        keys = None if key is None else jax.random.split(key, n)
        first = jax.tree.map(lambda x: x[0], (parts, keys))
        shapes = jax.eval_shape(of_part, state.model_state, *first)[1]
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

        def add(carry: Any, part: Any) -> tuple[Any, None]:
            model_state, total = carry
            model_state, one = of_part(model_state, *part)
            return (model_state, jax.tree.map(jnp.add, total, one)), None

        program = jax.make_jaxpr(of_part)(state.model_state, *first)
        (model_state, total), _ = jax.lax.scan(
            add, (state.model_state, zeros), (parts, keys), unroll=is_slow_in_loops(program)
        )
        loss, metrics, grads = jax.tree.map(lambda x: x / n, total)
        return (loss, (metrics, model_state)), grads

    def _count(self, state: State, good: jax.Array) -> State:
        total, in_a_row = state.skipped
        in_a_row = jnp.where(good, 0, in_a_row + 1)
        skipped = jnp.stack([total + ~good, in_a_row])
        scale = state.scale
        if scale:
            factor, good_steps = scale
            grown = good_steps + 1 >= _STEPS_TO_DOUBLE
            up = jnp.where(grown, factor * 2, factor), jnp.where(grown, 0, good_steps + 1)
            down = jnp.maximum(factor / 2, 1.0), jnp.zeros_like(good_steps)
            scale = tuple(jnp.where(good, a, b) for a, b in zip(up, down, strict=True))
        most = self.most_skipped if self.on_nonfinite == SKIP else 0
        if scale:
            most += _HALVINGS
        halted = state.halted
        if self.on_nonfinite != IGNORE:
            halted = halted | (in_a_row > most)
        return replace(state, step=state.step + 1, skipped=skipped, scale=scale, halted=halted)


def _all_finite(tree: Any) -> jax.Array:
    flags = [jnp.isfinite(x).all() for x in jax.tree.leaves(tree)]
    return jnp.stack(flags).all()


UpdateFunction = Callable[[State, Any], tuple[State, Logs]]
