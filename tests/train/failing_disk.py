"""Runs whose disk fails on the way: `failing_disk.py FOLDER`; what became of each, on stdout.

A process of its own, as orbax's threads are heard of when they fail, and may outlive the run.
"""

import json
import resource
import sys
import warnings
from pathlib import Path

import numpy as np

import gradkit as gk

LIMITS = resource.getrlimit(resource.RLIMIT_FSIZE)


def fill(folder):
    """No file has room for more than a hundred bytes any more."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, LIMITS[1]))


def empty(folder):
    resource.setrlimit(resource.RLIMIT_FSIZE, LIMITS)


def lose(folder):
    """There is a file in its place."""
    folder.rename(folder.with_suffix(".away"))
    folder.write_text("")


def train(folder, **faults):
    """Twelve steps and six checkpoints; faults come after steps, as in `after_4=fill`."""

    def fail(moment):
        fault = faults.pop(f"after_{moment.step}", None)
        if fault is not None:
            fault(folder)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = {"error": "", "kept": []}
        try:
            result = gk.fit(
                lambda p, b: p * b.mean(), 1.0, np.ones(12, np.float32), batch_size=1,
                steps_per_call=1, progress=False, callbacks=[fail], checkpoint_dir=folder,
                checkpoint_every=2, resume=True, keep_checkpoints=10,
            )  # fmt: skip
        except gk.CheckpointError as error:
            found["error"], result = str(error), error.result
    empty(folder)
    if folder.is_dir():
        found["kept"] = sorted(int(p.name) for p in folder.iterdir() if p.name.isdecimal())
    return found | {"step": result.step, "warnings": [str(one.message) for one in caught]}


if __name__ == "__main__":
    base = Path(sys.argv[1])
    found = {
        "full for a while": train(base / "a", after_4=fill, after_8=empty),
        "and resumed": train(base / "a"),
        "full to the end": train(base / "b", after_4=fill),
        "lost": train(base / "c", after_4=lose),
    }
    print(json.dumps(found), flush=True)
