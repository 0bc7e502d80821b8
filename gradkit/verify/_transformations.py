"""A derivative is the same however it is run: eagerly, compiled, batched, in a loop, again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradkit.verify._compiled import Compiled
from gradkit.verify._directions import EVERYWHERE, make_cotangents, make_directions
from gradkit.verify._maps import Map, pull_back, push_forward
from gradkit.verify._order import OrderCheck
from gradkit.verify._points import move
from gradkit.verify._precision import inner_programs
from gradkit.verify._report import Finding
from gradkit.verify._subject import as_numpy, cast

_MOST_EAGER = 150  # equations; each is compiled alone where nothing is traced

Row = list[np.ndarray]
Rows = Sequence[Sequence[Any]]


@dataclass
class Runs:
    """The same derivative at three points, run in the plain way.

    Attributes:
        derivative: The map.
        tolerance: The relative difference that is rounding.
        operands: The leaves of point and vector, a row a point.
        rows: Output and image of each.
    """

    derivative: Map
    tolerance: float
    operands: Rows
    rows: Sequence[Row]


def compare_transformations(check: OrderCheck) -> Iterator[Finding | str]:
    """Findings, and notes on what could not be tried."""
    try:
        runs = _plain_runs(check)
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        message = f"near the given point, the derivative raises {type(error).__name__}: {first}"
        yield Finding("error", check.given[0].mode, check.order, EVERYWHERE, message)
        return
    yield from _compare_compiled(check, runs)
    yield from _compare_eager(check, runs)
    yield from _compare_again(check, runs)


def _plain_runs(check: OrderCheck) -> Runs:
    derivative = check.given[0].map
    rng = np.random.default_rng([check.seed, 11])
    own = derivative.subject.point
    points = [check.given[0].point]
    native = check.roles.subjects[-1].point
    points += [move("nearby", native, check.seed + i) for i in (0, 1)]
    outputs = check.given[0].output
    operands, rows = [], []
    with derivative.subject.precision_scope():
        for point in points:
            if derivative.mode == "reverse":
                vector = make_cotangents(rng, outputs)[0]
            else:
                vector = make_directions(rng, point, derivative.subject.names)[0].tangents
            row = [*cast(point, own), *derivative.cast(vector)]
            operands.append([jnp.asarray(x) for x in row])
            y, image = derivative(vector, point)
            rows.append([as_numpy(x) for x in (*y, *image)])
    tolerance = check.given[0].tolerance + (1e-3 if check.primal.precision.iterates else 0.0)
    return Runs(derivative, tolerance, operands, rows)


def _stacked(operands: Rows, count: int) -> list[Any]:
    return [jnp.stack(xs[:count]) for xs in zip(*operands, strict=True)]


def _off(a: Any, b: Any) -> Any:
    """`a - b`, zero where both are the same infinity or NaN."""
    return jnp.where((a == b) | (jnp.isnan(a) & jnp.isnan(b)), 0.0, a - b)


def _ways(check: OrderCheck, runs: Runs) -> dict[str, tuple[Callable[..., Any], list[int]]]:
    """Programs of all operands of all rows, and the rows whose results they give."""
    flat = runs.derivative.flat
    width = len(runs.operands[0])
    n_leaves = len(runs.derivative.subject.point)

    def rows_of(operands: Sequence[Any]) -> Rows:
        return [operands[i : i + width] for i in range(0, len(operands), width)]

    def batched(count: int) -> Callable[..., Any]:
        return lambda *xs: jax.vmap(flat)(*_stacked(rows_of(xs), count))

    def vectors_batched(*xs: Any) -> Any:
        rows = rows_of(xs)
        mixed = [[*rows[0][:n_leaves], *rows[i][n_leaves:]] for i in (0, 1)]
        stacked = _stacked(mixed, 2)
        axes = [None] * n_leaves + [0] * (width - n_leaves)
        batch = jax.vmap(flat, in_axes=axes)(*mixed[0][:n_leaves], *stacked[n_leaves:])
        alone = [flat(*row) for row in mixed]
        return [_off(a, jnp.stack(b)) for a, b in zip(batch, zip(*alone, strict=True), strict=True)]

    def first_batched(*xs: Any) -> Any:
        rows = rows_of(xs)
        mixed = [[rows[i][0], *rows[0][1:]] for i in (0, 1)]
        axes = [0] + [None] * (width - 1)
        batch = jax.vmap(flat, in_axes=axes)(_stacked(mixed, 2)[0], *rows[0][1:])
        alone = [flat(*row) for row in mixed]
        return [_off(a, jnp.stack(b)) for a, b in zip(batch, zip(*alone, strict=True), strict=True)]

    def scanned(*xs: Any) -> Any:
        return jax.lax.map(lambda row: flat(*row), tuple(_stacked(rows_of(xs), 2)))

    def rematerialised(*xs: Any) -> Any:
        subject = runs.derivative.subject
        make = pull_back if runs.derivative.mode == "reverse" else push_forward
        raw = make(replace(subject, call=jax.checkpoint(subject.call)))
        row = rows_of(xs)[0]
        y, image = raw(list(row[:n_leaves]), list(row[n_leaves:]))
        return [x[None] for x in (*y, *image)]

    ways: dict[str, tuple[Callable[..., Any], list[int]]] = {
        "vmap, a batch of 3": (batched(3), [0, 1, 2]),
        "vmap, a batch of 1": (batched(1), [0]),
        "vmap over the vectors alone": (vectors_batched, []),
        "vmap over one argument alone": (first_batched, []),
        "lax.scan": (scanned, [0, 1]),
        "jax.checkpoint": (rematerialised, [0]),
    }
    if runs.derivative.mode == "reverse" and n_leaves > 1:
        ways["differentiation in one argument at a time"] = (_each_alone(runs), [0])
    return ways


def _each_alone(runs: Runs) -> Callable[..., Any]:
    """The cotangent of each argument, differentiated in that one: the others have no tangents."""
    call, n = runs.derivative.subject.call, len(runs.derivative.subject.point)

    def run(*xs: Any) -> Any:
        point, y_bar = list(xs[:n]), list(xs[n : len(runs.operands[0])])
        y = call(point)
        found = []
        for i, x in enumerate(point):
            alone = lambda x, i=i: call([*point[:i], x, *point[i + 1 :]])  # noqa: E731
            found.append(jax.vjp(alone, x)[1](y_bar)[0])
        return [value[None] for value in (*y, *found)]

    return run


def _compare_compiled(check: OrderCheck, runs: Runs) -> Iterator[Finding | str]:
    if runs.derivative.program is None:
        yield "the function branches on values: it was not tried under vmap, scan and checkpoint"
        return
    ways = _ways(check, runs)
    operands = [x for row in runs.operands for x in row]
    with runs.derivative.subject.precision_scope():

        def everything(*xs: Any) -> Any:
            return [y for way, _ in ways.values() for y in way(*xs)]

        try:
            flat = list(Compiled(everything, operands, "every transformation")(*operands))
            width = len(runs.rows[0])
            results = {name: flat[i * width : (i + 1) * width] for i, name in enumerate(ways)}
        except Exception:  # at least one of them does not exist
            results = {}
            for name, (way, _) in ways.items():
                try:
                    results[name] = list(Compiled(way, operands, name)(*operands))
                except Exception as error:
                    first = (str(error).strip().splitlines() or [""])[0]
                    yield f"it cannot run under {name}: {type(error).__name__}: {first}"
    for name, result in results.items():
        rows = ways[name][1]
        if rows:
            got = [[as_numpy(y)[i] for y in result] for i in range(len(rows))]
            yield from _compare(check, runs, [runs.rows[i] for i in rows], got, name)
        else:  # differences, which should vanish
            plain = runs.rows[0]
            got = [[p + as_numpy(y)[i] for p, y in zip(plain, result, strict=True)] for i in (0, 1)]
            yield from _compare(check, runs, [plain, plain], got, name)


def _compare_eager(check: OrderCheck, runs: Runs) -> Iterator[Finding | str]:
    """Run without compiling, the second point between the two halves of the first."""
    program = runs.derivative.program
    if program is None:
        return
    if _count(program.jaxpr.jaxpr) > _MOST_EAGER:
        yield f"it was not run eagerly: it has more than {_MOST_EAGER} operations"
        return
    subject, n = runs.derivative.subject, len(runs.derivative.subject.point)
    with subject.precision_scope():
        try:
            if runs.derivative.mode == "reverse":
                pulls = [jax.vjp(subject.call, list(row[:n])) for row in runs.operands[:2]]
                results = [
                    [*y, *pull(list(row[n:]))[0]]
                    for (y, pull), row in zip(pulls, runs.operands, strict=False)
                ]
            else:
                results = [runs.derivative.flat(*row) for row in runs.operands[:2]]
        except Exception as error:
            first = (str(error).strip().splitlines() or [""])[0]
            message = f"run eagerly, it raises {type(error).__name__}: {first}"
            mode = runs.derivative.mode
            yield Finding("transformation", mode, check.order, EVERYWHERE, message)
            return
    got = [[as_numpy(x) for x in row] for row in results]
    yield from _compare(check, runs, runs.rows[:2], got, "eager execution")


def _compare_again(check: OrderCheck, runs: Runs) -> Iterator[Finding]:
    """Run at the first point again after the others, as it was compiled and traced anew."""
    n = len(runs.derivative.subject.point)
    again = [runs.derivative]
    if runs.derivative.program is not None:
        again.append(Map(runs.derivative.subject, runs.derivative.mode))
    for derivative in again:
        row = runs.operands[0]
        y, image = derivative(row[n:], row[:n])
        got = [as_numpy(x) for x in (*y, *image)]
        yield from _compare(check, runs, runs.rows[:1], [got], "")


def _compare(
    check: OrderCheck, runs: Runs, expected: Sequence[Row], got: Sequence[Row], way: str
) -> Iterator[Finding]:
    """The largest difference between plain runs and others."""
    worst: tuple[float, float, float, int] | None = None
    for plain, other in zip(expected, got, strict=True):
        for i, (a, b) in enumerate(zip(plain, other, strict=True)):
            if a.shape != b.shape:
                worst = (np.inf, np.nan, np.nan, i)
                continue
            with np.errstate(all="ignore"):
                scale = np.abs(a) + np.abs(b) + 0.1 * np.max(np.abs(a), initial=0.0)
                same = (a == b) | (np.isnan(a) & np.isnan(b))
                off = np.where(same, 0.0, np.abs(a - b) / np.where(scale == 0, 1.0, scale))
            off = np.where(np.isnan(off), np.inf, off)
            if off.size and off.max() > max(runs.tolerance, worst[0] if worst else 0.0):
                place = np.unravel_index(np.argmax(off), off.shape)
                worst = (float(off.max()), float(a[place].real), float(b[place].real), i)
    if worst is None:
        return
    _, a, b, i = worst
    n_outputs = len(runs.derivative.outputs)
    what, argument = f"output {i}", EVERYWHERE
    if i >= n_outputs:
        what = "the derivative"
        if runs.derivative.mode == "reverse":
            argument = runs.derivative.subject.names[i - n_outputs]
    kind = "transformation" if way else "purity"
    message = (
        f"{what} is another one under {way}"
        if way
        else f"{what} is another one when the same thing is run again: noise, or state"
    )
    yield Finding(kind, runs.derivative.mode, check.order, argument, message, a, b, abs(a - b))


def _count(jaxpr: Any) -> int:
    return sum(1 + sum(map(_count, inner_programs(eqn))) for eqn in jaxpr.eqns)
