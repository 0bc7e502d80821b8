"""Comparison with JAX's own derivative of another function: a reference, or a surrogate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from gradkit.verify._differences import BARS
from gradkit.verify._directions import EVERYWHERE, Direction, leaf_scale
from gradkit.verify._images import Images
from gradkit.verify._report import Finding
from gradkit.verify._subject import pair, pair_size
from gradkit.verify._truth import Truth


def compare_with_reference(
    own: Images,
    other: Images,
    truth: Truth,
    directions: Sequence[Direction],
    order: int,
    what: str,
) -> Iterator[tuple[bool, Finding]]:
    """Findings, each with whether differences confirm that the rule is the wrong one.

    Before it accuses, a difference is confirmed by finite differences along the coordinate in which
    the two derivatives differ most: a reference can be the wrong one, or both can be right at a
    kink. Numbers of the reference that are not finite accuse nobody.
    """
    tolerance = max(own.tolerance, other.tolerance)
    seen: set[str] = set()
    yield from _compare_finite(own, other, order, what)
    for index, (image, reference) in enumerate(zip(own.values, other.values, strict=True)):
        for slot, (a, b) in enumerate(zip(image, reference, strict=True)):
            name = own.map.subject.names[slot] if own.mode == "reverse" else directions[index].name
            off = _difference(a, b, tolerance)
            if name in seen or not off.any():
                continue
            seen.add(name)
            worst = np.unravel_index(np.argmax(np.abs(off)), off.shape)
            confirmed = own.mode == "forward" or _rule_is_wrong(own, other, truth, index, slot, off)
            message = f"the derivative disagrees with that of the {what}"
            if not confirmed:
                message += ", but finite differences do not side with it"
            yield (
                confirmed,
                Finding(
                    "reference",
                    own.mode,
                    order,
                    name,
                    message,
                    expected=float(b[worst].real),
                    got=float(a[worst].real),
                    error=float(abs(off[worst])),
                ),
            )


def _compare_finite(
    own: Images, other: Images, order: int, what: str
) -> Iterator[tuple[bool, Finding]]:
    """A derivative that is not finite where that of the reference is."""
    if other.all_finite and not own.all_finite:
        message = f"the derivative is not finite, but that of the {what} is"
        yield True, Finding("nonfinite", own.mode, order, EVERYWHERE, message)


def compare_outputs(
    value: Sequence[np.ndarray], other: Sequence[np.ndarray], tolerance: float
) -> Iterator[Finding]:
    """A reference that does not compute the same function."""
    if [y.shape for y in value] != [y.shape for y in other]:
        message = "the reference returns results of other shapes or number than the function"
        yield Finding("reference", "both", 1, EVERYWHERE, message)
        return
    for i, (a, b) in enumerate(zip(value, other, strict=True)):
        off = _difference(a, b, tolerance)
        if off.any():
            worst = np.unravel_index(np.argmax(np.abs(off)), off.shape)
            numbers = (float(b[worst].real), float(a[worst].real), float(abs(off[worst])))
            message = f"output {i} differs from that of the reference: not the same function"
            yield Finding("reference", "both", 1, EVERYWHERE, message, *numbers)


def _difference(a: np.ndarray, b: np.ndarray, tolerance: float) -> np.ndarray:
    """`a - b` where it matters, else zero."""
    both = np.isfinite(a) & np.isfinite(b)
    a, b = np.where(both, a, 0.0), np.where(both, b, 0.0)
    size = np.abs(a) + np.abs(b)
    matters = np.abs(a - b) > tolerance * (size + 1e-3 * size.max(initial=0.0))
    return np.where(matters, a - b, 0.0)


def _rule_is_wrong(
    own: Images, other: Images, truth: Truth, index: int, slot: int, off: np.ndarray
) -> bool:
    """Do differences where `off` is largest contradict the rule, and not the reference?"""
    point = own.point
    moves = [np.zeros_like(x) for x in point]
    # One coordinate alone: where several are at kinks, they are so in different directions.
    worst = np.unravel_index(np.argmax(np.abs(off)), off.shape)
    moves[slot][worst] = np.conj(off[worst]) / np.abs(off[worst]) * leaf_scale(point[slot])
    estimate = truth.line(Direction("", tuple(moves))).full
    got = pair(own.values[index], moves)
    tolerance = BARS * estimate.bar[index] + own.tolerance * pair_size(own.values[index], moves)
    if truth.hidden_stops or not np.isfinite(tolerance):
        return True
    theirs = pair(other.values[index], moves)
    return bool(
        estimate.distance(np.full_like(estimate.low, got))[index] > tolerance
        and estimate.distance(np.full_like(estimate.low, theirs))[index] <= tolerance
    )
