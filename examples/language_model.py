"""A small language model, trained with a loss that never holds its logits.

What you will learn:

1. to train a language model with `gk.losses.linear_cross_entropy` and `gk.fit`, its head tied to
   the embedding (`transposed=True`), with the penalty that keeps logits small (`z_loss`);
2. what that saves: the temporary memory of the step, beside the loss on whole logits;
3. to trust it: value and gradient beside optax's, and the perplexity on text that was held out
   beside that of counted words.

Run it as

    python examples/language_model.py [--steps 150]

It reads the Python manual that the standard library's `help()` shows, in under a minute.
"""

import argparse
import re
import time
from collections import Counter
from pydoc_data.topics import topics
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradkit as gk

WIDTH = 64
HEADS = 4
LAYERS = 2
LENGTH = 64
BATCH = 16
Z_LOSS = 1e-4


# --- the text -------------------------------------------------------------------------------------


def read_tokens():
    """The manual's words and signs as numbers, its vocabulary's size, and where the test starts.

    Every tenth topic is held out, behind all others. What occurs once there is number 0.
    """
    names = sorted(topics)
    held_out = names[::10]
    split = re.compile(r"\w+|[^\w\s]|\n")
    read = lambda chosen: [t for name in chosen for t in split.findall(topics[name])]
    train, test = read([name for name in names if name not in held_out]), read(held_out)
    kept = sorted(word for word, count in Counter(train).items() if count > 1)
    number = {word: i for i, word in enumerate(kept, start=1)}
    tokens = np.array([number.get(word, 0) for word in train + test], np.int32)
    return tokens, len(kept) + 1, len(train)


def windows(tokens):
    """Stretches of LENGTH + 1 tokens, int32[N, LENGTH + 1], which overlap by one."""
    starts = np.arange(0, len(tokens) - LENGTH, LENGTH)
    return tokens[starts[:, None] + np.arange(LENGTH + 1)]


# --- the model: a transformer in plain JAX --------------------------------------------------------


def initial_params(key, vocabulary):
    """Weights of a size that keeps activations near one."""
    draw = lambda i, *shape: jax.random.normal(jax.random.fold_in(key, i), shape)
    layer = lambda i: {
        "qkv": draw(4 * i, WIDTH, 3 * WIDTH) / WIDTH**0.5,
        "out": draw(4 * i + 1, WIDTH, WIDTH) / WIDTH**0.5,
        "up": draw(4 * i + 2, WIDTH, 4 * WIDTH) / WIDTH**0.5,
        "down": draw(4 * i + 3, 4 * WIDTH, WIDTH) / (4 * WIDTH) ** 0.5,
    }
    return {
        "embedding": draw(100, vocabulary, WIDTH) / WIDTH**0.5,
        "position": draw(101, LENGTH, WIDTH) / WIDTH**0.5,
        "layers": [layer(i) for i in range(LAYERS)],
    }


def standardize(x):
    """Mean 0 and variance 1 along the last axis."""
    return jax.nn.standardize(x, axis=-1, epsilon=1e-5)


def hidden_states(params, tokens):
    """What the head sees, float32[B, LENGTH, WIDTH], of int32[B, LENGTH]."""
    x = params["embedding"][tokens] + params["position"][None]
    for layer in params["layers"]:
        qkv = (standardize(x) @ layer["qkv"]).reshape(*x.shape[:2], 3, HEADS, WIDTH // HEADS)
        mixed = jax.nn.dot_product_attention(*jnp.moveaxis(qkv, 2, 0), is_causal=True)
        x = x + mixed.reshape(x.shape) @ layer["out"]
        x = x + jax.nn.gelu(standardize(x) @ layer["up"]) @ layer["down"]
    return standardize(x)


def fused_loss(params, batch):
    """The mean loss of the next tokens, from hidden states and the tied embedding."""
    hidden, labels = hidden_states(params, batch[:, :-1]), batch[:, 1:]
    losses = gk.losses.linear_cross_entropy(
        hidden, params["embedding"], labels, transposed=True, z_loss=Z_LOSS
    )
    return losses.mean()


def plain_loss(params, batch):
    """The same by optax, on whole logits: an independent value."""
    logits = hidden_states(params, batch[:, :-1]) @ params["embedding"].T
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch[:, 1:])
    return (losses + Z_LOSS * jax.nn.logsumexp(logits, axis=-1) ** 2).mean()


# --- prove ----------------------------------------------------------------------------------------


class Row(NamedTuple):
    """A number beside the independent value that it should match, or be below."""

    label: str
    value: float
    independent: float
    source: str


def compare_losses(params, batch):
    """Value, gradient and memory of a step, beside optax on whole logits."""
    programs = [
        jax.jit(jax.value_and_grad(loss)).lower(params, batch).compile()
        for loss in (fused_loss, plain_loss)
    ]
    (value, bars), (wanted, wanted_bars) = (program(params, batch) for program in programs)
    norm = lambda tree: float(optax.tree.norm(tree))
    distance = norm(jax.tree.map(jnp.subtract, bars, wanted_bars)) / norm(wanted_bars)
    memory = [program.memory_analysis().temp_size_in_bytes / 1e6 for program in programs]
    return [
        Row("loss before training", float(value), float(wanted), "optax"),
        Row("  norm of its gradient", norm(bars), norm(wanted_bars), "optax"),
        Row("  distance of the gradients", distance, 0.0, "optax"),
        Row("MB of a step's temporaries", *memory, "optax"),
    ]


@jax.jit
def log_probs_of(params, batch):
    """The log-probability of each next token, float32[B, LENGTH]."""
    hidden = hidden_states(params, batch[:, :-1])
    return gk.losses.linear_log_probs(hidden, params["embedding"], batch[:, 1:], transposed=True)


def perplexity(params, stretches):
    """Exp of the mean loss of the stretches' tokens, a batch at a time."""
    whole = len(stretches) // BATCH * BATCH
    found = [log_probs_of(params, b) for b in stretches[:whole].reshape(-1, BATCH, LENGTH + 1)]
    return float(np.exp(-np.mean(found)))


def counted_perplexity(train, test, vocabulary):
    """The perplexity of words by their frequency alone, each counted once more than it occurs."""
    counts = np.bincount(train, minlength=vocabulary) + 1
    return float(np.exp(-np.mean(np.log(counts[test] / counts.sum()))))


def main(argv=None):
    """Train and compare; returns the rows that it prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=150)
    options = parser.parse_args(argv)

    tokens, vocabulary, border = read_tokens()
    train, test = windows(tokens[:border]), windows(tokens[border:])
    params = initial_params(jax.random.key(0), vocabulary)
    rows = compare_losses(params, train[:BATCH])
    before = perplexity(params, test)

    print(f"training on {border} words, {vocabulary} of them different")
    start = time.perf_counter()
    schedule = optax.cosine_decay_schedule(4e-3, options.steps)
    result = gk.fit(
        fused_loss, params, train, batch_size=BATCH, steps=options.steps,
        optimizer=optax.adam(schedule), progress=False,
    )  # fmt: skip
    print(f"  {result.step} steps, {time.perf_counter() - start:.1f} s")

    seen = test[: len(test) // BATCH * BATCH, 1:].ravel()
    by_counting = counted_perplexity(tokens[:border], seen, vocabulary)
    after = perplexity(result.params, test)
    rows += [
        Row("perplexity before training", before, vocabulary, "all words alike"),
        Row("  and after", after, by_counting, "counted words"),
    ]
    print(f"\n{'':30}{'gradkit':>12}{'independent':>13}")
    for row in rows:
        print(f"{row.label:30}{row.value:12.6g}{row.independent:13.6g}  {row.source}")
    return rows


if __name__ == "__main__":
    main()
