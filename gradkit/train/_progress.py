"""How a run shows itself: a bar in a terminal, lines elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from typing import Any, Protocol

_SECONDS_A_LINE = 10.0


class Display(Protocol):
    """Is told of every few steps."""

    def show(self, step: int, epoch: int, rate: float, metrics: dict[str, float]) -> None:
        """Steps taken, epochs completed, steps a second, and means."""
        ...

    def close(self) -> None:
        """Nothing comes after."""
        ...


class Silent:
    """Shows nothing."""

    def show(self, step: int, epoch: int, rate: float, metrics: dict[str, float]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Lines:
    """A line every ten seconds, for files and logs."""

    def __init__(self, total: int | None, examples: int):
        self._total = total
        self._examples = examples
        self._last = -_SECONDS_A_LINE
        self._line = ""

    def show(self, step: int, epoch: int, rate: float, metrics: dict[str, float]) -> None:
        """Print, if it is time."""
        of = f"/{self._total}" if self._total else ""
        numbers = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        self._line = f"step {step}{of}  epoch {epoch}  {rate:.0f} steps/s  {numbers}"
        now = time.monotonic()
        if now - self._last >= _SECONDS_A_LINE:
            self._last = now
            self._print()

    def close(self) -> None:
        """Print the last line, if it was not."""
        self._print()

    def _print(self) -> None:
        if self._line:
            print(self._line, file=sys.stderr, flush=True)
        self._line = ""


class Bar:
    """A bar with rate, numbers and the time that is left."""

    def __init__(self, total: int | None, examples: int):
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._examples = examples
        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TextColumn("[bold]{task.fields[numbers]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task("", total=total, epoch=0, rate="", numbers="")
        self._progress.start()

    def show(self, step: int, epoch: int, rate: float, metrics: dict[str, float]) -> None:
        """Draw."""
        numbers = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        speed = f"{_short(rate)} steps/s, {_short(rate * self._examples)} examples/s{_memory()}"
        self._progress.update(self._task, completed=step, epoch=epoch, rate=speed, numbers=numbers)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._progress.stop()


def _short(number: float) -> str:
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


def _memory() -> str:
    import jax

    stats: Any = jax.local_devices()[0].memory_stats()
    return f", {stats['bytes_in_use'] / 2**30:.1f} GiB" if stats else ""


def make_display(progress: bool, total: int | None, examples: int) -> Display:
    """A bar in a terminal, lines elsewhere; nothing if `progress` is false."""
    if not progress:
        return Silent()
    return (Bar if sys.stderr.isatty() else Lines)(total, examples)
