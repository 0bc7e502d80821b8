"""Soft dynamic time warping: what it costs to align two sequences."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from gradkit._errors import describe
from gradkit.losses._distances import squared_distances
from gradkit.losses._reals import as_reals, check_fits, check_positive

# The cost of a cell that no path may take: so far below overflow that a path of them adds up.
BARRED = 1e30
# How many cells a CPU works on at a time.
GROUP = 1 << 18


def soft_dtw(
    x: ArrayLike,
    y: ArrayLike,
    gamma: ArrayLike = 1.0,
    *,
    x_lengths: ArrayLike | None = None,
    y_lengths: ArrayLike | None = None,
    bandwidth: int | None = None,
) -> jax.Array:
    r"""Soft minimum over all alignments of the squared distances along them.

    $$ L = -\gamma \log \sum_{A} e^{-\langle A, C \rangle / \gamma}, \quad
       C_{ij} = \|x_i - y_j\|_2^2, \qquad \bar C = E\,\bar L $$

    `A` runs over the paths from the first pair to the last in steps of (1, 0), (0, 1) and (1, 1),
    and `E` is the expected one, which one pass back over the table finds. Nothing is divided by a
    length, and no factor 1/2 is applied. `L` may be negative, and is not least at `x = y`; see
    `soft_dtw_divergence`. As `gamma` falls to 0 it becomes dynamic time warping.

    Args:
        x: Real sequences `[..., n, d]`.
        y: Real sequences `[..., m, d]`, with the same leading axes.
        gamma: Temperature, in units of the cost; a number above 0 or a traced scalar. It is
            differentiated too.
        x_lengths: How many steps of each `x` count, integers `[...]` from 1 to n. Default: all.
        y_lengths: The same of `y`.
        bandwidth: Bars pairs with `|i - j|` above it (Sakoe & Chiba). Default: none.

    Returns:
        `L`, `[...]`; `inf`, with a gradient of 0, where the band leaves no path. Half precision is
        computed in float32.

    Raises:
        TypeError: If an argument is complex.
        ValueError: If shapes do not fit, the band leaves no path, or `gamma` is not positive.

    Keeps:
        `E`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x, y = jnp.array([[0.0], [1.0], [2.0]]), jnp.array([[0.0], [3.0]])
        >>> loss, x_bar = jax.jit(jax.value_and_grad(soft_dtw))(x, y, 0.01)
        >>> print(loss, x_bar.T)
        2.0 [[ 0.  2. -2.]]

    Source:
        Cuturi & Blondel, *Soft-DTW: a Differentiable Loss Function for Time-Series* (2017),
        arXiv:1703.01541, algorithms 1 and 2.
    """
    name = "losses.soft_dtw"
    (x, y), dtype = as_reals(name, x, y)
    _check_sequences(name, x, y)
    cost = squared_distances(x, y)
    return _soft_dtw(name, cost, gamma, x_lengths, y_lengths, bandwidth).astype(dtype)


def soft_dtw_from_cost(
    cost: ArrayLike,
    gamma: ArrayLike = 1.0,
    *,
    x_lengths: ArrayLike | None = None,
    y_lengths: ArrayLike | None = None,
    bandwidth: int | None = None,
) -> jax.Array:
    r"""`soft_dtw` for any cost of pairs; its gradient is the expected alignment.

    $$ L = -\gamma \log \sum_{A} e^{-\langle A, C \rangle / \gamma}, \qquad \bar C = E\,\bar L $$

    Args:
        cost: `C`, real `[..., n, m]`; `inf` bars a pair.
        gamma: As for `soft_dtw`.
        x_lengths: How many rows count, integers `[...]`. Default: all.
        y_lengths: How many columns count.
        bandwidth: Bars pairs with `|i - j|` above it.

    Returns:
        `L`, `[...]`, as for `soft_dtw`.

    Raises:
        TypeError: If `cost` is complex.
        ValueError: As for `soft_dtw`.

    Keeps:
        `E`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> cost = jnp.array([[0.0, 4.0], [1.0, 1.0], [4.0, 0.0]])
        >>> print(jax.jit(jax.grad(soft_dtw_from_cost))(cost, 0.1).round(2))
        [[1.  0. ]
         [0.5 0.5]
         [0.  1. ]]

    Source:
        Cuturi & Blondel (2017), arXiv:1703.01541, algorithms 1 and 2.
    """
    name = "losses.soft_dtw_from_cost"
    (cost,), dtype = as_reals(name, cost)
    if cost.ndim < 2 or 0 in cost.shape[-2:]:
        check_fits(name, "cost", cost.shape, ("...", "n", "m"), "with at least one pair")
    return _soft_dtw(name, cost, gamma, x_lengths, y_lengths, bandwidth).astype(dtype)


def soft_dtw_divergence(
    x: ArrayLike,
    y: ArrayLike,
    gamma: ArrayLike = 1.0,
    *,
    x_lengths: ArrayLike | None = None,
    y_lengths: ArrayLike | None = None,
    bandwidth: int | None = None,
) -> jax.Array:
    r"""`soft_dtw` less what each sequence costs beside itself: 0 where they are equal.

    $$ D = L(x, y) - \tfrac12 L(x, x) - \tfrac12 L(y, y) $$

    Args:
        x: Real sequences `[..., n, d]`.
        y: Real sequences `[..., m, d]`.
        gamma: As for `soft_dtw`.
        x_lengths: How many steps of each `x` count. Default: all.
        y_lengths: The same of `y`.
        bandwidth: Bars pairs with `|i - j|` above it.

    Returns:
        `D`, `[...]`.

    Raises:
        TypeError: If an argument is complex.
        ValueError: As for `soft_dtw`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x = jnp.array([[0.0], [1.0], [3.0]])
        >>> loss, x_bar = jax.jit(jax.value_and_grad(soft_dtw_divergence))(x, x)
        >>> print(f"{loss:.3f}", x_bar.T.round(3))
        0.000 [[0. 0. 0.]]

    Source:
        Blondel, Mensch & Vert, *Differentiable Divergences between Time Series* (2021),
        arXiv:2010.08354, equation 14.
    """
    name = "losses.soft_dtw_divergence"
    (x, y), dtype = as_reals(name, x, y)
    _check_sequences(name, x, y)

    def term(a, b, a_lengths, b_lengths):
        return _soft_dtw(name, squared_distances(a, b), gamma, a_lengths, b_lengths, bandwidth)

    own = term(x, x, x_lengths, x_lengths) + term(y, y, y_lengths, y_lengths)
    return (term(x, y, x_lengths, y_lengths) - own / 2).astype(dtype)


def _check_sequences(name: str, x: jax.Array, y: jax.Array) -> None:
    if x.ndim < 2 or 0 in x.shape[-2:]:
        check_fits(name, "x", x.shape, ("...", "n", "d"), "with at least one step")
    check_fits(name, "y", y.shape, (*x.shape[:-2], "m", x.shape[-1]), "as x has it")
    if y.shape[-2] == 0:
        check_fits(name, "y", y.shape, (*x.shape[:-2], 1, x.shape[-1]), "at least one step")


def _soft_dtw(name, cost, gamma, x_lengths, y_lengths, bandwidth) -> jax.Array:
    check_positive(name, "gamma", gamma)
    *batch, n, m = cost.shape
    gamma = jnp.asarray(gamma, cost.dtype)
    scaled = jnp.minimum(cost / gamma, BARRED)
    if bandwidth is not None:
        if x_lengths is None and y_lengths is None and abs(n - m) > bandwidth:
            raise ValueError(
                describe(
                    f"gk.{name} got a band that leaves no path.",
                    expected=f"a bandwidth of at least |n - m| = {abs(n - m)}",
                    got=f"bandwidth = {bandwidth}",
                )
            )
        apart = jnp.abs(jnp.arange(n)[:, None] - jnp.arange(m)[None])
        scaled = jnp.where(apart <= bandwidth, scaled, BARRED)
    last = (
        _last(name, "x_lengths", x_lengths, batch, n),
        _last(name, "y_lengths", y_lengths, batch, m),
    )
    scaled = scaled.reshape(-1, n, m)
    if n > m:  # Diagonals run along the shorter axis.
        scaled, last = jnp.swapaxes(scaled, 1, 2), last[::-1]
    return gamma * _free_energy(scaled, *last).reshape(batch)


def _last(name: str, argument: str, lengths: ArrayLike | None, batch: list, n: int) -> jax.Array:
    """The index of each sequence's last step, `[b]`."""
    if lengths is None:
        return jnp.full(math.prod(batch), n - 1)
    lengths = jnp.asarray(lengths)
    check_fits(name, argument, lengths.shape, tuple(batch), "one for each sequence")
    return lengths.reshape(-1) - 1


@jax.custom_jvp
def _free_energy(cost, row, column):
    """Soft-DTW at temperature 1 of `cost[b, n, m]`, up to the cells `(row[b], column[b])`."""
    return _in_groups(lambda *args: _at(_table(args[0]), *args[1:])[0], cost, row, column)


@_free_energy.defjvp
def _free_energy_jvp(primals, tangents):
    def of_group(cost, row, column):
        table = _table(cost)
        y, reached = _at(table, row, column)
        return y, _unskew(_expected(table, row, column, reached), cost.shape)

    y, expected = _in_groups(of_group, *primals)
    return y, jnp.einsum("bnm,bnm->b", expected, tangents[0])


def _in_groups(fn: Callable[..., Any], cost: jax.Array, *ends: jax.Array) -> Any:
    """`fn` of all sequences; on a CPU as many at a time as its caches hold the tables of."""
    b, n, m = cost.shape
    group = max(1, GROUP // (n * m))
    if b <= group or jax.default_backend() != "cpu":
        return fn(cost, *ends)
    whole = b - b % group
    grouped = [a[:whole].reshape(-1, group, *a.shape[1:]) for a in (cost, *ends)]
    mapped = lax.map(lambda args: fn(*args), grouped)
    mapped = jax.tree.map(lambda a: a.reshape(whole, *a.shape[2:]), mapped)
    if whole == b:
        return mapped
    rest = fn(cost[whole:], *(end[whole:] for end in ends))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), mapped, rest)


# Diagonals are stored flat: cell (i, j) of sequence b stands on diagonal i + j, at position
# b (n + 1) + i + 1. The barred cell before each sequence keeps its neighbour out of it, so that
# what stands at i - 1 is found by shifting the whole diagonal.


def _skew(cost: jax.Array) -> jax.Array:
    """`cost[b, n, m]` as diagonals `[n + m - 1, b (n + 1)]`, by padding alone."""
    b, n, m = cost.shape
    padded = jnp.pad(cost, ((0, 0), (1, 0), (0, n + 1)), constant_values=BARRED)
    rows = padded.reshape(b, -1)[:, : (n + 1) * (n + m)]
    return jnp.moveaxis(rows.reshape(b * (n + 1), n + m)[:, 1:], 1, 0)


def _unskew(diagonals: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The inverse of `_skew`."""
    b, n, m = shape
    rows = jnp.pad(jnp.moveaxis(diagonals, 0, 1), ((0, 0), (1, 0))).reshape(b, -1)
    return jnp.pad(rows, ((0, 0), (0, n + 1))).reshape(b, n + 1, n + m + 1)[:, 1:, :m]


def _position(row: jax.Array, diagonal: jax.Array) -> jax.Array:
    sequences = row.shape[0]
    return jnp.arange(sequences) * (diagonal.shape[0] // sequences) + row + 1


def _at(table: jax.Array, row: jax.Array, column: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The table's entry at a cell of each sequence, and whether a path leads there."""
    entry = table[row + column, _position(row, table[0])]
    reached = ~(entry >= BARRED / 2)
    return jnp.where(reached, entry, jnp.inf), reached


def _down(x: jax.Array) -> jax.Array:
    return jnp.concatenate([jnp.full_like(x[:1], BARRED), x[:-1]])


def _up(x: jax.Array) -> jax.Array:
    return jnp.concatenate([x[1:], jnp.zeros_like(x[:1])])


def _table(cost: jax.Array) -> jax.Array:
    """Soft-DTW up to every cell, as diagonals."""

    def advance(before, cost):
        two, one = before
        a, b, c = _down(two), _down(one), one
        least, other = jnp.minimum(a, b), jnp.maximum(a, b)
        middle, least = jnp.maximum(least, c), jnp.minimum(least, c)
        entry = cost + least - jnp.log(1 + jnp.exp(least - middle) + jnp.exp(least - other))
        return (one, entry), entry

    diagonals = _skew(cost)
    barred = jnp.full_like(diagonals[0], BARRED)
    # Paths come from the cell before the first one, two diagonals back.
    origin = jnp.where(jnp.arange(barred.size) % (cost.shape[1] + 1) == 0, 0, barred)
    return lax.scan(advance, (origin, barred), diagonals)[1]


def _expected(table: jax.Array, row: jax.Array, column: jax.Array, reached: jax.Array) -> jax.Array:
    """The expected alignment, as diagonals: how often a random path takes each cell.

    A path reaches a cell from its three neighbours with the weights of their soft minimum, which
    depend on the table alone.
    """
    count = table.shape[0]
    none = jnp.zeros_like(table[0])
    end = jnp.full_like(none, -1, int).at[_position(row, none)]
    end = end.set(jnp.where(reached, row + column, -1))

    def retreat(after, now):
        # What reaches the diagonals d and d - 1 from those after them, and the table at d - 1.
        here, before, one = after
        two, d = now
        here = here + (d == end)
        a, b, c = _down(two), _down(one), one
        least = jnp.minimum(jnp.minimum(a, b), c)
        a, b, c = jnp.exp(least - a), jnp.exp(least - b), jnp.exp(least - c)
        share = here / (a + b + c)
        return (before + share * c + _up(share * b), _up(share * a), two), here

    # Two diagonals too many, which nothing reaches, spare a copy of all but two of the table.
    steps = table, jnp.arange(2, count + 2)
    (second, _, _), rest = lax.scan(retreat, (none, none, none), steps, reverse=True)
    first = none.at[_position(0 * row, none)].set(reached.astype(none.dtype))
    return jnp.concatenate([first[None], (second + (end == 1))[None], rest])[:count]
