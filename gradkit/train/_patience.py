"""Which evaluation was the best, and how long ago."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradkit._errors import describe, did_you_mean


class Patience:
    """Remembers the parameters of the best evaluation.

    Args:
        patience: Evaluations without a better one that it bears; `None` for any number.
        monitor: The number that should fall.

    Attributes:
        best: The best parameters, copied.
        best_step: Their step.
    """

    def __init__(self, patience: int | None, monitor: str):
        self._patience = patience
        self._monitor = monitor
        self._lowest = float("inf")
        self._worse = 0
        self.best: Any = None
        self.best_step: int | None = None

    @property
    def keeps_best(self) -> bool:
        """Are the best parameters wanted?"""
        return self._patience is not None

    @property
    def position(self) -> dict[str, Any]:
        """Everything but the parameters, as numbers."""
        return {"lowest": self._lowest, "worse": self._worse, "best_step": self.best_step}

    def resume(self, position: dict[str, Any], best: Any) -> None:
        """Remember what was remembered."""
        self._lowest, self._worse = position["lowest"], position["worse"]
        self.best_step = position["best_step"]
        self.best = best if self.keeps_best and self.best_step is not None else None

    def is_out(self, step: int, metrics: dict[str, float], params: Any) -> bool:
        """Has there been no better evaluation for too long, this one included?"""
        if self._monitor not in metrics:
            raise ValueError(
                describe(
                    f"monitor={self._monitor!r} of fit is not evaluated"
                    f"{did_you_mean(self._monitor, metrics)}",
                    expected=" or ".join(map(repr, metrics)),
                )
            )
        if metrics[self._monitor] < self._lowest:
            self._lowest, self._worse = metrics[self._monitor], 0
            self.best_step = step
            if self._patience is not None:
                self.best = jax.tree.map(jnp.copy, params)
            return False
        self._worse += 1
        return self._patience is not None and self._worse >= self._patience
