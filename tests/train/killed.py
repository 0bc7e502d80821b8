"""A run that is there to be killed: `killed.py FOLDER STEPS`.

The steps that it has seen are in `FOLDER/log`, and what it found in the end in `FOLDER/end.npz`.
"""

import sys
import time
from pathlib import Path

import jax
import numpy as np
import optax

from gradkit.train import fit
from tests.train.problems import arrays, cross_entropy, network

EVERY, CALL = 10, 5


def train(steps, **options):
    result = fit(
        cross_entropy, network(hidden=32), arrays(), steps=steps, optimizer=optax.adam(1e-2),
        ema_decay=0.9, progress=False, **options,
    )  # fmt: skip
    return {
        "loss": result.history["loss"],
        **{f"params {i}": np.asarray(x) for i, x in enumerate(jax.tree.leaves(result.params))},
        **{f"ema {i}": np.asarray(x) for i, x in enumerate(jax.tree.leaves(result.ema_params))},
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with (folder / "log").open("w") as log:

        def note(moment):
            print(moment.step, file=log, flush=True)
            time.sleep(0.01)

        found = train(
            int(sys.argv[2]), callbacks=[note], checkpoint_dir=folder / "run", resume=True,
            checkpoint_every=EVERY, steps_per_call=CALL,
        )  # fmt: skip
    np.savez(folder / "end.npz", **found)
