"""Composites: which rule each layer of a model has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from gradkit._errors import OverrideKeyError, OverrideValueError, describe
from gradkit._targets import PrimitiveTarget, resolve
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


@dataclass(frozen=True)
class Composite:
    """Lines of a composite, the first that matches counts."""

    lines: tuple[tuple[Any, LayerRule], ...]

    @staticmethod
    def of(rules: LayerRule | Mapping[Any, LayerRule] | None) -> Composite:
        """Read what `lrp` takes as `rules`."""
        lines = {} if rules is None else rules if isinstance(rules, Mapping) else {"*": rules}
        for key, rule in lines.items():
            if not callable(rule):
                raise OverrideValueError(
                    describe(
                        f"the composite's value at {key!r} is not a rule.",
                        expected="a rule such as gradkit.attribution.epsilon(1e-6)",
                        got=type(rule).__name__,
                    )
                )
        return Composite(tuple(lines.items()))

    def choose(self, layers: Sequence[Found]) -> tuple[list[LayerRule], list[Any]]:
        """One rule per layer, and the keys that match none."""
        readers = [(_Key.read(key), rule) for key, rule in self.lines]
        matches = [
            [key.matches(layer, i, len(layers)) for key, _ in readers]
            for i, layer in enumerate(layers)
        ]
        rules = [
            next((rule for (_, rule), yes in zip(readers, row, strict=True) if yes), epsilon())
            for row in matches
        ]
        unused = [
            key
            for k, (key, _) in enumerate(self.lines)
            if key != "*" and not any(row[k] for row in matches)
        ]
        return rules, unused


@dataclass(frozen=True)
class _Key:
    scope: str
    primitives: frozenset[str]
    place: int | None = None

    @staticmethod
    def read(key: Any) -> _Key:
        if isinstance(key, int) and not isinstance(key, bool):
            return _Key("", frozenset(PRODUCTS), key)
        scope, _, name = key.rpartition(":") if isinstance(key, str) else ("", "", key)
        if name == "*":
            return _Key(scope, frozenset(PRODUCTS))
        names = {t.name for t in resolve(name).targets if isinstance(t, PrimitiveTarget)}
        if not names & set(PRODUCTS):
            raise OverrideKeyError(
                describe(
                    f"no layer could match the key {key!r} of a composite.",
                    expected="a place (0), 'Conv2D', 'MatMul' or '*', with 'scope/pattern:' in "
                    "front if wanted",
                    got=repr(key),
                )
            )
        return _Key(scope, frozenset(names))

    def matches(self, layer: Found, place: int, count: int) -> bool:
        if self.place is not None:
            return self.place in (place, place - count)
        return layer.primitive in self.primitives and _in_scope(layer.scope, self.scope)


def _in_scope(path: str, pattern: str) -> bool:
    """Does a path of named scopes, or the rest of it from some scope on, match a pattern?"""
    parts = path.split("/")
    rests = ["/".join(parts[i:]) for i in range(len(parts))]
    return not pattern or any(
        fnmatchcase(rest, pattern) or fnmatchcase(rest + "/", pattern) for rest in rests
    )


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
