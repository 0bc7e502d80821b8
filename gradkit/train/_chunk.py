"""Many steps in one call of one program.

The number of steps is an operand and not a part of the program: however a run is divided into
calls, every step runs the same code, so that its numbers are the same to the last bit. What is
logged stays on the device too, in buffers that go from call to call, and is read now and then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradkit.train._state import State
from gradkit.train._update import Logs, UpdateFunction

ROOM = 8192  # steps whose numbers the logs hold


@dataclass
class Chunk:
    """`count` steps in one call.

    Attributes:
        compilations: How many programs it has been compiled to: one a shape.
    """

    _call: Callable[..., tuple[State, Logs]]
    _types: Callable[..., Any]
    compilations: int = 0

    def __call__(
        self, state: State, logs: Logs, source: tuple[Any, int], count: int, slot: int
    ) -> tuple[State, Logs]:
        """Take steps; `state` and `logs` are given away.

        Args:
            state: Where to start. A halted state is left alone.
            logs: The numbers of step `i` go to place `slot + i`.
            source: The data, and the first batch of it to be used.
            count: How many steps.
            slot: The first free place of the logs.
        """
        data, first = source
        # One small array to transfer, and not three.
        return self._call(state, logs, data, np.array([first, count, slot], np.int32))

    def empty_logs(self, state: State, source: tuple[Any, int]) -> Logs:
        """Logs that hold nothing yet."""
        types = jax.eval_shape(self._types, state, source[0])
        logs = {name: jnp.zeros(ROOM, t.dtype) for name, t in types.items()}
        return jax.device_put(logs, state.step.sharding)


def make_chunk(
    update: UpdateFunction, pick: Callable[[Any, Any], Any], shardings: Any = None
) -> Chunk:
    """The program of all batches of one shape.

    Args:
        update: One step.
        pick: `pick(data, i)` is batch `i` of the data.
        shardings: Where state and logs lie, and are to stay, if not on one device.
    """

    def call(state: State, logs: Logs, data: Any, where: Any) -> tuple[State, Logs]:
        chunk.compilations += 1  # this runs when it is traced
        first, count, slot = where

        def body(carry: Any) -> Any:
            i, state, logs = carry
            state, one = update(state, pick(data, first + i))
            logs = {name: values.at[slot + i].set(one[name]) for name, values in logs.items()}
            return i + 1, state, logs

        def goes_on(carry: Any) -> Any:
            i, state, _ = carry
            return (i < count) & ~state.halted

        return jax.lax.while_loop(goes_on, body, (jnp.int32(0), state, logs))[1:]

    def types(state: State, data: Any) -> Logs:
        return update(state, pick(data, 0))[1]

    chunk = Chunk(jax.jit(call, donate_argnums=(0, 1), out_shardings=shardings), types)
    return chunk
