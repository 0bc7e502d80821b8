"""Which learning rate to begin with: a range test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optax

from gradkit._errors import describe
from gradkit.train._fit import fit
from gradkit.train._update import IGNORE

_SMOOTHING = 0.9
_BLOWN_UP = 2.0  # times the lowest smoothed loss; what comes after says nothing


@dataclass(frozen=True)
class LearningRates:
    """The outcome of `find_learning_rate`.

    Attributes:
        rates: One a step, float64[steps].
        losses: The loss of each step, float32[steps].
        smoothed: Their exponential average, without the bias of its start.
        suggestion: The rate at which the smoothed loss falls most steeply.
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    suggestion: float

    def plot(self, path: str | Path | None = None) -> Any:
        """Draw the loss over the rate.

        Args:
            path: Where to save the picture; default: nowhere.

        Returns:
            The matplotlib figure.

        Raises:
            ImportError: Without matplotlib, the extra `plot`.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError("plot needs matplotlib: pip install 'gradkit[plot]'") from error

        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        end = _end(self.smoothed)
        axes.plot(self.rates[:end], self.losses[:end], color="tab:blue", alpha=0.3)
        axes.plot(self.rates[:end], self.smoothed[:end], color="tab:blue")
        axes.axvline(self.suggestion, color="tab:orange", label=f"{self.suggestion:.2g}")
        axes.set_xscale("log")
        axes.set_xlabel("learning rate")
        axes.set_ylabel("loss")
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        if path is not None:
            figure.savefig(path, dpi=150)
        return figure


def find_learning_rate(
    loss_fn: Callable[..., Any],
    params: Any,
    data: Any,
    *,
    optimizer: Callable[[Any], optax.GradientTransformation] = optax.adam,
    lowest: float = 1e-6,
    highest: float = 10.0,
    steps: int = 100,
    **options: Any,
) -> LearningRates:
    r"""Train for a few steps while the learning rate grows, and see where the loss falls fastest.

    $$ \eta_i = \eta_0 \, (\eta_1 / \eta_0)^{i / (n - 1)} $$

    The loss of a step is measured before its update, so rate `i` shows in loss `i + 1`. The given
    parameters stay as they are.

    Args:
        loss_fn: As for `fit`.
        params: As for `fit`.
        data: As for `fit`; gone through again and again.
        optimizer: From a learning rate, here a schedule, to an optax transformation.
        lowest: The first rate.
        highest: The last one.
        steps: How many.
        options: Further options of `fit`.

    Returns:
        Rates, losses, and a rate to begin with.

    Raises:
        ValueError: If the rates are not positive and rising, or no loss is finite.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.linspace(-1, 1, 64)
        >>> found = find_learning_rate(
        ...     lambda w, batch: jnp.mean((w * batch - 3 * batch) ** 2), 0.0, x, optimizer=optax.sgd
        ... )
        >>> 0.01 < found.suggestion < 6.0  # 2 / curvature, from where on it diverges, is 6
        True

    Source:
        Smith, *Cyclical Learning Rates for Training Neural Networks* (2017), section 3.3.
    """
    if not 0 < lowest < highest:
        raise ValueError(
            describe(
                "lowest= and highest= of find_learning_rate",
                expected="0 < lowest < highest",
                got=f"lowest={lowest!r}, highest={highest!r}",
            )
        )
    if steps < 10:
        raise ValueError(
            describe("steps= of find_learning_rate", expected="10 or more", got=repr(steps))
        )
    growth = (highest / lowest) ** (1 / (steps - 1))
    rates = lowest * growth ** np.arange(steps)
    settings = {"progress": False, "on_nonfinite": IGNORE} | options
    transformation = optimizer(lambda count: lowest * growth**count)
    result = fit(loss_fn, params, data, optimizer=transformation, steps=steps, **settings)
    losses = result.history["loss"]
    rates = rates[: len(losses)]  # an iterator may end before
    smoothed = _smooth(losses)
    return LearningRates(rates, losses, smoothed, _steepest(rates, smoothed))


def _smooth(losses: np.ndarray) -> np.ndarray:
    average, found = 0.0, []
    for i, loss in enumerate(losses.astype(np.float64), 1):
        average = _SMOOTHING * average + (1 - _SMOOTHING) * loss
        found.append(average / (1 - _SMOOTHING**i))
    return np.array(found)


def _end(smoothed: np.ndarray) -> int:
    """Up to where the loss has not blown up."""
    finite = np.isfinite(smoothed)
    end = int(np.argmin(finite)) if not finite.all() else len(smoothed)
    if end < 3:
        raise ValueError(
            describe(
                "find_learning_rate saw no finite losses",
                expected="a loss that is finite at the lowest rate",
                fix="gk.debug.find_nonfinite(loss_fn, params, batch) names the operation; or give "
                "a lower lowest=",
            )
        )
    low = int(np.argmin(smoothed[:end]))
    limit = smoothed[low] + (_BLOWN_UP - 1) * abs(smoothed[low])
    above = np.flatnonzero(smoothed[low:end] > limit)
    return low + int(above[0]) if len(above) else end


def _steepest(rates: np.ndarray, smoothed: np.ndarray) -> float:
    end = max(int(np.argmin(smoothed[: _end(smoothed)])) + 1, 3)
    slopes = np.gradient(smoothed[:end], np.log(rates[:end]))
    return float(rates[np.argmin(slopes)])
