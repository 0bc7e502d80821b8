"""The derivative maps that are being checked: pulling cotangents back, pushing tangents forward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax

from gradkit._errors import ForwardModeError
from gradkit.verify._subject import Leaves, Subject, cast

# What JAX says where a mode cannot exist. Neither means that a rule is wrong.
_NO_FORWARD_MODE = ("can't apply forward-mode",)
_NO_REVERSE_MODE = ("Reverse-mode differentiation does not work for lax.while_loop",)


class UnavailableError(Exception):
    """A differentiation mode does not exist for a function, by design."""


def compiled_if_possible(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.jit(fn)`, or `fn` itself from the first call on that needs concrete values."""
    jitted: Callable[..., Any] | None = jax.jit(fn)

    def call(*operands: Any) -> Any:
        nonlocal jitted
        if jitted is not None:
            try:
                return jitted(*operands)
            except jax.errors.JAXTypeError:  # branches on a value, or hands it to NumPy
                jitted = None
        return fn(*operands)

    return call


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
    """`x -> x_bar` at a fixed cotangent, or `x -> y_dot` at a fixed tangent.

    Itself a subject: what the next order differentiates.
    """
    with subject.precision_scope():
        derivative = Map(subject, mode)
        fixed = derivative.cast(vector)
    return replace(subject, call=lambda leaves: derivative.raw(leaves, fixed)[1])


class Map:
    """One derivative map of one subject, compiled where that is possible.

    Calls take and return lists of arrays and run at the subject's precision. They raise
    `UnavailableError` where the mode does not exist; whatever else a rule raises passes through.
    """

    def __init__(self, subject: Subject, mode: str):
        self.subject = subject
        self.mode = mode
        self.raw = pull_back(subject) if mode == "reverse" else push_forward(subject)
        self._compiled = compiled_if_possible(self.raw)
        self._outputs = output_types(subject)

    def __call__(
        self, vectors: Sequence[Any], point: Sequence[Any] | None = None
    ) -> tuple[Leaves, Leaves]:
        """The output and the image of `vectors` (float64) at `point`, or at the subject's own."""
        with self.subject.precision_scope():
            own = self.subject.point
            try:
                return self._compiled(
                    cast(own if point is None else point, own), self.cast(vectors)
                )
            except Exception as error:
                if _is_unavailable(error, self.mode):
                    raise UnavailableError(_first_sentence(str(error))) from error
                raise

    def cast(self, vectors: Sequence[Any]) -> Leaves:
        """Float64 vectors in the types that the map takes."""
        return cast(vectors, self._outputs if self.mode == "reverse" else self.subject.point)


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
