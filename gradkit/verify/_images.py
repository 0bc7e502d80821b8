"""What one derivative map makes of the check's vectors, at the best precision that it allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from gradkit.verify._dither import shifted_points
from gradkit.verify._maps import Map, UnavailableError
from gradkit.verify._precision import COARSE, Precision
from gradkit.verify._subject import Subject, all_finite, as_numpy

Vectors = Sequence[Sequence[np.ndarray]]


@dataclass(frozen=True)
class Images:
    """A derivative map and its values.

    Attributes:
        map: The map, at the precision that worked.
        point: Where, in float64.
        vectors: What it was applied to: cotangents in reverse mode, tangents in forward mode.
        values: Their images, in float64; averages around the point in coarse arithmetic.
        output: The output of the function that came with them.
        due: The precision that the user may expect: that of the function and its arguments.
    """

    map: Map
    point: Sequence[np.ndarray]
    vectors: Vectors
    values: list[list[np.ndarray]]
    output: list[np.ndarray]
    due: Precision

    @property
    def mode(self) -> str:
        return self.map.mode

    @cached_property
    def precision(self) -> Precision:
        """How accurately the map computes."""
        return self.map.precision

    @cached_property
    def tolerance(self) -> float:
        """Relative error that a right rule may have at this precision.

        Cancellation inside right rules costs some digits, so this is far above `eps`:
        1e-6 in float64, 1e-4 in float32, 0.03 in bfloat16.
        """
        return max(1e-6, 0.3 * float(np.sqrt(min(self.precision.eps, self.due.eps))))

    @property
    def is_averaged(self) -> bool:
        """Is the rule allowed arithmetic so coarse that only averages of its numbers tell?"""
        return min(self.precision.eps, self.due.eps) > COARSE

    @property
    def is_coarse(self) -> bool:
        """Does the rule compute less accurately than its function and its arguments?"""
        return self.precision.eps > self.due.eps

    def is_finite(self, i: int) -> bool:
        return all_finite(self.values[i])

    @property
    def all_finite(self) -> bool:
        return all(map(all_finite, self.values))

    def apply(
        self, vectors: Sequence[np.ndarray], point: Sequence[np.ndarray] | None = None
    ) -> list[np.ndarray]:
        """The image of other vectors, or of these at another point (float64)."""
        return [as_numpy(v) for v in self.map(vectors, self.point if point is None else point)[1]]

    def apply_at(
        self, point: Sequence[np.ndarray], vectors: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        """The image at a point that was not asked for: NaN if nothing can be computed there.

        Functions on the host may raise outside their domain, where others return NaN.
        """
        try:
            return self.apply(vectors, point)
        except Exception:
            return [np.full(np.shape(x), np.nan) for x in self.values[0]]

    def average(self, vectors: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The image of other vectors at the point; in coarse arithmetic, averaged around it."""
        if not self.is_averaged:
            return self.apply(vectors)
        points = shifted_points(self.point, self.precision.eps)
        around = [self.apply(vectors, point) for point in points]
        return [np.mean(leaves, axis=0) for leaves in zip(*around, strict=True)]


def make_map(subjects: Sequence[Subject], mode: str, *, start: bool = True) -> Map:
    """The map of the first subject for which there is one.

    Args:
        subjects: The same function at falling precision. A rule that insists on the types that
            its author had in mind fails in float64, and is then checked in those.
        mode: `"reverse"` or `"forward"`.
        start: Begin to compile it.

    Raises:
        UnavailableError: If the mode does not exist.
        Exception: Whatever the rule raises at the last precision.
    """
    for i, subject in enumerate(subjects):
        derivative = Map(subject, mode)
        try:
            derivative.prepare()
            if start:
                derivative.start()
            return derivative
        except UnavailableError:
            raise
        except Exception:  # rules are free to refuse float64 with whatever exception they like
            if i == len(subjects) - 1:
                raise
    raise AssertionError


def make_images(
    derivative: Map, vectors: Vectors, due: Precision, point: Sequence[Any] | None = None
) -> Images:
    """Apply a map.

    Args:
        derivative: The map.
        vectors: Cotangents or tangents.
        due: The precision that the user may expect of the rule.
        point: Where. Default: the map's own point.

    Raises:
        UnavailableError: If the mode turns out not to exist.
        Exception: Whatever the rule raises.
    """
    point = [as_numpy(x) for x in (derivative.subject.point if point is None else point)]
    results = [derivative(v, point) for v in vectors]
    values = [[as_numpy(x) for x in image] for _, image in results]
    output = [as_numpy(y) for y in results[0][0]]
    images = Images(derivative, point, vectors, values, output, due)
    if images.is_averaged:
        images = replace(images, values=[images.average(v) for v in vectors])
    return images
