"""What a scope may patch in JAX while it is active, to compare before and after."""

from __future__ import annotations

from typing import Any

import jax
from jax import lax
from jax._src import core
from jax._src.interpreters import ad, batching
from jax.extend.core import primitives

PLACES = {
    "square": lax.square_p,
    "sin": lax.sin_p,
    "jit": primitives.jit_p,
    "Primitive": core.Primitive,
    "custom_jvp": jax.custom_jvp,
    "custom_vjp": jax.custom_vjp,
    "JVPTrace": ad.JVPTrace,
    "LinearizeTrace": ad.LinearizeTrace,
    "BatchTrace": batching.BatchTrace,
    "EvalTrace": core.EvalTrace,
    "named_scope": type(jax.named_scope("a")),
    "ad": ad,
}


def patched_places() -> dict[str, dict[str, Any]]:
    """The attributes of every such place, as they are now."""
    return {name: dict(vars(place)) for name, place in PLACES.items()}
