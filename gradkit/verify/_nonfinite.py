"""Derivatives that are NaN or infinite where the function and its slopes are finite."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import jax.numpy as jnp
import numpy as np

from gradkit.verify._differences import BARS
from gradkit.verify._directions import Direction, random_like
from gradkit.verify._images import Images
from gradkit.verify._report import Finding
from gradkit.verify._truth import Truth

_SLOPES = "is not finite, although the function and its differences are"
_STEEP = "is not finite; differences do not settle on a slope either"


def find_nonfinite(
    truth: Truth, images: Images, directions: Sequence[Direction], order: int, seed: int
) -> Iterator[tuple[bool, Finding, bool]]:
    """Findings, each with whether the derivative should be finite, and whether it is at a kink.

    In reverse mode the bad coordinates are known, so differences are taken along those alone.
    """
    point = images.point
    rng = np.random.default_rng(seed)
    seen: set[str] = set()
    for index, image in enumerate(images.values):
        for slot, values in enumerate(image):
            bad = ~np.isfinite(values)
            if not bad.any():
                continue
            if images.mode == "forward":
                direction, weights = directions[index], range(len(truth.cotangents))
            else:
                moves = [np.zeros_like(x) for x in point]
                moves[slot] = np.where(bad, np.abs(random_like(rng, point[slot])), 0.0)
                direction = Direction(images.map.subject.names[slot], tuple(moves))
                weights = range(index, index + 1)
            if direction.name in seen:
                continue
            seen.add(direction.name)
            estimate = truth.line(direction).full
            slopes = np.maximum(np.abs(estimate.low), np.abs(estimate.high))
            settled = all(
                BARS * estimate.bar[w] <= 0.1 * slopes[w] + 1e-6 * truth.sizes[w] for w in weights
            )
            number = float(values[bad].flat[0].real)
            message = f"the derivative ({number}) {_SLOPES if settled else _STEEP}"
            finding = Finding("nonfinite", images.mode, order, direction.name, message)
            yield settled, finding, any(estimate.kinked[w] for w in weights)


def compare_representable(native: Images, wide: Images) -> Iterator[Finding]:
    """Cotangents that overflow in the user's own type although the true ones fit into it."""
    subject = native.map.subject
    for image, truth, u in zip(native.values, wide.values, native.vectors, strict=False):
        unit = max((float(np.abs(x).max(initial=0.0)) for x in u), default=1.0) or 1.0
        for name, x, x_bar, true in zip(subject.names, subject.point, image, truth, strict=True):
            largest = float(jnp.finfo(x.dtype).max)
            with np.errstate(invalid="ignore", over="ignore"):
                fits = np.abs(true) / min(unit, 1.0) < 0.1 * largest  # also for a cotangent of one
                bad = ~np.isfinite(x_bar) & fits
            if bad.any():
                message = (
                    f"the derivative is not finite in {x.dtype.name}, "
                    "although its true value fits into that type"
                )
                yield Finding("nonfinite", "reverse", 1, name, message)
                return
