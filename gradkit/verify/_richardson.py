r"""From the slopes of a ladder of steps to one derivative with an error bar.

Along a line, differences over steps $h = 2^{-k}$ are refined by Richardson extrapolation. Long
steps suffer from curvature and from kinks within their reach, short ones from rounding. Each
refined value gets a bar: what a refinement changed, plus the rounding that the step amplifies. The
value taken is the one with the smallest bar among those that agree with every value of shorter
steps (Lepski's balancing principle: a long step is trusted as long as no shorter one contradicts).

Source:
    Lepski, *On a problem of adaptive estimation in Gaussian white noise* (1991); Ridders,
    *Accurate computation of F'(x) and F'(x)F''(x)* (1982).
"""

from __future__ import annotations

import numpy as np


def refine(
    slopes: np.ndarray, noise: np.ndarray, powers: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Cancel error terms of the given powers of the step, and keep the values of every depth.

    A deep refinement suits smooth functions; a shallow one suits coarse arithmetic, since each
    refinement amplifies rounding.

    Args:
        slopes: A row a step, long steps first, each half of the one before; a column a function.
        noise: The rounding in each slope.
        powers: Such as (2, 4) for central differences, whose error has even powers only.

    Returns:
        Values; what a refinement changed; the rounding in each; and the row of the shortest step
        that went into each.
    """
    table = [slopes]
    for power in powers:
        table.append((2**power * table[-1][1:] - table[-1][:-1]) / (2**power - 1))
    values, changes, rounding, places = [], [], [], []
    for depth, value in enumerate(table):
        if depth < len(powers):
            value = value[:-1]
            change = np.abs(table[depth + 1] - value)
        else:  # no further refinement: what the last one changed is an upper estimate
            change = np.abs(value - table[depth - 1][1:])
        place = np.arange(len(value)) + depth
        amplified = np.prod([(2**p + 1) / (2**p - 1) for p in powers[:depth]])
        values.append(value)
        changes.append(change)
        rounding.append(amplified * noise[place])
        places.append(place)
    values, changes, rounding, places = map(np.concatenate, (values, changes, rounding, places))
    return values, changes, rounding, places


def balance(
    values: np.ndarray, changes: np.ndarray, rounding: np.ndarray, places: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Lepski's choice down the first axis; an infinite bar where nothing can be trusted."""
    bars = changes + rounding + 8 * np.finfo(float).eps * np.abs(values)
    usable = np.isfinite(values) & np.isfinite(bars)
    values, bars = np.where(usable, values, 0.0), np.where(usable, bars, np.inf)
    with np.errstate(invalid="ignore"):
        apart = np.abs(values[:, None] - values[None, :]) > 2 * (bars[:, None] + bars[None, :])
    shorter = (places[:, None] < places[None, :])[:, :, None]
    contradicted = (apart & shorter).any(axis=1)
    # A sequence that never settles (at a singularity) is only caught by the values of shorter
    # steps. Near the end there are none left, so only rounding may make the bar there.
    end = np.where(usable, places[:, None], -1).max(axis=0) - 1
    unconfirmed = (places[:, None] >= end) & (changes > 4 * rounding)
    bars = np.where(contradicted | unconfirmed, np.inf, bars)
    choice = np.argmin(bars, axis=0)
    columns = np.arange(values.shape[1])
    return values[choice, columns], bars[choice, columns]
