"""The types of what a host function gets, and of what it is declared to return."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from gradkit import _jax_compat as compat
from gradkit._errors import RuleError, describe
from gradkit._trees import is_array, leaves_with_names


def declared_types(name: str, result: Any, args: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """What `result=` says about the output, as a pytree of `jax.ShapeDtypeStruct`.

    Args:
        name: The operation's type, for messages.
        result: Such a pytree, or a function from those of `args`.
        args: The inputs.
        attrs: The keyword-only arguments; the function gets those that it has parameters for.

    Raises:
        RuleError: If it says something else.
    """
    tree = result
    if callable(result):
        tree = result(*jax.tree.map(_input_type, args), **_accepted(result, attrs))
    for path, leaf in leaves_with_names(tree):
        if leaf is not None and not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
            raise RuleError(
                describe(
                    f"result= of '{name}' does not say what the host function returns.",
                    expected="jax.ShapeDtypeStruct(shape, dtype), a pytree of them, or a "
                    "function from those of the inputs to that of the output",
                    got=type(leaf).__name__ + (f" at y{path}" if path else ""),
                )
            )
    return jax.tree.map(
        lambda y: jax.ShapeDtypeStruct(y.shape, jax.dtypes.canonicalize_dtype(y.dtype)), tree
    )


def cotangent_type(x: Any) -> jax.ShapeDtypeStruct | None:
    """The type of the cotangent of a leaf; None if it has no tangent space."""
    if not is_array(x):
        return None
    aval = compat.cotangent_aval(x)
    is_float0 = aval.dtype == jax.dtypes.float0
    return None if is_float0 else jax.ShapeDtypeStruct(aval.shape, aval.dtype)


def refuse_keys(name: str, args: Sequence[Any], name_of: Callable[[int], str]) -> None:
    """Refuse PRNG keys: NumPy has no type for them.

    Raises:
        RuleError: If there is one among the arguments.
    """
    for i, arg in enumerate(args):
        for leaf in jax.tree.leaves(arg):
            if is_array(leaf) and jax.dtypes.issubdtype(
                jax.typeof(leaf).dtype, jax.dtypes.prng_key
            ):
                raise RuleError(
                    describe(
                        f"argument {i}, '{name_of(i)}', of '{name}' is a PRNG key, which no array "
                        "outside JAX can hold.",
                        expected="arrays of numbers",
                        got=str(jax.typeof(leaf).dtype),
                        fix="pass jax.random.key_data(key), and seed the host's generator with it",
                    )
                )


def _input_type(x: Any) -> Any:
    if not is_array(x):
        return x
    aval = jax.typeof(x)
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype)


def _accepted(fn: Callable[..., Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the named arguments that a function has a parameter for."""
    try:
        parameters = inspect.signature(fn).parameters.values()
    except ValueError:  # a builtin that does not say
        return {}
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return dict(named)
    names = {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    return {name: value for name, value in named.items() if name in names}
