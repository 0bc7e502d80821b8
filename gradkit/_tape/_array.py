"""Arrays on a tape, as Python, NumPy and JAX see them."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.core import Trace, Tracer

from gradkit import _jax_compat as compat
from gradkit._tape._record import Value


class TapedArray(Tracer):
    """A concrete array that is, or was, on a tape.

    It is used like any other array. Once its tape has ended it is a constant.
    """

    __slots__ = ("_aval", "primal", "value")

    # The constructor of Tracer differs between versions of JAX; it would set the first three.
    def __init__(self, trace: Trace, primal: Any, value: Value):
        self._trace = trace
        self._line_info = None
        self._aval = jax.typeof(primal)
        self.primal = primal
        self.value = value

    @property
    def aval(self) -> Any:
        return self._aval

    @property
    def concrete(self) -> jax.Array:
        """The array itself, off every tape."""
        primal = self.primal
        return primal.concrete if isinstance(primal, TapedArray) else primal

    def full_lower(self) -> Any:
        return self if self.value.record.recording else without_tapes(self.primal)

    def to_concrete_value(self) -> Any:
        return self.concrete

    def __float__(self) -> float:
        return float(self.concrete)

    def __complex__(self) -> complex:
        return complex(self.concrete)

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        return self.concrete.__array__(*args, **kwargs)

    def __repr__(self) -> str:
        return f"Taped{self.concrete!r}"

    def __str__(self) -> str:
        return str(self.concrete)

    def __format__(self, spec: str) -> str:
        return format(self.concrete, spec)

    def __reduce__(self) -> Any:
        return self.concrete.__reduce__()

    def __copy__(self) -> TapedArray:
        return self

    def __deepcopy__(self, memo: Any) -> TapedArray:
        return self

    def __dlpack__(self, *args: Any, **kwargs: Any) -> Any:
        return self.concrete.__dlpack__(*args, **kwargs)


def _forward(name: str) -> property:
    return property(lambda self: getattr(self.concrete, name))


# What an array has and a tracer lacks.
for _name in (
    "addressable_data addressable_shards block_until_ready committed copy_to_host_async device "
    "devices global_shards is_fully_addressable is_fully_replicated is_deleted item "
    "on_device_size_in_bytes sharding tobytes tolist unsafe_buffer_pointer"
).split():
    setattr(TapedArray, _name, _forward(_name))

compat.let_device_put_unwrap(TapedArray, lambda x: x.concrete)


def without_tapes(x: Any) -> Any:
    """The array behind one that was on tapes, except on those that still record."""
    while isinstance(x, TapedArray) and not x.value.record.recording:
        x = x.primal
    return x
