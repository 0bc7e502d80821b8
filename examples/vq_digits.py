"""An autoencoder whose code is four numbers from 0 to 63: no gradient, and it trains.

What you will learn:

1. to put a codebook into the middle of a network: `gk.rules.vector_quantize`, which replaces
   vectors by their nearest codes, and lets their gradient straight through to the encoder;
2. to train encoder, decoder and codebook together, with `gk.fit` and the loss that it returns;
3. to trust it: the gradient is written out once more in plain JAX, the codes are found once more by
   SciPy, and k-means on patches of the picture is given as many bits.

Run it as

    python examples/vq_digits.py [picture.png] [--epochs 50]

It trains on scikit-learn's 1,797 digits of 8 x 8 pixels in seconds, prints every number beside an
independent value, and draws digits before and after.
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
import scipy.cluster.vq
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import gradkit as gk

CODES = 64  # in the codebook
PLACES = 4  # codes for a digit
WIDTH = 8  # of a code
HIDDEN = 256


# --- the network ----------------------------------------------------------------------------------


def encode(params, pixels):
    """The vectors to be quantised, float32[N, PLACES, WIDTH], of pixels, float32[N, 64]."""
    hidden = jax.nn.relu(pixels @ params["encode"] + params["encode_bias"][None])
    return (hidden @ params["to_vectors"]).reshape(-1, PLACES, WIDTH)


def decode(params, vectors):
    """Pixels, float32[N, 64], of vectors or of codes in their place."""
    flat = vectors.reshape(-1, PLACES * WIDTH)
    hidden = jax.nn.relu(flat @ params["decode"] + params["decode_bias"][None])
    return hidden @ params["to_pixels"] + params["pixels_bias"][None]


def quantise(params, pixels):
    """What `gk.rules.vector_quantize` makes of pixels: codes, their numbers, and the losses."""
    return gk.rules.vector_quantize(encode(params, pixels), params["codebook"])


def loss_fn(params, pixels):
    """Squared error, and what holds vectors and codes together."""
    coded = quantise(params, pixels)
    error = jnp.mean((decode(params, coded.values) - pixels) ** 2)
    return error + coded.loss, {"error": error}


def initial_params(key, pixels):
    """Random layers, and codes that are the vectors of some digits: none is far from all."""
    keys = jax.random.split(key, 4)
    shapes = {
        "encode": (64, HIDDEN), "to_vectors": (HIDDEN, PLACES * WIDTH),
        "decode": (PLACES * WIDTH, HIDDEN), "to_pixels": (HIDDEN, 64),
    }  # fmt: skip
    params = {
        name: jax.random.normal(k, shape) * shape[0] ** -0.5
        for k, (name, shape) in zip(keys, shapes.items(), strict=True)
    }
    params |= {"encode_bias": jnp.zeros(HIDDEN), "decode_bias": jnp.zeros(HIDDEN)}
    params["pixels_bias"] = pixels.mean(axis=0)
    params["codebook"] = encode(params, pixels).reshape(-1, WIDTH)[:CODES]
    return params


# --- prove: plain JAX, SciPy and k-means ----------------------------------------------------------


def rewritten_loss(params, pixels):
    """The loss with the usual `stop_gradient` trick, in plain JAX."""
    held = jax.lax.stop_gradient
    vectors, codebook = encode(params, pixels), params["codebook"]
    square = jnp.sum((vectors[:, :, None] - codebook[None, None]) ** 2, axis=-1)
    codes = codebook[square.argmin(axis=-1)]
    out = decode(params, vectors + held(codes - vectors))
    apart = jnp.mean((held(vectors) - codes) ** 2) + 0.25 * jnp.mean((vectors - held(codes)) ** 2)
    return jnp.mean((out - pixels) ** 2) + apart


def cut_loss(params, pixels):
    """The error alone, with codes that are looked up as JAX differentiates that."""
    vectors, codebook = encode(params, pixels), params["codebook"]
    square = jnp.sum((vectors[:, :, None] - codebook[None, None]) ** 2, axis=-1)
    return jnp.mean((decode(params, codebook[square.argmin(axis=-1)]) - pixels) ** 2)


def as_patches(pixels):
    """The four quarters of each picture: float32[N, 4, 16], and back again."""
    return pixels.reshape(-1, 2, 4, 2, 4).swapaxes(2, 3).reshape(-1, 4, 16)


def k_means_error(train, test):
    """Squared error of pictures from quarters, each the nearest of as many as there are codes."""
    fitted = KMeans(CODES, n_init=3, random_state=0).fit(as_patches(train).reshape(-1, 16))
    patches = as_patches(test).reshape(-1, 16)
    return np.mean((fitted.cluster_centers_[fitted.predict(patches)] - patches) ** 2)


class Row(NamedTuple):
    """A number beside the independent value that it should match, or should better."""

    label: str
    value: float
    independent: float
    source: str


def flat(tree):
    """All numbers of a pytree as one vector."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def compare_gradients(params, pixels):
    """What reaches the untrained encoder, with the rule and without."""
    ours = jax.jit(jax.grad(lambda params: loss_fn(params, pixels)[0]))(params)
    by_hand = jax.jit(jax.grad(rewritten_loss))(params, pixels)
    plain = jax.jit(jax.grad(cut_loss))(params, pixels)
    distance = np.linalg.norm(flat(ours) - flat(by_hand)) / np.linalg.norm(flat(by_hand))
    norm = lambda grads: np.linalg.norm(grads["encode"])
    return [
        Row("gradient of the encoder", norm(ours), norm(by_hand), "stop_gradient by hand"),
        Row("  distance of all entries", distance, 0, "stop_gradient by hand"),
        Row("  without the rule", norm(plain), 0, "argmin' = 0"),
    ]


# --- the picture ----------------------------------------------------------------------------------


def save_picture(path, before, after, indices):
    """A column for each digit: as it was, its four codes, and what is made of them."""
    figure, axes = plt.subplots(2, len(before), figsize=(1.3 * len(before), 3.4))
    for column, (top, bottom) in enumerate(axes.T):
        for axis, image in ((top, before[column]), (bottom, after[column])):
            axis.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
        bottom.set_title(" ".join(map(str, indices[column])), fontsize=9)
    axes[0, 0].set_ylabel("digit")
    axes[1, 0].set_ylabel("from its codes")
    bits = PLACES * (CODES - 1).bit_length()
    figure.suptitle(f"Digits as {PLACES} codes of {CODES}: {bits} bits instead of 64 numbers")
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(argv=None):
    """Train, compare, draw; returns the rows that it prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", nargs="?", type=Path, default=Path("vq_digits.png"))
    parser.add_argument("--epochs", type=int, default=50)
    options = parser.parse_args(argv)

    digits = load_digits()
    pixels = (digits.data / 16).astype(np.float32)
    train, test, _, labels = train_test_split(
        pixels, digits.target, test_size=0.25, random_state=0, stratify=digits.target
    )
    params = initial_params(jax.random.key(0), train)
    rows = compare_gradients(params, train[:32])

    print(f"training on {len(train)} digits, {PLACES} codes of {CODES} for each")
    start = time.perf_counter()
    steps = options.epochs * -(-len(train) // 64)
    result = gk.fit(
        loss_fn, params, train, batch_size=64, epochs=options.epochs,
        optimizer=optax.adam(optax.cosine_decay_schedule(3e-3, steps)), progress=False,
    )  # fmt: skip
    print(f"  {result.step} steps, {time.perf_counter() - start:.1f} s")

    coded = jax.device_get(jax.jit(quantise)(result.params, test))
    restored = np.asarray(decode(result.params, coded.values))
    vectors = np.asarray(encode(result.params, test)).reshape(-1, WIDTH)
    by_scipy, distances = scipy.cluster.vq.vq(vectors, np.asarray(result.params["codebook"]))
    error, yardstick = np.mean((restored - test) ** 2), k_means_error(train, test)
    rows = [
        Row("error of a test digit's pixel", error, yardstick, "k-means on quarters"),
        Row("codes found alike", np.mean(coded.indices.ravel() == by_scipy), 1, "SciPy"),
        Row("codebook loss", coded.codebook_loss, np.mean(distances**2) / WIDTH, "SciPy"),
        *rows,
    ]
    print(f"\n{'':30}{'gradkit':>12}{'independent':>13}")
    for row in rows:
        print(f"{row.label:30}{row.value:12.6g}{row.independent:13.6g}  {row.source}")
    share = np.bincount(coded.indices.ravel(), minlength=CODES) / coded.indices.size
    entropy = -np.sum(share[share > 0] * np.log2(share[share > 0]))
    print(f"\ncodes in use: {np.count_nonzero(share)} of {CODES}, {entropy:.1f} bits each")

    shown = [int(np.flatnonzero(labels == digit)[0]) for digit in range(10)]
    save_picture(options.picture, test[shown], restored[shown], coded.indices[shown])
    print(f"digits before and after: {options.picture}")
    return rows


if __name__ == "__main__":
    main()
