"""Which pixels make it a three? Six explanations of one small network, in one picture.

What you will learn:

1. to explain a model that knows nothing of gradkit, here flax: `gk.attribution.method(model, x)`;
2. to check an explanation: integrated gradients add up to the change of the logit, relevance (LRP)
   to the logit; guided backpropagation and Grad-CAM are computed once more, in NumPy;
3. to draw explanations over their images: `gk.attribution.show`.

Run it as

    python examples/attribution_digits.py [picture.png] [--epochs 12]

It trains on scikit-learn's 1,797 digits of 8 x 8 pixels in seconds, prints every number beside an
independent value, and saves the picture.
"""

import argparse
import functools
import time
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import numpy as np
import optax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import gradkit as gk

SHOWN = (0, 2, 3, 5, 6, 9)


class DigitNet(nn.Module):
    """Two convolutions and a hidden layer, without biases: these would keep some relevance."""

    @nn.compact
    def __call__(self, images):
        """The logits, float32[N, 10], of images, float32[N, 8, 8, 1]."""
        x = nn.relu(nn.Conv(16, (3, 3), use_bias=False, name="strokes")(images))
        x = nn.relu(nn.Conv(32, (3, 3), use_bias=False, name="shapes")(x))
        x = nn.avg_pool(x, (2, 2), strides=(2, 2))
        x = nn.relu(nn.Dense(32, use_bias=False, name="parts")(x.reshape(len(x), -1)))
        return nn.Dense(10, use_bias=False, name="digit")(x)


net = DigitNet()


class Row(NamedTuple):
    """A number beside the independent value that it should match."""

    label: str
    value: float
    independent: float
    source: str


def train(images, labels, epochs, batch=64):
    """The parameters after some epochs of Adam."""
    params = net.init(jax.random.key(0), images[:1])
    optimizer = optax.adam(3e-3)

    def loss(params, images, labels):
        logits = net.apply(params, images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @jax.jit
    def step(params, state, images, labels):
        updates, state = optimizer.update(jax.grad(loss)(params, images, labels), state)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    rng = np.random.default_rng(0)
    for _ in range(epochs):
        order = rng.permutation(len(images))[: len(images) // batch * batch]
        for chosen in order.reshape(-1, batch):
            params, state = step(params, state, images[chosen], labels[chosen])
    return params


COLUMNS = (
    "gradient",
    "guided\nbackprop",
    "integrated\ngradients",
    "LRP",
    "Grad-CAM",
    "guided\nGrad-CAM",
)


@functools.partial(jax.jit, static_argnums=0)
def explain(apply, params, images, baseline):
    """Every explanation of the largest logit, compiled together."""
    model = functools.partial(apply, params)
    integrated, error = gk.attribution.integrated_gradients(
        model, images, baseline=baseline, steps=64
    )
    maps = {
        "gradient": gk.attribution.saliency(model, images, absolute=False),
        "guided\nbackprop": gk.attribution.guided_backprop(model, images),
        "integrated\ngradients": integrated,
        "LRP": gk.attribution.lrp(model, images, rules=gk.attribution.epsilon_plus()),
        "Grad-CAM": gk.attribution.grad_cam(model, images, layer="shapes"),
        "guided\nGrad-CAM": gk.attribution.guided_grad_cam(model, images, layer="shapes"),
    }
    return maps, error


# --- independent values: the same network in NumPy, which is what overrides save writing ----------


def numpy_gradients(params, images):
    """Logits, guided backpropagation and Grad-CAM (not yet scaled up), layer by layer."""
    w = {name: np.asarray(layer["kernel"], np.float64) for name, layer in params["params"].items()}

    def taps(x):
        """The nine shifted copies of `x` that a 3 x 3 convolution adds up."""
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        return [padded[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3)]

    def conv(x, kernel):
        kernels = kernel.reshape(9, *kernel.shape[2:])
        return sum(t @ k for t, k in zip(taps(x), kernels, strict=True))

    def conv_bar(y_bar, kernel):
        kernels = kernel[::-1, ::-1].reshape(9, *kernel.shape[2:])
        return sum(t @ k.T for t, k in zip(taps(y_bar), kernels, strict=True))

    n = len(images)
    a = conv(np.asarray(images, np.float64), w["strokes"])
    b = conv(np.maximum(a, 0), w["shapes"])
    pooled = np.maximum(b, 0).reshape(n, 4, 2, 4, 2, 32).mean(axis=(2, 4))
    c = pooled.reshape(n, -1) @ w["parts"]
    logits = np.maximum(c, 0) @ w["digit"]

    def backward(relu_bar):
        y_bar = np.eye(10)[logits.argmax(axis=1)]
        pooled_bar = relu_bar(c, y_bar @ w["digit"].T) @ w["parts"].T
        b_bar = pooled_bar.reshape(n, 4, 4, 32).repeat(2, axis=1).repeat(2, axis=2) / 4
        b_bar = relu_bar(b, b_bar)
        return b_bar, conv_bar(relu_bar(a, conv_bar(b_bar, w["shapes"])), w["strokes"])

    b_bar, _ = backward(lambda x, y_bar: y_bar * (x > 0))
    _, guided = backward(lambda x, y_bar: np.maximum(y_bar, 0) * (x > 0))
    alpha = b_bar.mean(axis=(1, 2), keepdims=True)
    return logits, guided, np.maximum((alpha * b).sum(axis=-1), 0)


def compare(params, images, baseline, maps, error):
    """Each explanation beside what it has to add up to, or beside the network in NumPy."""
    logits, guided, cam = numpy_gradients(params, images)
    average = numpy_gradients(params, np.broadcast_to(baseline, images.shape))[0]
    i, best = range(len(images)), logits.argmax(axis=1)
    total = lambda name: np.asarray(maps[name], np.float64).reshape(len(images), -1).sum(axis=1)
    rows = []
    change = logits[i, best] - average[i, best]
    for k, digit in enumerate(best):
        rows.append(
            Row(f"{digit}: integrated gradients, sum", total("integrated\ngradients")[k], change[k],
                "change of the logit from the average image")
        )  # fmt: skip
        rows.append(Row("   relevance, sum", total("LRP")[k], logits[k, best[k]], "the logit"))
    completeness = float(np.max(np.abs(error) / np.abs(change)))
    norm = np.linalg.norm
    return completeness, [
        *rows,
        Row("guided backprop, norm", norm(maps["guided\nbackprop"]), norm(guided), "in NumPy"),
        Row("Grad-CAM, norm", norm(maps["Grad-CAM"]), norm(cam), "in NumPy"),
    ]


def main(argv=None):
    """Train, explain, compare, draw; returns accuracy, completeness error and the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", nargs="?", type=Path, default=Path("digits_attribution.png"))
    parser.add_argument("--epochs", type=int, default=12)
    options = parser.parse_args(argv)

    digits = load_digits()
    pixels = (digits.images[..., None] / 16).astype(np.float32)
    images, test_images, labels, test_labels = train_test_split(
        pixels, digits.target, test_size=0.25, random_state=0, stratify=digits.target
    )
    start = time.perf_counter()
    params = train(images, labels, options.epochs)
    predicted = np.asarray(net.apply(params, test_images).argmax(axis=1))
    accuracy = float(np.mean(predicted == test_labels))
    print(f"trained in {time.perf_counter() - start:.1f} s; test accuracy {accuracy:.3f}")

    right = predicted == test_labels
    shown = [int(np.flatnonzero(right & (test_labels == d))[0]) for d in SHOWN]
    chosen = test_images[shown]
    baseline = images.mean(axis=0, keepdims=True)
    maps, error = explain(net.apply, params, chosen, baseline)
    completeness, rows = compare(params, chosen, baseline, maps, error)

    print(f"\n{'':34}{'gradkit':>12}{'independent':>13}")
    for row in rows:
        print(f"{row.label:34}{row.value:12.6g}{row.independent:13.6g}  {row.source}")
    print(f"\nintegrated gradients miss completeness by {completeness:.3%} at most")

    gk.attribution.show(
        chosen,
        {name: maps[name] for name in COLUMNS},  # jit sorts a dictionary
        labels=[f"read as {d}" for d in predicted[shown]],
        title="Which pixels speak for the digit that is read?",
        path=options.picture,
    )
    print(f"saved {options.picture}")
    return accuracy, completeness, rows


if __name__ == "__main__":
    main()
