"""How long does a step of `gradkit.fit` take, beside loops by hand and other frameworks?

All sides train the same model on the same batches of 32, with Adam, and take turns in one process.
`hand` is a jit-compiled step with donated buffers, called once a batch; `scan` a hand-written scan
over all batches of a call. `fit, all on` has metrics, clipping, the guard, a moving average,
callbacks, shuffling and asynchronous checkpoints. Medians over rounds, and quartiles of ratios to
`hand` and `scan` round by round.

    python benchmarks/train.py [--rounds 5] [--models mlp-32 mlp-784 cnn] [--json train.json]

Keras is optional: `pip install keras`. It runs on its JAX backend.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import gradkit
from gradkit.train import fit

try:
    import keras
except ImportError:
    keras = None

BATCH = 32
STEPS = {"mlp-32": 4096, "mlp-784": 768, "cnn": 128}
Side = Callable[[], float]


def data(name: str) -> tuple[np.ndarray, np.ndarray]:
    """As many examples as there are steps of."""
    rng = np.random.default_rng(0)
    shape = {"mlp-32": (32,), "mlp-784": (784,), "cnn": (28, 28, 1)}[name]
    n = BATCH * min(STEPS[name], 256)
    return rng.standard_normal((n, *shape), np.float32), rng.integers(0, 10, n).astype(np.int32)


def parameters(name: str) -> dict[str, np.ndarray]:
    """The same for all sides that write the model by hand."""
    rng = np.random.default_rng(1)
    draw = lambda *shape: rng.standard_normal(shape, np.float32) / np.sqrt(np.prod(shape[:-1]))
    if name == "cnn":
        shapes = {"c1": (3, 3, 1, 16), "c2": (3, 3, 16, 32), "w": (7 * 7 * 32, 10)}
    else:
        n, m = {"mlp-32": (32, 32), "mlp-784": (784, 512)}[name]
        shapes = {"w1": (n, m), "w": (m, 10)}
    found = {key: draw(*shape).astype(np.float32) for key, shape in shapes.items()}
    return found | {f"b_{key}": np.zeros(shape[-1], np.float32) for key, shape in shapes.items()}


def logits(params: dict[str, Any], x: jax.Array) -> jax.Array:
    """The model."""
    for key in ("c1", "c2"):
        if key in params:
            x = jax.lax.conv_general_dilated(
                x, params[key], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = jax.nn.relu(x + params[f"b_{key}"])
            x = x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2, -1).max(axis=(2, 4))
    x = x.reshape(len(x), -1)
    if "w1" in params:
        x = jax.nn.relu(x @ params["w1"] + params["b_w1"])
    return x @ params["w"] + params["b_w"]


def loss_fn(params: dict[str, Any], batch: Any) -> jax.Array:
    """Mean cross-entropy."""
    x, y = batch
    return optax.softmax_cross_entropy_with_integer_labels(logits(params, x), y).mean()


def loss_and_accuracy(params: dict[str, Any], batch: Any) -> Any:
    """With a metric."""
    x, y = batch
    z = logits(params, x)
    loss = optax.softmax_cross_entropy_with_integer_labels(z, y).mean()
    return loss, {"accuracy": jnp.mean(jnp.argmax(z, axis=1) == y)}


def batches(name: str) -> list[tuple[jax.Array, jax.Array]]:
    """On the device."""
    x, y = data(name)
    starts = range(0, len(x), BATCH)
    return [(jnp.asarray(x[i : i + BATCH]), jnp.asarray(y[i : i + BATCH])) for i in starts]


def per_step(run: Callable[[int], Any], name: str) -> float:
    """Seconds a step of `run(steps)`, which has run before."""
    run(8)
    began = time.perf_counter()
    run(STEPS[name])
    return (time.perf_counter() - began) / STEPS[name]


def hand(name: str) -> Side:
    """One call a batch, buffers donated."""
    optimizer = optax.adam(1e-3)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, state: Any, batch: Any) -> Any:
        loss, grads = jax.value_and_grad(loss_fn)(params, batch)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    given = batches(name)

    def run(steps: int) -> None:
        params = jax.tree.map(jnp.asarray, parameters(name))
        state = optimizer.init(params)
        for i in range(steps):
            params, state, _ = step(params, state, given[i % len(given)])
        jax.block_until_ready(params)

    return lambda: per_step(run, name)


def scan(name: str) -> Side:
    """All batches in one call."""
    optimizer = optax.adam(1e-3)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def many(params: Any, state: Any, xs: Any) -> Any:
        def step(carry: Any, batch: Any) -> Any:
            params, state = carry
            loss, grads = jax.value_and_grad(loss_fn)(params, batch)
            updates, state = optimizer.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), loss

        return jax.lax.scan(step, (params, state), xs)

    given = batches(name)
    stacked = tuple(jnp.stack(x) for x in zip(*given, strict=True))

    def run(steps: int) -> None:
        params = jax.tree.map(jnp.asarray, parameters(name))
        carry = params, optimizer.init(params)
        for _ in range(max(1, steps // len(given))):
            carry, _ = many(*carry, stacked)
        jax.block_until_ready(carry)

    return lambda: per_step(run, name)


def by_fit(name: str, loss: Any, **options: Any) -> Side:
    """From the middle of a run to its end: what comes before compiles and finds its pace."""

    def run() -> float:
        seen: list[tuple[int, float]] = []
        note = lambda moment: seen.append((moment.step, time.perf_counter()))
        steps = 4 * STEPS[name]
        given = {"progress": False, "optimizer": optax.adam(1e-3)} | options
        fit(loss, parameters(name), data(name), steps=steps, callbacks=[note], **given)
        middle = next(i for i, (step, _) in enumerate(seen) if step >= STEPS[name])
        (first, began), (last, ended) = seen[middle], seen[-1]
        return (ended - began) / (last - first)

    return run


def all_on(name: str) -> Side:
    """Everything that costs something."""
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))

    def run() -> float:
        with tempfile.TemporaryDirectory() as folder:
            side = by_fit(
                name, loss_and_accuracy, optimizer=optimizer, ema_decay=0.999,
                log_gradient_norm=True, checkpoint_dir=folder, progress=True,
                checkpoint_every=timedelta(minutes=1),
            )  # fmt: skip
            return side()

    return run


def with_nnx(name: str) -> Side:
    """The idiom of flax's documentation."""
    if name == "cnn":
        return lambda: float("nan")

    class Net(nnx.Module):
        def __init__(self) -> None:
            n, m = {"mlp-32": (32, 32), "mlp-784": (784, 512)}[name]
            self.first = nnx.Linear(n, m, rngs=nnx.Rngs(0))
            self.last = nnx.Linear(m, 10, rngs=nnx.Rngs(1))

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.last(nnx.relu(self.first(x)))

    @nnx.jit
    def step(model: Any, optimizer: Any, batch: Any) -> Any:
        def loss(model: Any) -> jax.Array:
            x, y = batch
            return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()

        value, grads = nnx.value_and_grad(loss)(model)
        optimizer.update(model, grads)
        return value

    given = batches(name)

    def run(steps: int) -> None:
        model = Net()
        optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)
        for i in range(steps):
            value = step(model, optimizer, given[i % len(given)])
        jax.block_until_ready(value)

    return lambda: per_step(run, name)


def with_equinox(name: str) -> Side:
    """The idiom of Equinox's documentation."""
    if name == "cnn":
        return lambda: float("nan")
    optimizer = optax.adam(1e-3)
    n, m = {"mlp-32": (32, 32), "mlp-784": (784, 512)}[name]

    @eqx.filter_jit
    def step(model: Any, state: Any, batch: Any) -> Any:
        def loss(model: Any) -> jax.Array:
            x, y = batch
            z = jax.vmap(model)(x)
            return optax.softmax_cross_entropy_with_integer_labels(z, y).mean()

        value, grads = eqx.filter_value_and_grad(loss)(model)
        updates, state = optimizer.update(grads, state, eqx.filter(model, eqx.is_array))
        return eqx.apply_updates(model, updates), state, value

    given = batches(name)

    def run(steps: int) -> None:
        model = eqx.nn.MLP(n, 10, m, 1, key=jax.random.key(0))
        state = optimizer.init(eqx.filter(model, eqx.is_array))
        for i in range(steps):
            model, state, value = step(model, state, given[i % len(given)])
        jax.block_until_ready(value)

    return lambda: per_step(run, name)


def with_keras(name: str, steps_per_execution: int) -> Side:
    """`model.fit`, one epoch at a time; the second is measured."""

    def run() -> float:
        layers = keras.layers
        if name == "cnn":
            stack = [
                layers.Conv2D(16, 3, padding="same", activation="relu"),
                layers.MaxPooling2D(),
                layers.Conv2D(32, 3, padding="same", activation="relu"),
                layers.MaxPooling2D(),
                layers.Flatten(),
            ]
        else:
            stack = [layers.Dense({"mlp-32": 32, "mlp-784": 512}[name], activation="relu")]
        model = keras.Sequential([*stack, layers.Dense(10)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(
            optimizer=keras.optimizers.Adam(1e-3), loss=loss, jit_compile=True,
            steps_per_execution=steps_per_execution,
        )  # fmt: skip
        x, y = data(name)
        model.fit(x, y, batch_size=BATCH, epochs=1, verbose=0)
        began = time.perf_counter()
        model.fit(x, y, batch_size=BATCH, epochs=4, verbose=0)
        return (time.perf_counter() - began) / (4 * len(x) / BATCH)

    return run


def sides(name: str) -> dict[str, Side]:
    """Everything that is compared."""
    found = {
        "hand": hand(name),
        "scan": scan(name),
        "fit, one step a call": by_fit(name, loss_fn, steps_per_call=1),
        "fit, bare": by_fit(name, loss_fn, on_nonfinite="ignore", shuffle=False),
        "fit": by_fit(name, loss_fn),
        "fit, all on": all_on(name),
        "flax nnx": with_nnx(name),
        "equinox": with_equinox(name),
    }
    if keras is not None:
        found["keras"] = with_keras(name, 1)
        found["keras, 32 steps a call"] = with_keras(name, 32)
    return found


def ratio(ours: list[float], theirs: list[float]) -> str:
    """Of medians, and quartiles round by round."""
    each = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    low, _, high = statistics.quantiles(each, n=4) if len(each) > 1 else [each[0]] * 3
    return f"{statistics.median(ours) / statistics.median(theirs):6.2f} [{low:.2f}, {high:.2f}]"


def measure(name: str, rounds: int) -> dict[str, list[float]]:
    """All sides in turn, round after round; printed as they are."""
    compared = sides(name)
    times: dict[str, list[float]] = {side: [] for side in compared}
    for i in range(rounds):
        order = list(compared)
        for side in order[i % len(order) :] + order[: i % len(order)]:
            times[side].append(compared[side]())
    print(f"\n{name}, batches of {BATCH}")
    print(f"{'':<24}{'us a step':>10}   {'over hand':<22}over scan")
    for side, found in times.items():
        middle = statistics.median(found)
        if middle == middle:
            beside = f"{ratio(found, times['hand']):<22}{ratio(found, times['scan'])}"
            print(f"{side:<24}{middle * 1e6:>10.1f}   {beside}")
    return times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    versions = f"gradkit {gradkit.__version__}, " if hasattr(gradkit, "__version__") else ""
    versions += f"jax {jax.__version__}, keras {getattr(keras, '__version__', 'not installed')}"
    print(f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores; {versions}")
    results = {name: measure(name, chosen.rounds) for name in chosen.models}
    if chosen.json:
        chosen.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
