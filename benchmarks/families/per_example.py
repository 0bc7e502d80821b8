"""Norms and clipped sums of per-example gradients beside vmap(grad) and jax_privacy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from families.comparison import Comparison, Function
from gradkit import ops

LIMIT = 1.0


def comparisons(rng: np.random.Generator) -> Iterator[Comparison]:
    """Perceptrons, convolutions, an embedding of words and a small transformer; flax."""
    try:
        import flax.linen as nn
    except ImportError:
        return
    drawn = (int(rng.integers(20, 90)), int(rng.integers(200, 700)))
    labels = lambda n: rng.integers(0, 10, n)
    normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)
    tokens, words = rng.integers(0, 1000, (16, 65)), rng.integers(0, 10_000, (64, 40))
    cases = [
        ("perceptron, 128 examples, width 1024", _mlp(nn, 1024), normal(128, 256), labels(128)),
        ("perceptron, 33 examples, width 250", _mlp(nn, 250), normal(33, 61), labels(33)),
        ("convolutions, 64 images of 28 x 28", _cnn(nn), normal(64, 28, 28, 1), labels(64)),
        ("words, 64 texts of 40, width 128", _words(nn), words, labels(64)),
        ("transformer, 16 x 64 tokens, width 128", _transformer(nn, 128), *_next(tokens)),
        ("transformer, 8 x 64 tokens, width 384", _transformer(nn, 384), *_next(tokens[:8])),
        (
            f"perceptron, {drawn[0]} examples, width {drawn[1]}",
            _mlp(nn, drawn[1]), normal(drawn[0], 100), labels(drawn[0]),
        ),
    ]  # fmt: skip
    for shape, model, x, y in cases:
        params = jax.jit(model.init)(jax.random.key(0), x[0])
        loss = _loss(model)
        yield Comparison(
            "ops.clipped_sum",
            shape,
            (params, (x, y)),
            _answer(lambda p, b, loss=loss: ops.clipped_sum(loss, p, b, LIMIT)),
            lambda p, b, loss=loss: _by_vmap(loss, p, b),
            {"gradient without clipping": lambda p, b, loss=loss: _unclipped(loss, p, b)}
            | _jax_privacy(loss),
            whole=True,
            aim="1.8x of a plain gradient, 30x jax_privacy",
            drawn=shape == cases[-1][0],
        )
        yield Comparison(
            "ops.per_example_norms",
            shape,
            (params, (x, y)),
            lambda p, b, loss=loss: (ops.per_example_norms(loss, p, b), ()),
            lambda p, b, loss=loss: (_by_vmap(loss, p, b)[0], ()),
            {"gradient without clipping": lambda p, b, loss=loss: _unclipped(loss, p, b)},
            whole=True,
            aim="a plain gradient",
            drawn=shape == cases[-1][0],
        )


def _loss(model: Any) -> Function:
    def loss(params: Any, example: Any) -> jax.Array:
        x, y = example
        log_p = jax.nn.log_softmax(model.apply(params, x))
        return -jnp.mean(jnp.take_along_axis(log_p, y[..., None], -1))

    return loss


def _answer(run: Function) -> Function:
    def gradient_and_norms(params: Any, batch: Any) -> Any:
        out = run(params, batch)
        return out.norms, out.gradient

    return gradient_and_norms


def _by_vmap(loss: Function, params: Any, batch: Any) -> Any:
    grads = jax.vmap(jax.grad(loss), (None, 0))(params, batch)
    squares = [jnp.sum(jnp.square(g.reshape(len(g), -1)), 1) for g in jax.tree.leaves(grads)]
    norms = jnp.sqrt(sum(squares))
    factors = jnp.minimum(1, LIMIT / norms)
    return norms, jax.tree.map(lambda g: jnp.tensordot(factors, g, 1), grads)


def _unclipped(loss: Function, params: Any, batch: Any) -> Any:
    total = lambda p: jnp.sum(jax.vmap(loss, (None, 0))(p, batch))
    value, gradient = jax.value_and_grad(total)(params)
    return value, gradient


def _jax_privacy(loss: Function) -> dict[str, Function]:
    try:
        from jax_privacy import clipping
    except ImportError:
        return {}
    clipped = clipping.clipped_grad(loss, l2_clip_norm=LIMIT, batch_argnums=1, keep_batch_dim=False)
    return {"jax_privacy": lambda p, b: (jnp.zeros(()), clipped(p, b))}


def _mlp(nn: Any, width: int) -> Any:
    layers = [f(width) if f is nn.Dense else nn.relu for _ in range(3) for f in (nn.Dense, nn.relu)]
    return nn.Sequential([*layers, nn.Dense(10)])


def _cnn(nn: Any) -> Any:
    return nn.Sequential([
        nn.Conv(16, (3, 3)), nn.relu, nn.Conv(32, (3, 3), (2, 2)), nn.relu,
        nn.Conv(64, (3, 3), (2, 2)), nn.relu, jnp.ravel, nn.Dense(128), nn.relu, nn.Dense(10),
    ])  # fmt: skip


def _words(nn: Any, width: int = 128) -> Any:
    return nn.Sequential([
        nn.Embed(10_000, width), nn.LayerNorm(), nn.Dense(width), nn.gelu,
        lambda x: x.mean(0), nn.LayerNorm(), nn.Dense(10),
    ])  # fmt: skip


def _next(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return tokens[:, :-1], tokens[:, 1:]


def _transformer(nn: Any, width: int) -> Any:
    class Transformer(nn.Module):
        @nn.compact
        def __call__(self, tokens: jax.Array) -> jax.Array:
            x = nn.Embed(1000, width)(tokens)
            for _ in range(2):
                # Biases of keys have no gradient to compare.
                x = x + nn.MultiHeadDotProductAttention(4, use_bias=False)(nn.LayerNorm()(x))
                x = x + nn.Dense(width)(nn.gelu(nn.Dense(4 * width)(nn.LayerNorm()(x))))
            return nn.Dense(1000)(x)

    return Transformer()
