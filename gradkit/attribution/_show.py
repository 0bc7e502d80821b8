"""Attributions, drawn over the images that they explain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gradkit._errors import AttributionInputError, describe

_CELL = 1.5  # inches


def show(
    images: Any,
    attributions: Any,
    *,
    labels: Sequence[Any] | None = None,
    channel_axis: int = -1,
    title: str | None = None,
    path: str | Path | None = None,
) -> Any:
    """A figure with a row for each example and a column for each attribution.

    Red speaks for the output, blue against it, and the deeper, the more; the image shows through in
    grey. Each attribution has its own scale, up to its largest magnitude and symmetric about zero.

    Args:
        images: `[N, H, W]`, or `[N, H, W, C]` with one or three channels.
        attributions: A mapping from titles to attributions; a sequence of them, or one alone. Each
            is `[N, H, W]`, or has channels, which are summed over.
        labels: What to write beside each example.
        channel_axis: The axis of the channels.
        title: What to write above all.
        path: A file to save the figure to; the suffix says in which format.

    Returns:
        The `matplotlib.figure.Figure`, which notebooks display.

    Raises:
        ImportError: If matplotlib is not installed.
        AttributionInputError: If shapes do not fit.

    Example:
        >>> import numpy as np
        >>> image = np.zeros((1, 4, 4))
        >>> figure = show(image, {"saliency": np.ones((1, 4, 4))}, labels=["a zero"])
        >>> [axes.get_title() for axes in figure.axes[:2]]
        ['image', 'saliency']
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("show needs matplotlib: pip install 'gradkit[plot]'") from error

    pictures = _pictures(images, channel_axis)
    columns = {
        name: _places(name, a, pictures.shape[:3], channel_axis)
        for name, a in _named(attributions).items()
    }
    n = len(pictures)
    if labels is not None and len(labels) != n:
        raise AttributionInputError(
            describe("there is not one label per image.", expected=str(n), got=str(len(labels)))
        )
    height, width = pictures.shape[1:3]
    cell = _CELL * width / max(height, width), _CELL * height / max(height, width)
    size = (cell[0] * (len(columns) + 1) + 1.1, cell[1] * n + (0.9 if title is None else 1.2))
    figure = Figure(figsize=size, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0, hspace=0)  # pyright: ignore
    grid = figure.subplots(n, len(columns) + 1, squeeze=False)
    for row, (axes, picture) in enumerate(zip(grid, pictures, strict=True)):
        _draw_picture(axes[0], picture)
        if labels is not None:
            axes[0].set_ylabel(
                str(labels[row]), rotation=0, ha="right", va="center", labelpad=6, fontsize=9
            )
        for place, a in zip(axes[1:], columns.values(), strict=True):
            drawn = _draw_over(place, picture, a[row])
    for axes, name in zip(grid[0], ["image", *columns], strict=True):
        axes.set_title(name, fontsize=9)
    if columns:
        bar = figure.colorbar(drawn, ax=grid, shrink=min(1.0, 2.5 / n), aspect=18, pad=0.015)
        bar.set_ticks([-1, 0, 1], labels=["against", "0", "for"], fontsize=8)
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
        bar.ax.tick_params(length=0)
    if title is not None:
        figure.suptitle(title, fontsize=11)
    if path is not None:
        figure.savefig(path, dpi=200)
    return figure


def _named(attributions: Any) -> dict[str, Any]:
    if isinstance(attributions, Mapping):
        return dict(attributions)
    several = isinstance(attributions, (list, tuple))
    return {
        "" if not several else str(i + 1): a
        for i, a in enumerate(attributions if several else [attributions])
    }


def _pictures(images: Any, channel_axis: int) -> np.ndarray:
    """The images as `[N, H, W]` grey or `[N, H, W, 3]` colours, from 0 to 1."""
    pictures = np.asarray(images, np.float32)
    if pictures.ndim == 4:
        pictures = np.moveaxis(pictures, channel_axis, -1)
        pictures = pictures[..., 0] if pictures.shape[-1] == 1 else pictures
    if pictures.ndim not in (3, 4) or pictures.shape[3:] not in ((), (3,)):
        raise AttributionInputError(
            describe(
                "these are no images.",
                expected="[N, H, W], or [N, H, W, C] with one or three channels",
                got=str(list(np.shape(images))),
                fix="channels first? pass channel_axis=1",
            )
        )
    axes = tuple(range(1, pictures.ndim))
    low, high = pictures.min(axes, keepdims=True), pictures.max(axes, keepdims=True)
    return (pictures - low) / np.where(high > low, high - low, 1)


def _places(name: str, a: Any, shape: tuple[int, ...], channel_axis: int) -> np.ndarray:
    """An attribution without channels."""
    places = np.asarray(a, np.float32)
    if places.ndim == 4:
        places = places.sum(channel_axis)
    if places.shape != shape:
        raise AttributionInputError(
            describe(
                f"the attribution {name!r} does not fit the images.",
                expected=str(list(shape)) + ", with channels or without",
                got=str(list(np.shape(a))),
            )
        )
    return places


def _draw_picture(axes: Any, picture: np.ndarray) -> None:
    axes.imshow(picture, cmap="gray_r" if picture.ndim == 2 else None, vmin=0, vmax=1)
    _frame(axes)


def _draw_over(axes: Any, picture: np.ndarray, a: np.ndarray) -> Any:
    """The attribution over a pale copy of the image."""
    grey = picture if picture.ndim == 2 else 1 - picture.mean(axis=-1)
    axes.imshow(grey, cmap="gray_r", vmin=0, vmax=4.5)
    finite = np.where(np.isfinite(a), a, 0)
    scaled = finite / (np.abs(finite).max() or 1)
    drawn = axes.imshow(scaled, cmap="RdBu_r", vmin=-1, vmax=1, alpha=np.abs(scaled) ** 0.6)
    _frame(axes)
    return drawn


def _frame(axes: Any) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color="0.8", linewidth=0.6)
