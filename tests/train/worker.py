"""One of several processes that train together: `worker.py PORT COUNT INDEX FOLDER JOB...`.

What each job finds is written to `FOLDER/JOB-INDEX.json`.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import jax
import numpy as np
import optax

import gradkit as gk
from tests.train.problems import arrays, cross_entropy, in_order, network

if __name__ == "__main__":
    PORT, COUNT, INDEX, FOLDER, *JOBS = sys.argv[1:]
    FOLDER = Path(FOLDER)
OPTIONS = {"optimizer": optax.adam(1e-2), "progress": False}
TRAIN = (cross_entropy, network(), arrays())


def told(result):
    return {
        "loss": result.history["loss"].tolist(),
        "evaluations": result.history.evaluations,
        "step": result.step,
        "stop": result.stop_reason,
        "best": result.best_step,
        "params": [np.asarray(x).tolist() for x in jax.tree.leaves(result.params)]
        if all(x.is_fully_replicated for x in jax.tree.leaves(result.params))
        else None,
    }


def refused(error, act):
    try:
        act()
    except error as caught:
        return {"error": type(caught).__name__, "text": str(caught)}
    return {"error": None}


def evaluated():
    """Sixteen evaluations; Adam with a large rate makes some of them worse."""
    options = OPTIONS | {"optimizer": optax.adam(0.3), "progress": True}
    options["callbacks"] = [gk.train.TensorBoard(FOLDER / f"curves-{INDEX}")]
    return told(gk.fit(*TRAIN, eval_data=arrays(), epochs=16, eval_every=2, patience=2, **options))


def divided():
    return told(gk.fit(*TRAIN, epochs=2, param_sharding="fsdp", **OPTIONS))


def shares():
    """The batches of `arrays()`, of which each process reads its part, at its own speed."""

    def batches():
        for batch in in_order(arrays(96), 16, 1):
            time.sleep(0.02 * int(INDEX))
            size = 16 // int(COUNT)
            yield tuple(a[int(INDEX) * size :][:size] for a in batch)

    class Batches:
        __iter__ = staticmethod(batches)

    return told(gk.fit(*TRAIN[:2], Batches(), epochs=2, **OPTIONS))


def stopped():
    """SIGTERM comes to the last process alone; then all go on together."""

    def kill(moment):
        if moment.step >= 4 and str(int(COUNT) - 1) == INDEX and not came:
            came.append(moment.step)
            os.kill(os.getpid(), signal.SIGTERM)

    came = []
    options = OPTIONS | {"checkpoint_dir": FOLDER / "stopped", "param_sharding": "fsdp"}
    first = gk.fit(*TRAIN, steps=1000, steps_per_call=2, callbacks=[kill], **options)
    second = gk.fit(*TRAIN, steps=first.step + 4, resume=True, **options)
    return {"first": told(first), "second": told(second)}


def other_parameters():
    params = network(seed=int(INDEX))
    return refused(gk.ProcessError, lambda: gk.fit(cross_entropy, params, arrays(), **OPTIONS))


def raised():
    """A callback of process 1 fails."""

    def fail(moment):
        if INDEX == "1":
            raise OSError("no such disk")

    act = lambda: gk.fit(*TRAIN, epochs=500, callbacks=[fail], **OPTIONS)
    return refused(OSError if INDEX == "1" else gk.ProcessError, act)


def long():
    """Runs until it is killed, or to the end; goes on where it was."""
    sign, seen = FOLDER / f"runs-{INDEX}", [0]

    def pause(moment):
        """A hundredth of a second for each step, so that there is time to be killed in."""
        time.sleep(0.01 * max(moment.step - seen[-1], 0))
        seen.append(moment.step)
        sign.write_text(str(moment.step))

    return told(
        gk.fit(
            *TRAIN, epochs=60, callbacks=[pause], checkpoint_dir=FOLDER / "long", resume=True,
            checkpoint_every=20, steps_per_call=5, **OPTIONS,
        )
    )  # fmt: skip


if __name__ == "__main__":
    # Patient where nobody is killed: a busy machine may leave a process no time for a sign of life.
    seconds = 30 if JOBS == ["long"] else 100
    gk.train.initialize(f"127.0.0.1:{PORT}", int(COUNT), int(INDEX), heartbeat_seconds=seconds)
    for job in JOBS:
        found = globals()[job]()
        (FOLDER / f"{job}-{INDEX}.json").write_text(json.dumps(found))
