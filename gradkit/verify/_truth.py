"""The function whose differences are taken: its value, its accuracy, and lines through points."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from gradkit.verify._differences import Line
from gradkit.verify._directions import Direction
from gradkit.verify._dither import shifted_points
from gradkit.verify._maps import compiled_if_possible, output_types
from gradkit.verify._precision import read_precision, trace
from gradkit.verify._stopped import Site, hold_stopped_values, stop_sites
from gradkit.verify._subject import Leaves, Subject, all_finite, as_numpy, cast, pair, pair_size


class Primal:
    """A function without its derivatives.

    Args:
        subject: The function and its point.
        sites: The stopped gradients that count; default: all that the function itself shows.

    Attributes:
        subject: The function and its point.
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
            outputs = output_types(subject)
            self.precision = read_precision(program, [*subject.point, *outputs])
            if sites is None:
                sites = frozenset() if program is None else stop_sites(program.jaxpr)
            self.sites = sites
            call, self.hidden_stops = subject.call, False
            if sites and program is not None:
                call, self.hidden_stops = hold_stopped_values(program, subject.point, sites)

        def along(point: Leaves, tangents: Leaves, t: Any) -> Leaves:
            moved = zip(point, tangents, strict=True)
            return call([x + (t * d).astype(x.dtype) for x, d in moved])

        self._along = compiled_if_possible(along)
        self.output = self.at(subject.point, [np.zeros(x.shape) for x in subject.point], 0.0)

    @property
    def is_finite(self) -> bool:
        return all_finite(self.output)

    def at(self, point: Sequence[Any], tangents: Sequence[Any], t: float) -> list[np.ndarray]:
        """The outputs at `point + t * tangents`, in float64."""
        own = self.subject.point
        with self.subject.precision_scope():
            return [as_numpy(y) for y in self._along(cast(point, own), cast(tangents, own), t)]


class Truth:
    """What a rule is compared with: a function whose outputs are weighed by fixed cotangents.

    Attributes:
        primal: The function.
        cotangents: The weights, one float64 array an output leaf each.
    """

    def __init__(self, primal: Primal, cotangents: Sequence[Sequence[np.ndarray]]):
        self.primal = primal
        self.cotangents = cotangents
        self.precision = primal.precision
        self.hidden_stops = primal.hidden_stops

    @cached_property
    def sizes(self) -> np.ndarray:
        """The sizes of the terms of each weighed output."""
        return np.array([pair_size(u, self.primal.output) for u in self.cotangents])

    def line(self, direction: Direction, point: Sequence[Any] | None = None) -> Line:
        """The weighed outputs along a direction through `point`, or through the function's own."""
        base = self.primal.subject.point if point is None else point
        bases = shifted_points(base, self.precision.eps)

        def evaluate(t: float) -> np.ndarray:
            outputs = (self.primal.at(b, direction.tangents, t) for b in bases)
            return np.array([[pair(u, y) for u in self.cotangents] for y in outputs])

        return Line(evaluate, self.sizes, self.precision)


def first_that_runs(subjects: Sequence[Subject], sites: frozenset[Site] | None = None) -> Primal:
    """The function at the best precision at which it can be evaluated."""
    for subject in subjects[:-1]:
        try:
            return Primal(subject, sites)
        except Exception:  # it refuses float64; what it says in its own types counts
            continue
    return Primal(subjects[-1], sites)
