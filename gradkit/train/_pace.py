"""How many steps to take in one call: enough that calls cost nothing, few enough to keep up."""

from __future__ import annotations

import time

_SECONDS = 0.1  # that a call should take


class Pace:
    """Measures the time of a step, and derives the number of steps of a call.

    Args:
        fixed: The number, if it is not to be measured.
        most: The largest number.

    Attributes:
        most: The largest number of a call.
        rate: Steps a second, of late.
        wish: Steps of a tenth of a second, as measured here, and at most twice as many as before.
        reach: Steps of a tenth of a second, as agreed on.
    """

    def __init__(self, fixed: int | None, most: int):
        self._fixed = fixed
        self.most = fixed or most
        self.wish = self.reach = fixed or 1
        self._last: float | None = None
        self.rate = 0.0

    @property
    def steps(self) -> int:
        """Steps of the next call."""
        return min(self._fixed or self.reach, self.most)

    def note(self, steps: int) -> None:
        """A call of so many steps has just ended."""
        now = time.perf_counter()
        if self._last is not None and steps:
            seconds = max((now - self._last) / steps, 1e-9)
            self.rate = 1.0 / seconds
            self.wish = min(max(1, round(_SECONDS / seconds)), 2 * self.reach)
        self._last = now

    def pause(self) -> None:
        """Something else took its time."""
        self._last = None
