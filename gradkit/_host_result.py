"""What a host function returns, checked against what was declared.

NumPy computes in float64 and int64 where nobody asks it not to. So a number is cast within its
kind: to another floating-point, complex or integer type, integers only if they fit. An integer for
a float, a real number for a complex one, or the other way round, is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from gradkit._errors import CotangentError, HostResultError, describe
from gradkit._trees import leaves_with_names

Batch = tuple[int, ...]
Struct = jax.ShapeDtypeStruct


@dataclass(frozen=True)
class HostResult:
    """The declared result of a host function.

    Attributes:
        name: The operation's type, for messages.
        tree: A pytree of `jax.ShapeDtypeStruct`.
    """

    name: str
    tree: Any

    def leaves(self, batch: Batch, returned: Any) -> list[np.ndarray]:
        """The returned arrays, flat and cast, each with the axes `batch` in front.

        Raises:
            HostResultError: If structure, shape or dtype are not as declared.
        """
        expected, structure = jax.tree.flatten(self.tree)
        got, got_structure = jax.tree.flatten(returned)
        if structure != got_structure:
            raise HostResultError(
                describe(
                    f"the host function of '{self.name}' returned another structure than its "
                    "result= declares.",
                    expected=_describe_structure(self.tree),
                    got=_describe_structure(returned),
                    fix="return arrays in the declared structure (np.asarray makes one of a list), "
                    "or correct result=",
                )
            )
        names = [name for name, leaf in leaves_with_names(self.tree) if leaf is not None]
        return [
            _cast(
                HostResultError,
                f"the host function of '{self.name}' returned an array that does not fit its "
                "result=" + (f", at y{name}." if name else "."),
                struct,
                value,
                batch,
            )
            for name, struct, value in zip(names, expected, got, strict=True)
        ]


@dataclass(frozen=True)
class HostCotangents:
    """The cotangents that a host `vjp` owes.

    Attributes:
        name: The operation's type, for messages.
        inputs: The operation's inputs, with a `jax.ShapeDtypeStruct` for each leaf that has a
            cotangent, and None for each other.
        names: Their names.
    """

    name: str
    inputs: Sequence[Any]
    names: Sequence[str]

    def leaves(self, batch: Batch, returned: Any) -> list[np.ndarray]:
        """The returned cotangents, flat and cast, those of the Nones left out; zeros for None.

        Raises:
            CotangentError: If number, structure, shape or dtype do not fit.
        """
        n = len(self.inputs)
        bare = n == 1 and not (isinstance(returned, (tuple, list)) and len(returned) == 1)
        x_bars = (returned,) if bare else returned
        if not isinstance(x_bars, (tuple, list)) or len(x_bars) != n:
            got = len(x_bars) if isinstance(x_bars, (tuple, list)) else 1
            raise CotangentError(
                describe(
                    f"vjp of '{self.name}' returned the wrong number of cotangents.",
                    expected=f"{n}, one per input: {', '.join(map(repr, self.names))}",
                    got=str(got),
                    fix="return a tuple with one entry per input; None stands for zero",
                )
            )
        out = []
        for i in range(n):
            out += self._of_input(i, batch, x_bars[i])
        return out

    def _of_input(self, i: int, batch: Batch, x_bar: Any) -> list[np.ndarray]:
        where = f"argument {i}, '{self.names[i]}'"
        named = leaves_with_names(self.inputs[i])
        structure = jax.tree.structure(self.inputs[i], is_leaf=_is_none)
        try:
            x_bars = [None] * len(named) if x_bar is None else structure.flatten_up_to(x_bar)
        except (ValueError, TypeError) as error:
            raise CotangentError(
                describe(
                    f"vjp of '{self.name}' returned a cotangent that is not built like {where}.",
                    expected=str(structure),
                    got=str(jax.tree.structure(x_bar)),
                    fix="return a cotangent for each leaf in the input's own structure, or None",
                )
            ) from error
        out = []
        for (name, struct), bar in zip(named, x_bars, strict=True):
            if struct is None:
                continue
            if bar is None:
                out.append(np.zeros((*batch, *struct.shape), struct.dtype))
                continue
            at = f", at {self.names[i]}{name}" if name else ""
            what = f"vjp of '{self.name}' returned a cotangent that does not fit {where}{at}"
            out.append(_cast(CotangentError, what, struct, bar, batch))
        return out


def _is_none(node: Any) -> bool:
    return node is None


def _cast(
    error: type[Exception], what: str, struct: Struct, value: Any, batch: Batch
) -> np.ndarray:
    """`value` as an array of the declared type, if it is one of that shape and kind."""
    shape = (*batch, *struct.shape)
    try:
        array = np.asarray(value)
    except ValueError:  # a ragged list
        array = np.asarray(None)
    got = _describe(array.shape, array.dtype)
    kind, got_kind = _kind(struct.dtype), _kind(array.dtype)
    if got_kind is None:
        got, fix = type(value).__name__, "return a NumPy array of numbers"
    elif array.shape != shape and batch:
        fix = (
            f"under vmap, handle the leading axes {batch} that vmap_method= adds, or use the "
            'default vmap_method="sequential"'
        )
    elif array.shape != shape:
        fix = "return the declared shape, or correct the declaration"
    elif kind != got_kind:
        fix = f"convert it: y.astype(np.{struct.dtype.name})"
    else:
        with np.errstate(over="ignore", under="ignore"):  # infinity and 0, as in JAX
            cast = array.astype(struct.dtype, copy=False)
        if kind != "an integer" or np.array_equal(cast, array):
            return cast
        fix = f"an integer in it does not fit {struct.dtype.name}: declare a wider type"
    raise error(describe(what, expected=_describe(shape, struct.dtype), got=got, fix=fix))


_KINDS = {
    np.bool_: "a boolean",
    np.integer: "an integer",
    np.floating: "a real number",
    np.complexfloating: "a complex number",
}


def _kind(dtype: Any) -> str | None:
    kinds = (name for kind, name in _KINDS.items() if jax.dtypes.issubdtype(dtype, kind))
    return next(kinds, None)


def _describe(shape: Sequence[int], dtype: Any) -> str:
    return f"{np.dtype(dtype).name}[{', '.join(map(str, shape))}]"


def _describe_structure(tree: Any) -> str:
    return str(jax.tree.structure(tree)).removeprefix("PyTreeDef(").removesuffix(")")
