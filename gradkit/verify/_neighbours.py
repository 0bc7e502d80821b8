"""Second opinions: what the rule says at points nearby, where kinks and accidents are absent.

At a kink (`relu` at zero, a tie in `max`) the derivative is a matter of convention, and
differences give something between. The rule is accepted there if it is right at the points
around, and at the point itself no number lies outside those of the points around. A rule that is
wrong in smooth territory is wrong nearby as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gradkit.verify._differences import BARS
from gradkit.verify._directions import Direction, random_step
from gradkit.verify._images import Images
from gradkit.verify._subject import all_finite, pair, pair_size
from gradkit.verify._truth import Truth

_PAIRS = 12  # antithetic pairs of points: each kink is met from both sides
_CONFIRMED = 3  # points at which differences are taken again
_LARGEST_BASIS = 100_000  # numbers beyond which the span of the jumps is not computed

PERSISTS, KINK, JUMP, OUTSIDE, ISOLATED, UNSETTLED = (
    "persists",
    "kink",
    "jump",
    "outside",
    "isolated",
    "unsettled",
)


def _radius(images: Images) -> float:
    """How far the neighbours are, relative to each leaf: close, but more than rounding."""
    eps = images.precision.eps
    if eps < 1e-12:
        return 2.0**-20
    return 2.0**-10 if eps < 1e-6 else 2.0**-5


@dataclass
class Neighbours:
    """The points around the point of a check, and one image of the map at each of them.

    Args:
        images: The map.
        index: Which of its vectors is looked at.
        truth: What its images are compared with.
        seed: Seed of the points.
    """

    images: Images
    index: int
    truth: Truth
    seed: int

    @cached_property
    def points(self) -> list[list[np.ndarray]]:
        rng = np.random.default_rng(self.seed)
        point = self.images.point
        radius = _radius(self.images)
        steps = [random_step(rng, point, radius) for _ in range(_PAIRS)]
        return [
            [x + sign * step for x, step in zip(point, move, strict=True)]
            for move in steps
            for sign in (1.0, -1.0)
        ]

    @cached_property
    def around(self) -> list[tuple[list[np.ndarray], list[np.ndarray]]]:
        """Points and images, where the image is finite."""
        vectors = self.images.vectors[self.index]
        found = ((point, self.images.apply_at(point, vectors)) for point in self.points)
        return [(point, image) for point, image in found if all_finite(image)]

    def judge(self, direction: Direction, weight: int) -> str:
        """Settle a disagreement along `direction` under cotangent number `weight`."""
        if len(self.around) < _PAIRS:
            return UNSETTLED
        inside, jumps = self._compare_with_box()
        # Coarse arithmetic needs steps so long that those of the neighbours meet the kink too.
        confirms = not (self.images.is_averaged and inside and jumps)
        if confirms and self._mismatches(direction, weight) > 1:
            return PERSISTS
        if (jumps or not inside) and self._function_jumps():
            return UNSETTLED
        if not inside:
            return OUTSIDE if jumps else ISOLATED
        if not jumps:
            return JUMP if self.confirms(direction, weight) else UNSETTLED
        return KINK if self._follows_the_jumps() else OUTSIDE

    def strays(self) -> bool:
        """Is there a kink here at which the image is none of what the neighbours allow?"""
        if len(self.around) < _PAIRS:
            return False
        inside, jumps = self._compare_with_box()
        if not jumps or (inside and self._follows_the_jumps()):
            return False
        return not self._function_jumps()

    def _function_jumps(self) -> bool:
        """Is the function's own value another one at the neighbours?"""
        here, primal = self.truth.output, self.truth.primal
        sizes = primal.yardstick(self.truth.point, here)
        for point, _ in self.around[:4]:
            for a, b, size in zip(here, primal.at(point), sizes, strict=True):
                if np.abs(a - b).max(initial=0.0) > 0.1 * np.abs(size).max(initial=0.0):
                    return True
        return False

    def confirms(self, direction: Direction, weight: int) -> bool:
        """Is the image that of the neighbours, and right at all of those that were tried?

        So it is where a function jumps: there are no differences at such a point.
        """
        if len(self.around) < _PAIRS:
            return False
        inside, jumps = self._compare_with_box()
        if not inside or (jumps and not self._follows_the_jumps()):
            return False
        return self._count(direction, weight, sharply=True) == _CONFIRMED

    def _along(self, image: Sequence[np.ndarray], direction: Direction, weight: int) -> float:
        if self.images.mode == "reverse":
            return pair(image, direction.tangents)
        return pair(self.truth.cotangents[weight], image)

    def _size(self, image: Sequence[np.ndarray], direction: Direction, weight: int) -> float:
        if self.images.mode == "reverse":
            return pair_size(image, direction.tangents)
        return pair_size(self.truth.cotangents[weight], image)

    def _mismatches(self, direction: Direction, weight: int) -> int:
        """At how many neighbours the rule disagrees with differences taken there."""
        tried = len(self.around[:_CONFIRMED])
        return tried - self._count(direction, weight, sharply=False)

    def _count(self, direction: Direction, weight: int, *, sharply: bool) -> int:
        """At how many neighbours the rule agrees with differences, sharp ones if need be."""
        count = 0
        for point, image in self.around[:_CONFIRMED]:
            got = self._along(image, direction, weight)
            size = max(self._size(image, direction, weight), abs(got))
            estimate = self.truth.line(direction, point).full
            tolerance = BARS * estimate.bar[weight] + self.images.tolerance * size
            off = estimate.distance(np.full_like(estimate.low, got))[weight]
            # A derivative of exactly zero is that of stairs; it has no size to be measured by.
            scale = max(self.truth.sizes[weight], 1.0)  # cotangents make outputs about that large
            sharp = tolerance <= (0.01 * size if size else 1e-6 * scale)
            count += bool(off <= tolerance and (sharp or not sharply))
        return count

    @cached_property
    def _own(self) -> np.ndarray:
        return _flatten(self.images.values[self.index])

    @cached_property
    def _matrix(self) -> np.ndarray:
        return np.stack([_flatten(image) for _, image in self.around])

    @cached_property
    def _size_further_off(self) -> float:
        """The largest number of an image a step away, beside which one in here may be nothing."""
        rng = np.random.default_rng(self.seed)
        step = random_step(rng, self.images.point, 0.5)
        point = [x + d for x, d in zip(self.images.point, step, strict=True)]
        image = _flatten(self.images.apply_at(point, self.images.vectors[self.index]))
        return float(np.abs(image).max(initial=0.0)) if np.isfinite(image).all() else 0.0

    @cached_property
    def _are_spread(self) -> np.ndarray:
        """By number: do neighbours have many different ones, not one for each side of a kink?"""
        low, high = self._matrix.min(axis=0), self._matrix.max(axis=0)
        width = np.where(high > low, high - low, 1.0)
        places = np.sort(np.round(32 * (self._matrix - low) / width), axis=0)
        return (np.diff(places, axis=0) > 0).sum(axis=0) > _PAIRS // 2

    def _margin(self) -> float:
        # Between neighbours a smooth gradient changes by its curvature times the radius.
        return max(1e-4, 16 * _radius(self.images))

    def _compare_with_box(self) -> tuple[bool, bool]:
        """Is every number of the image within those of the neighbours; do any of them jump?"""
        low, high = self._matrix.min(axis=0), self._matrix.max(axis=0)
        size = np.maximum(np.abs(low), np.abs(high))
        slack = self._margin() * (size + 1e-3 * size.max(initial=0.0)) + 0.01 * (high - low)
        slack += 2 * _radius(self.images) * self._size_further_off
        # Where neighbours have all kinds of numbers (equal eigenvalues), they do not show the ends.
        slack += np.where(self._are_spread, 0.5 * (high - low), 0.0)
        inside = (self._own >= low - slack) & (self._own <= high + slack)
        # A neighbour that lies across a kink differs by a share of the number, not by a trifle.
        jumps = (high - low) > 8 * self._margin() * (size + 1e-3 * size.max(initial=0.0))
        return bool(inside.all() and self._is_near_enough()), bool(jumps.any())

    def _is_near_enough(self) -> bool:
        """Where the neighbours lie all around: is the image hardly further out than they are?"""
        centre = self._matrix.mean(axis=0)
        furthest = np.linalg.norm(self._matrix - centre, axis=1).max()
        distance = np.linalg.norm(self._own - centre)
        return not self._are_spread.any() or bool(distance <= 1.25 * furthest + 1e-12)

    def _follows_the_jumps(self) -> bool:
        """Does the image differ from its neighbours only in ways in which they differ?

        A tie counted twice, (1, 1) between (1, 0) and (0, 1), lies within each coordinate's
        range, but off the line through the two. Tested only where few enough kinks meet for the
        neighbours to show all of their combinations.
        """
        matrix = self._matrix
        if matrix.shape[1] > _LARGEST_BASIS:
            return True
        centre = matrix.mean(axis=0)
        _, sizes, basis = np.linalg.svd(matrix - centre, full_matrices=False)
        largest = max(float(sizes[0]), float(np.linalg.norm(centre)))
        kept = sizes > 8 * self._margin() * largest
        if kept.sum() > _PAIRS // 2:  # the two of a pair differ from the centre alike
            return True
        off = self._own - centre
        off = off - basis[kept].T @ (basis[kept] @ off)
        return bool(np.linalg.norm(off) <= 16 * self._margin() * largest)


def _flatten(image: Sequence[np.ndarray]) -> np.ndarray:
    """All numbers of an image in one real vector."""
    flat = [np.ravel(x) for x in image]
    parts = [p for x in flat for p in ((x.real, x.imag) if np.iscomplexobj(x) else (x,))]
    return np.concatenate(parts) if parts else np.zeros(0)
