"""Directional derivatives by finite differences, each with an error bar.

Central differences where the function is smooth; both one-sided ones where they differ, at a kink.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gradkit.verify._precision import COARSE, Precision
from gradkit.verify._richardson import balance, refine

_FEWEST = 4  # steps that tell an agreement in smooth territory
BARS = 6.0  # a verdict needs this many error bars


@dataclass(frozen=True)
class Estimate:
    """Derivatives of several functions along one line.

    Attributes:
        low: Lower end of what the derivative can be; below `high` only at a kink.
        high: Upper end.
        bar: Error bar of either end; infinite where differences tell nothing.
    """

    low: np.ndarray
    high: np.ndarray
    bar: np.ndarray

    @property
    def kinked(self) -> np.ndarray:
        return self.high > self.low

    def distance(self, got: np.ndarray) -> np.ndarray:
        """How far `got` lies outside the interval."""
        return np.maximum(0.0, np.maximum(self.low - got, got - self.high))

    def nearest(self, got: np.ndarray) -> np.ndarray:
        """The number of the interval that is closest to `got`."""
        return np.clip(got, self.low, self.high)


def short_ladder(precision: Precision) -> np.ndarray:
    """The steps that settle an agreement in smooth territory, long ones first."""
    ladder = full_ladder(precision)
    return ladder[2:11] if len(ladder) > 16 else ladder


def full_ladder(precision: Precision) -> np.ndarray:
    """All steps worth trying at this precision, long ones first."""
    digits = -np.log2(precision.eps)
    shortest = int(0.7 * digits)
    if precision.eps > COARSE:
        shortest += 3  # averages over samples allow shorter steps
    if precision.iterates:
        shortest = min(shortest, 12)
    return np.exp2(-np.arange(2 if digits > 12 else 1, shortest + 1, dtype=np.float64))


class Line:
    """Functions along one direction: `evaluate(steps)` returns their values at `x + t d`.

    Args:
        evaluate: Returns float64 numbers by step, sample and function. Samples differ in points
            that are shifted by about one rounding: coarse arithmetic turns a function into stairs,
            and an average over their steps is smooth again, with a scatter that tells its error.
        size: The size of the terms that each value at zero sums up, for its rounding error.
        precision: How accurately `evaluate` computes.
        thrifty: Make do with few steps where they settle it.
    """

    def __init__(
        self,
        evaluate: Callable[[np.ndarray], np.ndarray],
        size: np.ndarray,
        precision: Precision,
        *,
        thrifty: bool = False,
    ):
        self._evaluate = evaluate
        self._size = size
        self._precision = precision
        self._thrifty = thrifty
        self._known: dict[float, np.ndarray] = {}

    def _at(self, steps: np.ndarray) -> np.ndarray:
        new = np.array([t for t in steps if t not in self._known])
        if new.size:
            self._known.update(zip(new.tolist(), self._evaluate(new), strict=True))
        return np.stack([self._known[t] for t in steps])

    @property
    def slopes(self) -> tuple[np.ndarray, np.ndarray]:
        """The steps of central differences, falling, and the quotients by step and function."""
        steps = full_ladder(self._precision)
        values = self._at(np.concatenate([steps, -steps])).mean(axis=1)
        rises = values[: len(steps)] - values[len(steps) :]
        return steps, rises / (2 * steps[:, None])

    @property
    def noise(self) -> np.ndarray:
        """How far each function is from a straight line over the shortest steps."""
        steps = full_ladder(self._precision)
        values = self._at(np.concatenate([[0.0], steps, -steps])).mean(axis=1, keepdims=True)
        ahead, behind = values[1 : len(steps) + 1], values[len(steps) + 1 :]
        return _second_differences(ahead, values[0], behind)

    @cached_property
    def short(self) -> Estimate:
        """The estimate from a few steps."""
        ladder = short_ladder(self._precision)
        if self._thrifty and len(ladder) > _FEWEST:
            ladder = ladder[-_FEWEST:]
        return self._estimate(ladder, measure_noise=False)

    @cached_property
    def full(self) -> Estimate:
        """The estimate from the whole ladder, whose shortest steps also measure the noise."""
        return self._estimate(full_ladder(self._precision), measure_noise=True)

    def _scatter(self) -> np.ndarray:
        """The noise of each function, as it scatters about a parabola close to the point.

        Steps of powers of two may all meet the same stair of a function that cancels; these are
        at random. The middle of three reaches: the longest may see curvature, the shortest nothing.

        Source:
            After More and Wild, *Estimating computational noise* (2011).
        """
        rng = np.random.default_rng(0)
        found = []
        for power in (0.4, 0.5, 0.6):
            steps = self._precision.eps**power * rng.uniform(-1.0, 1.0, 9)
            found.append(_residuals(steps, self._at(steps)[:, 0]))
        return np.median(found, axis=0)

    def _estimate(self, steps: np.ndarray, *, measure_noise: bool) -> Estimate:
        values = self._at(np.concatenate([[0.0], steps, -steps]))
        here, ahead, behind = values[0], values[1 : len(steps) + 1], values[len(steps) + 1 :]
        with np.errstate(invalid="ignore", over="ignore"):
            floor = np.zeros_like(self._size)
            if here.shape[0] == 1:
                # Rounding of the value; and of what is computed on the way to it, which is as if
                # the argument were rounded: a step of one moves it by about its own size.
                slopes = np.abs(ahead - behind).mean(axis=1) / (2 * steps[:, None])
                floor = self._precision.eps * np.maximum(
                    0.5 * self._size, np.nan_to_num(np.median(slopes[len(steps) // 2 :], axis=0))
                )
                if measure_noise:
                    floor = np.maximum(floor, _second_differences(ahead, here, behind))
                    scatter = self._scatter()
                    # What is larger is no rounding, but a kink, a jump or a singularity.
                    floor = np.where(
                        scatter <= 1e-9 * self._size, np.maximum(floor, scatter), floor
                    )
            central = _slope((ahead - behind) / 2, steps, (2, 4), floor)
            plain = here.shape[0] == 1 and not measure_noise
            if plain and _is_smooth(ahead, here, behind, steps, central, floor):
                return Estimate(central[0], central[0], central[1])
            return _combine(
                central,
                _slope(ahead - here, steps, (1, 2, 3), 2 * floor),
                _slope(here - behind, steps, (1, 2, 3), 2 * floor),
            )


def _residuals(steps: np.ndarray, values: np.ndarray) -> np.ndarray:
    """How far values are from a parabola through them, by function."""
    u = steps / np.abs(steps).max()
    design = np.stack([np.ones_like(u), u, u * u], axis=1)
    finite = np.where(np.isfinite(values), values, 0.0)
    fitted = design @ np.linalg.lstsq(design, finite, rcond=None)[0]
    return np.sqrt(((finite - fitted) ** 2).sum(axis=0) / (len(steps) - 3))


def _is_smooth(
    ahead: np.ndarray,
    here: np.ndarray,
    behind: np.ndarray,
    steps: np.ndarray,
    central: tuple[np.ndarray, np.ndarray],
    floor: np.ndarray,
) -> bool:
    """Is there certainly no kink, so that one-sided slopes need not be looked at?

    The one-sided slopes at the two shortest steps differ by a gap, if there is a kink, and by a
    curvature proportional to the step, which cancels.
    """
    gaps = ((ahead + behind - 2 * here)[-2:, 0]) / steps[-2:, None]
    gap = np.abs(2 * gaps[1] - gaps[0])
    return bool((gap <= 1e-7 * np.abs(central[0]) + 4 * floor / steps[-1]).all())


def _second_differences(ahead: np.ndarray, here: np.ndarray, behind: np.ndarray) -> np.ndarray:
    """Rounding as it shows at the shortest steps, where curvature leaves nothing, h^2 f''."""
    shortest = 4 if len(ahead) > 16 else 2
    second = np.abs(ahead + behind - 2 * here)[-shortest:]
    return np.nan_to_num(second, nan=0.0).max(axis=(0, 1))


def _slope(
    rises: np.ndarray, steps: np.ndarray, powers: tuple[int, ...], floor: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The derivative and its error bar from rises over steps, by sample and function."""
    count = rises.shape[1]
    scatter = rises.std(axis=1, ddof=1) / np.sqrt(count) if count > 1 else 0.0
    noise = np.maximum(scatter, floor) * np.ones((len(steps), 1))
    h = steps[:, None]
    return balance(*refine(rises.mean(axis=1) / h, noise / h, powers))


def _combine(
    central: tuple[np.ndarray, np.ndarray],
    right: tuple[np.ndarray, np.ndarray],
    left: tuple[np.ndarray, np.ndarray],
) -> Estimate:
    """Central differences; at a kink both one-sided ones, at the edge of a domain the only one."""
    value, bar = central
    low, high = value.copy(), value.copy()
    both = np.isfinite(right[1]) & np.isfinite(left[1])
    gap, gap_bar = np.abs(right[0] - left[0]), right[1] + left[1]
    kinked = both & (gap > BARS * gap_bar + 1e-6 * (np.abs(right[0]) + np.abs(left[0])))
    low = np.where(kinked, np.minimum(right[0], left[0]), low)
    high = np.where(kinked, np.maximum(right[0], left[0]), high)
    bar = np.where(kinked, np.maximum(right[1], left[1]), bar)
    for (one, one_bar), (_, other_bar) in ((right, left), (left, right)):
        edge = np.isinf(bar) & np.isfinite(one_bar) & np.isinf(other_bar)
        low, high = np.where(edge, one, low), np.where(edge, one, high)
        bar = np.where(edge, one_bar, bar)
    return Estimate(low, high, bar)
