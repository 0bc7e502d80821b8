"""What the loop asks of data: portions of an epoch, each for one compiled program."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Portion:
    """Batches of one shape.

    Attributes:
        count: How many.
        examples: In each.
        pick: `pick(data, i)` is batch `i` of the data; the same function for all portions of one
            shape, since it is a part of the program.
        data: Arrays on the device.
        first: The portion begins with this batch of the data.
    """

    count: int
    examples: int
    pick: Callable[[Any, Any], Any]
    data: Any
    first: int = 0

    def source_at(self, n: int) -> tuple[Any, int]:
        """The data, and which batch of them is batch `n` of the portion."""
        return self.data, self.first + n

    def batch(self, n: int) -> Any:
        """Batch `n`."""
        return self.pick(self.data, self.first + n)


class Data(Protocol):
    """Training data, epoch by epoch."""

    @property
    def steps_per_epoch(self) -> int | None:
        """Batches in an epoch; `None` where that shows only when it ends."""
        ...

    def portions(self, epoch: int, start: int) -> Iterator[Portion]:
        """The batches of an epoch, from batch `start` on."""
        ...
