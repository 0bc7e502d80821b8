"""What is given to a tape: checked, and taken apart into leaves."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradkit import _jax_compat as compat
from gradkit._errors import TapeArgumentError, describe
from gradkit._trees import as_array, describe_aval, describe_type, is_array, path_name


def leaves(tree: Any, role: str) -> tuple[list[tuple[str, Any]], Any]:
    """The arrays of a pytree with their names, such as `target['loss']`; and its structure."""
    flat, structure = jax.tree_util.tree_flatten_with_path(tree)
    named = [(role + path_name(path), leaf) for path, leaf in flat]
    for name, leaf in named:
        if not is_array(leaf):
            raise TapeArgumentError(
                describe(
                    f"{name} is not an array.",
                    expected=f"{role} to be an array, or a pytree of arrays",
                    got=describe_type(leaf),
                )
            )
    if not named:
        raise TapeArgumentError(
            describe(
                f"{role} holds no array.",
                expected="an array, or a pytree of arrays",
                got=type(tree).__name__,
            )
        )
    return named, structure


def is_inexact(x: Any) -> bool:
    """Is `x` made of floating-point or complex numbers?"""
    return compat.tangent_aval(x).dtype != jax.dtypes.float0


def check_watched(name: str, x: Any) -> None:
    """Only what has a tangent can be watched."""
    if not is_inexact(x):
        raise TapeArgumentError(
            describe(
                f"{name} cannot be watched: it has no gradient.",
                expected="floating-point or complex numbers",
                got=describe_type(x),
                fix="leave it out, or convert it before: x.astype(float)",
            )
        )


def check_unconnected(choice: str) -> None:
    """`unconnected_gradients` is one of two words."""
    if choice not in ("none", "zero"):
        raise TapeArgumentError(
            describe(
                "unconnected_gradients says what a source gets on which no target depends.",
                expected="'none' or 'zero'",
                got=repr(choice),
            )
        )


def seed(name: str, y: Any, y_bar: Any) -> Any:
    """The cotangent to start from: `y_bar`, checked, or ones."""
    aval = compat.cotangent_aval(y)
    if y_bar is None:
        return compat.zeros_of(aval) + jnp.ones((), aval.dtype)
    if isinstance(y_bar, (bool, int, float, complex)):
        y_bar = jnp.asarray(y_bar, aval.dtype)
    y_bar = as_array(y_bar)
    got = jax.typeof(y_bar)
    if (got.shape, got.dtype) != (aval.shape, aval.dtype):
        raise TapeArgumentError(
            describe(
                f"output_gradients does not fit {name}.",
                expected=describe_aval(aval),
                got=describe_aval(got),
                fix="give one cotangent of the target's shape and dtype per target, or None for "
                "ones",
            )
        )
    return y_bar if isinstance(y_bar, jax.Array) else jnp.asarray(y_bar)


def seeds_like(structure: Any, output_gradients: Any, count: int) -> list[Any]:
    """One entry of `output_gradients` per target, None for ones."""
    if output_gradients is None:
        return [None] * count
    try:
        return structure.flatten_up_to(output_gradients)
    except (ValueError, TypeError) as error:
        got = jax.tree.structure(output_gradients, is_leaf=lambda node: node is None)
        raise TapeArgumentError(
            describe(
                "output_gradients does not have the structure of target.",
                expected=str(structure),
                got=str(got),
                fix="give one cotangent per target; None stands for ones",
            )
        ) from error
