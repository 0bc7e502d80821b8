"""`watch_gradients`: the cotangents inside a model that nobody edited, in one table."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import numpy as np
from jax.extend import source_info_util
from jax.extend.core import Jaxpr, JaxprEqn, Literal

from gradkit import _jax_compat as compat
from gradkit._collect import value_and_records
from gradkit._errors import OverrideKeyError, describe, did_you_mean
from gradkit._gradient_table import GradientTable, Watched
from gradkit._override import in_scope
from gradkit._perturb import Point, Site, join, operation_name
from gradkit._statistics import statistics
from gradkit._targets import JittedTarget, Key, ObjectTarget, PrimitiveTarget, resolve


def watch_gradients(
    fn: Callable[..., Any],
    targets: Any,
    *,
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
) -> Callable[..., tuple[Any, Any, GradientTable]]:
    """`jax.value_and_grad`, with a table of the cotangents inside.

    Args:
        fn: A function of arrays with a scalar value, such as the loss of a model. It is not
            edited; it is traced, as by `jax.jit`.
        targets: What to watch, or a list of that:

            - named scopes: `"encoder/*"`, or `"encoder:"` for a name without a pattern. Watched is
              what leaves a scope: a layer's output. flax and equinox put layers in such scopes.
            - operations, as keys of `gradient_override_map` name them: `"Relu"`, `jax.nn.relu`,
              `"dot_general"`, `"encoder/*:Relu"`. Watched are their outputs.
        argnums: Which arguments to differentiate with respect to, as in `jax.value_and_grad`.
        has_aux: Whether `fn` returns `(value, aux)`.

    Returns:
        A function of `fn`'s arguments that returns `(value, grads, table)`. All three are
        ordinary outputs: `jit`, `vmap` and `grad` it as you like. What stands inside a
        `while_loop`, or inside a function with a derivative rule of its own, is not seen.

    Raises:
        OverrideKeyError: If a target could match no operation; when called, if it matches none.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def loss(w, x):
        ...     for i in range(2):
        ...         with jax.named_scope(f"layer{i}"):
        ...             x = jax.nn.relu(w[i] * x)
        ...     return jnp.sum(x)
        >>> watched = jax.jit(watch_gradients(loss, "layer*"))
        >>> value, grads, table = watched(jnp.array([2.0, 5.0]), jnp.array([1.0, -1.0]))
        >>> print(table)
        scope   operation  type        norm  max abs  mean  zeros  nonfinite
        layer0  relu       float32[2]     5        5   2.5    50%          0
        layer1  relu       float32[2]  1.41        1     1     0%          0
    """
    many = isinstance(targets, Iterable) and not isinstance(targets, str)
    wanted = [_read_target(target) for target in (targets if many else [targets])]

    @functools.wraps(fn)
    def watched(*args: Any, **kwargs: Any) -> tuple[Any, Any, GradientTable]:
        search = _Search(wanted)
        value, grads, sites, records = value_and_records(
            fn, args, kwargs, (search.find, _out_of_reach), argnums=argnums, has_aux=has_aux
        )
        search.check_found()
        return value, grads, _table(sites, records)

    return watched


def _out_of_reach(label: Any, eqn: JaxprEqn) -> None:
    """Nobody asked for this very operation: it is not in the table."""


@dataclass(frozen=True)
class _Scope:
    """A target: what leaves the named scopes of a pattern."""

    text: str
    pattern: str


def _read_target(target: Any) -> Key | _Scope:
    if isinstance(target, str):
        if target.endswith(":"):
            return _Scope(target, target[:-1])
        if ":" not in target and any(c in target for c in "/*?["):
            return _Scope(target, target)
    return resolve(target)


@dataclass(frozen=True)
class _Label:
    scope: str
    operation: str
    source: str


class _Search:
    """Looks for what is watched in a program, and remembers which targets it has met."""

    def __init__(self, targets: Sequence[Key | _Scope]):
        self._targets = targets
        self._met: set[str] = set()
        self._scopes: dict[str, None] = {}

    def find(self, jaxpr: Jaxpr, path: str) -> dict[int, list[Point]]:
        """The points of a program."""
        paths = [join(path, compat.scope_of(eqn)) for eqn in jaxpr.eqns]
        self._scopes.update(dict.fromkeys(paths))
        marks: dict[tuple[int, int, str], _Label] = {}
        for target in self._targets:
            if isinstance(target, _Scope):
                found = _leaving(jaxpr, path, target.pattern)
            else:
                found = _calls(jaxpr, paths, target)
            for i, output, scope in found:
                self._met.add(target.text)
                eqn = jaxpr.eqns[i]
                source = source_info_util.summarize(eqn.source_info)
                marks.setdefault((i, output, scope), _Label(scope, operation_name(eqn), source))
        points: dict[int, list[Point]] = {}
        for (i, output, _), label in marks.items():
            aval: Any = jaxpr.eqns[i].outvars[output].aval
            if jax.dtypes.issubdtype(aval.dtype, np.inexact):
                points.setdefault(i, []).append(Point(output, label, statistics))
        return points

    def check_found(self) -> None:
        """Complain of a target that has met nothing."""
        for target in self._targets:
            if target.text not in self._met:
                scopes = [scope for scope in self._scopes if scope]
                name = target.pattern if isinstance(target, _Scope) else target.scope
                raise OverrideKeyError(
                    describe(
                        f"the target {target.text!r} matches nothing in the program"
                        f"{did_you_mean(name, scopes) if name else ''}",
                        expected="named scopes such as " + ", ".join(map(repr, scopes[:6]))
                        if scopes
                        else "an operation: the program has no named scopes",
                        fix="gradkit.overridable_ops(f, *args) lists operations and scopes",
                    )
                )


_Found = tuple[int, int, str]  # number of the equation, of its output, and the scope to show


def _calls(jaxpr: Jaxpr, paths: Sequence[str], key: Key) -> Iterator[_Found]:
    """The calls of the operations of a key."""
    for i, eqn in enumerate(jaxpr.eqns):
        if in_scope(paths[i], key.scope) and any(_is_call(eqn, t) for t in key.targets):
            for output in range(len(eqn.outvars)):
                yield i, output, paths[i]


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


def _leaving(jaxpr: Jaxpr, outer: str, pattern: str) -> Iterator[_Found]:
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


def _table(sites: Sequence[Site], records: Sequence[Any]) -> GradientTable:
    numbers: dict[tuple[str, str], int] = {}
    watched, rows = [], []
    for site, record in zip(sites, records, strict=True):
        label = site.point.label
        n = numbers[label.scope, label.operation] = (
            numbers.get((label.scope, label.operation), 0) + 1
        )
        repeats = prod(site.shape[:-1])
        watched.append(
            Watched(
                label.scope,
                label.operation if n == 1 else f"{label.operation} #{n}",
                site.aval.shape,
                np.dtype(site.aval.dtype),
                label.source,
                repeats,
            )
        )
        rows.append(record.reshape(repeats, -1))
    return GradientTable(watched, rows)
