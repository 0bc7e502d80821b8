"""What a run leaves behind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradkit.train._history import History


@dataclass(frozen=True)
class Result:
    """The outcome of `fit`.

    Attributes:
        params: The trained parameters, in the structure of those given: the best ones if an
            evaluation chose them, else the last.
        model_state: The model's state, with `has_state`.
        opt_state: The optimizer's state after the last step.
        ema_params: The moving average of the parameters, with `ema_decay`.
        history: Loss and metrics of every step, and the evaluations.
        step: Steps taken.
        stop_reason: `"steps"`, `"epochs"`, `"data"` (it ended), `"patience"`, `"callback"` or
            `"interrupt"`.
        skipped: Steps skipped because a number was not finite.
        best_step: The step of the best evaluation, if there was one.
        compilations: Training programs compiled: one for each shape of a batch.
    """

    params: Any
    model_state: Any
    opt_state: Any
    ema_params: Any
    history: History
    step: int
    stop_reason: str
    skipped: int
    best_step: int | None
    compilations: int

    def plot(self, path: str | Path | None = None) -> Any:
        """Draw loss and metrics over steps.

        Args:
            path: Where to save the picture; default: nowhere.

        Returns:
            The matplotlib figure.

        Raises:
            ImportError: Without matplotlib, the extra `plot`.
        """
        from gradkit.train._plot import plot

        figure = plot(self.history)
        if path is not None:
            figure.savefig(path, dpi=150)
        return figure
