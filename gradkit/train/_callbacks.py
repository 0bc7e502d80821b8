"""What a callback is told, and what it can answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Moment:
    """Where training is.

    Attributes:
        step: Steps taken; in `on_chunk`, up to which `metrics` go.
        epoch: Epochs completed.
        metrics: Means of loss and metrics over the steps since the last moment; in `on_eval`, of
            the evaluation.
        get_params: Returns a copy of the parameters as they are now, which may be some steps
            further.
    """

    step: int
    epoch: int
    metrics: dict[str, float]
    get_params: Callable[[], Any]


class Callback:
    """Base class of callbacks; a plain function counts as `on_chunk`.

    Of several processes, each calls its own, at the same steps and with the same numbers. Methods
    that return a true value end the training.

    Example:
        >>> class Stop(Callback):
        ...     def on_chunk(self, moment):
        ...         return moment.metrics["loss"] < 0.1
    """

    def on_chunk(self, moment: Moment) -> Any:
        """Called when the numbers of some more steps have arrived: a few times a second."""

    def on_eval(self, moment: Moment) -> Any:
        """Called after each evaluation."""

    def on_end(self, result: Any) -> Any:
        """Called with the result, whatever ended the training but an error."""

    def close(self) -> None:
        """Called last, also after an error."""


class _Function(Callback):
    def __init__(self, function: Callable[[Moment], Any]):
        self._function = function

    def on_chunk(self, moment: Moment) -> Any:
        return self._function(moment)


def as_callback(callback: Any) -> Callback:
    """`callback`, or the function as one."""
    if isinstance(callback, Callback) or not callable(callback):
        return callback
    return _Function(callback)
