"""`watch_gradients`: the cotangents inside a model that nobody edited, in one table."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import numpy as np
from jax.extend import source_info_util
from jax.extend.core import Jaxpr, JaxprEqn

from gradkit import _jax_compat as compat
from gradkit._collect import value_and_records
from gradkit._errors import OverrideKeyError, describe, did_you_mean
from gradkit._gradient_table import GradientTable, Watched
from gradkit._operations import calls_of, leaving
from gradkit._perturb import Point, Site, join, operation_name
from gradkit._statistics import statistics
from gradkit._targets import Key, resolve


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
                found = leaving(jaxpr, path, target.pattern)
            else:
                found = calls_of(jaxpr, paths, target)
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
