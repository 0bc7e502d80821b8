"""Reading the logs of calls that have ended, while others run."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradkit.train._chunk import ROOM
from gradkit.train._portion import Portion
from gradkit.train._state import State
from gradkit.train._update import Logs


class Call(NamedTuple):
    """A call that was handed out: `count` batches of a portion, from `done` on."""

    portion: Portion
    done: int
    count: int
    epoch: int


class Reading(NamedTuple):
    """The numbers of some calls.

    Attributes:
        calls: The calls, the last of them perhaps cut short.
        logs: By name, one number a step.
        taken: Steps taken.
        halted: Did training halt?
    """

    calls: Sequence[Call]
    logs: dict[str, np.ndarray]
    taken: int
    halted: bool


@dataclass
class Readings:
    """Copies of the logs, asked for in turn with the calls and read later.

    Attributes:
        logs: The buffers that the next call is given.
        slot: Their first free place.
    """

    logs: Logs
    step: int
    slot: int = 0
    _calls: list[Call] = field(default_factory=list)
    _asked: collections.deque[Any] = field(default_factory=collections.deque)

    def note(self, call: Call) -> None:
        """A call was handed out."""
        self._calls.append(call)
        self.slot += call.count

    @property
    def room(self) -> int:
        """How many steps the logs have room for."""
        return ROOM - self.slot

    @property
    def calls(self) -> int:
        """How many calls nobody has asked about."""
        return len(self._calls)

    def ask(self, state: State) -> None:
        """Copy the logs when the calls so far have ended; nobody waits for that."""
        if self._calls:
            self._asked.append(
                (self._calls, self.slot, _copied((self.logs, state.step, state.halted)))
            )
            self._calls, self.slot = [], 0

    def read(self, keep: int) -> Iterator[Reading]:
        """Read all copies but the last `keep`."""
        while len(self._asked) > keep:
            calls, used, copies = self._asked.popleft()
            logs, step, halted = jax.device_get(copies)
            taken = int(step) - self.step
            self.step = int(step)
            numbers = {name: values[: min(taken, used)] for name, values in logs.items()}
            yield Reading(calls, numbers, taken, bool(halted))

    def forget(self, step: int) -> list[Call]:
        """Drop what was handed out and not read; go on from `step`."""
        dropped = [*(call for calls, *_ in self._asked for call in calls), *self._calls]
        self._asked.clear()
        self._calls, self.slot, self.step = [], 0, step
        return dropped


_copied = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))
