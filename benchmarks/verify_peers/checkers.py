"""One call of each checker, as its documentation has it, and what comes of it.

A checker says *wrong*, *right* or *inconclusive*; or it raises, which is neither: *cannot*.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

import chex
import jax
import jax.test_util
import numpy as np

import gradkit
from gradkit.verify import _compiled

try:
    import torch
    from torch.autograd.gradcheck import GradcheckError

    NO_TORCH = ""
except ImportError:
    torch = None
    NO_TORCH = "torch not installed: pip install torch==2.13.0"

PEER_MODES = {"reverse": "rev", "forward": "fwd"}


@dataclass(frozen=True)
class Outcome:
    """What came of one call.

    Attributes:
        verdict: `"wrong"`, `"right"`, `"inconclusive"`, `"cannot"`, or `"skipped"`.
        seconds: How long it took.
        said: Its first line, where it did not say right.
    """

    verdict: str
    seconds: float
    said: str = ""


def _first_line(error: object) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]


@contextlib.contextmanager
def _silently() -> Iterator[None]:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


def _timed(call: Callable[[], Any], mistakes: type[Exception]) -> Outcome:
    """A checker that raises `mistakes` where it finds any; whatever else it raises is a crash."""
    with _silently():
        start = time.perf_counter()
        try:
            call()
        except mistakes as error:
            verdict, said = "wrong", _first_line(error)
        except Exception as error:
            verdict, said = "cannot", f"{type(error).__name__}: {_first_line(error)}"
        else:
            verdict, said = "right", ""
        return Outcome(verdict, time.perf_counter() - start, said)


def check(f: Callable[..., Any], args: Sequence[Any], **options: Any) -> Outcome:
    """`gradkit.check`."""
    with _silently():
        start = time.perf_counter()
        try:
            report = gradkit.check(f, *args, **options)
        except Exception as error:
            seconds = time.perf_counter() - start
            return Outcome("cannot", seconds, f"{type(error).__name__}: {_first_line(error)}")
        seconds = time.perf_counter() - start
    verdict = "right" if report.ok else report.verdict
    return Outcome(verdict, seconds, "" if report.ok else str(report).partition("\n")[2][:400])


def forget_programs() -> None:
    """Make the next `gradkit.check` compile everything it needs."""
    _compiled._kept.clear()


def check_grads(
    f: Callable[..., Any], args: Sequence[Any], order: int = 1, modes: Sequence[str] = ("reverse",)
) -> Outcome:
    """`jax.test_util.check_grads` in the given modes, at its defaults."""
    return _timed(
        lambda: jax.test_util.check_grads(f, args, order, [PEER_MODES[m] for m in modes]),
        AssertionError,
    )


def chex_check(
    f: Callable[..., Any], args: Sequence[Any], order: int = 1, modes: Sequence[str] = ("reverse",)
) -> Outcome:
    """`chex.assert_numerical_grads` in the given modes, at its defaults."""
    return _timed(
        lambda: chex.assert_numerical_grads(f, args, order, modes=[PEER_MODES[m] for m in modes]),
        AssertionError,
    )


def in_modes_that_exist(checker: Callable[..., Outcome], modes: Sequence[str], *args: Any):
    """One outcome of a checker in several modes, leaving out those in which it cannot run.

    Its user knows which modes a function has; the time of attempts that crash does not count,
    unless all do.
    """
    outcomes = [checker(*args, (mode,)) for mode in modes]
    ran = [outcome for outcome in outcomes if outcome.verdict != "cannot"] or outcomes[:1]
    worst = next((o for o in ran if o.verdict == "wrong"), ran[0])
    return replace(worst, seconds=sum(outcome.seconds for outcome in ran))


def gradcheck(f: Callable[..., Any], inputs: Sequence[Any], fast: bool, order: int = 1) -> Outcome:
    """`torch.autograd.gradcheck`, and `gradgradcheck` for the second order."""

    def call() -> None:
        torch.autograd.gradcheck(f, inputs, fast_mode=fast)
        if order > 1:
            torch.autograd.gradgradcheck(f, inputs, fast_mode=fast)

    return _timed(call, GradcheckError)


def in_turn(sides: Sequence[Any], turn: int) -> list[Any]:
    """Each time in another order: another first, forwards and backwards."""
    first = turn // 2 % len(sides)
    order = [*sides[first:], *sides[:first]]
    return order[::-1] if turn % 2 else order


def quartiles(numbers: Sequence[float]) -> list[float]:
    """The three of them; none of no numbers."""
    if len(numbers) < 2:
        return [*numbers] * 3
    return statistics.quantiles(numbers, n=4, method="inclusive")


def show_progress(text: str) -> None:
    """A line that the next one overwrites; nothing where nobody watches."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text[:79]}", end="", file=sys.stderr)


def versions() -> dict[str, str]:
    """What was measured on what."""
    device = jax.devices()[0]
    return {
        "device": device.device_kind,
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else "?"),
        "gradkit": metadata.version("gradkit"),
        "jax": jax.__version__,
        "chex": chex.__version__,
        "torch": torch.__version__ if torch else "not installed",
    }
