"""What a rule returns, checked against the arguments that it is the gradient for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from gradkit import _jax_compat as compat
from gradkit._errors import CotangentError, describe
from gradkit._trees import describe_aval, describe_type, is_array, leaves_with_names


@dataclass(frozen=True)
class Arguments:
    """The arguments of one call that the rule owes cotangents for.

    Attributes:
        function: The user's name of the function, for messages.
        values: The arguments.
        names: Their names.
        positions: Their positions in the call, counted from 0.
        optional: How many more cotangents the rule may return, for parameters left at their
            default values.
    """

    function: str
    values: Sequence[Any]
    names: Sequence[str]
    positions: Sequence[int]
    optional: int

    def cotangent_leaves(self, returned: Any) -> list[Any]:
        """One cotangent or None (zero) for each leaf of `values`, in order.

        Raises:
            CotangentError: If number, structure, shape or dtype do not fit.
        """
        leaves: list[Any] = []
        for i, cotangent in enumerate(self._per_argument(returned)):
            leaves.extend(self._leaves_of(i, cotangent))
        return leaves

    def _per_argument(self, returned: Any) -> Sequence[Any]:
        n = len(self.values)
        if n == 1 and self.optional == 0:
            if isinstance(returned, (tuple, list)) and len(returned) == 1:
                own = jax.tree.structure(self.values[0]) == jax.tree.structure(returned)
                return [returned] if own else list(returned)
            if isinstance(returned, (tuple, list)) and not _same_container(
                returned, self.values[0]
            ):
                raise self._wrong_count(len(returned))
            return [returned]
        if isinstance(returned, (tuple, list)):
            if len(returned) in (n, n + self.optional):
                return returned[:n]
            if n != 1 or not _same_container(returned, self.values[0]):
                raise self._wrong_count(len(returned))
        if n == 1:  # further parameters kept their defaults
            return [returned]
        if isinstance(returned, dict):
            raise CotangentError(
                describe(
                    f"gradient of '{self.function}' returned a dict.",
                    expected=f"a tuple, {self._one_each()}",
                    got=f"a dict with keys {', '.join(map(repr, returned))}",
                    fix="return the cotangents in the order of the arguments",
                )
            )
        raise self._wrong_count(1)

    def _one_each(self) -> str:
        if not self.names:
            return "no cotangent, since there is no argument"
        return "one cotangent per positional argument: " + ", ".join(
            f"'{name}'" for name in self.names
        )

    def _wrong_count(self, got: int) -> CotangentError:
        return CotangentError(
            describe(
                f"gradient of '{self.function}' returned the wrong number of cotangents.",
                expected=f"{len(self.values)}, {self._one_each()}",
                got=str(got),
                fix="return a tuple with one entry per positional argument; None stands for zero",
            )
        )

    def _leaves_of(self, i: int, cotangent: Any) -> list[Any]:
        value = self.values[i]
        leaves, structure = jax.tree.flatten(value)
        if cotangent is None:
            return [None] * len(leaves)
        try:
            cotangents = structure.flatten_up_to(cotangent)
        except (ValueError, TypeError) as error:
            raise CotangentError(
                describe(
                    f"gradient of '{self.function}' returned a cotangent that is not built like "
                    f"{self._argument(i)}.",
                    expected=f"the pytree structure {structure}",
                    got=f"{jax.tree.structure(cotangent)}",
                    fix="return a cotangent for each leaf in the argument's own structure, "
                    "or None for zero",
                )
            ) from error
        if not leaves:
            return []
        named = [(n, leaf) for n, leaf in leaves_with_names(value) if leaf is not None]
        return [
            self._leaf(i, name, leaf, bar)
            for (name, leaf), bar in zip(named, cotangents, strict=True)
        ]

    def _leaf(self, i: int, path: str, x: Any, x_bar: Any) -> Any:
        if x_bar is None or not is_array(x) or _is_float0(x_bar):
            return None
        expected = compat.cotangent_aval(x)
        if expected.dtype == jax.dtypes.float0:  # an integer has no gradient, whatever is said
            return None
        if not is_array(x_bar):
            raise self._misfit(i, path, expected, type(x_bar).__name__, "return an array or None")
        got = jax.typeof(x_bar)
        if got.shape != expected.shape:
            raise self._misfit(
                i, path, expected, describe_type(x_bar), _shape_advice(got, expected)
            )
        if got.dtype != expected.dtype:
            converted = _weakly_converted(x, x_bar, got, expected)
            if converted is None:
                raise self._misfit(
                    i,
                    path,
                    expected,
                    describe_type(x_bar),
                    f"convert it to the argument's type: x_bar.astype('{expected.dtype.name}')",
                )
            x_bar = converted
        return compat.match_varying_axes(jnp.asarray(x_bar), expected)

    def _argument(self, i: int, path: str = "") -> str:
        leaf = f", at {self.names[i]}{path}" if path else ""
        return f"argument {self.positions[i]}, '{self.names[i]}'{leaf}"

    def _misfit(self, i: int, path: str, expected: Any, got: str, fix: str) -> CotangentError:
        return CotangentError(
            describe(
                f"gradient of '{self.function}' returned a cotangent that does not fit "
                f"{self._argument(i, path)}",
                expected=f"{describe_aval(expected)}, the tangent type of that primal",
                got=got,
                fix=fix,
            )
        )


def _same_container(returned: Any, value: Any) -> bool:
    return type(returned) is type(value) and len(returned) == len(value)


def _is_float0(x_bar: Any) -> bool:
    return getattr(x_bar, "dtype", None) == jax.dtypes.float0


def _weakly_converted(x: Any, x_bar: Any, got: Any, expected: Any) -> Any:
    """A python number (or what became of one) takes the type that is needed; else None."""
    is_number = isinstance(x, (bool, int, float, complex))
    if not (got.weak_type or is_number):
        return None
    complex_lost = jnp.issubdtype(got.dtype, jnp.complexfloating) and not jnp.issubdtype(
        expected.dtype, jnp.complexfloating
    )
    return None if complex_lost else jax.lax.convert_element_type(x_bar, expected.dtype)


def _shape_advice(got: Any, expected: Any) -> str:
    extra = len(got.shape) - len(expected.shape)
    if extra > 0 and got.shape[extra:] == expected.shape:
        axes = "0" if extra == 1 else str(tuple(range(extra)))
        return f"sum over the axes that broadcasting added: y_bar.sum(axis={axes})"
    if extra == 0 and all(e in (1, g) for g, e in zip(got.shape, expected.shape, strict=True)):
        axes = tuple(
            i for i, (g, e) in enumerate(zip(got.shape, expected.shape, strict=True)) if g != e
        )
        axis = str(axes[0]) if len(axes) == 1 else str(axes)
        return (
            f"sum over the axes that broadcasting stretched: y_bar.sum(axis={axis}, keepdims=True)"
        )
    return "a cotangent has the shape of its argument"
