"""Handwritten digits: write, register, override and prove gradients on one real model.

What you will learn:

1. to *write* the gradient of a loss (`gk.custom_gradient`) and prove it against finite differences;
2. to *register* a gradient under a name and *override* an operation with it: the model below cuts
   its features down to bits with `jnp.sign`, whose derivative is zero, so that nothing in front of
   it could learn; an override lets the gradient through (Bengio et al. 2013, arXiv:1308.3432);
3. to look into the trained model with *guided backpropagation* (Springenberg et al. 2015,
   arXiv:1412.6806), which is nothing but another gradient for the same ReLUs.

The model is plain flax: it knows nothing of gradkit, and is never changed. Run it as

    python examples/digits.py [picture.png] [--epochs 20]

It trains on scikit-learn's 1,797 digits of 8 x 8 pixels, prints every number beside an independent
value, and saves the saliency maps as a picture.
"""

import argparse
import functools
import time
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
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
from gradkit import verify

SMOOTHING = 0.1
RANDOM_LOGITS = 3 * np.random.default_rng(0).normal(size=(6, 10)).astype(np.float32)


# --- the model: plain flax ------------------------------------------------------------------------


class BinaryCodeNet(nn.Module):
    """Two convolutions, a code of 64 bits, and a linear read-out of the bits."""

    @nn.compact
    def __call__(self, images):
        """The logits, float32[N, 10], of images, float32[N, 8, 8, 1]."""
        x = nn.relu(nn.Conv(16, (3, 3), name="strokes")(images))
        x = nn.relu(nn.Conv(32, (3, 3), name="shapes")(x))
        x = nn.avg_pool(x, (2, 2), strides=(2, 2))
        x = nn.Dense(64, name="code")(x.reshape(len(x), -1))
        return nn.Dense(10, name="digit")(jnp.sign(x))


BELOW_THE_BITS = ("strokes", "shapes", "code")


# --- write: a loss with a gradient of its own -----------------------------------------------------


def smooth_targets(labels, smoothing):
    """Target probabilities: one-hot, with a share of `smoothing` spread over all classes."""
    return (1 - smoothing) * jax.nn.one_hot(labels, 10) + smoothing / 10


# `gradkit check examples` checks what is declared like this.
@verify.case(RANDOM_LOGITS, np.arange(6), order=2)
@gk.custom_gradient
def smoothed_cross_entropy(logits, labels, *, smoothing=SMOOTHING):
    """Mean cross-entropy of float[N, 10] logits with smoothed labels; gradient softmax - target."""
    targets = smooth_targets(labels, smoothing).astype(logits.dtype)
    loss = jnp.mean(jax.nn.logsumexp(logits, axis=-1) - jnp.sum(targets * logits, axis=-1))

    def grad(loss_bar):
        logits_bar = (jax.nn.softmax(logits) - targets) * (loss_bar / len(logits))
        return logits_bar, None  # labels are integers

    return loss, grad


def textbook_cross_entropy(logits, labels, smoothing=SMOOTHING):
    """The same loss as a textbook writes it: an independent value, unstable for large logits."""
    exps = jnp.exp(logits)
    probabilities = exps / exps.sum(axis=-1, keepdims=True)
    return -jnp.mean(jnp.sum(smooth_targets(labels, smoothing) * jnp.log(probabilities), axis=-1))


# --- register: two gradients under names ----------------------------------------------------------


@gk.RegisterGradient("HardTanhThrough")
def hard_tanh_through(op, y_bar):
    """The gradient of clip(x, -1, 1), for an operation whose own gradient is zero."""
    (x,) = op.inputs
    return jnp.where(jnp.abs(x) <= 1, y_bar, 0.0)


@gk.RegisterGradient("GuidedRelu")
def guided_relu(op, y_bar):
    """Only positive evidence through active units."""
    (x,) = op.inputs
    return jnp.where((x > 0) & (y_bar > 0), y_bar, 0.0)


# --- override: train the model with one, look into it with the other -----------------------------

model = BinaryCodeNet()
trainable = gk.override(model.apply, {"Sign": "HardTanhThrough"})


# The gradient is not meant to be that of sign, so say what it is meant to be.
@verify.case(np.array([-3.0, -0.4, 0.7, 1.2], np.float32), surrogate=lambda x: jnp.clip(x, -1, 1))
def bits(x):
    """The bits of the model as training sees them."""
    return gk.override(jnp.sign, {"Sign": "HardTanhThrough"})(x)


def train(params, images, labels, *, epochs, batch_size=64, seed=0):
    """Adam with a cosine schedule; returns the trained parameters."""
    batches = len(images) // batch_size
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, epochs * batches))

    def loss_fn(params, images, labels):
        return smoothed_cross_entropy(trainable(params, images), labels)

    @jax.jit
    def step(params, state, images, labels):
        loss, grads = jax.value_and_grad(loss_fn)(params, images, labels)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, loss

    state = optimizer.init(params)
    rng = np.random.default_rng(seed)
    for epoch in range(epochs):
        losses = []
        for chosen in rng.permutation(len(images))[: batches * batch_size].reshape(batches, -1):
            params, state, loss = step(params, state, images[chosen], labels[chosen])
            losses.append(loss)
        print(f"  epoch {epoch + 1:2d}  loss {np.mean(losses):.4f}")
    return params


def evidence(params, images, digits):
    """The logits of given digits, summed over the images: its gradient is one map per image."""
    logits = model.apply(params, images)
    return jnp.sum(logits[jnp.arange(len(digits)), digits])


evidence_map = jax.jit(jax.grad(evidence, argnums=1))


def saliency(params, images, digits, *, guided):
    """Gradient of the evidence for each digit with respect to its image.

    The override may stand around a function that jit has compiled already: the map of overrides is
    part of jit's cache key.
    """
    overrides = {"Sign": "HardTanhThrough"} | ({"Relu": "GuidedRelu"} if guided else {})
    with gk.gradient_override_map(overrides):
        return evidence_map(params, images, digits)


# --- prove: independent values --------------------------------------------------------------------


def central_differences(f, x, step=1e-5):
    """Gradient of a scalar function, one coordinate at a time, in float64."""
    x = np.asarray(x, np.float64)
    gradient = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        dx = np.zeros_like(x)
        dx[i] = step
        gradient[i] = (f(x + dx) - f(x - dx)) / (2 * step)
    return gradient


def numpy_cross_entropy(logits, labels):
    """The loss in NumPy's float64, for the central differences."""
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    targets = (1 - SMOOTHING) * np.eye(10)[labels] + SMOOTHING / 10
    return -np.mean(np.sum(targets * np.log(probabilities), axis=-1))


@jax.custom_vjp
def explicit_guided_relu(x):
    """ReLU with the gradient of guided backpropagation, in plain JAX."""
    return jnp.maximum(x, 0.0)


def _explicit_guided_relu_fwd(x):
    return jnp.maximum(x, 0.0), x


def _explicit_guided_relu_bwd(x, y_bar):
    return (jnp.maximum(y_bar, 0.0) * (x > 0),)


explicit_guided_relu.defvjp(_explicit_guided_relu_fwd, _explicit_guided_relu_bwd)


def rewritten_network(params, images, relu):
    """The model written out by hand around a ReLU of choice, its bits straight-through.

    This is what one has to do without overrides: copy the model, and keep the copy up to date.
    """
    p = params["params"]

    def conv(x, layer):
        layout = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(x, layer["kernel"], (1, 1), "SAME", None, None, layout)
        return y + layer["bias"].reshape(1, 1, 1, -1)

    x = relu(conv(images, p["strokes"]))
    x = relu(conv(x, p["shapes"]))
    n, height, width, channels = x.shape
    x = x.reshape(n, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4)).reshape(n, -1)
    x = x @ p["code"]["kernel"] + p["code"]["bias"].reshape(1, -1)
    clipped = jnp.clip(x, -1, 1)
    bits = clipped + jax.lax.stop_gradient(jnp.sign(x) - clipped)
    return bits @ p["digit"]["kernel"] + p["digit"]["bias"].reshape(1, -1)


def rewritten_evidence(params, images, digits, relu):
    """What `evidence` is, of the rewritten network."""
    logits = rewritten_network(params, images, relu)
    return jnp.sum(logits[jnp.arange(len(digits)), digits])


class Row(NamedTuple):
    """A number beside the independent value that it should match, or should exceed."""

    label: str
    value: float
    independent: float
    source: str


def flat(tree):
    """All numbers of a pytree as one vector."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def norm(tree):
    """Euclidean norm of all numbers of a pytree."""
    return float(np.linalg.norm(flat(tree)))


def relative_distance(a, b):
    """Norm of the difference of two pytrees, relative to the second."""
    return norm(flat(a) - flat(b)) / norm(b)


def compare_loss_gradients(logits, labels):
    """The hand-written gradient of the loss, at real logits and at huge ones."""
    gradient = jax.jit(jax.grad(smoothed_cross_entropy))
    autodiff = jax.jit(jax.grad(textbook_cross_entropy))
    differences = central_differences(lambda x: numpy_cross_entropy(x, labels), logits)
    by_autodiff = autodiff(logits, labels)
    ours = gradient(logits, labels)
    i = np.unravel_index(np.argmax(np.abs(differences)), differences.shape)
    # Softmax of these logits is one-hot, so that the entry of class 0 for label 1 is known.
    huge, ones = 1e3 * jnp.eye(10)[:2], jnp.array([1, 1])
    known = (1 - SMOOTHING / 10) / len(huge)
    return [
        Row("loss gradient, largest entry", ours[i], differences[i], "float64 differences"),
        Row("  distance of all entries", relative_distance(ours, differences), 0, "the same"),
        Row("  distance of all entries", relative_distance(ours, by_autodiff), 0, "autodiff"),
        Row(
            "  at logits of 1000",
            gradient(huge, ones)[0, 0],
            known,
            f"by hand (autodiff: {autodiff(huge, ones)[0, 0]})",
        ),
    ]


def compare_training_gradients(params, images, labels):
    """What reaches the layers below the bits, without and with the override."""

    def below(apply):
        def loss(params):
            return smoothed_cross_entropy(apply(params, images), labels)

        grads = jax.jit(jax.grad(loss))(params)
        return {name: grads["params"][name] for name in BELOW_THE_BITS}

    by_hand = below(lambda p, x: rewritten_network(p, x, jax.nn.relu))
    through = below(trainable)
    return [
        Row("gradient below the bits, no override", norm(below(model.apply)), 0, "sign' = 0"),
        Row("gradient below the bits, override", norm(through), norm(by_hand), "rewritten model"),
        Row("  distance of all entries", relative_distance(through, by_hand), 0, "rewritten model"),
    ]


def compare_saliency(params, images, digits):
    """Guided backpropagation by override and by rewriting the model."""
    rows = []
    for name, guided, relu in (
        ("plain gradient", False, jax.nn.relu),
        ("guided backprop", True, explicit_guided_relu),
    ):
        ours = saliency(params, images, digits, guided=guided)
        by_hand = jax.grad(functools.partial(rewritten_evidence, relu=relu), argnums=1)
        by_hand = jax.jit(by_hand)(params, images, digits)
        rows += [
            Row(f"{name}, norm", norm(ours), norm(by_hand), "rewritten model"),
            Row("  distance of all pixels", relative_distance(ours, by_hand), 0, "rewritten model"),
        ]
    return rows


# --- the picture ----------------------------------------------------------------------------------


def draw_outline(axis, image):
    """The border of the digit's ink, along pixel edges."""
    ink = np.pad(np.kron(image > 0.5, np.ones((8, 8))), 1)
    edges = (np.arange(len(ink)) - 0.5) / 8 - 0.5
    axis.contour(edges, edges, ink, levels=[0.5], colors="0.25", linewidths=0.8)


def save_picture(path, images, digits, plain, guided):
    """One column per digit: the image, the plain gradient, guided backpropagation."""
    rows = {"image": images, "plain\ngradient": plain, "guided\nbackprop": guided}
    figure, axes = plt.subplots(
        3, len(digits), figsize=(1.15 * len(digits) + 1, 4.6), layout="constrained"
    )
    for (title, maps), line in zip(rows.items(), axes, strict=True):
        line[0].set_ylabel(title, rotation=0, ha="right", va="center", fontsize=11, labelpad=8)
        for axis, image, drawn, digit in zip(line, images, maps, digits, strict=True):
            axis.set(xticks=[], yticks=[])
            if title == "image":
                axis.imshow(drawn[..., 0], cmap="gray_r", vmin=0, vmax=1)
                axis.set_title(f"read as {digit}", fontsize=10)
                continue
            largest = np.abs(drawn).max()
            axis.imshow(drawn[..., 0], cmap="RdBu_r", vmin=-largest, vmax=largest)
            draw_outline(axis, image[..., 0])
    figure.suptitle(
        "Which pixels speak for the digit (red), and which against it (blue)?\n"
        "One trained model, two gradients for its ReLUs; the ink of the digit is outlined",
        fontsize=12,
    )
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(argv=None):
    """Train, compare, draw; returns the rows that it prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", nargs="?", type=Path, default=Path("digits_saliency.png"))
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args(argv)

    digits = load_digits()
    pixels = (digits.images[..., None] / 16).astype(np.float32)
    images, test_images, labels, test_labels = train_test_split(
        pixels, digits.target, test_size=0.25, random_state=0, stratify=digits.target
    )
    params = jax.jit(model.init)(jax.random.key(0), images[:1])

    print(f"training on {len(images)} digits, testing on {len(test_images)}")
    start = time.perf_counter()
    untrained = params
    params = train(params, images, labels, epochs=options.epochs)
    print(f"  {time.perf_counter() - start:.1f} s")

    yardstick = LogisticRegression(max_iter=1000)
    yardstick.fit(images.reshape(len(images), -1), labels)
    yardstick_accuracy = yardstick.score(test_images.reshape(len(test_images), -1), test_labels)

    logits = jax.jit(model.apply)(params, test_images)
    predicted = np.asarray(logits.argmax(axis=-1))
    right = predicted == test_labels
    shown = [int(np.flatnonzero(right & (test_labels == d))[0]) for d in range(10)]
    rows = [
        Row(
            "test accuracy",
            right.mean(),
            yardstick_accuracy,
            "logistic regression",
        ),
        *compare_training_gradients(untrained, images[:64], labels[:64]),
        *compare_loss_gradients(logits[:8], test_labels[:8]),
        *compare_saliency(params, test_images[shown], predicted[shown]),
    ]
    print(f"\n{'':38}{'gradkit':>12}{'independent':>13}")
    for row in rows:
        print(f"{row.label:38}{row.value:12.6g}{row.independent:13.6g}  {row.source}")

    print(f"\n{verify.check(smoothed_cross_entropy, RANDOM_LOGITS, np.arange(6))}")

    plain, guided = (
        saliency(params, test_images[shown], predicted[shown], guided=flag)
        for flag in (False, True)
    )
    save_picture(options.picture, test_images[shown], predicted[shown], plain, guided)
    print(f"\nsaliency maps: {options.picture}")
    return rows


if __name__ == "__main__":
    main()
