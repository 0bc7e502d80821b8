"""What the gradient methods share: the explained scalar of a model, and its gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradkit import _jax_compat as compat
from gradkit._errors import AttributionInputError, describe
from gradkit._trees import describe_type
from gradkit.attribution._target import check_input, select

Model = Callable[[Any], Any]
"""From a batch `x`, an array or a pytree of them, to logits `[N, K]` or scalars `[N]`."""

Method = Callable[..., Any]
"""From `(model, x, target)` to an attribution like `x`."""


def check_inputs(x: Any) -> Any:
    """The input as arrays, all with the same number of examples.

    Raises:
        AttributionInputError: If a leaf is not a real floating-point array with that first axis.
    """
    arrays = jax.tree.map(check_input, x)
    if len({leaf.shape[0] for leaf in jax.tree.leaves(arrays)}) != 1:
        raise AttributionInputError(
            describe(
                "the input does not say how many examples it has.",
                expected="arrays with one common first axis",
                got=", ".join(map(describe_type, jax.tree.leaves(arrays))) or "no array",
            )
        )
    return arrays


def fix_target(model: Model, x: Any, target: Any) -> Any:
    """The target, where None has become the largest logit at `x`."""
    if target is not None or jax.eval_shape(model, x).ndim != 2:
        return target
    return jnp.argmax(model(x), axis=1)


def explained(output: Any, target: Any) -> jax.Array:
    """The explained scalar of each example, `[N]`, in an output of the model.

    Raises:
        AttributionInputError: If the target does not fit the output.
    """
    chosen = select(output, target)
    if callable(target):
        scalars: Any = target(output)
        return scalars
    # Not a product: a logit that is masked by -inf must not become NaN here.
    return jnp.sum(jnp.where(chosen != 0, output, 0).reshape(output.shape[0], -1), axis=1)


def gradient(model: Model, x: Any, target: Any) -> Any:
    """The gradient of each example's explained scalar with respect to that example."""
    y, pull = jax.vjp(model, x)
    return pull(seed(y, target))[0]


def seed(output: Any, target: Any) -> Any:
    """The cotangent of an output: `select`, of the output's type inside a `shard_map` too."""
    return compat.match_varying_axes(select(output, target), jax.typeof(output))


def like(x: Any, value: Any, name: str) -> Any:
    """`value`, one for all leaves of `x` or a pytree of its structure, broadcast to `x`.

    Raises:
        AttributionInputError: If it does not broadcast.
    """
    if jax.tree.structure(value) != jax.tree.structure(x):
        value = jax.tree.map(lambda _: value, x)

    def broadcast(x: Any, value: Any) -> jax.Array:
        array = jnp.asarray(value, x.dtype)
        try:
            return jnp.broadcast_to(array, x.shape)
        except ValueError:
            raise AttributionInputError(
                describe(
                    f"the {name} does not fit the input.",
                    expected=f"a shape that broadcasts to {describe_type(x)}",
                    got=describe_type(array),
                )
            ) from None

    return jax.tree.map(broadcast, x, value)


def check_count(value: Any, name: str) -> int:
    """A number of steps or samples.

    Raises:
        AttributionInputError: If it is not a positive integer.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise AttributionInputError(
            describe(
                f"{name} counts evaluations of the model.",
                expected="a positive integer",
                got=repr(value) if isinstance(value, (int, float)) else type(value).__name__,
            )
        )
    return value
