"""`overridable_ops`: what a function calls that an override could match."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from gradkit import _jax_compat as compat
from gradkit import _scope
from gradkit._define import Operation
from gradkit._override import Overrides
from gradkit._targets import public_functions
from gradkit._tensorflow_types import TENSORFLOW_TYPES
from gradkit._trees import describe_aval, describe_type, is_array

_PLUMBING = frozenset(
    "jit pjit closed_call core_call remat2 checkpoint scan while cond custom_jvp_call "
    "custom_vjp_call custom_vjp_call_jaxpr custom_lin shard_map gradkit_call "
    "gradkit_keep gradkit_pullback".split()
)


@dataclass(frozen=True)
class OverridableOp:
    """One operation that a function calls.

    Attributes:
        key: The key to write in an override map.
        kind: `"primitive"`, `"function"`, `"op"` or `"custom_gradient"`.
        count: How many places in the program call it; the body of a loop counts once.
        shapes: The types of its inputs, one text per distinct call.
        scope: The named scopes that it is called in.
        tensorflow: The TensorFlow types that stand for it.
    """

    key: str
    kind: str
    count: int
    shapes: tuple[str, ...]
    scope: str
    tensorflow: tuple[str, ...]


class OverridableOps(tuple[OverridableOp, ...]):
    """The operations that a function calls; prints as a table."""

    def __str__(self) -> str:
        header = ("key", "kind", "count", "TensorFlow type", "scope", "inputs")
        rows = [
            (o.key, o.kind, str(o.count), ", ".join(o.tensorflow[:2]), o.scope, _some(o.shapes))
            for o in self
        ]
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in (header, *rows)
        ]
        return "\n".join(lines)


def overridable_ops(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> OverridableOps:
    """What could be overridden in `fn`, nested calls included.

    Args:
        fn: A function of arrays.
        *args: Arguments to trace it with; `jax.ShapeDtypeStruct`s will do.
        **kwargs: Keyword arguments, passed as they are.

    Returns:
        A tuple of records, in the order of first call, which prints as a table. Inside a function
        with a derivative rule of its own nothing is listed, since an override there would have no
        effect.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def f(x):
        ...     return jnp.square(jax.nn.relu(x)).sum()
        >>> print(overridable_ops(f, jnp.ones((2, 3))))
        key         kind       count  TensorFlow type  scope  inputs
        relu        function   1      Relu                    float32[2, 3]
        square      primitive  1      Square                  float32[2, 3]
        reduce_sum  primitive  1      Sum                     float32[2, 3]
    """
    leaves, structure = jax.tree.flatten(args)
    dynamic = [i for i, x in enumerate(leaves) if is_array(x) or isinstance(x, _Shape)]

    def of_arrays(*arrays):
        full = list(leaves)
        for i, array in zip(dynamic, arrays, strict=True):
            full[i] = array
        return fn(*jax.tree.unflatten(structure, full), **kwargs)

    recorder = _Recorder()
    with _scope.activate(recorder):
        program = jax.make_jaxpr(of_arrays)(*(leaves[i] for i in dynamic))
    return _merge([*recorder.calls, *_walk(program.jaxpr, "")])


_Shape = jax.ShapeDtypeStruct
_Found = tuple[str, str, str, str, tuple[str, ...]]  # key, kind, inputs, scope, tensorflow


class _Recorder(Overrides):
    """No overrides; remembers calls of what has a gradient of its own."""

    def __init__(self) -> None:
        super().__init__(())
        object.__setattr__(self, "calls", [])

    calls: list[_Found]

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def call_function_instead(self, function: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        is_op = isinstance(function, Operation)
        key = function.type if is_op else f"{function.__name__} (the object)"
        inputs = ", ".join(describe_type(x) for x in jax.tree.leaves(args) if is_array(x))
        kind = "op" if is_op else "custom_gradient"
        self.calls.append((key, kind, inputs, compat.current_scope(), ()))
        return NotImplemented


def _walk(jaxpr: Jaxpr, scope: str) -> Iterator[_Found]:
    for eqn in jaxpr.eqns:
        where = "/".join(filter(None, (scope, compat.scope_of(eqn))))
        inputs = ", ".join(describe_aval(atom.aval) for atom in eqn.invars)
        name = eqn.primitive.name
        if name in ("jit", "pjit"):
            yield from _function(
                eqn, compat.program_identity(eqn.params["jaxpr"], eqn.params["name"]), inputs, where
            )
        elif name in ("custom_jvp_call", "custom_vjp_call"):
            yield from _function(
                eqn, compat.program_identity(eqn.params["call_jaxpr"]), inputs, where
            )
            continue
        elif name.startswith("gradkit_"):
            continue
        elif name not in _PLUMBING and name in compat.primitives() and _moves(eqn):
            yield name, "primitive", inputs, where, _types_of(f"prim:{name}")
        for body in _bodies(eqn):
            yield from _walk(body, where)


def _function(eqn: JaxprEqn, identity: tuple[str, str], inputs: str, scope: str):
    """A call of a function that leaves a trace, if it is one that a user can name."""
    key = public_functions().get(identity)
    if key is not None:
        yield key, "function", inputs, scope, _types_of(f"fn:{identity[0]}")
    elif not identity[0].startswith(("_", "<")) and "/jax/" not in identity[1]:
        yield f"{identity[0]} (the object)", "function", inputs, scope, ()


def _moves(eqn: JaxprEqn) -> bool:
    """Is there something to differentiate: floating-point inputs and outputs?"""
    inexact = lambda atom: jax.dtypes.issubdtype(atom.aval.dtype, jax.numpy.inexact)  # noqa: E731
    return any(map(inexact, eqn.invars)) and any(map(inexact, eqn.outvars))


def _bodies(eqn: JaxprEqn) -> Iterator[Jaxpr]:
    for value in eqn.params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, Jaxpr):
                yield item


def _types_of(target: str) -> tuple[str, ...]:
    """The TensorFlow types that stand for a target; functions go by the last part of their path."""
    kind, _, name = target.partition(":")
    return tuple(
        type_name
        for type_name, entry in TENSORFLOW_TYPES.items()
        if any(t == target or (kind == "fn" and t.endswith(f".{name}")) for t in entry.targets)
    )


def _merge(found: Sequence[_Found]) -> OverridableOps:
    groups: dict[tuple[str, str, str], list[_Found]] = {}
    for item in found:
        key, kind, _, scope, _ = item
        groups.setdefault((key, kind, scope), []).append(item)
    return OverridableOps(
        OverridableOp(
            key, kind, len(items), tuple(dict.fromkeys(i[2] for i in items)), scope, items[0][4]
        )
        for (key, kind, scope), items in groups.items()
    )


def _some(shapes: Sequence[str], limit: int = 3) -> str:
    more = len(shapes) - limit
    return "; ".join(shapes[:limit]) + (f"; and {more} more" if more > 0 else "")
