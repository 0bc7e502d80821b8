"""Composites: which rule each layer of a model has, and each operation that is given one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jax.extend.core import JaxprEqn

from gradkit._errors import OverrideKeyError, OverrideValueError, describe
from gradkit._operations import is_call_of
from gradkit._override import in_scope
from gradkit._targets import Key, PrimitiveTarget, resolve
from gradkit.attribution._layers import PRODUCTS, Found
from gradkit.attribution._lrp_rules import (
    LayerRule,
    alpha_beta,
    epsilon,
    flat,
    gamma,
    z_box,
    z_plus,
)

Rule = Callable[..., Any]
"""`(layer, relevance)` of a linear layer, `(op, *relevances)` of another operation."""


@dataclass(frozen=True)
class Composite:
    """Lines of a composite, the first that matches counts.

    Attributes:
        lines: Keys and rules of layers.
        own: Keys and rules of other operations.
    """

    lines: tuple[tuple[_LayerKey, Rule], ...]
    own: tuple[tuple[Key, Rule], ...]
    _met: set[str] = field(default_factory=set)

    @staticmethod
    def of(rules: Rule | Mapping[Any, Rule] | None) -> Composite:
        """Read what `lrp` takes as `rules`."""
        lines = {} if rules is None else rules if isinstance(rules, Mapping) else {"*": rules}
        of_layers, own = [], []
        for key, rule in lines.items():
            if not callable(rule):
                raise OverrideValueError(
                    describe(
                        f"the composite's value at {key!r} is not a rule.",
                        expected="a rule such as gradkit.attribution.epsilon(1e-6)",
                        got=type(rule).__name__,
                    )
                )
            read = _read_key(key, rule)
            (of_layers if isinstance(read, _LayerKey) else own).append((read, rule))
        return Composite(tuple(of_layers), tuple(own))

    def claim(self, eqn: JaxprEqn, scope: str) -> Rule | None:
        """The rule that an operation has of its own, if it has one."""
        found = [(key, rule) for key, rule in self.own if is_call_of(eqn, scope, key)]
        self._met.update(key.text for key, _ in found)
        return found[0][1] if found else None

    def choose(self, layers: Sequence[Found]) -> list[Rule]:
        """One rule per layer."""
        chosen = []
        for place, layer in enumerate(layers):
            found = [(k, rule) for k, rule in self.lines if k.matches(layer, place, len(layers))]
            self._met.update(key.text for key, _ in found)
            chosen.append(found[0][1] if found else epsilon())
        return chosen

    def unused(self) -> list[str]:
        """The keys that have matched nothing in the model."""
        keys = [key.text for key, _ in (*self.lines, *self.own)]
        return [text for text in keys if text not in self._met and text != "'*'"]


@dataclass(frozen=True)
class _LayerKey:
    text: str
    scope: str
    primitives: frozenset[str]
    place: int | None = None

    def matches(self, layer: Found, place: int, count: int) -> bool:
        if self.place is not None:
            return self.place in (place, place - count)
        return layer.primitive in self.primitives and in_scope(layer.scope, self.scope)


def _read_key(key: Any, rule: Rule) -> _LayerKey | Key:
    if isinstance(key, int) and not isinstance(key, bool):
        return _LayerKey(repr(key), "", frozenset(PRODUCTS), key)
    scope, _, name = key.rpartition(":") if isinstance(key, str) else ("", "", key)
    if name == "*":
        return _LayerKey(repr(key), scope, frozenset(PRODUCTS))
    resolved = resolve(key)
    names = {t.name for t in resolved.targets if isinstance(t, PrimitiveTarget)}
    if names & set(PRODUCTS):
        return _LayerKey(repr(key), resolved.scope, frozenset(names))
    if isinstance(rule, LayerRule):
        raise OverrideKeyError(
            describe(
                f"no layer could match the key {key!r} of a composite.",
                expected="a place (0), 'Conv2D', 'MatMul' or '*', with 'scope/pattern:' in "
                "front if wanted",
                got=repr(key),
                fix="for another operation, write a rule(op, *relevances)",
            )
        )
    return replace(resolved, text=repr(key))


def epsilon_plus(eps: float = 1e-6) -> dict[Any, LayerRule]:
    """Z-plus in convolutions, epsilon in dense layers.

    Example:
        >>> list(epsilon_plus())
        ['Conv2D', '*']
    """
    return {"Conv2D": z_plus(eps), "*": epsilon(eps)}


def epsilon_plus_flat(eps: float = 1e-6) -> dict[Any, LayerRule]:
    """`epsilon_plus` with the flat rule in the first layer.

    Example:
        >>> list(epsilon_plus_flat())
        [0, 'Conv2D', '*']
    """
    return {0: flat(), **epsilon_plus(eps)}


def epsilon_alpha2_beta1(eps: float = 1e-6) -> dict[Any, LayerRule]:
    """Alpha-beta with 2 and 1 in convolutions, epsilon in dense layers.

    Example:
        >>> list(epsilon_alpha2_beta1())
        ['Conv2D', '*']
    """
    return {"Conv2D": alpha_beta(2.0, 1.0, eps), "*": epsilon(eps)}


def epsilon_alpha2_beta1_flat(eps: float = 1e-6) -> dict[Any, LayerRule]:
    """`epsilon_alpha2_beta1` with the flat rule in the first layer.

    Example:
        >>> list(epsilon_alpha2_beta1_flat())
        [0, 'Conv2D', '*']
    """
    return {0: flat(), **epsilon_alpha2_beta1(eps)}


def epsilon_gamma_box(
    low: float, high: float, factor: float = 0.25, eps: float = 1e-6
) -> dict[Any, LayerRule]:
    """Z-box in the first layer, gamma in other convolutions, epsilon in dense layers.

    Args:
        low: The smallest value that an input can have.
        high: The largest one.
        factor: Gamma.
        eps: The stabiliser.

    Example:
        >>> list(epsilon_gamma_box(0.0, 1.0))
        [0, 'Conv2D', '*']

    Source:
        Montavon et al. (2019), section 10.3.
    """
    return {0: z_box(low, high, eps), "Conv2D": gamma(factor, eps), "*": epsilon(eps)}
