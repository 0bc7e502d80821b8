"""What a key of an override map means: which operations of a program it stands for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import jax
from jax.extend.core import Primitive

from gradkit import _jax_compat as compat
from gradkit import _scope
from gradkit._custom import CustomGradient
from gradkit._define import Operation, defined_types
from gradkit._errors import OverrideKeyError, describe, did_you_mean
from gradkit._tensorflow_types import NOT_MAPPED, TENSORFLOW_TYPES


@dataclass(frozen=True)
class PrimitiveTarget:
    """Every call of a JAX primitive."""

    name: str


@dataclass(frozen=True)
class ObjectTarget:
    """Every call of one `custom_jvp`, `custom_vjp`, `custom_gradient` or `op` object."""

    function: Any

    @property
    def name(self) -> str:
        return getattr(self.function, "__name__", repr(self.function))


@dataclass(frozen=True)
class JittedTarget:
    """Every call of one jitted function.

    A call of it is known by name and source line; functions that one line has made are told apart
    by the Python function inside, where a call shows it.
    """

    name: str
    source: str
    function: Any

    @property
    def call(self) -> tuple[str, str]:
        """What a call shows."""
        return self.name, self.source


@dataclass(frozen=True)
class TypeTarget:
    """Every call of an operation type that was defined with `op`."""

    name: str


Target = PrimitiveTarget | ObjectTarget | JittedTarget | TypeTarget


@dataclass(frozen=True)
class Key:
    """A key, resolved.

    Attributes:
        text: The key as the user would write it.
        scope: The pattern of named scopes that it is limited to, or the empty string.
        targets: What it stands for.
    """

    text: str
    scope: str
    targets: tuple[Target, ...]


def resolve(key: Any) -> Key:
    """What a key means.

    Args:
        key: A TensorFlow type, JAX primitive name, function name or type defined with `op`, with
            an optional `"scope/pattern:"` in front; or a JAX primitive or function object.

    Raises:
        OverrideKeyError: If no operation could match.
    """
    if isinstance(key, str):
        return _resolve_text(key)
    if isinstance(key, Primitive):
        return Key(str(key), "", (PrimitiveTarget(key.name),))
    if callable(key):
        return Key(_object_name(key), "", (_object_target(key),))
    raise OverrideKeyError(
        describe(
            "a key of an override map names an operation.",
            expected="a TensorFlow type, a JAX primitive or function, or the name of one",
            got=type(key).__name__,
        )
    )


def _resolve_text(key: str) -> Key:
    *front, name = key.split(":")
    kind = front.pop() if front and front[-1] in _RESOLVERS else ""
    scope = ":".join(front)
    for resolver in [_RESOLVERS[kind]] if kind else _RESOLVERS.values():
        targets = resolver(name)
        if targets:
            return Key(key, scope, tuple(targets))
    raise OverrideKeyError(_unknown(key, kind, name))


def _from_tensorflow(name: str) -> list[Target]:
    targets: list[Target] = [TypeTarget(name)] if name in defined_types() else []
    entry = TENSORFLOW_TYPES.get(name)
    for text in entry.targets if entry is not None else ():
        kind, _, path = text.partition(":")
        if kind == "prim":
            targets += _from_primitive(path)
        elif (function := _lookup(path)) is not None:
            targets.append(_object_target(function))
    return targets


def _from_primitive(name: str) -> list[Target]:
    return [PrimitiveTarget(name)] if name in compat.primitives() else []


def _from_function(name: str) -> list[Target]:
    paths = [name] if name.startswith("jax.") else [f"{space}.{name}" for space in _NAMESPACES]
    for path in paths:
        function = _lookup(path)
        if callable(function):
            return [_object_target(function)]
    return []


_RESOLVERS: dict[str, Callable[[str], list[Target]]] = {
    "tf": _from_tensorflow,
    "prim": _from_primitive,
    "fn": _from_function,
}

_NAMESPACES = (
    "jax.nn",
    "jax.numpy",
    "jax.lax",
    "jax.scipy.special",
    "jax.numpy.linalg",
    "jax.scipy.linalg",
    "jax.numpy.fft",
)


@functools.cache
def _lookup(path: str) -> Any:
    """The object at a dotted path below `jax`, or None."""
    found: Any = jax
    for part in path.split(".")[1:]:
        found = getattr(found, part, None)
        if found is None:
            return None
    return found


def _object_target(function: Any) -> Target:
    if isinstance(function, Operation):
        return TypeTarget(function.type)
    if isinstance(function, (CustomGradient, jax.custom_jvp, jax.custom_vjp)):
        return ObjectTarget(function)
    if compat.is_jitted(function):
        return JittedTarget(*compat.function_identity(function), function.__wrapped__)
    name = _object_name(function)
    if getattr(jax.lax, name, None) is function and name in compat.primitives():
        return PrimitiveTarget(name)  # a thin wrapper, such as jax.lax.square
    raise OverrideKeyError(
        describe(
            f"'{name}' cannot be overridden as a whole: {_why_not(function)}, which leaves no "
            "trace of its name in a program.",
            fix=_instead(function, name),
        )
    )


def _object_name(function: Any) -> str:
    return getattr(function, "__name__", None) or type(function).__name__


def _why_not(function: Any) -> str:
    if isinstance(function, type):
        return "it is a class"
    if type(function).__name__ == "ufunc":
        return "it is a jax.numpy ufunc"
    return "it is a plain Python function"


def _instead(function: Any, name: str) -> str:
    """Which keys to use for a function that leaves no trace."""
    own = f"define it as an operation: gradkit.op('{name.title().replace('_', '')}')({name})"
    inside = _operations_inside(function)
    if not inside:
        return own
    return f"override what it is made of: {', '.join(map(repr, inside))}; or {own}"


def _operations_inside(function: Any) -> list[str]:
    """The primitives of a function of one or two arrays, or none if it takes something else."""
    for n in (1, 2):
        example = [jax.ShapeDtypeStruct((2,), jax.numpy.float32)] * n
        try:
            with _scope.switched_off():
                jaxpr = jax.make_jaxpr(function)(*example)
        except Exception:  # it takes other arguments: there is no advice to give
            continue
        names = dict.fromkeys(eqn.primitive.name for eqn in jaxpr.eqns)
        return [name for name in names if name in compat.primitives()]
    return []


def _unknown(key: str, kind: str, name: str) -> str:
    if name in NOT_MAPPED and kind in ("", "tf"):
        return describe(
            f"the TensorFlow type {name!r} has no single counterpart in JAX.", fix=NOT_MAPPED[name]
        )
    if name in TENSORFLOW_TYPES and kind in ("", "tf"):
        return describe(
            f"the TensorFlow type {name!r} has no counterpart in JAX {jax.__version__}.",
            fix=f"use a newer JAX. {TENSORFLOW_TYPES[name].note}".strip(),
        )
    known: Iterable[str] = {
        "": lambda: [*TENSORFLOW_TYPES, *compat.primitives(), *_function_names(), *defined_types()],
        "tf": lambda: [*TENSORFLOW_TYPES, *defined_types()],
        "prim": compat.primitives,
        "fn": _function_names,
    }[kind]()
    return describe(
        f"no operation could match the key {key!r}{did_you_mean(name, known)}",
        expected="a TensorFlow type ('Square'), a JAX primitive ('square') or function ('relu'), "
        "or a type defined with gradkit.op",
        fix="for a function of your own, jitted or with a custom derivative, use the function "
        "object itself as the key",
    )


@functools.cache
def public_functions() -> dict[tuple[str, str], str]:
    """The JAX functions that leave a trace: name and source line, and the key to write."""
    found: dict[tuple[str, str], str] = {}
    for namespace in _NAMESPACES:
        module = _lookup(namespace)
        for name in dir(module):
            function = getattr(module, name, None)
            if isinstance(function, (jax.custom_jvp, jax.custom_vjp)) or compat.is_jitted(function):
                short = _lookup_short(name) is function and name not in compat.primitives()
                key = name if short else f"fn:{namespace}.{name}"
                found.setdefault(compat.function_identity(function), key)
    return found


def _lookup_short(name: str) -> Any:
    """What a bare function name as a key would find."""
    for namespace in _NAMESPACES:
        if callable(function := _lookup(f"{namespace}.{name}")):
            return function
    return None


def _function_names() -> list[str]:
    return [key for key in public_functions().values() if ":" not in key]


def tensorflow_function(name: str) -> tuple[Callable[..., Any] | None, list[Target]]:
    """The function that computes a TensorFlow type, and the type's targets.

    Raises:
        LookupError: If there is no such type.
    """
    entry = TENSORFLOW_TYPES[name]
    function = None if entry.function is None else _lookup(entry.function)
    return function, _from_tensorflow(name)
