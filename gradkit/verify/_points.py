"""Where else to look: what is done to the given arguments to get to other points.

Each way has a label, by which a report names the point and `point_at` goes there again.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from gradkit._errors import describe, did_you_mean
from gradkit.verify._directions import leaf_scale, random_like
from gradkit.verify._report import GIVEN
from gradkit.verify._subject import as_numpy, is_differentiable
from gradkit.verify._variants import variant_at

Move = Callable[[np.random.Generator, np.ndarray], np.ndarray]


def _nearby(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    return x + 0.1 * rng.uniform(0.5, 1.0, x.shape) * random_like(rng, x, by_element=True)


def _drawn(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    return leaf_scale(x) * _noise(rng, x)


def _noise(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    noise = rng.standard_normal(x.shape)
    return noise + 1j * rng.standard_normal(x.shape) if np.iscomplexobj(x) else noise


def _sized(x: np.ndarray) -> np.ndarray:
    return np.where(x == 0, leaf_scale(x) / 8, np.abs(x))


def _mixed(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    return _drawn(rng, x) * 10.0 ** rng.uniform(-3, 3, x.shape)


def _scaled(factor: float) -> Move:
    return lambda rng, x: factor * x


def _around(centre: float) -> Move:
    return lambda rng, x: centre + 0.1 * max(1.0, abs(centre)) * _noise(rng, x)


def _zero_entry(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    x = x.copy()
    if x.size:
        x.flat[rng.integers(x.size)] = 0
    return x


def _ties(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    return np.full_like(x, 0.75)  # in all arguments alike


def _half_ties(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    if not x.size:
        return x
    top = x.flat[np.argmax(np.real(x))]
    return np.where(rng.random(x.shape) < 0.5, top, x)


def _whole(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    return np.asarray(rng.integers(-2, 3, x.shape), x.dtype)


# Points at which nothing is special: what is wrong there is wrong in a region.
GENERIC: dict[str, Move] = {
    "nearby": _nearby,
    "signs flipped": lambda rng, x: -_nearby(rng, x),
    "drawn anew": _drawn,
    "all positive": lambda rng, x: _sized(_nearby(rng, x)),
    "all negative": lambda rng, x: -_sized(_nearby(rng, x)),
    "magnitudes mixed": _mixed,
    **{f"scaled by {f:g}": _scaled(f) for f in (10.0, 0.1, 100.0, 0.01, 3.0, 0.3, 1e3, 1e-4)},
    **{f"around {c:g}": _around(c) for c in (0.5, -0.5, 1.0, -1.0, 2.0, -2.0, 3.5, -3.5)},
    **{f"around {c:g}": _around(c) for c in (6.0, -6.0, 12.0, -12.0, 30.0, -30.0)},
}
# The same, where few functions are meant to be used. Not further up: there a function may vary
# so fast that differences see its mean.
FAR: dict[str, Move] = {f"scaled by {f:g}": _scaled(f) for f in (1e-9, 1e5, 1e-15, 1e-20)}
# Points at which numbers are zero or equal.
SPECIAL: dict[str, Move] = {
    "zeros": lambda rng, x: np.zeros_like(x),
    "a zero entry": _zero_entry,
    "ties": _ties,
    "some ties": _half_ties,
    "whole numbers": _whole,
}
MOVES = {**GENERIC, **FAR, **SPECIAL}


def move(label: str, leaves: Sequence[Any], seed: int) -> list[np.ndarray]:
    """The leaves of another point, rounded to the types of the given ones; in float64."""
    rng = np.random.default_rng([seed, zlib.crc32(label.encode())])
    moved = []
    for x in leaves:
        with np.errstate(over="ignore"):
            there = MOVES[label](rng, as_numpy(x))
            moved.append(as_numpy(there.astype(x.dtype)))
    return moved


def point_at(label: str, *args: Any, seed: int = 0) -> tuple[Any, ...]:
    """The arguments at which a finding was made.

    Args:
        label: `finding.point`.
        *args: The arguments that `check` was given.
        seed: The seed that it was given.

    Returns:
        The arguments of that point; what is not differentiable keeps its value, except where the
        label says so.

    Raises:
        ValueError: If there is no such label.

    Example:
        >>> import gradkit.verify, numpy as np
        >>> (x,) = gradkit.verify.point_at("scaled by 100", np.array([1.0, 2.0]))
        >>> x.tolist()
        [100.0, 200.0]
    """
    if label == GIVEN:
        return args
    if label not in MOVES:
        found = variant_at(label, args, seed)
        if found is not None:
            return found
        raise ValueError(
            describe(
                f"no point is called {label!r}{did_you_mean(label, MOVES)}",
                expected=", ".join(MOVES),
            )
        )
    leaves, structure = jax.tree.flatten(args)
    slots = [i for i, leaf in enumerate(leaves) if is_differentiable(leaf)]
    own = [_as_array(leaves[i]) for i in slots]
    for slot, x, moved in zip(slots, own, move(label, own, seed), strict=True):
        scalar = isinstance(leaves[slot], float | complex)
        leaves[slot] = type(leaves[slot])(moved) if scalar else moved.astype(x.dtype)
    return jax.tree.unflatten(structure, leaves)


def _as_array(leaf: Any) -> np.ndarray:
    """A leaf in the type in which JAX sees it."""
    return np.asarray(jax.numpy.asarray(leaf))
