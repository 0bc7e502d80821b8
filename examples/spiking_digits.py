"""A spiking network that reads digits: the derivative of a spike is zero, so another one trains it.

What you will learn:

1. to give a spike a derivative: `gk.rules.surrogate.arctan(v)`, one of 25 by their usual names;
2. to train leaky integrate-and-fire neurons through time, by `jax.lax.scan` and `gk.fit`;
3. to trust the gradient: backpropagation through time is written out once more by hand, in NumPy.

Run it as

    python examples/spiking_digits.py [picture.png] [--surrogate superspike] [--epochs 10]

It trains on scikit-learn's 1,797 digits of 8 x 8 pixels in seconds, prints every number beside an
independent value, and draws the spikes.
"""

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")  # draws into a file, on machines without a screen too
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

import gradkit as gk

STEPS = 16
NEURONS = 64
LEAK = 0.9
THRESHOLD = 1.0
SHOWN = (0, 3, 6, 9)


# --- the network ----------------------------------------------------------------------------------


class Traces(NamedTuple):
    """What happened in time: spikes float32[STEPS, N, NEURONS], read-out float32[STEPS, N, 10]."""

    spikes: jax.Array
    readout: jax.Array


def run_network(params, pixels, spike):
    """The traces for pixels, float32[N, 64], each a constant current into the neurons.

    A neuron leaks, integrates its current, and spikes at the threshold, which is then taken off:

        v[t] = LEAK * v[t-1] + current - THRESHOLD * s[t-1],    s[t] = spike(v[t] - THRESHOLD)

    The read-out is ten neurons that leak and integrate spikes, and never fire.
    """
    current = pixels @ params["in"] + params["bias"][None]

    def step(state, _):
        v, s, u = state
        v = LEAK * v + current - THRESHOLD * s
        s = spike(v - THRESHOLD)
        u = LEAK * u + s @ params["out"]
        return (v, s, u), Traces(s, u)

    rest = jnp.zeros_like(current)
    start = (rest, rest, jnp.zeros((len(pixels), 10), current.dtype))
    return jax.lax.scan(step, start, length=STEPS)[1]


def logits_of(params, pixels, spike):
    """The mean of the read-out over time."""
    return run_network(params, pixels, spike).readout.mean(axis=0)


def make_loss(spike):
    """The loss function of a network with this spike."""

    def loss_fn(params, batch):
        pixels, labels = batch
        logits = logits_of(params, pixels, spike)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    return loss_fn


def plain_spike(v):
    """A spike as JAX differentiates it: with a derivative of zero."""
    return jnp.where(v >= 0, 1.0, 0.0)


def initial_params(key):
    """Weights at which about one neuron in ten fires at a time."""
    first, second = jax.random.split(key)
    return {
        "in": jax.random.normal(first, (64, NEURONS)) / 8,
        "bias": jnp.zeros(NEURONS),
        "out": jax.random.normal(second, (NEURONS, 10)) / NEURONS**0.5,
    }


# --- prove: backpropagation through time, by hand -------------------------------------------------


def gradient_by_hand(params, pixels, labels, slope):
    """The gradient of the loss in NumPy's float64, with `slope(v)` as the derivative of a spike."""
    p = {name: np.asarray(value, np.float64) for name, value in params.items()}
    current = pixels @ p["in"] + p["bias"]
    v, s, u = np.zeros_like(current), np.zeros_like(current), np.zeros((len(pixels), 10))
    potentials, spikes, total = [], [], 0
    for _ in range(STEPS):
        v = LEAK * v + current - THRESHOLD * s
        s = (v >= THRESHOLD).astype(float)
        u = LEAK * u + s @ p["out"]
        potentials, spikes, total = [*potentials, v], [*spikes, s], total + u
    logits = total / STEPS
    exps = np.exp(logits - logits.max(axis=1, keepdims=True))
    logits_bar = (exps / exps.sum(axis=1, keepdims=True) - np.eye(10)[labels]) / len(labels)

    current_bar, out_bar = np.zeros_like(current), np.zeros_like(p["out"])
    v_bar, u_bar = np.zeros_like(v), np.zeros_like(u)
    for v, s in zip(reversed(potentials), reversed(spikes), strict=True):
        u_bar = LEAK * u_bar + logits_bar / STEPS
        out_bar += s.T @ u_bar
        s_bar = u_bar @ p["out"].T - THRESHOLD * v_bar  # v_bar is still that of the next step
        v_bar = LEAK * v_bar + slope(v - THRESHOLD) * s_bar
        current_bar += v_bar
    return {"in": pixels.T @ current_bar, "bias": current_bar.sum(axis=0), "out": out_bar}


class Row(NamedTuple):
    """A number beside the independent value that it should match, or should exceed."""

    label: str
    value: float
    independent: float
    source: str


def compare_gradients(params, pixels, labels, spike):
    """Gradients of the untrained network, with a surrogate and without."""
    ours = jax.jit(jax.grad(make_loss(spike)))(params, (pixels, labels))
    plain = jax.jit(jax.grad(make_loss(plain_spike)))(params, (pixels, labels))
    with jax.enable_x64(True):
        slope = lambda v: np.asarray(spike.derivative(v))
        by_hand = gradient_by_hand(params, pixels, labels, slope)
    distance = max(np.abs(ours[k] - by_hand[k]).max() / np.abs(by_hand[k]).max() for k in by_hand)
    by_hand_norm = np.linalg.norm(by_hand["in"])
    return [
        Row("gradient of the first layer", np.linalg.norm(ours["in"]), by_hand_norm, "by hand"),
        Row("  distance of all entries", distance, 0, "by hand"),
        Row("  without a surrogate", np.linalg.norm(plain["in"]), 0, "spike' = 0"),
    ]


# --- the picture ----------------------------------------------------------------------------------


def save_picture(path, images, traces, labels):
    """One column per digit: the image, the spikes of the neurons, the read-out in time."""
    heights = {"height_ratios": [1.1, 1.4, 1]}
    figure, axes = plt.subplots(
        3, len(labels), figsize=(2.6 * len(labels), 6.4), layout="constrained", gridspec_kw=heights
    )
    for i, (image_axis, raster, curves) in enumerate(axes.T):
        image_axis.imshow(images[i], cmap="gray_r")
        image_axis.set(
            xticks=[], yticks=[], title=f"read as {traces.readout[:, i].mean(0).argmax()}"
        )
        times, neurons = np.nonzero(traces.spikes[:, i])
        raster.scatter(times, neurons, s=12, marker="|", color="k", linewidths=1)
        raster.set(xlim=(-0.5, STEPS - 0.5), ylim=(-1, NEURONS), xticks=[])
        for digit in range(10):
            right = digit == labels[i]
            color, width = ("tab:red", 2) if right else ("0.75", 1)
            label = f"neuron {digit}" if right else None
            curves.plot(traces.readout[:, i, digit], color=color, lw=width, label=label)
        curves.set(xlim=(-0.5, STEPS - 0.5), xlabel="time step")
        curves.legend(loc="upper left", fontsize=8, frameon=False)
    axes[1, 0].set_ylabel("neuron")
    axes[2, 0].set_ylabel("read-out")
    figure.suptitle("Digits as spikes: the network's neurons and its read-out in time", fontsize=12)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(argv=None):
    """Train, compare, draw; returns the rows that it prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", nargs="?", type=Path, default=Path("spiking_digits.png"))
    parser.add_argument("--surrogate", default="arctan", help="one of gk.rules.surrogate")
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args(argv)
    spike = getattr(gk.rules.surrogate, options.surrogate)

    digits = load_digits()
    pixels = (digits.data / 16).astype(np.float32)
    train, test, labels, test_labels = train_test_split(
        pixels, digits.target.astype(np.int32), test_size=0.25, random_state=0,
        stratify=digits.target,
    )  # fmt: skip
    params = initial_params(jax.random.key(0))
    rows = compare_gradients(params, train[:32], labels[:32], spike)

    print(f"training on {len(train)} digits, {STEPS} time steps, surrogate '{options.surrogate}'")
    start = time.perf_counter()
    steps = options.epochs * -(-len(train) // 64)
    result = gk.fit(
        make_loss(spike), params, (train, labels), batch_size=64, epochs=options.epochs,
        optimizer=optax.adam(optax.cosine_decay_schedule(5e-3, steps)), progress=False,
    )  # fmt: skip
    print(f"  {result.step} steps, {time.perf_counter() - start:.1f} s")

    traces = jax.device_get(jax.jit(lambda x: run_network(result.params, x, spike))(test))
    predicted = traces.readout.mean(axis=0).argmax(axis=-1)
    yardstick = LogisticRegression(max_iter=1000).fit(train, labels).score(test, test_labels)
    rows.insert(
        0, Row("test accuracy", (predicted == test_labels).mean(), yardstick, "logistic regression")
    )
    print(f"\n{'':30}{'gradkit':>12}{'independent':>13}")
    for row in rows:
        print(f"{row.label:30}{row.value:12.6g}{row.independent:13.6g}  {row.source}")
    print(f"\nspikes per neuron and step: {traces.spikes.mean():.3f}")

    shown = [int(np.flatnonzero(test_labels == digit)[0]) for digit in SHOWN]
    some = Traces(traces.spikes[:, shown], traces.readout[:, shown])
    save_picture(options.picture, test[shown].reshape(-1, 8, 8), some, test_labels[shown])
    print(f"spikes: {options.picture}")
    return rows


if __name__ == "__main__":
    main()
