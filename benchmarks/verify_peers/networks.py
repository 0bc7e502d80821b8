"""A multi-layer perceptron as a function of its input, its parameters closed over."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

try:
    import torch
except ImportError:
    torch = None

PLAIN, RULE = "plain", "with its tanh by a rule"


def widths(inputs: int) -> tuple[int, ...]:
    """Hidden layers that leave the parameters in memory."""
    return (inputs, *((256, 256) if inputs <= 100_000 else (64, 64)), 10)


def parameters(inputs: int) -> list[np.ndarray]:
    """Weights for unit activations, in float32."""
    rng = np.random.default_rng(0)
    return [
        rng.standard_normal((n, m), np.float32) / np.float32(np.sqrt(n))
        for n, m in pairwise(widths(inputs))
    ]


def parameter_count(inputs: int) -> int:
    """How many numbers the network closes over."""
    return sum(n * m for n, m in pairwise(widths(inputs)))


def point(inputs: int) -> np.ndarray:
    """Where the gradient is checked."""
    return np.random.default_rng(1).standard_normal(inputs, np.float32)


@jax.custom_vjp
def _tanh_by_rule(x):
    return jnp.tanh(x)


def _tanh_fwd(x):
    y = jnp.tanh(x)
    return y, y


def _tanh_bwd(y, y_bar):
    return ((1 - y * y) * y_bar,)


_tanh_by_rule.defvjp(_tanh_fwd, _tanh_bwd)


def in_jax(kind: str, weights: list[Any]) -> Callable[..., Any]:
    """The network; a function object of its own at each call."""
    activation = _tanh_by_rule if kind == RULE else jnp.tanh

    def network(x):
        for w in weights[:-1]:
            x = activation(x @ w)
        return x @ weights[-1]

    return network


def in_torch(kind: str, weights: list[Any]) -> Callable[..., Any]:
    """The same in PyTorch."""

    class TanhByRule(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            y = torch.tanh(x)
            ctx.save_for_backward(y)
            return y

        @staticmethod
        def backward(ctx, y_bar):
            (y,) = ctx.saved_tensors
            return (1 - y * y) * y_bar

    activation = TanhByRule.apply if kind == RULE else torch.tanh

    def network(x):
        for w in weights[:-1]:
            x = activation(x @ w)
        return x @ weights[-1]

    return network
