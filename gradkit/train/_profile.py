"""A callback that records what the devices do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax

from gradkit._errors import describe
from gradkit.train._callbacks import Callback, Moment


class Profile(Callback):
    """Writes a trace of `jax.profiler`, to be seen in Perfetto, XProf or TensorBoard.

    Args:
        folder: Where to; each process writes its own.
        skip: Moments before it begins: compilation and the search for the pace are over then.
        chunks: Moments that it lasts; one comes a few times a second.

    Attributes:
        steps: The first and the last step of the trace, once there is one.

    Raises:
        ValueError: If a number is not what it can be.

    Example:
        >>> gk.fit(..., callbacks=[gk.train.Profile("trace")])  # doctest: +SKIP
    """

    def __init__(self, folder: str | Path, *, skip: int = 5, chunks: int = 5):
        if skip < 0 or chunks < 1:
            raise ValueError(
                describe(
                    "skip= and chunks= of Profile",
                    expected="whole numbers, from 0 and from 1 on",
                    got=f"skip={skip!r}, chunks={chunks!r}",
                )
            )
        self._folder = folder
        self._left = chunks
        self._skip = skip
        self._runs = False
        self._first = 0
        self.steps: tuple[int, int] | None = None

    def on_chunk(self, moment: Moment) -> Any:
        """Begin, or end."""
        if self._skip:
            self._skip -= 1
        elif self._runs:
            self._left -= 1
            self.steps = self._first, moment.step
            if not self._left:
                self.close()
        elif self._left:
            jax.profiler.start_trace(str(self._folder))
            self._runs = True
            self._first = moment.step + 1

    def close(self) -> None:
        """Write what there is."""
        if self._runs:
            self._runs, self._left = False, 0
            jax.profiler.stop_trace()
