"""Many steps in one call of one program.

The number of steps is an operand and not a part of the program: however a run is divided into
calls, every step runs the same code, so that its numbers are the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradkit.train._state import State
from gradkit.train._update import Logs, UpdateFunction


class Status(NamedTuple):
    """What became of a call, in buffers of its own: those of the state are soon given away.

    Attributes:
        taken: Steps taken, fewer than asked for if training halted.
        halted: Did it halt?
        skipped: As in `State`.
    """

    taken: jax.Array
    halted: jax.Array
    skipped: jax.Array


MOST_STEPS = 4096  # of one call


@dataclass
class Chunk:
    """A compiled function, and how many programs it has been compiled to."""

    call: Callable[..., tuple[State, Status, Logs]]
    compilations: int = 0

    def __call__(self, state: State, count: Any, source: Any) -> tuple[State, Status, Logs]:
        return self.call(state, np.int32(count), source)


def make_chunk(
    update: UpdateFunction,
    pick: Callable[[Any, Any], Any],
    shardings: Any = None,
    most: int = MOST_STEPS,
) -> Chunk:
    """`chunk(state, count, source) -> (state, status, logs)`, `count` steps on batches of `source`.

    Args:
        update: One step.
        pick: `pick(source, i)` is the batch of step `i` of the call.
        shardings: Where the state lies, and is to stay, if not on one device.
        most: The largest `count`; the logs have that length.

    Returns:
        A function that gives the buffers of `state` away. A halted state is left alone.
    """

    def chunk(state: State, count: Any, source: Any) -> tuple[State, Status, Logs]:
        made.compilations += 1  # this runs when it is traced
        _, shapes = jax.eval_shape(lambda: update(state, pick(source, 0)))
        logs = {name: jnp.zeros(most, s.dtype) for name, s in shapes.items()}

        def body(carry: Any) -> Any:
            i, state, logs = carry
            state, one = update(state, pick(source, i))
            logs = {name: values.at[i].set(one[name]) for name, values in logs.items()}
            return i + 1, state, logs

        def goes_on(carry: Any) -> Any:
            i, state, _ = carry
            return (i < count) & ~state.halted

        taken, state, logs = jax.lax.while_loop(goes_on, body, (jnp.int32(0), state, logs))
        return state, Status(taken, state.halted, state.skipped), logs

    outputs = None if shardings is None else (shardings, None, None)
    made = Chunk(jax.jit(chunk, donate_argnums=0, out_shardings=outputs))
    return made
