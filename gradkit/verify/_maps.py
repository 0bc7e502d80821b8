"""The derivative maps that are being checked: pulling cotangents back, pushing tangents forward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import jax

from gradkit._errors import ForwardModeError
from gradkit._programs import Program
from gradkit.verify._compiled import Compiled
from gradkit.verify._precision import Precision, read_precision
from gradkit.verify._subject import Leaves, Subject, cast

# What JAX says where a mode cannot exist. Neither means that a rule is wrong.
_NO_FORWARD_MODE = ("can't apply forward-mode",)
_NO_REVERSE_MODE = ("Reverse-mode differentiation does not work for lax.while_loop",)


class UnavailableError(Exception):
    """A differentiation mode does not exist for a function, by design."""


def pull_back(subject: Subject) -> Callable[[Leaves, Leaves], tuple[Leaves, Leaves]]:
    """The map from a point and a cotangent of the output to the output and `x_bar`."""

    def pull(point: Leaves, y_bar: Leaves) -> tuple[Leaves, Leaves]:
        y, vjp = jax.vjp(subject.call, point)
        return y, vjp(y_bar)[0]

    return pull


def push_forward(subject: Subject) -> Callable[[Leaves, Leaves], tuple[Leaves, Leaves]]:
    """The map from a point and a tangent to the output and `y_dot`."""

    def push(point: Leaves, x_dot: Leaves) -> tuple[Leaves, Leaves]:
        return jax.jvp(subject.call, (point,), (x_dot,))

    return push


def derivative_of(subject: Subject, mode: str, vector: Sequence[Any]) -> Subject:
    """`x -> x_bar, y` at a fixed cotangent, or `x -> y_dot, y` at a fixed tangent.

    Itself a subject: what the next order differentiates. The value is differentiated as well,
    since a rule decides what a function returns while it is being differentiated.
    """
    with subject.precision_scope():
        derivative = Map(subject, mode)
        fixed = derivative.cast(vector)

    def call(leaves: Leaves) -> Leaves:
        y, image = derivative.raw(leaves, fixed)
        return [*image, *y]

    return replace(subject, call=call)


class Map:
    """One derivative map of one subject, compiled where that is possible.

    Calls take and return lists of arrays and run at the subject's precision. They raise
    `UnavailableError` where the mode does not exist; whatever else a rule raises passes through.
    """

    def __init__(self, subject: Subject, mode: str):
        self.subject = subject
        self.mode = mode
        self.raw = pull_back(subject) if mode == "reverse" else push_forward(subject)
        self.outputs = output_types(subject)
        self._compiled: Compiled | None = None

    @property
    def program(self) -> Program | None:
        """What the map does; `None` where it branches on values."""
        with self.subject.precision_scope():
            return self._ready().program

    @cached_property
    def precision(self) -> Precision:
        """How accurately the map computes."""
        program = self.program
        if program is None:
            return read_precision(None, self.subject.point)
        return read_precision(program.jaxpr, self.subject.point, len(program.consts))

    def __call__(
        self, vectors: Sequence[Any], point: Sequence[Any] | None = None
    ) -> tuple[Leaves, Leaves]:
        """The output and the image of `vectors` (float64) at `point`, or at the subject's own."""
        own = self.subject.point
        with self.subject.precision_scope():
            point = cast(own if point is None else point, own)
            compiled = self._ready()
            try:
                result = list(compiled(*point, *self.cast(vectors)))
            except Exception as error:
                self._raise_if_unavailable(error)
                raise
        return result[: len(self.outputs)], result[len(self.outputs) :]

    def prepare(self) -> None:
        """Trace."""
        with self.subject.precision_scope():
            self._ready()

    def start(self) -> None:
        """Begin to compile, in the background."""
        with self.subject.precision_scope():
            try:
                self._ready().start()
            except UnavailableError:
                raise
            except Exception as error:  # some of what cannot be differentiated shows up only here
                self._raise_if_unavailable(error)
                raise

    def flat(self, *operands: Any) -> Leaves:
        """The map from the leaves of point and vector to those of output and image."""
        n = len(self.subject.point)
        y, image = self.raw(list(operands[:n]), list(operands[n:]))
        return [*y, *image]

    def _ready(self) -> Compiled:
        if self._compiled is None:
            own = self.subject.point
            operands = [*own, *(self.outputs if self.mode == "reverse" else own)]
            try:
                self._compiled = Compiled(self.flat, operands, f"{self.mode} mode")
            except Exception as error:
                self._raise_if_unavailable(error)
                raise
        return self._compiled

    def _raise_if_unavailable(self, error: Exception) -> None:
        if _is_unavailable(error, self.mode):
            raise UnavailableError(_first_sentence(str(error))) from error

    def cast(self, vectors: Sequence[Any]) -> Leaves:
        """Float64 vectors in the types that the map takes."""
        return cast(vectors, self.outputs if self.mode == "reverse" else self.subject.point)


def output_types(subject: Subject) -> list[Any]:
    """The shapes and types of a subject's outputs, without running it where that is possible."""
    with subject.precision_scope():
        try:
            return list(jax.eval_shape(subject.call, subject.point))
        except jax.errors.JAXTypeError:
            return list(subject.call(subject.point))


def _first_sentence(text: str) -> str:
    return text.splitlines()[0].split(". ")[0].rstrip(".")


def _is_unavailable(error: Exception, mode: str) -> bool:
    if mode == "forward":
        return isinstance(error, ForwardModeError) or any(m in str(error) for m in _NO_FORWARD_MODE)
    return any(message in str(error) for message in _NO_REVERSE_MODE)
