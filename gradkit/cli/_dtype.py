"""Casting arguments to another floating-point type: `--dtype bfloat16`."""

from __future__ import annotations

import contextlib
import enum
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


class FloatType(enum.StrEnum):
    """The types on offer."""

    float64 = "float64"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


_COMPLEX = {"float64": "complex128", "float32": "complex64"}


def cast_arguments(args: tuple[Any, ...], dtype: str) -> tuple[Any, ...]:
    """The arguments with every real floating-point number in `dtype`, complex ones beside it.

    Integers, keys and whatever is no number stay as they are, and so do complex numbers where
    there are none of that precision.

    Example:
        >>> [leaf.dtype.name for leaf in cast_arguments((1.0, np.ones(2)), "bfloat16")]
        ['bfloat16', 'bfloat16']
        >>> cast_arguments((3, "max"), "float16")
        (3, 'max')
    """

    def cast(leaf: Any) -> Any:
        kind = getattr(leaf, "dtype", type(leaf) if isinstance(leaf, float | complex) else None)
        if kind is None or not jnp.issubdtype(kind, jnp.inexact):
            return leaf
        is_complex = jnp.issubdtype(kind, jnp.complexfloating)
        name = _COMPLEX.get(dtype) if is_complex else dtype
        return leaf if name is None else np.asarray(leaf).astype(jnp.dtype(name))

    return jax.tree.map(cast, args)


def precision_for(dtype: str) -> contextlib.AbstractContextManager[Any]:
    """JAX's 64-bit mode for float64; nothing for the rest."""
    return jax.enable_x64(True) if dtype == FloatType.float64 else contextlib.nullcontext()
