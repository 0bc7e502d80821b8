"""Is there a rule in a program that is not JAX's own?

JAX's own derivatives are the same under every transformation, and for every shape. A rule that
somebody wrote may not be, so what is expensive to try is tried where there is one.
"""

from __future__ import annotations

import os
from typing import Any

import jax

from gradkit.verify._precision import inner_programs

_LIBRARY = os.path.dirname(os.path.abspath(jax.__file__)) + os.sep
# Operations by which a program leaves what JAX knows how to transform.
_FOREIGN = (
    "gradkit_call",
    "gradkit_pullback",
    "gradkit_keep",
    "custom_vmap_call",
    "custom_lin",
    "custom_transpose_call",
    "linear_call",
    "pure_callback",
    "io_callback",
    "ffi_call",
    "pallas_call",
)
# Those of them whose text does not say what they do.
_OPAQUE = ("gradkit_", "pure_callback", "io_callback", "debug_callback", "ffi_call", "pallas_call")
_RULES = ("call_jaxpr", "bwd", "jvp_jaxpr_fun")


def has_authored_rule(jaxpr: Any) -> bool:
    """Does a program hold a rule, or a call into the unknown, that did not come with JAX?"""
    return any(
        _is_authored(eqn) or any(map(has_authored_rule, inner_programs(eqn))) for eqn in jaxpr.eqns
    )


def calls_out(jaxpr: Any) -> bool:
    """Does a program call functions that its text does not show?"""
    return any(
        eqn.primitive.name.startswith(_OPAQUE) or any(map(calls_out, inner_programs(eqn)))
        for eqn in jaxpr.eqns
    )


def _is_authored(eqn: Any) -> bool:
    name = eqn.primitive.name
    if name in _FOREIGN:
        return True
    if name.startswith(("custom_vjp_call", "custom_jvp_call")):
        sources = [_source(eqn.params[key]) for key in _RULES if key in eqn.params]
        return not all(source.startswith(_LIBRARY) for source in sources)
    return not type(eqn.primitive).__module__.startswith("jax")


def _source(function: Any) -> str:
    """The file of a traced or wrapped function; empty if it does not say."""
    function = getattr(function, "jaxpr", function)
    info = getattr(function, "debug_info", None)
    return getattr(info, "func_src_info", "").partition(" at ")[2]
