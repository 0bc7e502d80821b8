"""What a tape has recorded: values, and the operations that they come from.

The record is held from its ends, as a graph: a value knows its operation, an operation its inputs
and how to pull cotangents back to them. What nobody can ask about any more is gone at once.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

# From the cotangents of an operation's outputs to those of its inputs.
Pull = Callable[[list[Any]], Sequence[Any]]


class Value:
    """An array on a tape.

    Attributes:
        record: The record that it belongs to.
        operation: What computed it; None for a watched value.
        position: Which of the operation's outputs it is.
    """

    __slots__ = ("operation", "position", "record")

    def __init__(self, record: Record, operation: Operation | None = None, position: int = 0):
        self.record = record
        self.operation = operation
        self.position = position


class Operation:
    """An operation on a tape, linearised where it stood.

    Attributes:
        index: How many operations had been recorded before it.
        inputs: The values that it was computed from.
        types: The cotangent types of its outputs.
        pull: From the cotangents of the outputs to those of the inputs.
        linearize: Linearises it again, in terms of what is on the tape now, and returns another
            `pull`; None on a tape that does not keep what this needs.
    """

    __slots__ = ("__weakref__", "index", "inputs", "linearize", "pull", "types")

    def __init__(
        self,
        index: int,
        inputs: Sequence[Value],
        types: Iterable[Any],
        pull: Pull,
        linearize: Callable[[], Pull] | None,
    ):
        self.index = index
        self.inputs: tuple[Value, ...] = tuple(inputs)
        self.types = tuple(types)
        self.pull: Pull | None = pull
        self.linearize = linearize

    def release(self) -> None:
        """Forget the residuals, and what came before."""
        self.inputs = ()
        self.pull = self.linearize = None


class Record:
    """What one tape has recorded.

    Attributes:
        depth: How many tapes were entered around it, on its thread.
        keeps_operands: Whether operations can be linearised again.
        recording: Whether operations are recorded at the moment.
        watched: The arrays that were given to `watch` and those that it returned, in pairs.
    """

    def __init__(self, depth: int, *, keeps_operands: bool):
        self.depth = depth
        self.keeps_operands = keeps_operands
        self.recording = False
        self.watched: list[tuple[Any, Any]] = []
        self._count = 0
        self._operations: weakref.WeakSet[Operation] = weakref.WeakSet()
        self._tracers: dict[int, tuple[weakref.ref[Any], Value]] = {}

    def add(
        self,
        inputs: Sequence[Value],
        types: Iterable[Any],
        pull: Pull,
        linearize: Callable[[], Pull] | None,
    ) -> list[Value]:
        """Record an operation; returns the values of its outputs."""
        operation = Operation(self._count, inputs, types, pull, linearize)
        self._count += 1
        self._operations.add(operation)
        return [Value(self, operation, i) for i in range(len(operation.types))]

    def value_of(self, tracer: Any) -> Value | None:
        """The value that a tracer of another transformation stands for."""
        found = self._tracers.get(id(tracer))
        return found[1] if found is not None and found[0]() is tracer else None

    def set_value_of(self, tracer: Any, value: Value) -> None:
        """Let a tracer of another transformation stand for a value, as long as it lives."""
        tracers, key = self._tracers, id(tracer)
        forget = lambda reference: tracers.pop(key, None)  # noqa: E731
        self._tracers[key] = weakref.ref(tracer, forget), value

    def release(self) -> None:
        """Forget everything, also what values that are still alive were computed from."""
        for operation in list(self._operations):
            operation.release()
        self._operations.clear()
        self._tracers.clear()
        self.watched.clear()
