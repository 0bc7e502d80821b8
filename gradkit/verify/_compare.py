"""The comparison at the heart of a check: derivative maps against differences, number by number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gradkit.verify._differences import BARS, Estimate
from gradkit.verify._directions import Direction
from gradkit.verify._images import Images
from gradkit.verify._precision import FINE
from gradkit.verify._report import ModeSummary
from gradkit.verify._subject import pair, pair_size
from gradkit.verify._truth import Truth

# A tolerance above this share of the numbers themselves could not tell a factor of two.
_BLUNT = 0.3


@dataclass(frozen=True)
class Comparison:
    """One number of one map beside its independent value.

    Attributes:
        images: The map.
        index: Which of the map's own vectors it was applied to.
        weight: Number of the cotangent that weighs the outputs.
        direction: The direction in the arguments.
        got: What the map says.
        expected: What differences say; at a kink, the end of the interval nearest to `got`.
        bar: Error bar of `expected`.
        error: How far `got` is off, or out of the interval.
        tolerance: The error that still counts as agreement.
        size: The size of the derivative when its terms do not cancel.
        settled: Is the tolerance fine enough to tell right from wrong?
        kinked: Do the one-sided differences differ?
    """

    images: Images
    index: int
    weight: int
    direction: Direction
    got: float
    expected: float
    bar: float
    error: float
    tolerance: float
    size: float
    settled: bool
    kinked: bool

    @property
    def agrees(self) -> bool:
        return self.error <= self.tolerance

    @property
    def ratio(self) -> float:
        return self.error / max(self.tolerance, np.finfo(float).tiny)


def compare_with_differences(
    truth: Truth, maps: Sequence[Images], directions: Sequence[Direction]
) -> list[Comparison]:
    """Compare each map along each direction under each cotangent.

    Numbers that are not finite are left out: they are a finding of their own.
    """
    found: list[Comparison] = []
    for index, direction in enumerate(directions):
        line = truth.line(direction)
        numbers = [_along(truth, images, index, direction) for images in maps]
        quick = list(_compare_line(truth, numbers, index, direction, line.short))
        if all(c.agrees and c.settled for c in quick):
            found += quick
        else:
            found += _compare_line(truth, numbers, index, direction, line.full)
    return _settle_together(found)


@dataclass(frozen=True)
class _Numbers:
    """What a map says along one direction, and the sizes of its terms, by cotangent."""

    images: Images
    got: np.ndarray
    sizes: np.ndarray


def _along(truth: Truth, images: Images, index: int, direction: Direction) -> _Numbers:
    if images.mode == "reverse":
        pairs = [(x_bar, direction.tangents) for x_bar in images.values]
    else:
        pairs = [(u, images.values[index]) for u in truth.cotangents]
    got, sizes = ([measure(*p) for p in pairs] for measure in (pair, pair_size))
    return _Numbers(images, np.array(got), np.array(sizes))


def _compare_line(
    truth: Truth,
    numbers: Sequence[_Numbers],
    index: int,
    direction: Direction,
    estimate: Estimate,
) -> Iterator[Comparison]:
    # The terms of one mode may cancel where those of the other do not: a scalar output has one.
    sizes = np.max([np.nan_to_num(n.sizes, posinf=0.0) for n in numbers], axis=0, initial=0.0)
    for n in numbers:
        expected, error = estimate.nearest(n.got), estimate.distance(n.got)
        relative = n.images.tolerance + (1e-3 if truth.precision.iterates else 0.0)
        for weight, got in enumerate(n.got):
            if not np.isfinite(got):
                continue
            bar = float(estimate.bar[weight])
            eps = n.images.precision.eps
            rounding = 64 * eps * truth.sizes[weight] if eps < FINE else 0.0
            tolerance = float(BARS * bar + relative * max(sizes[weight], abs(got)) + rounding)
            ends = abs(float(estimate.low[weight])), abs(float(estimate.high[weight]))
            largest = float(max(sizes[weight], abs(got), *ends))
            yield Comparison(
                n.images,
                weight if n.images.mode == "reverse" else index,
                weight,
                direction,
                float(got),
                float(expected[weight]),
                bar,
                float(error[weight]) if np.isfinite(bar) else 0.0,
                tolerance,
                largest,
                settled=tolerance <= _BLUNT * largest,
                kinked=bool(estimate.kinked[weight]),
            )


def _settle_together(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Settle those that are sharp beside the others of the same argument and output leaves.

    Along one direction, or under the cotangent that is half zeros, the derivative may happen to
    be next to nothing.
    """
    sizes: dict[tuple[str, int], float] = {}
    for c in comparisons:
        sizes[_group(c)] = max(sizes.get(_group(c), 0.0), c.size)
    return [replace(c, settled=c.tolerance <= _BLUNT * sizes[_group(c)]) for c in comparisons]


def _group(c: Comparison) -> tuple[str, int]:
    return c.direction.name, max(c.weight, 1)  # the first two cotangents weigh all outputs


def summarise(
    comparisons: Sequence[Comparison], mode: str, order: int, verdict: str
) -> ModeSummary:
    """The line of a report about one mode."""
    own = [c for c in comparisons if c.images.mode == mode]
    if verdict == "ok":  # what disagrees is excused by a kink
        own = [c for c in own if c.agrees]
    if not own:
        return ModeSummary(mode, order, verdict)
    worst = max(own, key=lambda c: (c.ratio, c.error))
    return ModeSummary(mode, order, verdict, len(own), worst.error, worst.tolerance)
