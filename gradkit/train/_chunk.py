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

    _call: Callable[..., tuple[State, Logs, Any]]
    _types: Logs
    most: int
    compilations: int = 0
    _expected: tuple[int, int, int] | None = None
    _where: Any = None

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
        wanted = (first, count, slot)
        # One small array to transfer, and not three; and none where one call follows another,
        # because that costs as much as a small step.
        if wanted != self._expected:
            self._where = _put_beside(state, np.array(wanted, np.int32))
        state, logs, self._where = self._call(state, logs, data, self._where)
        self._expected = (first + count, count, slot + count)
        return state, logs

    def empty_logs(self, state: State) -> Logs:
        """Logs that hold nothing yet."""
        return _put_beside(
            state, {name: jnp.zeros(ROOM, t.dtype) for name, t in self._types.items()}
        )


def _put_beside(state: State, arrays: Any) -> Any:
    """Arrays as committed as the state: a call that commits it would be compiled once more."""
    sharding: Any = state.step.sharding
    return put(arrays, sharding) if state.step.committed else arrays


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

    def many(state: State, logs: Logs, data: Any, where: Any) -> tuple[State, Logs, Any]:
        chunk.compilations += 1  # this runs when it is traced
        first, count, slot = where

        def body(carry: Any) -> Any:
            i, state, logs = carry
            return i + 1, *step(state, logs, data, first + i, slot + i)

        def goes_on(carry: Any) -> Any:
            i, state, _ = carry
            return (i < count) & ~state.halted

        _, state, logs = jax.lax.while_loop(goes_on, body, (jnp.int32(0), state, logs))
        return state, logs, following(where)

    def one(state: State, logs: Logs, data: Any, where: Any) -> tuple[State, Logs, Any]:
        chunk.compilations += 1
        first, _, slot = where
        new, logs = step(state, logs, data, first, slot)
        state = jax.tree.map(lambda a, b: jnp.where(state.halted, a, b), state, new)
        return state, logs, following(where)

    def following(where: Any) -> Any:
        first, count, slot = where
        return jnp.stack([first + count, count, slot + count])

    program, (_, types) = jax.make_jaxpr(lambda s, d: update(s, pick(d, 0)), return_shape=True)(
        state, data
    )
    call, most = (one, 1) if is_slow_in_loops(program) else (many, ROOM)
    if shardings is not None:
        shardings = *shardings, shardings[-1]
    chunk = Chunk(jax.jit(call, donate_argnums=(0, 1), out_shardings=shardings), types, most)
    return chunk
