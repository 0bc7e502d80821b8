"""From the cotangents of some values on a tape back to those of others."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

from jax.interpreters import ad

from gradkit import _jax_compat as compat
from gradkit._tape._record import Operation, Value


def pull_back(
    seeds: Sequence[tuple[Value, Any]], sources: Sequence[Value | None], *, again: bool
) -> list[Any]:
    """The cotangents of `sources`, None where none arrives.

    Args:
        seeds: Values, each with a cotangent; those of one value add up.
        sources: The values to stop at; they may depend on each other.
        again: Linearise each operation again, so that what is on the tape now sees how the
            result depends on it.
    """
    cotangents: dict[Value, Any] = {}
    waiting: list[tuple[int, Operation]] = []
    met: dict[Operation, list[Value | None]] = {}

    def accumulate(value: Value, y_bar: Any) -> None:
        if value in cotangents:
            cotangents[value] = ad.add_jaxvals(cotangents[value], y_bar)
            return
        cotangents[value] = y_bar
        operation = value.operation
        if operation is None or operation.pull is None:
            return
        if operation not in met:
            met[operation] = [None] * len(operation.types)
            # Operations are recorded in an order in which none comes before its inputs.
            heapq.heappush(waiting, (-operation.index, operation))
        met[operation][value.position] = value

    for value, y_bar in seeds:
        accumulate(value, y_bar)
    wanted = {source for source in sources if source is not None}
    while waiting:
        _, operation = heapq.heappop(waiting)
        y_bars = []
        for value, aval in zip(met.pop(operation), operation.types, strict=True):
            if value is None:
                y_bars.append(compat.zeros_of(aval))
            else:
                y_bars.append(cotangents[value] if value in wanted else cotangents.pop(value))
        linearize = operation.linearize if again else None
        pull = linearize() if linearize is not None else operation.pull
        assert pull is not None
        for value, x_bar in zip(operation.inputs, pull(y_bars), strict=True):
            accumulate(value, x_bar)
    return [None if source is None else cotangents.get(source) for source in sources]
