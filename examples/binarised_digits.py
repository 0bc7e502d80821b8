"""A network of single bits: weights and activations are -1 or 1, and the digits are still read.

What you will learn:

1. to binarise the weights of a flax model that knows nothing of it: `gk.rules.binarize` on its
   parameters, with a scale for each neuron as in XNOR-Net;
2. to train through its signs, whose derivative is zero: an override map, `{"Sign": gk.rules.sign}`;
3. to see that the bits are all there is: the trained network runs once more on packed bits, with
   exclusive or and bit counts in the place of products and sums.

Run it as

    python examples/binarised_digits.py [--epochs 10]

It trains on scikit-learn's 1,797 digits of 8 x 8 pixels in seconds, and prints every number beside
an independent value.
"""

import argparse
import time
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

import gradkit as gk


class SignNet(nn.Module):
    """Two hidden layers of signs: plain flax, which cannot be trained as it is."""

    @nn.compact
    def __call__(self, x):
        """The logits, float32[N, 10], of pixels, float32[N, 64]."""
        x = jnp.sign(nn.Dense(256, name="first")(x))
        x = jnp.sign(nn.Dense(256, name="second")(x))
        return nn.Dense(10, name="digit")(x)


net = SignNet()
LAYERS = ("first", "second", "digit")


# --- binary weights, and a sign to train through --------------------------------------------------


def binarised(params):
    """The same parameters with binary kernels, one scale for each neuron; biases stay."""

    def of_leaf(path, leaf):
        return gk.rules.binarize(leaf, axis=-1) if path[-1].key == "kernel" else leaf

    return jax.tree_util.tree_map_with_path(of_leaf, params)


trainable = gk.override(net.apply, {"Sign": gk.rules.sign})


def loss_of(logits, labels):
    """Mean cross-entropy; logits of 256 bits are large, so they are scaled down."""
    return optax.softmax_cross_entropy_with_integer_labels(logits / 8, labels).mean()


def loss_fn(params, batch):
    """The loss of the network of bits, with gradients for the real numbers behind them."""
    pixels, labels = batch
    return loss_of(trainable(binarised(params), pixels), labels)


# --- prove: the same network and gradient, written out --------------------------------------------


def rewritten_logits(params, x):
    """The network with the usual `stop_gradient` trick around each sign, in plain JAX."""
    held = jax.lax.stop_gradient

    def through(value, surrogate):
        return surrogate + held(value - surrogate)

    for name in LAYERS:
        layer = params["params"][name]
        w = layer["kernel"]
        bits, scale = jnp.where(w >= 0, 1.0, -1.0), jnp.abs(w).mean(axis=0, keepdims=True)
        x = x @ (scale * through(bits, jnp.clip(w, -1, 1))) + layer["bias"][None]
        x = x if name == "digit" else through(jnp.sign(x), jnp.clip(x, -1, 1))
    return x


def logits_by_bits(params, pixels):
    """The trained network on packed bits: 256 products and sums are 32 bytes and a bit count."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])
    scales = {name: np.abs(p[name]["kernel"]).mean(axis=0) for name in LAYERS}
    first = np.where(p["first"]["kernel"] >= 0, pixels[..., None], -pixels[..., None]).sum(axis=1)
    x = first * scales["first"] + p["first"]["bias"]
    for name in LAYERS[1:]:
        active = np.packbits(x >= 0, axis=1)
        weights = np.packbits(p[name]["kernel"].T >= 0, axis=1)
        differing = np.bitwise_count(active[:, None] ^ weights[None]).sum(axis=-1, dtype=int)
        x = (x.shape[1] - 2 * differing) * scales[name] + p[name]["bias"]
    return x


class Row(NamedTuple):
    """A number beside the independent value that it should match, or should exceed."""

    label: str
    value: float
    independent: float
    source: str


def flat(tree):
    """All numbers of a pytree as one vector."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def compare_gradients(params, pixels, labels):
    """What reaches the weights of the untrained network, with the override and without."""

    def gradient(logits_of):
        loss = lambda params: loss_of(logits_of(params), labels)
        return jax.jit(jax.grad(loss))(params)["params"]

    ours = gradient(lambda params: trainable(binarised(params), pixels))
    by_hand = gradient(lambda params: rewritten_logits(params, pixels))
    plain = gradient(lambda params: net.apply(binarised(params), pixels))
    distance = np.linalg.norm(flat(ours) - flat(by_hand)) / np.linalg.norm(flat(by_hand))
    norm = lambda grads: np.linalg.norm(flat(grads["first"]))
    return [
        Row("gradient of the first layer", norm(ours), norm(by_hand), "rewritten model"),
        Row("  distance of all entries", distance, 0, "rewritten model"),
        Row("  without the override", norm(plain), 0, "sign' = 0"),
    ]


def main(argv=None):
    """Train, compare; returns the rows that it prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args(argv)

    digits = load_digits()
    pixels = (digits.data / 16).astype(np.float32)
    train, test, labels, test_labels = train_test_split(
        pixels, digits.target.astype(np.int32), test_size=0.25, random_state=0,
        stratify=digits.target,
    )  # fmt: skip
    params = jax.jit(net.init)(jax.random.key(0), train[:1])
    rows = compare_gradients(params, train[:32], labels[:32])

    print(f"training on {len(train)} digits")
    start = time.perf_counter()
    steps = options.epochs * -(-len(train) // 64)
    result = gk.fit(
        loss_fn, params, (train, labels), batch_size=64, epochs=options.epochs,
        optimizer=optax.adam(optax.cosine_decay_schedule(1e-2, steps)), progress=False,
    )  # fmt: skip
    print(f"  {result.step} steps, {time.perf_counter() - start:.1f} s")

    logits = np.asarray(jax.jit(lambda x: net.apply(binarised(result.params), x))(test))
    by_bits = logits_by_bits(result.params, test)
    accuracy = (logits.argmax(axis=1) == test_labels).mean()
    yardstick = LogisticRegression(max_iter=1000).fit(train, labels).score(test, test_labels)
    i = np.unravel_index(by_bits.argmax(), by_bits.shape)
    rows = [
        Row("test accuracy", accuracy, yardstick, "logistic regression"),
        Row("largest logit", logits[i], by_bits[i], "packed bits, NumPy"),
        Row("digits read alike", (logits.argmax(1) == by_bits.argmax(1)).mean(), 1, "packed bits"),
        *rows,
    ]
    print(f"\n{'':30}{'gradkit':>12}{'independent':>13}")
    for row in rows:
        print(f"{row.label:30}{row.value:12.6g}{row.independent:13.6g}  {row.source}")
    weights = sum(result.params["params"][name]["kernel"].size for name in LAYERS)
    print(f"\nweights: {weights // 8:,} bytes of bits in the place of {4 * weights:,} of float32")
    return rows


if __name__ == "__main__":
    main()
