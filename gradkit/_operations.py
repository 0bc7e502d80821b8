"""Finding operations in a program: the calls of a key, and what leaves a named scope."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from jax.extend.core import Jaxpr, JaxprEqn, Literal

from gradkit import _jax_compat as compat
from gradkit._override import in_scope
from gradkit._perturb import join, programs_inside
from gradkit._targets import JittedTarget, Key, ObjectTarget, PrimitiveTarget

Found = tuple[int, int, str]
"""The number of an equation, that of its output, and the named scopes to show."""


def calls_of(jaxpr: Jaxpr, paths: Sequence[str], key: Key) -> Iterator[Found]:
    """The calls of the operations of a key."""
    for i, eqn in enumerate(jaxpr.eqns):
        if is_call_of(eqn, paths[i], key):
            for output in range(len(eqn.outvars)):
                yield i, output, paths[i]


def is_called(jaxpr: Jaxpr, key: Key, outer: str = "") -> bool:
    """Is an operation of a key called in a program, or in a program inside it?"""
    for eqn in jaxpr.eqns:
        path = join(outer, compat.scope_of(eqn))
        if is_call_of(eqn, path, key):
            return True
        if any(is_called(body, key, path) for body, _ in programs_inside(eqn)):
            return True
    return False


def is_call_of(eqn: JaxprEqn, path: str, key: Key) -> bool:
    """Is an equation, inside the named scopes of a path, a call of an operation of a key?"""
    return in_scope(path, key.scope) and any(_is_call(eqn, target) for target in key.targets)


def _is_call(eqn: JaxprEqn, target: Any) -> bool:
    name, params = eqn.primitive.name, eqn.params
    if name == "gradkit_call":
        return params["function"].name == target.name
    if isinstance(target, PrimitiveTarget):
        return name == target.name
    if isinstance(target, JittedTarget):
        return name in ("jit", "pjit") and (
            compat.program_identity(params["jaxpr"], params["name"]) == target.call
        )
    if isinstance(target, ObjectTarget) and name in ("custom_jvp_call", "custom_vjp_call"):
        identity = compat.program_identity(params["call_jaxpr"])
        return identity == compat.function_identity(target.function)
    return False


def leaving(jaxpr: Jaxpr, outer: str, pattern: str) -> Iterator[Found]:
    """The values that leave a named scope: used outside, or by the program's end."""
    users: dict[Any, set[int]] = {}
    for i, eqn in enumerate(jaxpr.eqns):
        for atom in eqn.invars:
            if not isinstance(atom, Literal):
                users.setdefault(atom, set()).add(i)
    results = {atom for atom in jaxpr.outvars if not isinstance(atom, Literal)}
    for scope, inside in _entered(jaxpr):
        path = join(outer, scope)
        if in_scope(path, pattern):
            for i in sorted(inside):
                for output, var in enumerate(jaxpr.eqns[i].outvars):
                    if var in results or not users.get(var, set()) <= inside:
                        yield i, output, path


def _entered(jaxpr: Jaxpr) -> list[tuple[str, set[int]]]:
    """The named scopes that a program enters, inner ones first, with their equations."""
    entered: dict[tuple[tuple[str, int], ...], set[int]] = {}
    for i, eqn in enumerate(jaxpr.eqns):
        scopes = tuple(compat.scopes_of(eqn))
        for n in range(len(scopes)):
            entered.setdefault(scopes[: n + 1], set()).add(i)
    inner_first = sorted(entered, key=len, reverse=True)
    return [("/".join(name for name, _ in key), entered[key]) for key in inner_first]
