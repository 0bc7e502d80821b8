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

from gradkit.train._loops import is_slow_in_loops
from gradkit.train._placement import put
from gradkit.train._state import State
from gradkit.train._update import Logs, UpdateFunction

ROOM = 8192  # steps whose numbers the logs hold


@dataclass
class Chunk:
    """Steps in one call: many in a loop, or one where a loop would be slow.

    Attributes:
        most: The largest number of steps.
        compilations: How many programs it has been compiled to: one a shape.
    """

    _call: Callable[..., tuple[State, Logs]]
    _types: Logs
    most: int
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

    def empty_logs(self, state: State) -> Logs:
        """Logs that hold nothing yet."""
        logs = {name: jnp.zeros(ROOM, t.dtype) for name, t in self._types.items()}
        sharding: Any = state.step.sharding
        return put(logs, sharding)


def make_chunk(
    update: UpdateFunction,
    pick: Callable[[Any, Any], Any],
    state: State,
    data: Any,
    shardings: Any = None,
) -> Chunk:
    """The program of all batches of one shape.

    Args:
        update: One step.
        pick: `pick(data, i)` is batch `i` of the data.
        state: A state, for its types.
        data: Data, for their types.
        shardings: Where state and logs lie, and are to stay, if not on one device.
    """

    def step(state: State, logs: Logs, data: Any, i: Any, slot: Any) -> tuple[State, Logs]:
        state, one = update(state, pick(data, i))
        return state, {name: values.at[slot].set(one[name]) for name, values in logs.items()}

    def many(state: State, logs: Logs, data: Any, where: Any) -> tuple[State, Logs]:
        chunk.compilations += 1  # this runs when it is traced
        first, count, slot = where

        def body(carry: Any) -> Any:
            i, state, logs = carry
            return i + 1, *step(state, logs, data, first + i, slot + i)

        def goes_on(carry: Any) -> Any:
            i, state, _ = carry
            return (i < count) & ~state.halted

        return jax.lax.while_loop(goes_on, body, (jnp.int32(0), state, logs))[1:]

    def one(state: State, logs: Logs, data: Any, where: Any) -> tuple[State, Logs]:
        chunk.compilations += 1
        first, _, slot = where
        new, logs = step(state, logs, data, first, slot)
        return jax.tree.map(lambda a, b: jnp.where(state.halted, a, b), state, new), logs

    program, (_, types) = jax.make_jaxpr(lambda s, d: update(s, pick(d, 0)), return_shape=True)(
        state, data
    )
    call, most = (one, 1) if is_slow_in_loops(program) else (many, ROOM)
    chunk = Chunk(jax.jit(call, donate_argnums=(0, 1), out_shardings=shardings), types, most)
    return chunk
