"""Checking a gradient against everything that is known about it without trusting it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from gradkit._errors import GradientCheckError, describe, did_you_mean
from gradkit.verify._order import MODES, OrderCheck
from gradkit.verify._report import Finding, ModeSummary, Report
from gradkit.verify._roles import Functions, make_roles
from gradkit.verify._subject import name_of
from gradkit.verify._wider import Wider


def check(
    f: Callable[..., Any],
    *args: Any,
    reference: Callable[..., Any] | None = None,
    surrogate: Callable[..., Any] | None = None,
    cotangent_map: Callable[..., Any] | None = None,
    order: int = 1,
    modes: Sequence[str] | None = None,
    seed: int = 0,
    points: int | Sequence[str] | None = None,
    domain: Callable[..., Any] | None = None,
    budget: float | None = None,
) -> Report:
    r"""Prove the derivative of `f` right or wrong, at the given point and at others.

    Floating-point arguments are promoted to float64 for the comparison; where the function or its
    rule insists on its own types, the error bars are those of that precision. Integers, PRNG keys,
    `None`, strings and callables keep their values. Each number that the rule gives is compared
    with differences that have an error bar, and counts as wrong beyond six of them. What cannot be
    settled is reported as inconclusive, and never as right.

    Besides the numbers: $\langle u, J v \rangle = \langle J^\top u, v \rangle$; linearity in the
    cotangent; types and shapes of the cotangents; that differentiating leaves the value alone; and
    that no derivative is NaN where the function and its slopes are finite. At a kink, any
    derivative between those of the neighbouring points is right. Values under
    `jax.lax.stop_gradient` are held still. Complex arguments count as pairs of real ones, with
    JAX's pairing $\Re \sum u y$.

    Then the same at other points (signs flipped, scales from 1e-20 to 1e5, zeros, ties; where the
    function is finite), and for rules that JAX did not bring along: eagerly, under `vmap`, `scan`
    and `checkpoint`, run again, with repeated integers and arrays of other shapes.

    Args:
        f: A function of pytrees that returns a pytree. Use `functools.partial` for keywords.
        *args: Its arguments: the point of the check.
        reference: The same function without the custom rule; its value and derivative must agree.
        surrogate: The function whose derivative the rule is meant to have, where it is not the
            derivative of `f` itself (straight-through rules). Replaces `f` in all comparisons.
        cotangent_map: What the rule is meant to do to the cotangent of the result before it is
            pulled back, such as `lambda y_bar: -y_bar` for gradient reversal. Takes and returns
            what has the structure of the result.
        order: Check derivatives up to this order.
        modes: `("reverse",)`, `("forward",)` or both, to insist on them. Default: those that exist.
            A rule without forward mode, or a `while_loop` without reverse mode, is not wrong.
        seed: Seed of directions and points.
        points: How many other points to look at, or their labels. Default: all; 0 for none.
        domain: `domain(*args)` tells whether the function is meant for these arguments. Without
            it, every point counts at which the function returns finite numbers.
        budget: Seconds after which nothing new is begun; a note says what was left out.

    Returns:
        A `Report`: `report.ok`, `report.findings`, `report.to_dict()`, `print(report)`.

    Raises:
        TypeError: If there is nothing to differentiate.
        ValueError: If an option has a value that it cannot have.
        Exception: Whatever `f(*args)` raises.

    Example:
        >>> import gradkit.verify, jax
        >>> gradkit.verify.check(jax.numpy.sin, 0.5).ok
        True
        >>> @jax.custom_jvp
        ... def square(x):
        ...     return x * x
        >>> square.defjvps(lambda x_dot, y, x: x * x_dot)
        >>> gradkit.verify.check(square, 3.0).findings[0].cause
        'a factor of 2 is missing'
    """
    started = time.perf_counter()
    modes = _read_modes(modes)
    points = _read_points(points)
    if not isinstance(order, int) or order < 1:
        raise ValueError(describe("order= of check", expected="1, 2, ...", got=repr(order)))
    functions = Functions(f, reference, surrogate, cotangent_map, domain)
    wider = Wider(functions, args, seed, points, budget, started)
    done: list[OrderCheck] = []
    current: OrderCheck | None = OrderCheck(make_roles(functions, args), 1, seed, modes)
    while current is not None:
        current.run()
        done.append(current)
        if not current.findings and current.given:
            wider.run(current)
        current = current.next_check() if len(done) < order else None
    return Report(
        name=name_of(f),
        findings=(*(finding for c in done for finding in c.findings), *wider.findings),
        inconclusive=tuple(finding for c in done for finding in c.inconclusive),
        notes=tuple(dict.fromkeys([*(note for c in done for note in c.notes), *wider.notes])),
        modes=tuple(_worse(s, wider.findings) for c in done for s in c.summaries),
        order=order,
        seed=seed,
        precision=_precision(done),
        points=tuple(dict.fromkeys(wider.labels)),
    )


def assert_gradients(f: Callable[..., Any], *args: Any, **options: Any) -> Report:
    """Raise unless `check` finds the gradient right. For tests.

    Args:
        f: As for `check`.
        *args: As for `check`.
        **options: As for `check`.

    Returns:
        The report, which is ok.

    Raises:
        GradientCheckError: If anything is wrong, or could not be settled; the report is its text.

    Example:
        >>> import gradkit.verify, jax
        >>> report = gradkit.verify.assert_gradients(jax.numpy.tanh, 0.5, order=2)
    """
    __tracebackhide__ = True  # pytest shows the line of the test, not this one
    report = check(f, *args, **options)
    if not report.ok:
        raise GradientCheckError(str(report))
    return report


def _read_modes(modes: Sequence[str] | None) -> Sequence[str] | None:
    if modes is None:
        return None
    modes = (modes,) if isinstance(modes, str) else tuple(modes)
    for mode in modes or ("",):
        if mode not in MODES:
            raise ValueError(
                describe(
                    f"check has no mode {mode!r}{did_you_mean(mode, MODES)}",
                    expected="modes=('reverse',), ('forward',), or both",
                    got=f"modes={modes!r}",
                )
            )
    return modes


def _read_points(points: int | Sequence[str] | None) -> int | Sequence[str] | None:
    if isinstance(points, str):
        points = (points,)
    if points is None or (isinstance(points, int) and points >= 0):
        return points
    if isinstance(points, Sequence) and all(isinstance(label, str) for label in points):
        return tuple(points)
    expected = "a number of other points to look at, 0, 1, ...; or their labels"
    raise ValueError(describe("points= of check", expected=expected, got=repr(points)))


def _worse(summary: ModeSummary, found: Sequence[Finding]) -> ModeSummary:
    """A summary of the given point, with what was found at other points counted in."""
    concerned = any(f.mode in (summary.mode, "both") and f.order == summary.order for f in found)
    if concerned and summary.verdict != "not available":
        return replace(summary, verdict="wrong")
    return summary


def _precision(done: Sequence[OrderCheck]) -> str:
    """The type in which the derivatives were computed."""
    maps = [derivative for c in done for derivative in c.maps]
    subject = maps[0].subject if maps else done[0].roles.subjects[0]
    return ", ".join(sorted({x.dtype.name for x in subject.point}))
