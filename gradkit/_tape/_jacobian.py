"""Jacobians: the cotangents for each unit cotangent of a target, stacked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradkit import _jax_compat as compat
from gradkit._errors import TapeArgumentError, describe
from gradkit._tape import _arguments as arguments
from gradkit._tape._backward import pull_back
from gradkit._tape._record import Value
from gradkit._trees import describe_type


def pull_basis(
    target: Value | None, y: Any, shape: Sequence[int], sources: Sequence[Value | None], **options
) -> list[Any]:
    """The cotangents of `sources` for each unit cotangent of shape `shape`, stacked in front."""
    if target is None:
        return [None] * len(sources)
    aval = compat.cotangent_aval(y)
    size = int(np.prod(shape, dtype=int))
    basis = jnp.eye(size, dtype=aval.dtype).reshape(size, *shape)

    def pull(row):
        y_bar = compat.zeros_of(aval) + jnp.broadcast_to(row, aval.shape)
        return pull_back([(target, y_bar)], sources, **options)

    return jax.vmap(pull, axis_size=size)(basis)


def shaped_or_zeros(x_bar: Any, y_shape: Sequence[int], x: Any, unconnected: str) -> Any:
    shape = (*y_shape, *jnp.shape(x))
    if x_bar is not None:
        return x_bar.reshape(shape)
    return jnp.zeros(shape, jnp.result_type(x)) if unconnected == "zero" else None


def check_types(name: str, y: Any, sources: Sequence[tuple[str, Any]]) -> None:
    """A Jacobian is one of real, or of complex numbers."""
    dtype = jnp.result_type(y)
    if not arguments.is_inexact(y):
        raise TapeArgumentError(
            describe(
                f"{name} has no Jacobian.",
                expected="floating-point or complex numbers",
                got=describe_type(y),
            )
        )
    real = [n for n, x in sources if not jnp.issubdtype(jnp.result_type(x), jnp.complexfloating)]
    if jnp.issubdtype(dtype, jnp.complexfloating) and real:
        raise TapeArgumentError(
            describe(
                f"{name} is complex and {real[0]} real.",
                expected="a real target, or complex sources",
                got=describe_type(y),
                fix="take the Jacobians of its real and its imaginary part",
            )
        )
