"""How a rule is stated in PyTorch, and how a bank's arguments get there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import torch


def rule(forward: Callable[..., Any], backward: Callable[..., Any]) -> Callable[..., Any]:
    """A `torch.autograd.Function` by `backward(inputs, *y_bar)`."""

    class Rule(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            ctx.save_for_backward(*inputs)
            return forward(*inputs)

        @staticmethod
        def backward(ctx: Any, *y_bar: Any) -> Any:
            x_bar = backward(ctx.saved_tensors, *y_bar)
            return x_bar if isinstance(x_bar, tuple) else (x_bar,)

    return Rule.apply


def tensors_of(arguments: Any) -> tuple[torch.Tensor, ...]:
    """The leaves of JAX arguments; the differentiable ones in double precision."""
    return tuple(map(_tensor_of, jax.tree.leaves(arguments)))


def _tensor_of(leaf: Any) -> torch.Tensor:
    x = np.asarray(leaf)
    if x.dtype == bool:
        return torch.tensor(x)
    if x.dtype.kind in "iu":
        return torch.tensor(x.astype(np.int64))
    wide = np.complex128 if np.iscomplexobj(x) else np.float64
    return torch.tensor(x.astype(wide), requires_grad=True)


def outputs_of(y: Any) -> Sequence[np.ndarray]:
    """The outputs of a PyTorch function as NumPy arrays."""
    return [leaf.detach().numpy() for leaf in (y if isinstance(y, tuple) else (y,))]
