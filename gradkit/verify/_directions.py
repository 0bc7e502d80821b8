"""Where to look: tangent directions at the point, and cotangents that weigh the outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradkit.verify._subject import as_numpy

# Beyond this many leaves, several share a direction of their own.
_MOST_LEAF_DIRECTIONS = 32
_WIDE = 20  # powers of two
EVERYWHERE = "all arguments"


@dataclass(frozen=True)
class Direction:
    """A tangent, one float64 array a leaf, and the name of the argument that it moves.

    `index` is the coordinate, if it moves a single one.
    """

    name: str
    tangents: tuple[np.ndarray, ...]
    index: tuple[int, ...] | None = None

    @property
    def is_joint(self) -> bool:
        return self.name == EVERYWHERE


def _short_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Normal numbers of at most six significant bits, none of them zero.

    Being short, they are exact in every floating-point type, and `x + h * d` is exact in float64
    for each step `h` of the ladder: differences then measure the function, not the rounding of x.
    """
    numbers = np.clip(np.round(rng.standard_normal(shape) * 16), -63, 63)
    return np.where(numbers == 0, 1, numbers) / 16


def _power_of_two(x: Any) -> Any:
    return np.exp2(np.floor(np.log2(x)))


def leaf_scale(x: np.ndarray) -> float:
    """A power of two near the root mean square of the nonzero numbers in `x`; one without any."""
    sizes = np.abs(x[(x != 0) & np.isfinite(x)])
    largest = sizes.max(initial=0.0)
    if largest == 0:
        return 1.0
    return float(_power_of_two(largest * np.sqrt(np.mean((sizes / largest) ** 2))))


def random_like(rng: np.random.Generator, x: Any, *, by_element: bool = False) -> np.ndarray:
    """A random array of the shape of `x` and of its size, leaf by leaf or element by element.

    Element by element also where sizes differ so much that the smallest step of the largest
    element would be a leap of the smallest.
    """
    x = as_numpy(x)
    scale: Any = leaf_scale(x)
    sizes = np.abs(x)
    usable = (sizes > 0) & np.isfinite(sizes)
    if by_element or (usable.any() and np.ptp(np.log2(sizes[usable])) > _WIDE):
        scale = np.where(usable, _power_of_two(np.where(usable, sizes, 1.0)), scale)
    if np.iscomplexobj(x):
        return scale * (_short_normal(rng, x.shape) + 1j * _short_normal(rng, x.shape))
    return scale * _short_normal(rng, x.shape)


def random_step(rng: np.random.Generator, point: Sequence[Any], radius: float) -> list[np.ndarray]:
    """A step to a neighbouring point, where no two numbers are equal by accident."""
    point = [as_numpy(x) for x in point]
    return [
        radius * rng.uniform(0.5, 1.0, x.shape) * random_like(rng, x, by_element=True)
        for x in point
    ]


def make_directions(
    rng: np.random.Generator, point: Sequence[Any], names: Sequence[str]
) -> list[Direction]:
    """Two joint directions, and one for each leaf.

    In a joint direction a small leaf is swamped by a large one: a gradient of 1e6 in one leaf
    hides a wrong one of 1e-3 in another. Hence the directions of a single leaf.
    """
    point = [as_numpy(x) for x in point]
    joint = [tuple(random_like(rng, x, by_element=flag) for x in point) for flag in (False, True)]
    if len(point) == 1:
        third = (random_like(rng, point[0]),)
        return [Direction(names[0], d) for d in (*joint, third)]
    moved = [i for i, x in enumerate(point) if x.size]
    groups = [moved[i::_MOST_LEAF_DIRECTIONS] for i in range(_MOST_LEAF_DIRECTIONS)]
    single = [
        Direction(
            ", ".join(names[i] for i in group),
            tuple(
                random_like(rng, x) if i in group else np.zeros_like(x) for i, x in enumerate(point)
            ),
        )
        for group in groups
        if group
    ]
    return [*(Direction(EVERYWHERE, d) for d in joint), *single]


def unit_directions(point: Sequence[np.ndarray], names: Sequence[str]) -> list[Direction]:
    """One direction for each coordinate of each argument, as long as that is small.

    A complex number has two.
    """
    found: list[Direction] = []
    for slot, x in enumerate(point):
        for index in np.ndindex(x.shape):
            size = abs(x[index]) if x[index] != 0 and np.isfinite(x[index]) else leaf_scale(x)
            for unit in (1.0, 1j) if np.iscomplexobj(x) else (1.0,):
                tangents = [np.zeros_like(other) for other in point]
                tangents[slot][index] = unit * _power_of_two(size)
                found.append(Direction(names[slot], tuple(tangents), index if x.ndim else None))
    return found


def unit_cotangents(outputs: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """One cotangent for each coordinate of the outputs."""
    found: list[list[np.ndarray]] = []
    for slot, y in enumerate(outputs):
        for index in np.ndindex(y.shape):
            cotangent = [np.zeros_like(other) for other in outputs]
            cotangent[slot][index] = 1.0 / np.clip(leaf_scale(y), 2.0**-60, 2.0**60)
            found.append(cotangent)
    return found


def make_cotangents(rng: np.random.Generator, outputs: Sequence[Any]) -> list[list[np.ndarray]]:
    """Two joint cotangents, the second half zeros, and one for each output leaf.

    They weigh output leaves equally whatever their size. Zeros are in there because a rule may
    divide by its cotangent.
    """
    outputs = [as_numpy(y) for y in outputs]

    def draw(y: np.ndarray) -> np.ndarray:
        # Bounded scales, so that pulling a cotangent back neither overflows nor vanishes.
        u = random_like(rng, np.ones_like(y))
        return u / np.clip(leaf_scale(y), 2.0**-60, 2.0**60)

    def thin_out(u: np.ndarray) -> np.ndarray:
        return np.where(rng.random(u.shape) < 0.5, 0.0, u) if u.size > 1 else u

    joint = [draw(y) for y in outputs]
    sparse = [thin_out(draw(y)) for y in outputs]
    if len(outputs) == 1:
        return [joint, sparse]
    alone = [
        [draw(y) if j == i else np.zeros_like(y) for j, y in enumerate(outputs)]
        for i in range(min(len(outputs), _MOST_LEAF_DIRECTIONS))
    ]
    return [joint, sparse, *alone]
