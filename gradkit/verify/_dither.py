"""Averaging over shifts of about one rounding, where arithmetic is too coarse for single numbers.

In bfloat16 a function is a flight of stairs: a difference sees one step, or none. The average over
points that differ by a few roundings is smooth again, and its scatter tells how far to trust it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradkit.verify._directions import leaf_scale
from gradkit.verify._precision import COARSE
from gradkit.verify._subject import as_numpy

_PAIRS = 16
_REACH = 4  # in roundings: enough of them to be independent, too few to feel the curvature


def shifted_points(point: Sequence[Any], eps: float) -> list[list[np.ndarray]]:
    """Points around `point`, in antithetic pairs; the point alone where arithmetic is fine."""
    centre = [as_numpy(x) for x in point]
    if eps < COARSE:
        return [centre]
    rng = np.random.default_rng(0)
    reaches = [_REACH * eps * (np.abs(x) + 0.25 * leaf_scale(x)) for x in centre]
    shifts = [[r * rng.uniform(-1, 1, r.shape) for r in reaches] for _ in range(_PAIRS)]
    return [
        [x + sign * s for x, s in zip(centre, shift, strict=True)]
        for shift in shifts
        for sign in (1, -1)
    ]
