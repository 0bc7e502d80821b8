"""One value inside a model, and the cotangent that arrives there, as ordinary outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, Literal

from gradkit import _jax_compat as compat
from gradkit import _scope
from gradkit._errors import AttributionInputError, OverrideKeyError, describe, did_you_mean
from gradkit._hook import hook_p
from gradkit._perturb import join, programs_inside
from gradkit._programs import Program
from gradkit._targets import Key, resolve
from gradkit._trees import describe_aval
from gradkit._watch import _calls, _leaving
from gradkit.attribution._model import Model, seed

# Calls whose program may stand in their place: what is cut out of a loop is not one value.
_INLINED = frozenset("jit pjit closed_call core_call checkpoint remat2".split())


@dataclass(frozen=True)
class _Place:
    """Where a value is: the equations that lead there, by number, and which output it is."""

    path: tuple[int, ...]
    output: int
    scope: str
    aval: Any


def activation_and_cotangent(
    model: Model, x: Any, target: Any, layer: Any, index: int | None
) -> tuple[jax.Array, jax.Array]:
    """The value of a layer, and the gradient of the explained scalars with respect to it.

    The model is traced once, as it stands, and evaluated again with a perturbation added to the
    value: the derivative with respect to the perturbation is the cotangent.

    Args:
        model: The model.
        x: The input.
        target: What is explained.
        layer: A tap's name, a pattern of named scopes, or a key of an override map.
        index: Which of several such values.

    Raises:
        OverrideKeyError: If nothing in the model is called so.
        AttributionInputError: If several things are, and `index` does not choose.
    """
    leaves, structure = jax.tree.flatten(x)

    def flat(*leaves: Any) -> list[Any]:
        return [model(jax.tree.unflatten(structure, leaves))]

    program = Program.trace(flat, [jax.typeof(leaf) for leaf in leaves], "model")
    place = _choose(program.jaxpr.jaxpr, layer, index)

    def run(perturbation: Any) -> tuple[Any, Any]:
        seen = []

        def visit(y: Any) -> Any:
            seen.append(y)
            return y + perturbation

        with _scope.switched_off():
            closed = program.jaxpr
            xs = [*program.consts, *leaves]
            (y,) = _evaluate(closed.jaxpr, closed.consts, xs, place.path, place.output, visit)
        return y, seen[0]

    y, pull, activation = jax.vjp(run, compat.zeros_of(place.aval), has_aux=True)
    return activation, pull(seed(y, target))[0]


def _evaluate(
    jaxpr: Jaxpr,
    consts: Sequence[Any],
    xs: Sequence[Any],
    path: tuple[int, ...],
    output: int,
    visit: Callable[[Any], Any],
) -> list[Any]:
    env = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *xs], strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else env[atom]

    at, *inside = path
    for i, eqn in enumerate(jaxpr.eqns):
        values = [read(atom) for atom in eqn.invars]
        if i == at and inside:
            ((body, own),) = programs_inside(eqn)
            outs = _evaluate(body, own, values, tuple(inside), output, visit)
        else:
            outs = compat.evaluate_equation(eqn, values)
            if i == at:
                outs[output] = visit(outs[output])
        env.update(zip(eqn.outvars, outs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _choose(jaxpr: Jaxpr, layer: Any, index: int | None) -> _Place:
    search = _Search(layer)
    search.look(jaxpr)
    found = search.found
    if not found:
        scopes = [scope for scope in search.scopes if scope]
        names = [part for scope in scopes for part in scope.split("/")]
        close = did_you_mean(layer, names + search.taps) if isinstance(layer, str) else ""
        raise OverrideKeyError(
            describe(
                f"no layer of the model is called {layer!r}{close}",
                expected="the name of a tap, named scopes such as "
                + (", ".join(map(repr, scopes[:6])) or "'encoder/*'")
                + ", or an operation such as 'Relu'",
                fix="a layer inside a loop (scan) has no single output: use one outside; "
                "gradkit.overridable_ops(model, x) lists operations and scopes",
            )
        )
    if index is None and len(found) > 1:
        shown = [
            f"{k}: {describe_aval(p.aval)} in {p.scope or 'no scope'!r}"
            for k, p in enumerate(found)
        ]
        raise AttributionInputError(
            describe(
                f"{len(found)} values of the model are called {layer!r}.",
                got="; ".join(shown),
                fix="choose one, index=-1 for the last; or name its scope as well",
            )
        )
    try:
        return found[0 if index is None else index]
    except IndexError:
        raise AttributionInputError(
            describe(
                f"index={index} is not among the values that are called {layer!r}.",
                expected=f"less than {len(found)}",
            )
        ) from None


class _Search:
    """Looks for a layer: a tap of the name, or else what leaves a scope, or else an operation."""

    def __init__(self, layer: Any):
        self._layer = layer
        self._key: Key | None = None
        self._pattern = layer.removesuffix(":") if isinstance(layer, str) else None
        self._by_kind: dict[str, list[_Place]] = {"tap": [], "scope": [], "key": []}
        self.scopes: dict[str, None] = {}
        self.taps: list[str] = []
        try:
            self._key = resolve(layer)
        except OverrideKeyError:
            if self._pattern is None:
                raise

    @property
    def found(self) -> list[_Place]:
        """The places, in the order of the program."""
        places = next((places for places in self._by_kind.values() if places), [])
        return sorted(places, key=lambda place: (place.path, place.output))

    def look(self, jaxpr: Jaxpr, outer: str = "", path: tuple[int, ...] = ()) -> None:
        """Look into a program and the programs that it calls."""
        paths = [join(outer, compat.scope_of(eqn)) for eqn in jaxpr.eqns]
        self.scopes.update(dict.fromkeys(paths))
        if self._pattern is not None:
            leaving = _leaving(jaxpr, outer, self._pattern)
            self._add("scope", jaxpr, path, sorted(set(leaving)))
        if self._key is not None:
            self._add("key", jaxpr, path, _calls(jaxpr, paths, self._key))
        for i, eqn in enumerate(jaxpr.eqns):
            if eqn.primitive is hook_p and eqn.params["hook"].name is not None:
                self._tap(jaxpr, path, i, paths[i])
            if eqn.primitive.name in _INLINED:
                ((body, _),) = programs_inside(eqn)
                self.look(body, paths[i], (*path, i))

    def _tap(self, jaxpr: Jaxpr, path: tuple[int, ...], i: int, scope: str) -> None:
        hook = jaxpr.eqns[i].params["hook"]
        name = join(scope, hook.name) if hook.scoped else hook.name
        self.taps.append(name)
        if self._layer == name:
            outputs = range(len(jaxpr.eqns[i].outvars))
            self._add("tap", jaxpr, path, [(i, output, scope) for output in outputs])

    def _add(self, kind: str, jaxpr: Jaxpr, path: tuple[int, ...], found: Any) -> None:
        for i, output, scope in found:
            aval: Any = jaxpr.eqns[i].outvars[output].aval
            place = _Place((*path, i), output, scope, aval)
            known = {(p.path, p.output) for p in self._by_kind[kind]}
            if jnp.issubdtype(aval.dtype, jnp.floating) and (place.path, output) not in known:
                self._by_kind[kind].append(place)
