"""A callback that writes curves for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from gradkit.train._callbacks import Callback, Moment


class TensorBoard(Callback):
    """Writes loss and metrics: `train/loss` a few times a second, `eval/loss` each evaluation.

    Of several processes, process 0 writes.

    Args:
        folder: Of the run; TensorBoard shows the runs of the folder above beside each other.

    Raises:
        ImportError: Without tensorboardX, the extra `tensorboard`.

    Example:
        >>> gk.fit(..., callbacks=[gk.train.TensorBoard("runs/one")])  # doctest: +SKIP
    """

    def __init__(self, folder: str | Path):
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            text = "gk.train.TensorBoard needs tensorboardX: pip install 'gradkit[tensorboard]'"
            raise ImportError(text) from error
        self._make = lambda: SummaryWriter(str(folder))
        self._writer: Any = None

    def on_chunk(self, moment: Moment) -> Any:
        """Write the means of the steps since the last moment."""
        self._write("train", moment.step, moment.metrics)

    def on_eval(self, moment: Moment) -> Any:
        """Write the evaluation."""
        self._write("eval", moment.step, moment.metrics)

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _write(self, group: str, step: int, metrics: Mapping[str, float]) -> None:
        if jax.process_index():
            return
        if self._writer is None:  # a run that never begins leaves no file
            self._writer = self._make()
        for name, value in metrics.items():
            self._writer.add_scalar(f"{group}/{name}", value, step)
