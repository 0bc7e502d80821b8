"""What the gradient methods share: the explained scalar of a model, and its gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradkit import _jax_compat as compat
from gradkit import _scope
from gradkit._errors import AttributionInputError, describe
from gradkit._programs import Program
from gradkit._trees import describe_type, is_array
from gradkit.attribution._target import check_input, select

Model = Callable[[Any], Any]
"""From a batch `x`, an array or a pytree of them, to logits `[N, K]` or scalars `[N]`."""

Method = Callable[..., Any]
"""From `(model, x, target)` to an attribution like `x`."""


def hold_fixed(model: Model, x: Any) -> tuple[Model, Any]:
    """The model as a function of what can be explained: the floating-point leaves of its input.

    Args:
        model: The model.
        x: An array or a pytree of arrays.

    Returns:
        The model, and its input with None in the place of leaves of integers or booleans. Such
        leaves the model goes on to see as they are.

    Raises:
        AttributionInputError: If no leaf is a real floating-point array, or they do not all have
            the same first axis.
    """
    leaves, structure = jax.tree.flatten(x)
    arrays = [jnp.asarray(leaf) if is_array(leaf) else leaf for leaf in leaves]
    fixed = [is_array(leaf) and not jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in arrays]
    if all(fixed):
        fixed = [False] * len(arrays)  # let the check say what is wrong with the first
    shown = [None if f else check_input(a) for f, a in zip(fixed, arrays, strict=True)]
    varying = jax.tree.unflatten(structure, shown)
    if len({leaf.shape[0] for leaf in jax.tree.leaves(varying)}) != 1:
        raise AttributionInputError(
            describe(
                "the input does not say how many examples it has.",
                expected="arrays with one common first axis",
                got=", ".join(map(describe_type, jax.tree.leaves(varying))) or "no array",
            )
        )
    if not any(fixed):
        return model, varying

    def of_varying(varying: Any) -> Any:
        rest = iter(jax.tree.leaves(varying))
        full = [a if f else next(rest) for f, a in zip(fixed, arrays, strict=True)]
        return model(jax.tree.unflatten(structure, full))

    return of_varying, varying


def trace(model: Model, x: Any) -> tuple[Program, list[Any]]:
    """The program of a model as it stands, from the leaves of its input; and these."""
    leaves, structure = jax.tree.flatten(x)
    with _scope.switched_off():
        program = Program.trace(
            lambda *leaves: [model(jax.tree.unflatten(structure, leaves))],
            [jax.typeof(leaf) for leaf in leaves],
            "model",
        )
    return program, leaves


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
    own = matching(x, value)
    if own is None:
        own = jax.tree.map(lambda _: value, x)

    def fitted(x: Any, value: Any) -> jax.Array:
        try:
            broadcast = jnp.broadcast_to(jnp.asarray(value, x.dtype), x.shape)
            # Inside a shard_map a loop's carry must be of one type, for the baseline too.
            return compat.vary_over(broadcast, compat.varying_axes(jax.typeof(x)))
        except (TypeError, ValueError):
            raise AttributionInputError(
                describe(
                    f"the {name} does not fit the input.",
                    expected=f"a shape that broadcasts to {describe_type(x)}",
                    got=describe_type(value),
                )
            ) from None

    return jax.tree.map(fitted, x, own)


def matching(x: Any, value: Any) -> Any:
    """`value`, built like `x`: without what `x` has None for. None if it is not built so."""
    is_none = lambda node: node is None  # noqa: E731
    try:
        own = jax.tree.map(lambda a, v: None if a is None else v, x, value, is_leaf=is_none)
    except ValueError:
        return None
    return own if jax.tree.structure(own) == jax.tree.structure(x) else None


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
