"""Max pooling that remembers which entry of a window was the largest."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from gradkit._arguments import as_floating
from gradkit._custom import custom_gradient
from gradkit._errors import describe

Lengths = tuple[int, ...]
Pads = tuple[tuple[int, int], ...]

# Above this, the program with one slice for each position of the window gets too long.
MAX_POSITIONS = 64


def max_pool(
    x: ArrayLike,
    window: int | Sequence[int],
    strides: int | Sequence[int] | None = None,
    padding: str | Sequence[tuple[int, int]] = "VALID",
) -> jax.Array:
    r"""Max pooling whose gradient costs about as much as its value on a CPU.

    $$ y_o = \max_{w} x_{o s + w}, \qquad
       \bar x_i = \sum_{o, w:\; o s + w = i} [w = w^*_o]\;\bar y_o $$

    The forward pass keeps `w*`, the position of the largest entry in each window, in one byte. The
    gradient of `lax.reduce_window` searches the windows again. It is what other platforms than the
    CPU use here, and windows of more than 64 positions.

    Args:
        x: Real array `[..., spatial axes, channels]`, any number of leading axes; NHWC for two
            spatial axes.
        window: Its length along each spatial axis; a number stands for one axis.
        strides: The steps between windows, likewise. Default: the window's lengths.
        padding: "VALID", "SAME", or a pair (before, after) for each spatial axis. What is padded
            counts as `-inf`.

    Returns:
        `y`, in the dtype of `x`. NaN for a window with one.

    Raises:
        TypeError: If `x` is complex, integer or boolean.
        ValueError: If the window, strides or padding do not fit `x`.

    At the kink:
        Of equal entries the first of the window gets the cotangent, as in XLA. A window of `-inf`
        that begins in the padding passes nothing on.

    Keeps:
        One byte for each entry of `y`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x = jnp.array([1.0, 3.0, 3.0, 2.0, 5.0, 4.0])[:, None]
        >>> print(max_pool(x, 3)[:, 0], jax.grad(lambda x: max_pool(x, 3).sum())(x)[:, 0])
        [3. 5.] [0. 1. 0. 0. 1. 0.]
    """
    x, window, strides, pads = _checked(x, window, strides, padding)
    if math.prod(window) > MAX_POSITIONS or jax.default_backend() != "cpu":
        return _reduce_window(x, window, strides, pads)
    return _max_pool(x, window=window, strides=strides, pads=pads)


@custom_gradient
def _max_pool(x, *, window, strides, pads):
    y, winner = _largest(_padded(x, pads), window, strides)
    shape = x.shape

    def grad(y_bar):
        return _scattered(y_bar, winner, shape, window, strides, pads)

    return y, grad


def _padded(x: jax.Array, pads: Pads) -> jax.Array:
    lead = x.ndim - len(pads) - 1
    config = [(0, 0, 0)] * lead + [(low, high, 0) for low, high in pads] + [(0, 0, 0)]
    return lax.pad(x, jnp.asarray(-jnp.inf, x.dtype), config)


def _largest(x: jax.Array, window: Lengths, strides: Lengths) -> tuple[jax.Array, jax.Array]:
    """The largest entry of each window, and its position, counted in row-major order."""
    lead = x.ndim - len(window) - 1
    steps = (1,) * lead + strides + (1,)
    spans = [n - w for n, w in zip(x.shape[lead:-1], window, strict=True)]
    y = winner = jnp.zeros(())
    for position, offset in enumerate(itertools.product(*map(range, window))):
        stop = [o + span + 1 for o, span in zip(offset, spans, strict=True)]
        entry = lax.slice(
            x, (0,) * lead + offset + (0,), (*x.shape[:lead], *stop, x.shape[-1]), steps
        )
        if position == 0:
            y, winner = entry, jnp.zeros(entry.shape, jnp.int8)
        else:
            stays = (y >= entry) | (y != y)  # NaN stays, and otherwise wins
            y, winner = jnp.where(stays, y, entry), jnp.where(stays, winner, jnp.int8(position))
    return y, winner


def _scattered(
    y_bar: jax.Array, winner: jax.Array, shape: Lengths, window: Lengths, strides: Lengths,
    pads: Pads,
) -> jax.Array:  # fmt: skip
    """What each entry of x receives: entry `o s + r` asks the windows `o, o - 1, ...` that hold it.

    Reads only whole slices and writes x once, so that XLA makes one vectorised loop of it.
    """
    lead, rank = len(shape) - len(window) - 1, len(window)
    lengths = [n + low + high for n, (low, high) in zip(shape[lead:-1], pads, strict=True)]
    blocks = [-(-n // s) for n, s in zip(lengths, strides, strict=True)]
    overlap = [-(-w // s) for w, s in zip(window, strides, strict=True)]
    margins = [
        (before - 1, n - m, 0)
        for before, n, m in zip(overlap, blocks, y_bar.shape[lead:-1], strict=True)
    ]
    if any(before or after for before, after, _ in margins):
        margins = [(0, 0, 0)] * lead + margins + [(0, 0, 0)]
        # Inside the loop, the borders would be asked about at every entry.
        y_bar = lax.optimization_barrier(lax.pad(y_bar, jnp.zeros((), y_bar.dtype), margins))
        winner = lax.optimization_barrier(lax.pad(winner, jnp.int8(-1), margins))

    split = [length for pair in zip(blocks, strides, strict=True) for length in pair]
    apart = (*shape[:lead], *split, shape[-1])
    kept_axes = (*range(lead), *range(lead, lead + 2 * rank, 2), lead + 2 * rank)
    x_bar = jnp.zeros((), y_bar.dtype)
    for back in itertools.product(*map(range, overlap)):
        start = [0] * lead + [m - 1 - b for m, b in zip(overlap, back, strict=True)] + [0]
        stop = [*shape[:lead], *map(sum, zip(start[lead:-1], blocks, strict=True)), shape[-1]]
        sent = lax.broadcast_in_dim(lax.slice(y_bar, start, stop), apart, kept_axes)
        to = lax.broadcast_in_dim(lax.slice(winner, start, stop), apart, kept_axes)
        here = jnp.asarray(_positions(back, window, strides, lead))
        x_bar += jnp.where(to == jnp.broadcast_to(here, apart), sent, 0)
    joined = [n * s for n, s in zip(blocks, strides, strict=True)]
    x_bar = x_bar.reshape(*shape[:lead], *joined, shape[-1])
    start = [0] * lead + [low for low, _ in pads] + [0]
    return lax.slice(x_bar, start, [a + n for a, n in zip(start, shape, strict=True)])


def _positions(back: Lengths, window: Lengths, strides: Lengths, lead: int) -> np.ndarray:
    """Where in the window that many windows back an entry stands, by its place in its block."""
    position: np.ndarray = np.zeros((), int)
    inside: np.ndarray = np.ones((), bool)
    for b, w, s in zip(back, window, strides, strict=True):
        along = np.arange(s) + b * s
        position = position[..., None] * w + along
        inside = inside[..., None] & (along < w)
    axes = (*range(lead), *range(lead, lead + 2 * len(window), 2), lead + 2 * len(window))
    return np.expand_dims(np.where(inside, position, -2).astype(np.int8), axes)


def _reduce_window(x: jax.Array, window: Lengths, strides: Lengths, pads: Pads) -> jax.Array:
    lead = x.ndim - len(window) - 1
    ones, none = (1,) * lead, ((0, 0),)
    return lax.reduce_window(
        x, np.array(-np.inf, x.dtype), lax.max, (*ones, *window, 1), (*ones, *strides, 1),
        (*none * lead, *pads, *none),
    )  # fmt: skip


def _checked(x, window, strides, padding) -> tuple[jax.Array, Lengths, Lengths, Pads]:
    if not jnp.issubdtype(jnp.result_type(x), jnp.inexact):
        raise TypeError(
            describe(
                "gk.ops.max_pool has a gradient, and pools floating-point numbers only.",
                expected="a real floating-point array",
                got=str(jnp.result_type(x)),
                fix="use lax.reduce_window, or convert the array",
            )
        )
    x = as_floating("ops.max_pool", x)
    window = (window,) if isinstance(window, int) else tuple(window)
    strides = window if strides is None else strides
    strides = (strides,) if isinstance(strides, int) else tuple(strides)
    spatial = x.shape[-1 - len(window) : -1]
    if len(spatial) != len(window) or len(strides) != len(window) or not window:
        raise ValueError(
            describe(
                "gk.ops.max_pool needs a length and a stride for each spatial axis.",
                expected=f"[..., {len(window)} spatial, channels] and {len(window)} strides",
                got=f"shape {x.shape}, window {window}, strides {strides}",
            )
        )
    if min(window + strides) < 1:
        raise ValueError(
            describe(
                "gk.ops.max_pool takes positive windows and strides.",
                expected="integers from 1 on",
                got=f"window {window}, strides {strides}",
            )
        )
    if isinstance(padding, str):
        pads = tuple(lax.padtype_to_pads(spatial, window, strides, padding))
    else:
        pads = tuple((int(low), int(high)) for low, high in padding)
    fit = len(pads) == len(window) and all(
        0 <= low < w and 0 <= high < w and n + low + high >= w
        for n, w, (low, high) in zip(spatial, window, pads, strict=False)
    )
    if not fit:
        raise ValueError(
            describe(
                "gk.ops.max_pool has a window that does not fit into x, or into the padding alone.",
                expected=f"{len(window)} pairs of less than the window, and room for one window",
                got=f"spatial axes {spatial}, window {window}, padding {pads}",
            )
        )
    return x, window, strides, pads
