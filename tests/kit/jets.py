"""Values with two derivatives, propagated by the chain rule in NumPy: closed forms for tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Jet:
    """The value of a function of one number, and its first two derivatives."""

    value: float
    first: float
    second: float

    def __add__(self, other: Jet) -> Jet:
        return Jet(self.value + other.value, self.first + other.first, self.second + other.second)

    def __rmul__(self, factor: float) -> Jet:
        return Jet(factor * self.value, factor * self.first, factor * self.second)


Numbers = Callable[[float], float]


@dataclass(frozen=True)
class Step:
    """A function with the derivatives that it is said to have."""

    value: Numbers
    first: Numbers
    second: Numbers

    def __call__(self, x: Jet) -> Jet:
        first, second = self.first(x.value), self.second(x.value)
        return Jet(self.value(x.value), first * x.first, second * x.first**2 + first * x.second)


def at(x: float) -> Jet:
    """The variable itself."""
    return Jet(x, 1.0, 0.0)


def stated(natural: Step) -> Step:
    """The same values under `cube_rule`: the stated derivative is the cube of the input."""
    return Step(natural.value, lambda x: x**3, lambda x: 3 * x**2)


SIN = Step(np.sin, np.cos, lambda x: -np.sin(x))
RELU = Step(lambda x: max(x, 0.0), lambda x: float(x > 0), lambda x: 0.0)
SQUARE = Step(lambda x: x**2, lambda x: 2 * x, lambda x: 2.0)


def _logistic(x: float) -> float:
    return 1 / (1 + np.exp(-x))


SILU = Step(
    lambda x: x * _logistic(x),
    lambda x: _logistic(x) * (1 + x * (1 - _logistic(x))),
    lambda x: _logistic(x) * (1 - _logistic(x)) * (2 + x * (1 - 2 * _logistic(x))),
)
