"""Checking a gradient against everything that is known about it without trusting it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradkit._errors import GradientCheckError, describe, did_you_mean
from gradkit.verify._maps import output_types
from gradkit.verify._order import MODES, OrderCheck, Roles
from gradkit.verify._report import Report
from gradkit.verify._subject import Subject, make_subject, widest


def check(
    f: Callable[..., Any],
    *args: Any,
    reference: Callable[..., Any] | None = None,
    surrogate: Callable[..., Any] | None = None,
    order: int = 1,
    modes: Sequence[str] | None = None,
    seed: int = 0,
) -> Report:
    r"""Compare the derivative of `f` with finite differences, and its modes with each other.

    Floating-point arguments are promoted to float64 for the comparison; where the function or its
    rule insists on its own types, the error bars are those of that precision. Integers, PRNG keys,
    `None`, strings and callables keep their values. Each number that the rule gives is compared
    with an independent one that has an error bar, and counts as wrong beyond six of them. What
    cannot be settled is reported as inconclusive, and never as right.

    Besides the numbers: $\langle u, J v \rangle = \langle J^\top u, v \rangle$; linearity in the
    cotangent; types and shapes of the cotangents; that differentiating leaves the value alone; and
    that no derivative is NaN where the function and its slopes are finite. At a kink, any
    derivative between those of the neighbouring points is right. Values under
    `jax.lax.stop_gradient` are held still. Complex arguments count as pairs of real ones, with
    JAX's pairing $\Re \sum u y$.

    Args:
        f: A function of pytrees that returns a pytree. Use `functools.partial` for keywords.
        *args: Its arguments: the point of the check.
        reference: The same function without the custom rule; its value and derivative must agree.
        surrogate: The function whose derivative the rule is meant to have, where it is not the
            derivative of `f` itself (straight-through rules). Replaces `f` in all comparisons.
        order: Check derivatives up to this order.
        modes: `("reverse",)`, `("forward",)` or both, to insist on them. Default: those that exist.
            A rule without forward mode, or a `while_loop` without reverse mode, is not wrong.
        seed: Seed of the directions.

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
    modes = _read_modes(modes)
    if not isinstance(order, int) or order < 1:
        raise ValueError(describe("order= of check", expected="1, 2, ...", got=repr(order)))
    subjects = _subjects(f, args, "the function under check")
    others = [
        _subjects(g, args, what) if g is not None else ()
        for g, what in ((surrogate, "surrogate="), (reference, "reference="))
    ]
    roles = Roles(subjects, others[0] or subjects, *others)
    done: list[OrderCheck] = []
    current: OrderCheck | None = OrderCheck(roles, 1, seed, modes)
    while current is not None:
        current.run()
        done.append(current)
        current = current.next_check() if len(done) < order else None
    return Report(
        name=name_of(f),
        findings=tuple(finding for c in done for finding in c.findings),
        inconclusive=tuple(finding for c in done for finding in c.inconclusive),
        notes=tuple(dict.fromkeys(note for c in done for note in c.notes)),
        modes=tuple(summary for c in done for summary in c.summaries),
        order=order,
        seed=seed,
        precision=_precision(done),
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


def name_of(f: Any) -> str:
    """The name by which a report calls a function."""
    while isinstance(f, functools.partial):
        f = f.func
    return getattr(f, "__qualname__", None) or getattr(f, "__name__", None) or type(f).__name__


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


def _subjects(f: Callable[..., Any], args: Sequence[Any], role: str) -> list[Subject]:
    """The function in float64, where it runs in that, and in the types of its arguments."""
    native = make_subject(f, args, wide=False)
    if not native.point:
        raise TypeError(
            describe(
                f"nothing to differentiate: {name_of(f)!r} got no floating-point argument",
                expected="at least one float or complex array or scalar among its arguments",
                got=", ".join(type(a).__name__ for a in args) or "no arguments",
            )
        )
    try:
        y = output_types(native)
    except Exception as error:
        error.add_note(f"gradkit: raised by {role}, {name_of(f)!r}, at the point of the check")
        raise
    if not y:
        raise TypeError(
            describe(
                f"nothing to differentiate: {name_of(f)!r} returned no floating-point result",
                expected="at least one float or complex array or scalar in its result",
            )
        )
    if all(x.dtype == jnp.dtype(widest(x.dtype)) for x in native.point):
        return [native]
    with jax.enable_x64(True):
        wide = make_subject(f, args, wide=True)
        try:
            output_types(wide)
        except Exception:  # it insists on its own types
            return [native]
    return [wide, native]


def _precision(done: Sequence[OrderCheck]) -> str:
    """The type in which the derivatives were computed."""
    maps = [images for c in done for images in c.maps]
    subject = maps[0].map.subject if maps else done[0].roles.subjects[0]
    return ", ".join(sorted({x.dtype.name for x in subject.point}))
