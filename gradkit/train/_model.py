"""What is trained: the floating-point leaves of any pytree, or of a module that is one.

Plain dicts, flax variables and equinox modules are pytrees; whatever in them is no floating-point
array (an activation function, a size, a table of indices) is kept aside and put back. Modules of
`flax.nnx` are split into their parameters and the rest once, and not at every step.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._errors import describe


@dataclass(frozen=True)
class Model:
    """How to take a user's model apart and put it together.

    Attributes:
        trainable: The model with its floating-point leaves alone, and `None` for the others: its
            structure is what an optimizer's masks and labels refer to.
        state: What the model carries from step to step and nobody differentiates; a pytree.
        merge: From trainable leaves and state to the user's model.
        read_state: From a model that has run to its state.
    """

    trainable: Any
    state: Any
    merge: Callable[[Any, Any], Any]
    read_state: Callable[[Any], Any]


def take_apart(params: Any) -> Model:
    """The trainable leaves of a model, copied, so that the user's own arrays stay what they are.

    Raises:
        TypeError: If nothing in it can be trained.
    """
    nnx = sys.modules.get("flax.nnx")  # whoever has such a module has imported it
    if nnx is not None and isinstance(params, nnx.Module):
        return _take_module_apart(nnx, params)
    trainable, merge = _split(params)
    return Model(trainable, None, lambda trainable, state: merge(trainable), lambda model: None)


def _take_module_apart(nnx: Any, module: Any) -> Model:
    graph, variables, rest = nnx.split(module, nnx.Param, ...)
    trainable, merge = _split(variables)

    def read_state(model: Any) -> Any:
        return nnx.split(model, nnx.Param, ...)[2]

    def merge_module(trainable: Any, state: Any) -> Any:
        # A variable belongs to the trace that makes it: made anew, it can be set in this one.
        return nnx.merge(graph, merge(trainable), jax.tree.map(lambda x: x, state))

    return Model(trainable, jax.tree.map(_copy, rest), merge_module, read_state)


def _split(tree: Any) -> tuple[Any, Callable[[Any], Any]]:
    leaves, structure = jax.tree.flatten(tree)
    trainable = [_copy(leaf) if _is_trainable(leaf) else None for leaf in leaves]
    if all(leaf is None for leaf in trainable):
        raise TypeError(
            describe(
                "there is nothing to train: params= of fit has no floating-point array",
                expected="a pytree with at least one floating-point array",
                got=", ".join(type(leaf).__name__ for leaf in leaves[:5]) or "an empty pytree",
            )
        )

    def merge(trained: Any) -> Any:
        found = iter(jax.tree.leaves(trained))
        pairs = zip(leaves, trainable, strict=True)
        return jax.tree.unflatten(structure, [x if t is None else next(found) for x, t in pairs])

    return jax.tree.unflatten(structure, trainable), merge


def _is_trainable(leaf: Any) -> bool:
    if isinstance(leaf, float):
        return True
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jnp.inexact)


def _copy(leaf: Any) -> Any:
    """A device array of its own: the training loop gives its buffers away."""
    if isinstance(leaf, jax.Array):
        return jnp.copy(leaf)
    return jnp.asarray(np.array(leaf))
