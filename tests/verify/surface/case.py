"""One public function at one point, and how the tables write many of them down."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

import gradkit

ORDINARY = "ordinary"
# The tables choose the points; what the check finds at others is not about the point in the table.
_HERE = {"points": 0} if "points" in inspect.signature(gradkit.check).parameters else {}


@dataclass(frozen=True)
class SurfaceCase:
    """What is handed to the check.

    Attributes:
        module: The library module, such as `"jax.nn"`.
        name: The public name in it.
        function: The function, its settings closed over.
        args: The point, in NumPy arrays.
        point: `"ordinary"`, or `"edge: "` and what is special about the point.
        options: Options of the check.
        dtype: The real floating-point type of the arguments.
    """

    module: str
    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    point: str = ORDINARY
    options: Mapping[str, Any] = field(default_factory=dict)
    dtype: Any = np.float32

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells it from all the others."""
        return self.module, self.name, self.point

    def __str__(self) -> str:
        return f"{self.module}.{self.name} [{self.point}]"

    def check(self, **overrides: Any) -> gradkit.verify.Report:
        """The report of the engine; `overrides` win over the options of the case."""
        return gradkit.check(self.function, *self.args, **{**_HERE, **self.options, **overrides})


@dataclass(frozen=True)
class Point:
    """A row of a table: arguments, and how to call the function that the row stands under."""

    args: tuple[Any, ...]
    label: str
    call: Callable[..., Any] | None
    options: Mapping[str, Any]


Table = Mapping[str, Sequence[Point]]


def at(*args: Any, call: Callable[..., Any] | None = None, how: str = "", **options: Any) -> Point:
    """An ordinary point. `call(f, *args)` calls the function; `how` tells several such apart."""
    return Point(args, f"{ORDINARY}, {how}" if how else ORDINARY, call, options)


def edge(what: str, *args: Any, call: Callable[..., Any] | None = None, **options: Any) -> Point:
    """A point at which gradients have gone wrong before."""
    return Point(args, f"edge: {what}", call, options)


def make_cases(module: str, table: Table, dtype: Any = np.float32) -> list[SurfaceCase]:
    """The cases of those names that this version of the library has."""
    library = importlib.import_module(module)
    return [
        SurfaceCase(
            module,
            name,
            _named(getattr(library, name), point.call, f"{module}.{name}"),
            tuple(jax.tree.map(functools.partial(_cast, dtype=dtype), point.args)),
            point.label,
            point.options,
            dtype,
        )
        for name, points in table.items()
        if hasattr(library, name)
        for point in points
    ]


def _named(f: Callable[..., Any], call: Callable[..., Any] | None, name: str) -> Any:
    def function(*args: Any) -> Any:
        return f(*args) if call is None else call(f, *args)

    function.__name__ = function.__qualname__ = name
    return function


def _cast(x: Any, dtype: Any) -> Any:
    if isinstance(x, float) or (isinstance(x, np.ndarray) and x.dtype == np.float64):
        return np.asarray(x, dtype)
    if isinstance(x, complex) or (isinstance(x, np.ndarray) and x.dtype == np.complex128):
        return np.asarray(x, np.result_type(dtype, np.complex64))
    return x
