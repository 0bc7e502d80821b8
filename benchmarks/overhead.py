"""What does gradkit cost beside hand-written `jax.custom_vjp`, and beside no rule at all?

Each line is a ratio, gradkit over its peer: both sides alternate in one process, warm, with
`block_until_ready`; the median over the rounds, and the quartiles of the ratio round by round.
Compiled programs are compared by their FLOPs, bytes and temporaries, as XLA reports them.

    python benchmarks/overhead.py [--rounds 100]
"""

from __future__ import annotations

import argparse
import re
import statistics
import time
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

import gradkit as gk

X = jnp.ones((64, 64))
W = jnp.ones((64, 64))


@gk.custom_gradient
def dense_gk(x, w):
    """A dense layer whose rule clips the cotangent."""
    y = jnp.tanh(x @ w)

    def grad(y_bar):
        h_bar = jnp.clip(y_bar, -1, 1) * (1 - y * y)
        return h_bar @ w.T, x.T @ h_bar

    return y, grad


@jax.custom_vjp
def dense_jax(x, w):
    """The same by hand."""
    return jnp.tanh(x @ w)


def _dense_fwd(x, w):
    y = jnp.tanh(x @ w)
    return y, (x, w, y)


def _dense_bwd(residuals, y_bar):
    x, w, y = residuals
    h_bar = jnp.clip(y_bar, -1, 1) * (1 - y * y)
    return h_bar @ w.T, x.T @ h_bar


dense_jax.defvjp(_dense_fwd, _dense_bwd)


def clipped_square(op, y_bar):
    """The square's gradient for a clipped cotangent, as an override."""
    return jnp.clip(y_bar, -1, 1) * 2 * op.inputs[0]


square_jax = jax.custom_vjp(jnp.square)
square_jax.defvjp(lambda x: (jnp.square(x), x), lambda x, y_bar: (jnp.clip(y_bar, -1, 1) * 2 * x,))


def deep(f: Callable[..., Any]) -> Callable[..., Any]:
    """The sum of four layers."""

    def loss(x, w):
        for _ in range(4):
            x = f(x, w)
        return x.sum()

    return loss


def squares(f: Callable[..., Any]) -> Callable[..., Any]:
    """A few squares between matrix products."""

    def loss(x, w):
        for _ in range(4):
            x = jnp.sin(f(x @ w))
        return x.sum()

    return loss


@gk.custom_gradient
def smoothed_gk(logits, labels):
    """Label-smoothed cross-entropy with its gradient by hand."""
    target = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), 0.1)

    def grad(y_bar):
        scale = y_bar / logits.shape[0]
        return scale * (jax.nn.softmax(logits) - target), None

    return optax.softmax_cross_entropy(logits, target).mean(), grad


@jax.custom_vjp
def smoothed_jax(logits, labels):
    """The same by hand."""
    target = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), 0.1)
    return optax.softmax_cross_entropy(logits, target).mean()


def _smoothed_fwd(logits, labels):
    target = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), 0.1)
    return optax.softmax_cross_entropy(logits, target).mean(), (logits, target)


def _smoothed_bwd(residuals, y_bar):
    logits, target = residuals
    return y_bar / logits.shape[0] * (jax.nn.softmax(logits) - target), None


smoothed_jax.defvjp(_smoothed_fwd, _smoothed_bwd)


class Model(nn.Module):
    """A convolutional network of ordinary size."""

    @nn.compact
    def __call__(self, x):
        for features in (16, 32, 64):
            x = nn.relu(nn.Conv(features, (3, 3))(x))
            x = nn.relu(nn.Conv(features, (3, 3))(x))
            x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.relu(nn.Dense(128)(x.reshape(x.shape[0], -1)))
        return nn.Dense(10)(x)


MODEL = Model()
IMAGES = jnp.ones((8, 16, 16, 1))
LABELS = jnp.zeros(8, jnp.int32)
OPTIMISER = optax.adam(1e-3)


def training_step(loss: Callable[..., Any]) -> Callable[..., Any]:
    """A whole training step of the model."""

    def step(params, state):
        value, grads = jax.value_and_grad(lambda p: loss(MODEL.apply(p, IMAGES), LABELS))(params)
        updates, state = OPTIMISER.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    return step


def compare(name: str, ours: Callable[[], Any], peer: Callable[[], Any], rounds: int, inner: int):
    """Print the ratio of two thunks."""
    for thunk in (ours, peer):
        jax.block_until_ready(thunk())
        jax.block_until_ready(thunk())
    times: tuple[list[float], list[float]] = ([], [])
    for i in range(rounds):
        for which in (0, 1) if i % 2 else (1, 0):  # neither side always goes first
            thunk = (ours, peer)[which]
            start = time.perf_counter()
            for _ in range(inner):
                jax.block_until_ready(thunk())
            times[which].append((time.perf_counter() - start) / inner)
    ratios = sorted(a / b for a, b in zip(*times, strict=True))
    low, high = ratios[len(ratios) // 4], ratios[3 * len(ratios) // 4]
    a, b = map(statistics.median, times)
    print(
        f"{name:<52} {a / b:6.3f}  [{low:.2f}, {high:.2f}]  {a * 1e3:9.4f} ms {b * 1e3:9.4f} ms",
        flush=True,
    )


def compare_compiled(name: str, ours: Callable[..., Any], peer: Callable[..., Any], *args: Any):
    """Print what XLA says of two compiled programs."""
    lines = []
    for fn in (ours, peer):
        compiled = jax.jit(fn).lower(*args).compile()
        cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
        lines.append((cost["flops"], cost["bytes accessed"], memory.temp_size_in_bytes))
    equal = "equal" if lines[0] == lines[1] else "DIFFERENT"
    print(f"{name:<52} {equal}: FLOPs, bytes, temporaries {lines[0]} and {lines[1]}", flush=True)


def same_hlo(name: str, ours: Callable[..., Any], peer: Callable[..., Any], *args: Any):
    """Print whether two programs compile to the same operations."""
    texts = []
    for fn in (ours, peer):
        text = jax.jit(fn).lower(*args).compile().as_text()
        text = text[text.index("\n%") if "\n%" in text else text.index("\nENTRY") :]
        texts.append(re.sub(r", metadata=\{[^}]*\}", "", text))
    print(f"{name:<52} {'equal' if texts[0] == texts[1] else 'DIFFERENT'}", flush=True)


def main() -> None:
    """Run all comparisons."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100)
    rounds = parser.parse_args().rounds
    device = jax.devices()[0]
    print(f"gradkit beside jax.custom_vjp; JAX {jax.__version__}, {device.device_kind}")

    print("\nCompiled programs")
    identity = gk.custom_gradient(lambda x: (x, lambda y_bar: y_bar))
    wave = lambda f: jax.value_and_grad(lambda x: (f(jnp.sin(f(x))) * 2).sum())
    same_hlo("identity rule, HLO beside no rule", wave(identity), wave(lambda x: x), X)
    both = (0, 1)
    compare_compiled(
        "custom rule, grad", jax.grad(deep(dense_gk), both), jax.grad(deep(dense_jax), both), X, W
    )
    overridden = gk.override(squares(jnp.square), {"Square": clipped_square})
    compare_compiled(
        "override, grad", jax.grad(overridden, both), jax.grad(squares(square_jax), both), X, W
    )

    print(f"\n{'':<52} ratio  [quartiles]     gradkit      peer")
    ours, peer = (jax.jit(jax.grad(deep(f), both)) for f in (dense_gk, dense_jax))
    small = jnp.ones((4, 4))
    compare("jitted dispatch, custom rule", lambda: ours(small, small), lambda: peer(small, small),
            rounds, 200)  # fmt: skip
    with_override = jax.jit(jax.grad(overridden, both))
    by_hand = jax.jit(jax.grad(squares(square_jax), both))
    compare("jitted dispatch, override inside", lambda: with_override(small, small),
            lambda: by_hand(small, small), rounds, 200)  # fmt: skip

    compare("eager call", lambda: dense_gk(X, W), lambda: dense_jax(X, W), rounds, 20)
    compare("eager grad", lambda: jax.grad(deep(dense_gk))(X, W),
            lambda: jax.grad(deep(dense_jax))(X, W), rounds, 2)  # fmt: skip

    params = MODEL.init(jax.random.key(0), IMAGES)
    state = OPTIMISER.init(params)
    trace = lambda fn, *args: lambda: jax.jit(lambda *a: fn(*a)).trace(*args) and None
    compare("tracing a training step, loss by custom rule",
            trace(training_step(smoothed_gk), params, state),
            trace(training_step(smoothed_jax), params, state), rounds, 1)  # fmt: skip
    guided = gk.override(training_step(smoothed_gk), {"Relu": "Identity"})
    compare("tracing a training step, and relu overridden", trace(guided, params, state),
            trace(training_step(smoothed_jax), params, state), rounds, 1)  # fmt: skip
    compare("tracing nothing but custom rules, grad", trace(jax.grad(deep(dense_gk), both), X, W),
            trace(jax.grad(deep(dense_jax), both), X, W), rounds, 1)  # fmt: skip
    compare("tracing nothing but custom rules, value", trace(deep(dense_gk), X, W),
            trace(deep(dense_jax), X, W), rounds, 1)  # fmt: skip
    compare("tracing nothing but overridden squares, grad",
            trace(jax.grad(overridden, both), X, W),
            trace(jax.grad(squares(square_jax), both), X, W), rounds, 1)  # fmt: skip


if __name__ == "__main__":
    main()
