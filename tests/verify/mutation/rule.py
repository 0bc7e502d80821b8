"""What a rule of the sweep is made of: three functions, and samplers of their arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

import gradkit

Sampler = Callable[[np.random.Generator, float], np.ndarray]
"""Draws an argument, given the scale of its numbers."""


@dataclass(frozen=True, eq=False)
class Rule:
    """A right gradient, as it stands in the source of a module.

    Attributes:
        primal: The function.
        fwd: Returns its value and the residuals, in one `return value, (residual, ...)`.
        bwd: `bwd(residuals, y_bar)` returns one cotangent an argument, `None` for integers.
        samplers: One an argument; they know the argument's domain.
        at: The point of the check; by default a draw of the samplers.
        kinked: Does `at` lie on a kink, where several derivatives are right?
        domain: Tells the check which arguments the rule is meant for, where the function's being
            finite does not.
    """

    primal: Callable[..., Any]
    fwd: Callable[..., Any]
    bwd: Callable[..., Any]
    samplers: tuple[Sampler, ...]
    at: tuple[np.ndarray, ...] | None = None
    kinked: bool = False
    domain: Callable[..., Any] | None = None

    @property
    def name(self) -> str:
        return self.primal.__name__

    @property
    def args(self) -> tuple[np.ndarray, ...]:
        """The point of the check."""
        return self.at if self.at is not None else self.draw(np.random.default_rng(0), 1.0)

    def draw(self, rng: np.random.Generator, scale: float) -> tuple[np.ndarray, ...]:
        """A point of the domain: float32 and int32 arrays."""
        drawn = (np.asarray(sampler(rng, scale)) for sampler in self.samplers)
        return tuple(x.astype("int32" if x.dtype.kind == "i" else "float32") for x in drawn)


def with_custom_vjp(rule: Rule, fwd: Callable[..., Any], bwd: Callable[..., Any]) -> Any:
    """The function of `rule` with this gradient, by way of `jax.custom_vjp`."""
    f = jax.custom_vjp(rule.primal)
    f.defvjp(fwd, bwd)
    return f


def with_custom_gradient(rule: Rule, fwd: Callable[..., Any], bwd: Callable[..., Any]) -> Any:
    """The function of `rule` with this gradient, by way of `gradkit.custom_gradient`."""

    def function(*args):
        y = rule.primal(*args)
        _, residuals = fwd(*args)

        def grad(*y_bars):
            cotangents = bwd(residuals, y_bars if isinstance(y, tuple) else y_bars[0])
            return cotangents[0] if len(args) == 1 else cotangents

        return y, grad

    function.__name__ = rule.name
    return gradkit.custom_gradient(function)


WRAPPERS = {"custom_vjp": with_custom_vjp, "custom_gradient": with_custom_gradient}


def normal(*shape: int) -> Sampler:
    """Numbers of both signs."""
    return lambda rng, scale: scale * rng.standard_normal(shape)


def positive(*shape: int) -> Sampler:
    """Numbers that keep away from zero."""
    return lambda rng, scale: scale * (0.2 + np.abs(rng.standard_normal(shape)))


def nonzero(*shape: int) -> Sampler:
    """Numbers of both signs that keep away from zero."""
    return lambda rng, scale: rng.choice([-1.0, 1.0], shape) * positive(*shape)(rng, scale)


def integers(*shape: int, below: int) -> Sampler:
    """Labels, or indices."""
    return lambda rng, scale: rng.integers(0, below, shape)


def invertible(n: int) -> Sampler:
    """A matrix that is not symmetric, and far from singular."""
    return lambda rng, scale: scale * (2 * np.eye(n) + 0.4 * rng.standard_normal((n, n)))


def row(*numbers: float) -> np.ndarray:
    """An argument in the type that users have."""
    return np.array(numbers, np.float32)
