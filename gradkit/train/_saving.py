"""Saving a run, and going on with it as if it had never stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gradkit._errors import CheckpointError
from gradkit.train._checkpoint import Checkpoints, Saved
from gradkit.train._loop import Loop
from gradkit.train._patience import Patience
from gradkit.train._result import Result


class Saving:
    """Writes and reads everything that a run needs to go on bit for bit.

    That is its state, its place in the data, its history and its best evaluation. Keys and the
    order of examples follow from the seed and the number of the step.

    Args:
        folder: Of the checkpoints.
        keep: How many to keep.
        loop: The run.
        watch: Its best evaluation.
    """

    def __init__(self, folder: str | Path, keep: int, loop: Loop, watch: Patience):
        self._checkpoints = Checkpoints(folder, keep, loop.processes)
        self._loop = loop
        self._watch = watch
        self._saved_step: int | None = None

    def save(self) -> None:
        """Begin to write a checkpoint of now, if there is none."""
        loop = self._loop
        if loop.step == self._saved_step:
            return
        position = {
            "step": loop.step,
            "epoch": loop.epoch,
            "batch": loop.step - loop.epoch_began,
            "evaluations": loop.history.evaluations,
            "watch": self._watch.position,
        }
        logs = {name: np.asarray(loop.history[name]) for name in loop.history}
        self._checkpoints.save(loop.step, Saved(self._arrays, position, logs))
        self._saved_step = loop.step

    def resume(self) -> int:
        """Put the run where the newest checkpoint left it; returns the batch in the epoch."""
        found = self._checkpoints.newest(self._arrays)
        if found is None:
            return 0
        step, saved = found
        loop, position = self._loop, saved.position
        loop.state = saved.arrays["state"]
        loop.step, loop.epoch = position["step"], position["epoch"]
        loop.epoch_began = loop.step - position["batch"]
        loop.history.add(saved.logs)
        loop.history.evaluations += position["evaluations"]
        self._watch.resume(position["watch"], saved.arrays["best"])
        self._saved_step = step
        return position["batch"]

    def finish(self, result: Result) -> None:
        """Wait until the last checkpoint is there; the error has the result, if it is not."""
        try:
            self._checkpoints.finish()
        except CheckpointError as error:
            error.result = result
            raise

    def close(self) -> None:
        """Leave the folder to others."""
        self._checkpoints.close()

    @property
    def _arrays(self) -> dict[str, Any]:
        state = self._loop.state
        best = self._watch.best
        if not self._watch.keeps_best:
            best = []
        return {"state": state, "best": state.params if best is None else best}
