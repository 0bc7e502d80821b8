"""What `find_nonfinite` reports: the operation that a NaN or Inf comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from gradkit._trees import describe_type

_SHOWN = 8  # an array of at most so many elements is shown whole


@dataclass(frozen=True)
class Operand:
    """One input or output of the operation.

    Attributes:
        role: `"input"`, `"output"`, or in the backward pass `"primal"`, `"cotangent"` of the
            operation's output and `"gradient"`, the cotangent of its input.
        type: Its shape and dtype, such as `"float32[3, 4]"`.
        value: The element at the origin's index, or all of an array that has another shape and
            is small; None where there is no telling.
    """

    role: str
    type: str
    value: Any

    def __str__(self) -> str:
        return f"{self.role} {self.type}" + ("" if self.value is None else f" = {self.value}")


@dataclass(frozen=True)
class Origin:
    """Where a NaN or Inf comes from.

    Attributes:
        primitive: The operation: a JAX primitive; `""` if an argument is not finite to begin with.
        argument: That argument, such as `"args[0]['w']"`; `""` if it was an operation.
        kind: What came out: `"nan"` or `"inf"`.
        source: The line of your code that calls the operation, `"path/to/model.py:12"`.
        direction: `"forward"` or `"backward"`: the pass that it happens in.
        is_slope: Is it the gradient of the operation, not the operation itself?
        scope: The named scopes around it, such as `"encoder/dense"`.
        iteration: The iteration of the loop around it, outermost first if they are nested.
        index: The first bad element, within the first bad output.
        inputs: What went in.
        outputs: What came out.
        masked: Is the value of the function finite all the same, as behind a `jnp.where`?
        advice: How to write it safely.
    """

    primitive: str
    kind: str
    direction: str
    argument: str = ""
    source: str = ""
    scope: str = ""
    iteration: tuple[int, ...] = ()
    index: tuple[int, ...] = ()
    inputs: tuple[Operand, ...] = ()
    outputs: tuple[Operand, ...] = ()
    is_slope: bool = False
    masked: bool = False
    advice: str = ""

    def __str__(self) -> str:
        name = "NaN" if self.kind == "nan" else "Inf"
        if self.argument:
            lines = [f"{name} in {self.argument}, which is an argument"]
        else:
            of = "the gradient of " if self.is_slope else ""
            way = ", in the backward pass" if self.direction == "backward" and not of else ""
            at = f" at {self.source}" if self.source else ""
            lines = [f"{name} from {of}{self.primitive}{at}{way}"]
        step = ", ".join(map(str, self.iteration))
        facts = [("scope", self.scope), ("iteration", step), ("index", str(self.index))]
        lines += [f"  {label + ':':<11}{text}" for label, text in facts if text]
        for operand in (*self.inputs, *self.outputs):
            value = "" if operand.value is None else f" = {operand.value}"
            lines.append(f"  {operand.role + ':':<11}{operand.type}{value}")
        if self.advice:
            lines.append(f"  {'fix:':<11}{self.advice}")
        return "\n".join(lines)


def badness(data: Any) -> str:
    """`"nan"` if there is one in an array, else `"inf"` if there is one, else `""`."""
    numbers = _numbers(data)
    if numbers is None or np.isfinite(numbers).all():
        return ""
    return "nan" if np.isnan(numbers).any() else "inf"


def first_bad(data: Any) -> tuple[int, ...]:
    """The index of the first NaN, or of the first Inf if there is no NaN."""
    numbers = np.asarray(data)
    bad = np.isnan(numbers) if badness(data) == "nan" else ~np.isfinite(numbers)
    return tuple(int(i) for i in np.argwhere(bad)[0])


def see(role: str, data: Any, index: tuple[int, ...], shape: tuple[int, ...]) -> Operand:
    """An operand, with its value at `index` if it has `shape`."""
    numbers = _numbers(data, any_number=True)
    value = None
    if numbers is not None and numbers.shape == shape:
        value = numbers[index].item()
    elif numbers is not None and numbers.size <= _SHOWN:
        value = numbers.tolist()
    return Operand(role, describe_type(data), value)


def _numbers(data: Any, *, any_number: bool = False) -> np.ndarray | None:
    """The values of a floating-point or complex array; of any but PRNG keys on demand."""
    dtype = jax.typeof(data).dtype
    if dtype == jax.dtypes.float0 or jax.dtypes.issubdtype(dtype, jax.dtypes.extended):
        return None
    if any_number or jax.dtypes.issubdtype(dtype, np.inexact):
        return np.asarray(data)
    return None
