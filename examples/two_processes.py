"""One training in two processes, started with one command.

What you will learn:

1. what a process of a run does: `gk.train.initialize`, and then the same `gk.fit` as ever;
2. to give each process a share of the data: an iterable yields its part of each batch;
3. that nothing else changes: losses and decisions are those of one device.

Run it as

    python examples/two_processes.py

It starts both processes on this machine, where they talk over the loopback interface. On a cluster
the scheduler starts them, and `gk.train.initialize()` needs no arguments. The losses are printed
beside those of a loop by hand on one device.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradkit as gk

COUNT, BATCH, EPOCHS = 2, 32, 4
optimizer = optax.adam(0.05)


class Row(NamedTuple):
    """A number, and the independent one that it should match."""

    label: str
    value: float
    independent: float


@gk.custom_gradient
def robust(error):
    """Squared error whose gradient stops growing at 1: outliers do not run the show."""
    return jnp.mean(error**2), lambda y_bar: y_bar * jnp.clip(2 * error, -1, 1) / error.size


def loss_fn(params, batch):
    """The loss of a linear model."""
    x, y = batch
    return robust(x @ params["w"] + params["b"] - y)


def batches():
    """Sixteen batches of a linear relation, one of fifty targets far off."""
    rng = np.random.default_rng(0)
    for _ in range(16):
        x = rng.standard_normal((BATCH, 4)).astype(np.float32)
        y = x @ np.float32([1.0, -2.0, 0.5, 3.0]) + np.float32(0.7)
        yield x, y + 50 * (rng.random(BATCH) < 0.02).astype(np.float32)


def parameters():
    """The same in each process."""
    return {"w": np.zeros(4, np.float32), "b": np.float32(0)}


# --- one process of the run -----------------------------------------------------------------------


class Share:
    """The part of each batch that belongs to this process."""

    def __iter__(self):
        size = BATCH // jax.process_count()
        first = jax.process_index() * size
        for batch in batches():
            yield tuple(a[first : first + size] for a in batch)


def train(port, index, path):
    """What each process runs; the first one writes down what came out."""
    gk.train.initialize(f"127.0.0.1:{port}", num_processes=COUNT, process_id=index)
    result = gk.fit(loss_fn, parameters(), Share(), optimizer=optimizer, epochs=EPOCHS)
    if jax.process_index() == 0:
        w = np.asarray(result.params["w"]).tolist()
        path.write_text(json.dumps({"loss": result.history["loss"].tolist(), "w": w}))


# --- the command ----------------------------------------------------------------------------------


def train_in_two_processes():
    """Start them, wait, and read what they found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}  # two processes cannot share a GPU
    environment.pop("XLA_FLAGS", None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        command = [sys.executable, __file__, "--port", str(port), "--result", str(path), "--index"]
        started = [
            subprocess.Popen([*command, str(index)], env=environment) for index in range(COUNT)
        ]
        codes = [process.wait() for process in started]
        if any(codes):
            message = f"the processes ended with {codes}"
            raise RuntimeError(message)
        return json.loads(path.read_text())


def train_by_hand():
    """The loop that everybody writes, on one device."""

    @jax.jit
    def step(params, state, batch):
        loss, grads = jax.value_and_grad(loss_fn)(params, batch)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, loss

    params = jax.tree.map(jnp.asarray, parameters())
    state, losses = optimizer.init(params), []
    for _ in range(EPOCHS):
        for batch in batches():
            params, state, loss = step(params, state, batch)
            losses.append(float(loss))
    return losses, params


def main(args=None):
    """Train both ways; returns the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int)
    parser.add_argument("--index", type=int)
    parser.add_argument("--result", type=Path)
    options = parser.parse_args(args)
    if options.index is not None:
        train(options.port, options.index, options.result)
        return []
    together = train_in_two_processes()
    losses, params = train_by_hand()
    rows = [
        Row(f"loss of step {i + 1}", together["loss"][i], losses[i])
        for i in (0, 1, len(losses) // 2, len(losses) - 1)
    ]
    rows += [
        Row(f"w[{i}]", mine, float(theirs))
        for i, (mine, theirs) in enumerate(zip(together["w"], params["w"], strict=True))
    ]
    print(f"\n{'':<20}{'two processes':>16}{'by hand':>16}")
    for row in rows:
        print(f"{row.label:<20}{row.value:>16.6f}{row.independent:>16.6f}")
    return rows


if __name__ == "__main__":
    main()
