"""Taking the operands of a scan apart, and putting its results together.

As operations of JAX these would have an operand or result per iteration, which takes XLA minutes to
compile; they compute nothing, so they are no one's origin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from gradkit.debug._tape import Value, pass_on


@dataclass(frozen=True, eq=False)
class Unstacked:
    """An array and its slices along the first axis."""

    inputs: tuple[Value]
    outputs: list[Value]

    @staticmethod
    def of(x: Value, length: int) -> Unstacked:
        return Unstacked((x,), [pass_on(part, [x]) for part in _split(x.data, length)])

    def pull_back(self, y_bars: Sequence[Value | None]) -> list[Value]:
        """The cotangent of the array; slices without one have zero."""
        given = [y_bar for y_bar in y_bars if y_bar is not None]
        zero = jax.numpy.zeros_like(given[0].data)
        parts = [zero if y_bar is None else y_bar.data for y_bar in y_bars]
        return [pass_on(_join(parts), given)]


@dataclass(frozen=True, eq=False)
class Stacked:
    """Arrays and their stack along a new first axis."""

    inputs: Sequence[Value]
    outputs: list[Value]

    @staticmethod
    def of(xs: Sequence[Value]) -> Stacked:
        return Stacked(xs, [pass_on(_join([x.data for x in xs]), xs)])

    def pull_back(self, y_bars: Sequence[Value | None]) -> list[Value]:
        """The cotangent of each array."""
        (y_bar,) = y_bars
        assert y_bar is not None  # the one output has a cotangent, or nothing is pulled back
        return [pass_on(part, [y_bar]) for part in _split(y_bar.data, len(self.inputs))]


def _split(x: Any, length: int) -> list[Any]:
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.extended):  # PRNG keys are no NumPy arrays
        return [x[i] for i in range(length)]
    return [jax.numpy.asarray(part) for part in np.asarray(x)]


def _join(xs: Sequence[Any]) -> Any:
    if jax.dtypes.issubdtype(xs[0].dtype, jax.dtypes.extended):
        return jax.numpy.stack(xs)
    return jax.numpy.asarray(np.stack([np.asarray(x) for x in xs]))
