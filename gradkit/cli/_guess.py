"""Arguments for a function that declares none: the first shapes that it takes."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._errors import RuleError
from gradkit.cli._argspec import parse_arguments

_SHAPES = ("[3]", "[]", "[2,3]", "[3,3]", "[2,3,4]", "[1,4,4,2]")
_MIXED = ("[3]", "[]", "[3,3]", "[2,3]")  # tried in every combination
_MOST_MIXED = 3  # arguments beyond which there are too many combinations
_PYTHON = {int: "2", bool: "True", float: "0.5"}
# Annotations are types, or their names as text.
_BY_ANNOTATION = {name: spec for t, spec in _PYTHON.items() for name in (str(t), t.__name__)}
_SIGNS = ("", ">0")  # logarithms and roots want positive numbers


def guess_specs(function: Callable[..., Any], seed: int) -> tuple[str, ...] | None:
    """Specs of float32 arguments, as for `--arg`, at which a function has a finite result.

    Parameters with defaults keep them; those annotated as Python numbers get one. A function whose
    rule breaks the protocol is given the arguments that show it.

    Returns:
        One spec per argument, or `None` if nothing on the list fits.

    Example:
        >>> guess_specs(lambda w, x: w @ jax.numpy.log(x), 0)
        ('f32[3]>0', 'f32[3]>0')
        >>> guess_specs(lambda image: image.shape[7], 0) is None
        True
    """
    for arguments in _arguments(function):
        fixed = [_BY_ANNOTATION.get(str(annotation)) for annotation in arguments]
        for shapes in _shapes(fixed.count(None)):
            for sign in _SIGNS:
                free = (f"f32{shape}{sign}" for shape in shapes)
                specs = tuple(next(free) if spec is None else spec for spec in fixed)
                outcome = _try(function, parse_arguments(specs, seed))
                if outcome == "finite":
                    return specs
                if outcome == "does not fit":
                    break
    return None


def _arguments(function: Callable[..., Any]) -> Sequence[Sequence[Any]]:
    """The annotations of the arguments to give; several lists where their number is open."""
    one, two = (None,), (None, None)
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return (one, two)
    needed = [p for p in parameters if p.default is p.empty]
    if any(p.kind is p.KEYWORD_ONLY for p in needed):
        return ()
    positional = [p for p in needed if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if positional:
        return ([p.annotation for p in positional],)
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return (one, two)
    optional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return (one,) if optional else ()


def _shapes(count: int) -> Iterator[tuple[str, ...]]:
    """Likely shapes first: all alike, then mixed."""
    if count == 0:
        yield ()
        return
    yield from ((shape,) * count for shape in _SHAPES)
    if count == 1:
        return
    if count <= _MOST_MIXED:
        mixed = itertools.product(_MIXED, repeat=count)
        yield from (shapes for shapes in mixed if len(set(shapes)) > 1)
    else:
        yield from ((first, *(rest,) * (count - 1)) for first in _SHAPES for rest in ("[3]", "[]"))


def _try(function: Callable[..., Any], args: Sequence[Any]) -> str:
    """`"finite"`, `"not finite"`, or `"does not fit"`."""
    try:
        try:
            shapes = jax.eval_shape(*_of_arrays(function, args))
        except jax.errors.JAXTypeError:  # branches on a value: only running it tells
            shapes = None
        if shapes is not None and not _floating(shapes):
            return "does not fit"
        numbers = _floating(function(*args))
    except RuleError:
        return "finite"  # whatever the arguments: running the check says what is wrong
    except (Exception, SystemExit):
        return "does not fit"
    if not numbers:
        return "does not fit"
    return "finite" if all(np.isfinite(np.asarray(y)).all() for y in numbers) else "not finite"


def _of_arrays(function: Callable[..., Any], args: Sequence[Any]) -> list[Any]:
    """The function with its Python values filled in, and the arrays that are left."""
    slots = [i for i, x in enumerate(args) if isinstance(x, np.ndarray)]

    def of_arrays(*arrays: Any) -> Any:
        full = list(args)
        for i, x in zip(slots, arrays, strict=True):
            full[i] = x
        return function(*full)

    return [of_arrays, *(args[i] for i in slots)]


def _floating(tree: Any) -> list[Any]:
    leaves = jax.tree.leaves(tree)
    return [y for y in leaves if jnp.issubdtype(getattr(y, "dtype", type(y)), jnp.inexact)]
