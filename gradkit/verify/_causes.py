"""Naming the bug: what a constant ratio between a rule and the truth usually means."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_ALIKE = 1e-3


def name_cause(got: Sequence[float], expected: Sequence[float], shapes: Sequence[tuple]) -> str:
    """The usual reason for these wrong numbers, or an empty string.

    Args:
        got: What the rule gave, in several directions.
        expected: What it should have given there.
        shapes: Shapes of the arguments, whose axis lengths are common factors.

    Example:
        >>> name_cause([2.0, -6.0], [1.0, -3.0], [()])
        'too large by a factor of 2'
    """
    truth, numbers = np.asarray(expected), np.asarray(got)
    telling = np.abs(truth) > 1e-3 * np.abs(truth).max(initial=0.0)
    if len(numbers) < 2 or not np.isfinite(numbers).all() or not telling.any():
        return ""
    if not np.abs(numbers).any():
        return "the rule gives zero: the argument is ignored, or its cotangent is None"
    ratios = numbers[telling] / truth[telling]
    ratio = float(np.median(ratios))
    spread = float(np.abs(ratios - ratio).max())
    if spread > _ALIKE * abs(ratio):
        return ""
    usual = _explain(ratio, {n for shape in shapes for n in shape})
    # One wrong number among many also gives ratios near one, but they differ among each other.
    constant = spread < 0.01 * abs(ratio - 1)
    return usual or (f"off by a constant factor of {ratio:.6g}" if constant else "")


def _explain(ratio: float, lengths: set[int]) -> str:
    def near(value: float) -> bool:
        return abs(ratio - value) <= _ALIKE * abs(value)

    if near(-1):
        return "the sign is flipped"
    if near(2):
        return "too large by a factor of 2"
    if near(0.5):
        return "a factor of 2 is missing"
    for n in sorted(lengths - {0, 1, 2}):
        if near(n):
            return f"too large by a factor of {n}, the length of an axis: a sum instead of a mean?"
        if near(1 / n):
            return f"too small by a factor of {n}, the length of an axis: a mean instead of a sum?"
    return ""
