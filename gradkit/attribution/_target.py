"""What is explained: one scalar per example of a model's output."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradkit._errors import AttributionInputError, describe
from gradkit._trees import describe_type


def check_input(x: Any) -> jax.Array:
    """The input as an array.

    Raises:
        AttributionInputError: If it is not a real floating-point array with a leading axis.
    """
    array = jnp.asarray(x)
    if not jnp.issubdtype(array.dtype, jnp.floating) or array.ndim == 0:
        raise AttributionInputError(
            describe(
                "relevance needs an input that derivatives exist of.",
                expected="a real floating-point array, examples along its first axis",
                got=describe_type(array),
                fix="convert it: x.astype(float); for token numbers, explain the embeddings",
            )
        )
    return array


def select(output: Any, target: Any) -> Any:
    """The derivative of the sum of the explained scalars with respect to the output.

    Raises:
        AttributionInputError: If the target does not fit the output.
    """
    if callable(target):
        scalars: Any
        scalars, pull = jax.vjp(target, output)
        if scalars.ndim != 1 or scalars.shape[0] != output.shape[0]:
            raise AttributionInputError(
                describe(
                    "the target function does not return one scalar per example.",
                    expected=f"shape [{output.shape[0]}]",
                    got=describe_type(scalars),
                )
            )
        return pull(jnp.ones_like(scalars))[0]
    if output.ndim == 1 and target is None:
        return jnp.ones_like(output)
    if output.ndim != 2:
        raise AttributionInputError(
            describe(
                "the model's output has no classes to choose from.",
                expected="logits [N, K], or one scalar per example [N] and no target",
                got=describe_type(output),
                fix="pass target=f with f from this output to one scalar per example",
            )
        )
    index = jnp.argmax(output, axis=1) if target is None else jnp.asarray(target)
    if not jnp.issubdtype(index.dtype, jnp.integer) or index.shape not in ((), output.shape[:1]):
        raise AttributionInputError(
            describe(
                "the target does not name a class.",
                expected=f"an integer, or integers [{output.shape[0]}]",
                got=describe_type(index),
            )
        )
    index = jnp.broadcast_to(index, output.shape[:1])
    index = jnp.where(index < 0, index + output.shape[1], index)
    return jax.nn.one_hot(index, output.shape[1], dtype=output.dtype)
