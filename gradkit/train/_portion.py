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
        pick: `pick(source, i)` is batch `i` of a source; the same function for all portions of
            one shape, since it is a part of the program.
        source_at: `source_at(n)` is the source whose batch 0 is batch `n` of the portion.
    """

    count: int
    examples: int
    pick: Callable[[Any, Any], Any]
    source_at: Callable[[int], Any]


class Data(Protocol):
    """Training data, epoch by epoch."""

    @property
    def steps_per_epoch(self) -> int | None:
        """Batches in an epoch; `None` where that shows only when it ends."""
        ...

    def portions(self, epoch: int, start: int) -> Iterator[Portion]:
        """The batches of an epoch, from batch `start` on."""
        ...
