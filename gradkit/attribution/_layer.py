"""One value inside a model, and the cotangent that arrives there, as ordinary outputs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, JaxprEqn

from gradkit import _jax_compat as compat
from gradkit._errors import AttributionInputError, OverrideKeyError, describe, did_you_mean
from gradkit._hook import hook_p
from gradkit._operations import Found, calls_of, leaving
from gradkit._perturb import Plan, Point, Site, evaluate, join
from gradkit._targets import Key, resolve
from gradkit._trees import describe_aval
from gradkit.attribution._model import Model, seed, trace

# What may name a layer, the first that anything in the model is called by.
_KINDS = ("tap", "scope", "operation")


def activation_and_cotangent(
    model: Model, x: Any, target: Any, layer: Any, index: int | None
) -> tuple[jax.Array, jax.Array, int]:
    """The value of a layer, and the gradient of the explained scalars with respect to it.

    The model is traced once, as it stands, and evaluated again with a perturbation of the value
    (`gradkit._perturb`), whose derivative shows both. So they come out of loops and branches too.

    Args:
        model: The model.
        x: The input.
        target: What is explained.
        layer: A tap's name, a pattern of named scopes, or a key of an override map.
        index: Which of several such values.

    Returns:
        The two, zeros in the branch of a `cond` that is not taken; and the number of loops around
        the layer, whose steps are the leading axes.

    Raises:
        OverrideKeyError: If nothing in the model is called so.
        AttributionInputError: If several things are, and `index` does not choose.
    """
    program, leaves = trace(model, x)
    search = _Search(layer)
    closed = program.jaxpr
    plan = Plan.of(closed.jaxpr, closed.consts, search.find, search.out_of_reach)
    site = search.choose(plan.sites, index)
    plan = plan.only(site)

    def run(perturbation: Any) -> Any:
        (y,) = evaluate(plan, [*program.consts, *leaves], [perturbation])
        return y

    y, pull = jax.vjp(run, site.zeros())
    loops = len(site.shape) - len(site.aval.shape) - 1
    value, cotangent = jnp.moveaxis(pull(seed(y, target))[0], loops, 0)
    return value, cotangent, loops


def _value_and_cotangent(y_bar: Any, y: Any) -> Any:
    return jnp.stack([y, y_bar])


@dataclass(frozen=True)
class _Label:
    kind: str
    scope: str


class _Search:
    """Looks for what is called as the layer is: taps, what leaves scopes, operations."""

    def __init__(self, layer: Any):
        self._layer = layer
        self._key: Key | None = None
        self._pattern = layer.removesuffix(":") if isinstance(layer, str) else None
        self._scopes: dict[str, None] = {}
        self._taps: list[str] = []
        self._hidden: list[str] = []
        try:
            self._key = resolve(layer)
        except OverrideKeyError:
            if self._pattern is None:
                raise

    def find(self, jaxpr: Jaxpr, outer: str) -> dict[int, list[Point]]:
        """The points of a program."""
        paths = [join(outer, compat.scope_of(eqn)) for eqn in jaxpr.eqns]
        self._scopes.update(dict.fromkeys(paths))
        found: list[tuple[str, Iterable[Found]]] = [("tap", self._find_taps(jaxpr, paths))]
        if self._pattern is not None:
            found.append(("scope", sorted(set(leaving(jaxpr, outer, self._pattern)))))
        if self._key is not None:
            found.append(("operation", calls_of(jaxpr, paths, self._key)))
        points: dict[int, dict[tuple[int, str], Point]] = {}
        for kind, places in found:
            for i, output, scope in places:
                aval: Any = jaxpr.eqns[i].outvars[output].aval
                if jnp.issubdtype(aval.dtype, jnp.floating):
                    point = Point(output, _Label(kind, scope), _value_and_cotangent, of_value=True)
                    points.setdefault(i, {}).setdefault((output, kind), point)
        return {i: list(own.values()) for i, own in points.items()}

    def out_of_reach(self, label: _Label, eqn: JaxprEqn) -> None:
        """Remember what cannot be shown, for the message if there is nothing else."""
        self._hidden.append(f"inside '{eqn.primitive.name}'")

    def _find_taps(self, jaxpr: Jaxpr, paths: Sequence[str]) -> list[Found]:
        found = []
        for i, eqn in enumerate(jaxpr.eqns):
            hook = eqn.params["hook"] if eqn.primitive is hook_p else None
            if hook is not None and hook.name is not None:
                name = join(paths[i], hook.name) if hook.scoped else hook.name
                self._taps.append(name)
                if name == self._layer:
                    found.extend((i, output, paths[i]) for output in range(len(eqn.outvars)))
        return found

    def choose(self, sites: Sequence[Site], index: int | None) -> Site:
        """The one that is meant."""
        by_kind = [[s for s in sites if s.point.label.kind == kind] for kind in _KINDS]
        found = next((found for found in by_kind if found), [])
        found = sorted(found, key=lambda site: (site.call, site.point.output))
        if not found:
            raise OverrideKeyError(self._nothing_found())
        if index is None and len(found) > 1:
            shown = [
                f"{k}: {describe_aval(s.aval)} in {s.point.label.scope or 'no scope'!r}"
                for k, s in enumerate(found)
            ]
            raise AttributionInputError(
                describe(
                    f"{len(found)} values of the model are called {self._layer!r}.",
                    got="; ".join(shown),
                    fix="choose one, index=-1 for the last; or name its scope as well",
                )
            )
        try:
            return found[0 if index is None else index]
        except IndexError:
            raise AttributionInputError(
                describe(
                    f"index={index} is not among the values that are called {self._layer!r}.",
                    expected=f"less than {len(found)}",
                )
            ) from None

    def _nothing_found(self) -> str:
        layer = self._layer
        if self._hidden:
            return describe(
                f"the layer {layer!r} cannot be shown: what is {self._hidden[0]} has no single "
                "value, or a derivative rule that does not say what the cotangents inside are.",
                fix="choose a layer outside of it",
            )
        scopes = [scope for scope in self._scopes if scope]
        names = [part for scope in scopes for part in scope.split("/")]
        close = did_you_mean(layer, names + self._taps) if isinstance(layer, str) else ""
        return describe(
            f"no layer of the model is called {layer!r}{close}",
            expected="the name of a tap, named scopes such as "
            + (", ".join(map(repr, scopes[:6])) or "'encoder/*'")
            + ", or an operation such as 'Relu'",
            fix="gradkit.overridable_ops(model, x) lists operations and scopes",
        )
