"""Curves of a run."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradkit.train._history import History

_SMOOTH = 200  # points that a curve is averaged down to


def plot(history: History) -> Any:
    """A figure with one panel for each number that was logged."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plot needs matplotlib: pip install 'gradkit[plot]'") from error

    names = list(history)
    figure = Figure(figsize=(5 * len(names), 3.5), layout="constrained")
    for axes, name in zip(np.ravel([figure.subplots(1, len(names))]), names, strict=True):
        values = history[name]
        steps = np.arange(1, len(values) + 1)
        width = max(1, len(values) // _SMOOTH)
        whole = len(values) // width * width
        means = (a[:whole].reshape(-1, width).mean(axis=1) for a in (steps, values))
        axes.plot(steps, values, color="tab:blue", alpha=0.2, linewidth=0.7)
        axes.plot(*means, color="tab:blue", label="training")
        seen = [e for e in history.evaluations if name in e]
        if seen:
            at, there = [e["step"] for e in seen], [e[name] for e in seen]
            axes.plot(at, there, color="tab:orange", marker="o", label="evaluation")
            axes.legend(frameon=False)
        if name == "loss" and (values > 0).all() and values.max() > 20 * values.min():
            axes.set_yscale("log")
        axes.set_xlabel("step")
        axes.set_title(name)
        axes.spines[["top", "right"]].set_visible(False)
    return figure
