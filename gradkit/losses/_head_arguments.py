"""What losses over a linear head do to their arguments at the door."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradkit import _jax_compat as compat
from gradkit._errors import LossArgumentError, describe
from gradkit._trees import describe_type
from gradkit.losses._head import Head


def flat_head(
    function: str,
    hidden: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    soft_cap: float | None = None,
    *,
    transposed: bool = False,
) -> tuple[Head, tuple[int, ...]]:
    """The head over flattened tokens, and the tokens' shape."""
    hidden, weight = real(function, "hidden", hidden), real(function, "weight", weight)
    matrix = hidden.ndim > 0 and weight.ndim == 2
    features, classes = weight.shape[:: -1 if transposed else 1] if matrix else (0, 0)
    if not matrix or hidden.shape[-1] != features:
        turned = matrix and hidden.shape[-1] == classes
        raise misfit(
            function,
            "a head whose shapes do not fit.",
            expected=f"hidden [..., D] and weight {'[V, D]' if transposed else '[D, V]'}",
            got=f"hidden {describe_type(hidden)} and weight {describe_type(weight)}",
            fix=f"pass transposed={not transposed}" if turned else "",
        )
    if bias is not None:
        bias = real(function, "bias", bias)
        if bias.shape != (classes,):
            raise misfit(
                function,
                "a bias that does not fit.",
                expected=f"shape {(classes,)}, one number for each class",
                got=f"shape {bias.shape}",
            )
    if soft_cap is not None and not soft_cap > 0:
        raise misfit(
            function, "a soft cap that is no bound.", expected="a number > 0", got=repr(soft_cap)
        )
    if not classes:
        raise misfit(function, "a head without classes.", got=f"weight {describe_type(weight)}")
    shape = hidden.shape[:-1]
    flat = hidden.reshape(-1, hidden.shape[-1])
    return aligned(Head(flat, weight, bias, soft_cap, transposed)), shape


def aligned(head: Head, *others: jax.Array) -> Head:
    """The head, all of which varies over the mesh axes over which a part of it varies."""
    leaves = [*jax.tree.leaves(head), *others]
    axes = frozenset().union(*(compat.varying_axes(jax.typeof(leaf)) for leaf in leaves))
    return jax.tree.map(lambda leaf: compat.vary_over(leaf, axes), head)


def flat_labels(function: str, labels: ArrayLike, shape: tuple[int, ...]) -> jax.Array:
    """Integers of the tokens' shape, flattened."""
    labels = jnp.asarray(labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer) or labels.shape != shape:
        raise misfit(
            function,
            "labels that do not fit.",
            expected=f"integers of shape {shape}, one for each hidden state",
            got=describe_type(labels),
        )
    # Wide enough for every class, and for differences between classes.
    return labels.reshape(-1).astype(jnp.int32)


def along(x: jax.Array, head: Head) -> jax.Array:
    """`x`, varying over the mesh axes that the head varies over."""
    return compat.vary_over(x, compat.varying_axes(jax.typeof(head.hidden)))


def per_token(
    function: str, weights: ArrayLike, shape: tuple[int, ...], dtype: jnp.dtype
) -> jax.Array:
    """A number for each token, flattened."""
    weights = jnp.asarray(weights)
    if weights.shape != shape:
        raise misfit(
            function,
            "weights that do not fit.",
            expected=f"shape {shape}, one for each hidden state",
            got=f"shape {weights.shape}",
        )
    return weights.reshape(-1).astype(dtype)


def real(function: str, name: str, x: ArrayLike) -> jax.Array:
    """A floating-point array."""
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise misfit(
            function,
            f"{name!r} of a type that has no gradient."
            if not jnp.issubdtype(x.dtype, jnp.complexfloating)
            else f"{name!r} that is complex.",
            expected="a real floating-point array",
            got=describe_type(x),
        )
    return x


def misfit(function: str, what: str, **parts: str) -> LossArgumentError:
    """The error for arguments of a loss that do not fit."""
    return LossArgumentError(describe(f"gk.losses.{function} got {what}", **parts))
