"""The table that `watch_gradients` returns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from rich.table import Table

from gradkit._statistics import merged


@dataclass(frozen=True)
class Watched:
    """What is known of a watched value without running the program.

    Attributes:
        scope: The named scopes around it.
        operation: The operation that computes it; a number tells calls in one scope apart.
        shape: Its shape.
        dtype: Its dtype.
        source: Where it is computed, `"file.py:12:4 (function)"`.
        repeats: How many times the program computes it: the steps of the scans around it, times
            the devices of a `shard_map`.
    """

    scope: str
    operation: str
    shape: tuple[int, ...]
    dtype: np.dtype
    source: str
    repeats: int


@dataclass(frozen=True)
class GradientRecord:
    """The cotangent that arrived at one watched value, in numbers.

    `norm`, `max_abs` and `mean` are those of its finite elements, and taken over all `repeats`;
    under `vmap` each has the batch in front.

    Attributes:
        what: The value.
        statistics: As `gradkit._statistics.statistics` has them, repeats in front.
    """

    what: Watched
    statistics: Any

    @property
    def scope(self) -> str:
        """The named scopes around the value."""
        return self.what.scope

    @property
    def operation(self) -> str:
        """The operation that computes the value."""
        return self.what.operation

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the value, and of its cotangent."""
        return self.what.shape

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the value, and of its cotangent."""
        return self.what.dtype

    @property
    def source(self) -> str:
        """Where the value is computed."""
        return self.what.source

    @property
    def steps(self) -> Sequence[GradientRecord]:
        """A record for each repetition: a step of a scan, or a device."""
        alone = replace(self.what, repeats=1)
        return [GradientRecord(alone, self.statistics[..., [i], :]) for i in range(self._repeats)]

    @property
    def _repeats(self) -> int:
        return self.what.repeats

    @property
    def _all(self) -> Any:
        return jax.numpy.vectorize(merged, signature="(n,k)->(k)")(self.statistics)

    @property
    def _size(self) -> int:
        return math.prod(self.shape) * self._repeats

    @property
    def norm(self) -> Any:
        """The Euclidean norm."""
        return self._all[..., 0]

    @property
    def max_abs(self) -> Any:
        """The largest absolute value."""
        return self._all[..., 1]

    @property
    def mean(self) -> Any:
        """The mean (of the real part, if complex)."""
        _, _, total, _, nonfinite = jax.numpy.moveaxis(self._all, -1, 0)
        return total / jax.numpy.maximum(self._size - nonfinite, 1)

    @property
    def zero_fraction(self) -> Any:
        """The fraction of elements that are exactly zero."""
        return self._all[..., 3] / max(self._size, 1)

    @property
    def nonfinite(self) -> Any:
        """How many elements are NaN or infinite."""
        return self._all[..., 4]


_NUMBERS = ("norm", "max_abs", "mean", "zero_fraction", "nonfinite")


@jax.tree_util.register_pytree_node_class
class GradientTable(Sequence[GradientRecord]):
    """The cotangents at the watched values of a program, in its order; prints as a table.

    A pytree whose leaves are the statistics, so that jitted functions can return it. Look rows
    up by number, or by scope, `"scope:operation"` or operation, which gives the first that fits.
    """

    def __init__(self, watched: Sequence[Watched], statistics: Sequence[Any]):
        self._watched = tuple(watched)
        self._statistics = tuple(statistics)

    def tree_flatten(self) -> tuple[tuple[Any, ...], tuple[Watched, ...]]:
        """For `jax.tree`."""
        return self._statistics, self._watched

    @classmethod
    def tree_unflatten(cls, watched: tuple[Watched, ...], leaves: Sequence[Any]) -> GradientTable:
        """For `jax.tree`."""
        return cls(watched, leaves)

    def __len__(self) -> int:
        return len(self._watched)

    def __iter__(self) -> Iterator[GradientRecord]:
        return map(GradientRecord, self._watched, self._statistics)

    def __getitem__(self, key: int | str) -> Any:
        if isinstance(key, str):
            for record in self:
                if key in (record.scope, record.operation, f"{record.scope}:{record.operation}"):
                    return record
            known = ", ".join(f"{w.scope}:{w.operation}" for w in self._watched)
            raise KeyError(f"nothing watched is called {key!r}; there are {known}")
        return GradientRecord(self._watched[key], self._statistics[key])

    def to_dict(self) -> list[dict[str, Any]]:
        """The rows, as what JSON can hold; under `vmap` the numbers are lists."""
        return [
            {
                "scope": record.scope,
                "operation": record.operation,
                "shape": list(record.shape),
                "dtype": record.dtype.name,
                "source": record.source,
                "repeats": record.what.repeats,
                **{name: np.asarray(getattr(record, name)).tolist() for name in _NUMBERS},
            }
            for record in self
        ]

    @property
    def _rows(self) -> list[list[str]]:
        return [
            [
                record.scope,
                record.operation,
                f"{record.dtype.name}[{', '.join(map(str, record.shape))}]"
                + (f" x {record.what.repeats}" if record.what.repeats > 1 else ""),
                *(_shown(record, name) for name in _NUMBERS),
            ]
            for record in self
        ]

    def __str__(self) -> str:
        header = ("scope", "operation", "type", "norm", "max abs", "mean", "zeros", "nonfinite")
        rows = self._rows
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if i < 3 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in (header, *rows)
        )

    def __repr__(self) -> str:
        return f"<GradientTable of {len(self)} rows>"

    def __rich__(self) -> Table:
        table = Table("scope", "operation", "type")
        for name in ("norm", "max abs", "mean", "zeros", "nonfinite"):
            table.add_column(name, justify="right")
        for record, row in zip(self, self._rows, strict=True):
            bad = not isinstance(record.statistics, Tracer) and np.any(record.nonfinite)
            table.add_row(*row, style="bold red" if bad else None)
        return table


def _shown(record: GradientRecord, name: str) -> str:
    """A number as a table shows it: the mean of a batch."""
    if isinstance(record.statistics, Tracer):
        return "traced"
    value = float(np.mean(np.asarray(getattr(record, name))))
    if name == "zero_fraction":
        return f"{value:.0%}"
    return f"{value:g}" if name == "nonfinite" else f"{value:.3g}"
