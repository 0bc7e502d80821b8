"""Half the bits: a transformer that computes in bfloat16 and learns as in float32.

What you will learn:

1. to compute in bfloat16 with one option, `compute_dtype=jnp.bfloat16`: the loss function sees
   narrow parameters and batches; parameters, optimizer and history stay float32;
2. which part of a loss wants float32 all the same: the softmax over the classes;
3. why the parameters stay wide: bfloat16 has 8 bits, so that a step of less than 1/512 of a
   weight rounds to none. Trained in bfloat16 throughout, the same model ends with a higher loss.

Run it as

    python examples/bfloat16.py [--width 32] [--epochs 8]

It trains on scikit-learn's 1,797 digits in seconds, three times: in float32, which the other two
are held against, in bfloat16, and in bfloat16 throughout. The speed is for a GPU or TPU, whose
matrix units take bfloat16 (try `--width 1024`); a CPU has none, and is slower for it.
"""

import argparse
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import gradkit as gk

LAYERS, HEADS, PATCH = 1, 4, 2
BATCH = 64


class Row(NamedTuple):
    """A number of the bfloat16 run, and that of the float32 run which it should be close to."""

    label: str
    value: float
    independent: float


# --- the model: a transformer over patches, in whatever type its parameters have -----------------


def initial_params(width):
    """Weights of a size that keeps activations near one, float32."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)
    layer = lambda: {
        "qkv": draw(width, 3 * width),
        "out": draw(width, width),
        "up": draw(width, 4 * width),
        "down": draw(4 * width, width),
    }
    tokens = (8 // PATCH) ** 2
    return {
        "patch": draw(PATCH * PATCH, width),
        "place": draw(width, tokens).T.copy(),
        "layers": [layer() for _ in range(LAYERS)],
        "head": draw(width, 10),
    }


def patches(images):
    """Squares of 2 x 2 pixels, float32[N, 16, 4], of images, float32[N, 8, 8]."""
    n = 8 // PATCH
    squares = images.reshape(-1, n, PATCH, n, PATCH).swapaxes(2, 3)
    return squares.reshape(len(images), n * n, PATCH * PATCH)


def normalize(x):
    """Layer norm without weights; its sums in float32."""
    wide = x.astype(jnp.float32)
    centred = wide - wide.mean(axis=-1, keepdims=True)
    variance = jnp.mean(centred**2, axis=-1, keepdims=True)
    return (centred * jax.lax.rsqrt(variance + 1e-6)).astype(x.dtype)


def apply(params, x):
    """The logits, [N, 10], of patches, [N, 16, 4]."""
    x = x @ params["patch"] + params["place"][None]
    for layer in params["layers"]:
        q, k, v = jnp.split(normalize(x) @ layer["qkv"], 3, axis=-1)
        q, k, v = (part.reshape(*part.shape[:2], HEADS, -1) for part in (q, k, v))
        x = x + jax.nn.dot_product_attention(q, k, v).reshape(x.shape) @ layer["out"]
        x = x + jax.nn.relu(normalize(x) @ layer["up"]) @ layer["down"]
    return normalize(x.mean(axis=1)) @ params["head"]


def loss_fn(params, batch):
    """Mean cross-entropy, summed up in float32 whatever the logits are."""
    x, labels = batch
    logits = apply(params, x.astype(params["head"].dtype)).astype(jnp.float32)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return loss, {"accuracy": jnp.mean(jnp.argmax(logits, axis=1) == labels)}


# --- training -------------------------------------------------------------------------------------


def train(params, data, epochs, compute_dtype=None):
    """The result, and steps a second in the second half of the run."""
    steps = epochs * (len(data[0]) // BATCH)
    seen = []
    result = gk.fit(
        loss_fn, params, data, batch_size=BATCH, last_batch="drop", epochs=epochs,
        compute_dtype=compute_dtype, log_gradient_norm=True, progress=False,
        optimizer=optax.adam(optax.cosine_decay_schedule(4e-3, steps)),
        callbacks=[lambda moment: seen.append((moment.step, time.perf_counter()))],
    )  # fmt: skip
    (first, began), (last, ended) = next(m for m in seen if m[0] >= steps // 2), seen[-1]
    return result, (last - first) / max(ended - began, 1e-9)


def narrow(tree):
    """The same in bfloat16."""
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), tree)


def main(args=None):
    """Train three times, compare; returns the rows, and the last run's loss."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=8)
    options = parser.parse_args(args)

    images, labels = load_digits(return_X_y=True)
    x = patches((images / 16).astype(np.float32).reshape(-1, 8, 8))
    x, x_test, y, y_test = train_test_split(
        x, labels.astype(np.int32), test_size=0.25, random_state=0, stratify=labels
    )
    params = initial_params(options.width)

    wide, wide_speed = train(params, (x, y), options.epochs)
    mixed, mixed_speed = train(params, (x, y), options.epochs, jnp.bfloat16)
    thin, _ = train(narrow(params), (x, y), options.epochs)

    accuracy = jax.jit(lambda p: loss_fn(p, (x_test, y_test))[1]["accuracy"])
    ending = lambda result: float(result.history["loss"][-20:].mean())
    rows = [
        Row("test accuracy", float(accuracy(mixed.params)), float(accuracy(wide.params))),
        Row("mean loss at the end", ending(mixed), ending(wide)),
        *(
            Row(f"first {name}", float(mixed.history[name][0]), float(wide.history[name][0]))
            for name in ("loss", "grad_norm")
        ),
    ]
    print(f"{jax.devices()[0].device_kind}; {mixed.step} steps, width {options.width}")
    print(f"{'':<32}{'bfloat16':>12}{'float32':>12}")
    for row in rows:
        print(f"{row.label:<32}{row.value:>12.5f}{row.independent:>12.5f}")
    print(f"{'steps a second':<32}{mixed_speed:>12.0f}{wide_speed:>12.0f}")
    kept = {str(leaf.dtype) for leaf in jax.tree.leaves((mixed.params, mixed.opt_state[0].mu))}
    print(f"parameters and moments are {', '.join(kept)}")
    print(f"in bfloat16 throughout, the mean loss at the end is {ending(thin):.5f}")
    return rows, kept, ending(thin)


if __name__ == "__main__":
    main()
