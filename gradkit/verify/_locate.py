"""Which coordinates are wrong: every one of a small array, the worst one of a large array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gradkit.verify._compare import Comparison
from gradkit.verify._differences import BARS
from gradkit.verify._directions import Direction
from gradkit.verify._precision import count_numbers
from gradkit.verify._report import Evidence
from gradkit.verify._subject import pair, pair_size
from gradkit.verify._truth import Truth

_BLOCKS = 64
_LARGE = 1_000_000  # numbers that the function computes; beyond it, nothing but bisection
_TOO_LARGE = 100_000_000  # and beyond this, nothing at all


@dataclass(frozen=True)
class Location:
    """Where an argument's derivative is wrong.

    Attributes:
        index: The worst coordinate, if most of the others are right.
        expected: The derivative by coordinate; `None` for large arrays.
        got: What the rule says, by coordinate; `None` for large arrays.
        wrong: Which coordinates are wrong; `None` for large arrays.
        evidence: For pictures.
    """

    index: tuple[int, ...] | None
    expected: np.ndarray | None
    got: np.ndarray | None
    wrong: np.ndarray | None
    evidence: Evidence


def locate(truth: Truth, c: Comparison, names: Sequence[str]) -> Location:
    """Find the wrong coordinates behind a disagreement."""
    steps, slopes = truth.line(c.direction).slopes
    work = 0 if truth.primal.jaxpr is None else count_numbers(truth.primal.jaxpr)
    curve = tuple(steps.tolist()), tuple(slopes[:, c.weight].tolist())
    slot = names.index(c.direction.name) if c.direction.name in names else None
    if slot is None or c.direction.index is not None or work > _TOO_LARGE:
        return Location(c.direction.index, None, None, None, Evidence(*curve))
    probe = _Probe(truth, c, slot)
    size = truth.point[slot].size
    if size == 1:
        return Location(None, None, None, None, Evidence(*curve))
    if work > _LARGE:
        index = np.unravel_index(probe.bisect(np.arange(size)), truth.point[slot].shape)
        return Location(tuple(map(int, index)), None, None, None, Evidence(*curve))
    return _by_blocks(probe, size, truth.point[slot].shape, curve)


def _by_blocks(
    probe: _Probe, size: int, shape: tuple[int, ...], curve: tuple[tuple, tuple]
) -> Location:
    blocks = np.array_split(np.arange(size), min(size, _BLOCKS))
    found = [probe.look(block) for block in blocks]
    errors = np.array([f.error for f in found])
    wrong = np.array([f.wrong for f in found])
    index = None
    if wrong.any() and wrong.sum() <= max(1, len(blocks) // 2):
        worst = blocks[int(np.argmax(np.where(wrong, np.abs(errors), -1.0)))]
        index = tuple(map(int, np.unravel_index(probe.bisect(worst), shape)))
    single = size <= _BLOCKS
    moves = probe.comparison.direction.tangents[probe.slot].ravel()
    if single:  # a picture shows the derivative, not the direction
        errors = errors / np.abs(moves)
    rows = errors.reshape(-1, shape[-1]) if single else errors.reshape(-1, 8)
    evidence = Evidence(*curve, tuple(map(tuple, rows.tolist())), shape)
    if not single:
        return Location(index, None, None, None, evidence)
    expected = (np.array([f.expected for f in found]) / moves).reshape(shape)
    got = (np.array([f.got for f in found]) / moves).reshape(shape)
    return Location(index, expected, got, wrong.reshape(shape), evidence)


@dataclass(frozen=True)
class _Part:
    expected: float
    got: float
    error: float
    wrong: bool


@dataclass(frozen=True)
class _Probe:
    """Looks at some coordinates of one argument alone."""

    truth: Truth
    comparison: Comparison
    slot: int

    def look(self, where: np.ndarray) -> _Part:
        c = self.comparison
        tangents = [np.zeros_like(x) for x in self.truth.point]
        full = c.direction.tangents[self.slot].ravel()
        tangents[self.slot].ravel()[where] = full[where]
        direction = Direction("", tuple(tangents))
        if c.images.mode == "reverse":
            image, other = c.images.values[c.index], direction.tangents
        else:
            image = c.images.apply(direction.tangents)
            other = self.truth.cotangents[c.weight]
        got, size = pair(image, other), pair_size(image, other)
        estimate = self.truth.line(direction).short
        expected = float(estimate.nearest(np.full_like(estimate.low, got))[c.weight])
        bar = float(estimate.bar[c.weight])
        off = abs(got - expected) > BARS * bar + c.images.tolerance * max(size, abs(expected))
        return _Part(expected, got, got - expected, bool(off))

    def bisect(self, where: np.ndarray) -> int:
        """The coordinate that a search by halves ends at."""
        while len(where) > 1:
            halves = np.array_split(where, 2)
            parts = [self.look(half) for half in halves]
            sizes = [abs(part.error) for part in parts]
            where = halves[int(np.argmax(np.nan_to_num(sizes, nan=np.inf)))]
        return int(where[0])
