"""The function whose differences are taken: its value, its accuracy, and lines through points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import jaxpr_as_fun
from jax.sharding import NamedSharding, PartitionSpec

from gradkit._programs import Program
from gradkit.verify._compiled import Compiled
from gradkit.verify._differences import Line
from gradkit.verify._directions import Direction, random_step
from gradkit.verify._dither import shifted_points
from gradkit.verify._folding import fold_conversions, is_large
from gradkit.verify._maps import output_types
from gradkit.verify._precision import count_numbers, read_precision, trace
from gradkit.verify._stopped import Held, Site, stop_sites
from gradkit.verify._subject import Leaves, Subject, all_finite, as_numpy, cast, pair_size

_MOST_STEPS = 64  # evaluated by one call
# Numbers that one evaluation reads and writes.
_COSTLY = 2_000_000
_LARGE = 20_000_000
_MOST_NUMBERS = 1 << 20  # outputs that one call holds at once


class Primal:
    """A function without its derivatives.

    Args:
        subject: The function and its point.
        sites: The stopped gradients that count; default: all that the function itself shows.

    Attributes:
        subject: The function and its point.
        jaxpr: Its program, or `None` if it branches on values.
        precision: How accurately it computes.
        sites: The source lines at which its author stopped gradients.
        hidden_stops: Does it stop gradients inside a loop or branch, where they cannot be held
            still? Its differences then are not what `jax.grad` is meant to return.
        output: Its value at the point, in float64.
    """

    def __init__(self, subject: Subject, sites: frozenset[Site] | None = None):
        self.subject = subject
        with subject.precision_scope():
            program = trace(subject.call, subject.point)
            self.jaxpr = None if program is None else program.jaxpr
            outputs = output_types(subject)
            self.precision = read_precision(program, [*subject.point, *outputs])
            if sites is None:
                sites = frozenset() if program is None else stop_sites(program.jaxpr)
            self.sites = sites
            held = Held(program, sites) if sites and program is not None else None
            self.hidden_stops = held is not None and held.hides_stops
            call = subject.call
            if held is None and program is not None and any(map(is_large, program.consts)):
                call, self._conversions = _folded(program)
            size = sum(int(np.prod(y.shape)) for y in outputs)
            self._capacity = int(np.clip(_MOST_NUMBERS // max(size, 1), 1, _MOST_STEPS))
            steps = np.zeros(self._capacity, jnp.float64 if subject.wide else jnp.float32)
            self._along = Compiled(
                _steps_along(call, held, len(subject.point), outputs),
                [*subject.point, *subject.point, steps, np.zeros((), np.int32)],
                "primal",
            )
            self._along.start()
        self._steps = steps
        self._outputs = outputs

    @cached_property
    def cost(self) -> int:
        """How many numbers one evaluation reads and writes, as far as the program shows."""
        return 0 if self.jaxpr is None else count_numbers(self.jaxpr)

    @property
    def is_costly(self) -> bool:
        """Does an evaluation take longer than what is made of it, so that each must tell much?"""
        return self.cost > _COSTLY

    @property
    def is_large(self) -> bool:
        """Does one evaluation take so long that few must do?"""
        return self.cost > _LARGE

    @property
    def is_divided(self) -> bool:
        """Do types of arguments or outputs say that they are divided among devices?"""
        with self.subject.precision_scope():
            types = [jax.typeof(x) for x in (*self.subject.point, *self._outputs)]
        return any(any(t.sharding.spec) for t in types)

    @cached_property
    def output(self) -> list[np.ndarray]:
        """Its value at the point."""
        return self.at(self.subject.point)

    def yardstick(
        self, point: Sequence[Any] | None = None, output: Sequence[np.ndarray] | None = None
    ) -> list[np.ndarray]:
        """How large the outputs are, number by number, where they do not happen to be tiny.

        An output that cancels to next to nothing at the point is measured by a thousandth of what
        it is a step away, or its rounding would be taken for a number.
        """
        here = self.output if output is None else output
        base = [as_numpy(x) for x in (self.subject.point if point is None else point)]
        step = random_step(np.random.default_rng(0), base, 0.5)
        try:
            near = [y[0] for y in self.along(base, step, np.ones(1))]
        except Exception:
            near = list(here)
        return [
            np.maximum(np.abs(y), _least(y, n)).astype(y.dtype)
            for y, n in zip(here, near, strict=True)
        ]

    @property
    def is_finite(self) -> bool:
        return all_finite(self.output)

    def at(self, point: Sequence[Any]) -> list[np.ndarray]:
        """The outputs at a point, in float64."""
        still = [np.zeros(x.shape) for x in self.subject.point]
        return [y[0] for y in self.along(point, still, np.zeros(1))]

    def along(
        self, point: Sequence[Any], tangents: Sequence[Any], steps: np.ndarray
    ) -> list[np.ndarray]:
        """The outputs at `point + t * tangents` for each t in `steps`, stacked, in float64."""
        own = self.subject.point
        with self.subject.precision_scope():
            operands = *cast(point, own), *cast(tangents, own)
            parts = [
                self._evaluate(operands, steps[start : start + self._capacity])
                for start in range(0, len(steps), self._capacity)
            ]
        return [np.concatenate(ys) for ys in zip(*parts, strict=True)]

    def _evaluate(self, operands: Sequence[Any], steps: np.ndarray) -> list[np.ndarray]:
        padded = self._steps.copy()
        padded[: len(steps)] = steps
        try:
            ys = self._along(*operands, padded, np.int32(len(steps)))
            return [as_numpy(y)[: len(steps)] for y in ys]
        except Exception:
            if not steps.any():  # at the very point
                raise
            # Functions on the host may raise outside their domain, where others return NaN.
            if len(steps) == 1:
                return [np.full((1, *y.shape), np.nan) for y in self._outputs]
        rows = [self._evaluate(operands, steps[i : i + 1]) for i in range(len(steps))]
        return [np.concatenate(ys) for ys in zip(*rows, strict=True)]


def _folded(program: Any) -> tuple[Callable[[Leaves], Leaves], Any]:
    """A traced function of leaves whose large constants are converted beforehand."""
    closed = Program.trace(jaxpr_as_fun(program), program.in_avals, "primal")
    folded, kept = fold_conversions(closed, "primal")
    return lambda leaves: folded(*leaves), kept


def _least(y: np.ndarray, near: np.ndarray) -> float:
    largest = float(np.abs(near).max(initial=0.0))
    if np.isfinite(largest) and largest > 0:
        return 1e-3 * largest
    return 0.0 if y.any() else 1.0


def _steps_along(
    call: Callable[[Leaves], Leaves], held: Held | None, n_leaves: int, outputs: Sequence[Any]
) -> Callable[..., Leaves]:
    """The program that evaluates a function at several steps along a line, one after the other.

    A loop and not `vmap`: whether the function is right under `vmap` is a question of its own, and
    the loop needs the memory of one evaluation.
    """

    def along(*operands: Any) -> Leaves:
        point, tangents = operands[:n_leaves], operands[n_leaves : 2 * n_leaves]
        steps, count = operands[2 * n_leaves :]
        stopped = None if held is None else held.record(list(point))

        def evaluate(t: Any) -> Leaves:
            moved = [x + (t * d).astype(x.dtype) for x, d in zip(point, tangents, strict=True)]
            ys = call(moved) if held is None else held.call(moved, stopped or ())
            return [_gathered(y) for y in ys]

        def step(i: Any, found: Leaves) -> Leaves:
            ys = evaluate(steps[i])
            return [all_.at[i].set(y) for all_, y in zip(found, ys, strict=True)]

        if not isinstance(count, Tracer):  # called as it is: the function needs values
            rows = [evaluate(t) for t in steps[:count]]
            return [jnp.stack(ys) for ys in zip(*rows, strict=True)]
        empty = [jnp.zeros((len(steps), *y.shape), y.dtype) for y in outputs]
        return jax.lax.fori_loop(0, count, step, empty)

    return along


def _gathered(y: Any) -> Any:
    """`y`, no longer divided among devices where that is a part of its type."""
    sharding = jax.typeof(y).sharding
    if not any(sharding.spec):
        return y
    return jax.sharding.reshard(y, NamedSharding(sharding.mesh, PartitionSpec()))


class Truth:
    """What a rule is compared with: a function whose outputs are weighed by fixed cotangents.

    Args:
        primal: The function.
        cotangents: One float64 array an output leaf each.
        weights: What the rule is meant to make of the cotangents before it pulls them back.
            Default: the cotangents.
        point: Where, in float64. Default: the function's own point.
    """

    def __init__(
        self,
        primal: Primal,
        cotangents: Sequence[Sequence[np.ndarray]],
        weights: Sequence[Sequence[np.ndarray]] | None = None,
        point: Sequence[Any] | None = None,
    ):
        self.primal = primal
        self.cotangents = cotangents
        self.weights = cotangents if weights is None else weights
        self.point = [as_numpy(x) for x in (primal.subject.point if point is None else point)]
        self.output = primal.output if point is None else primal.at(point)
        self.precision = primal.precision
        self.hidden_stops = primal.hidden_stops

    @cached_property
    def sizes(self) -> np.ndarray:
        """The sizes of the terms of each weighed output."""
        yardstick = self.primal.yardstick(self.point, self.output)
        return np.array([pair_size(u, yardstick) for u in self.weights])

    def line(self, direction: Direction, point: Sequence[Any] | None = None) -> Line:
        """The weighed outputs along a direction through `point`, or through the own point."""
        bases = shifted_points(self.point if point is None else point, self.precision.eps)

        def evaluate(steps: np.ndarray) -> np.ndarray:
            samples = [self.primal.along(b, direction.tangents, steps) for b in bases]
            return np.stack([self._weigh(outputs) for outputs in samples], axis=1)

        return Line(evaluate, self.sizes, self.precision, thrifty=self.primal.is_costly)

    def _weigh(self, outputs: Sequence[np.ndarray]) -> np.ndarray:
        """A row a step, a column a cotangent."""
        total: Any = 0.0
        with np.errstate(invalid="ignore", over="ignore"):
            for i, y in enumerate(outputs):
                weights = np.stack([u[i].ravel() for u in self.weights], axis=1)
                total = total + np.real(y.reshape(len(y), -1) @ weights)
        return total


def first_that_runs(subjects: Sequence[Subject], sites: frozenset[Site] | None = None) -> Primal:
    """The function at the best precision at which it can be evaluated."""
    for subject in subjects[:-1]:
        try:
            return Primal(subject, sites)
        except Exception:  # it refuses float64; what it says in its own types counts
            continue
    return Primal(subjects[-1], sites)
