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


def name_pattern(x: np.ndarray, got: np.ndarray, expected: np.ndarray, wrong: np.ndarray) -> str:
    """What the wrong coordinates of an argument have in common, or an empty string.

    Args:
        x: The argument.
        got: What the rule gave, by coordinate.
        expected: What it should have given.
        wrong: Which of them are wrong.

    Example:
        >>> x = np.array([1.0, -2.0, 3.0, -4.0])
        >>> name_pattern(x, abs(x), x, x < 0)
        'wrong only where the argument is below zero'
    """
    if x.ndim == 2 and x.shape[0] == x.shape[1] and np.allclose(got.T, expected, rtol=1e-4):
        return "the derivative is transposed"
    some = wrong.any() and not wrong.all() and min(wrong.sum(), (~wrong).sum()) > 1
    if np.iscomplexobj(x) or not some:
        return ""
    if (wrong == (x < 0)).all():
        return "wrong only where the argument is below zero"
    if (wrong == (x > 0)).all():
        return "wrong only where the argument is above zero"
    sizes = np.abs(x)
    if sizes[wrong].min() > sizes[~wrong].max():
        return f"wrong only where the argument is larger than {sizes[~wrong].max():.3g} in size"
    if sizes[wrong].max() < sizes[~wrong].min():
        return f"wrong only where the argument is smaller than {sizes[~wrong].min():.3g} in size"
    return ""


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
