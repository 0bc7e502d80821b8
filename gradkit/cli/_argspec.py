"""Arguments written on the command line: `'f32[8,4]'`, `'i32[8]<10'`, `'key'`, `'3.0'`."""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from gradkit._errors import TargetError, describe, did_you_mean

_DTYPES = {
    "f16": "float16",
    "bf16": "bfloat16",
    "f32": "float32",
    "f64": "float64",
    "c64": "complex64",
    "c128": "complex128",
    "i8": "int8",
    "i16": "int16",
    "i32": "int32",
    "i64": "int64",
    "u8": "uint8",
    "u16": "uint16",
    "u32": "uint32",
    "u64": "uint64",
    "bool": "bool",
}
_NAMES = {long: long for long in _DTYPES.values()} | _DTYPES
_ARRAY = re.compile(r"(?P<dtype>[a-z]+\d*)\[(?P<shape>[\d,\s]*)\](?:(?P<sign>[<>])(?P<bound>.+))?")
_DEFAULT_BOUND = 10  # integers are drawn below it

FORMS = (
    "f32[8,4] (normal numbers), f32[3]>0 (above 0), i32[8]<10 (0 to 9), bool[4], key (PRNG key), "
    "or a Python value: 3.0, 3, True, None, \"'max'\", (1, 2)"
)


def parse_arguments(specs: Sequence[str], seed: int = 0) -> list[Any]:
    """The values that specs stand for, in order; the same for the same seed.

    Example:
        >>> [a.shape for a in parse_arguments(["f32[2,3]", "i32[4]<7"])]
        [(2, 3), (4,)]
        >>> parse_arguments(["3", "2.5", "None", "'max'"])
        [3, 2.5, None, 'max']
    """
    rng = np.random.default_rng(seed)
    return [_parse(spec.strip(), rng, seed) for spec in specs]


def precision_of(specs: Sequence[str]) -> contextlib.AbstractContextManager[Any]:
    """JAX's 64-bit mode, if a spec asks for a type that it does not have otherwise."""
    matches = (_ARRAY.fullmatch(spec.strip()) for spec in specs)
    names = (_NAMES.get(m["dtype"], "") for m in matches if m)
    if any(name in ("float64", "complex128", "int64", "uint64") for name in names):
        return jax.enable_x64(True)
    return contextlib.nullcontext()


def _parse(spec: str, rng: np.random.Generator, seed: int) -> Any:
    if spec == "key":
        return jax.random.key(seed)
    match = _ARRAY.fullmatch(spec)
    if match:
        return _draw(spec, match, rng)
    try:
        return ast.literal_eval(spec)
    except (ValueError, SyntaxError):
        raise _unreadable(spec, f"cannot read --arg {spec!r}") from None


def _draw(spec: str, match: re.Match[str], rng: np.random.Generator) -> np.ndarray:
    name = _NAMES.get(match["dtype"])
    if name is None:
        what = f"no type {match['dtype']!r} in --arg {spec!r}"
        raise _unreadable(spec, what + did_you_mean(match["dtype"], _NAMES))
    dtype = jax.numpy.dtype(name)
    sizes = match["shape"].replace(" ", "").rstrip(",")
    shape = tuple(int(n) for n in sizes.split(",")) if sizes else ()
    bound = _read_bound(spec, match)
    sign = match["sign"]
    if name == "bool":
        return rng.random(shape) < 0.5
    if np.issubdtype(dtype, np.integer):
        low, high = (0, _DEFAULT_BOUND if bound is None else int(bound))
        if sign == ">":
            low, high = high + 1, high + 1 + _DEFAULT_BOUND
        if high <= low:
            raise _unreadable(spec, f"no integer is from {low} to below {high} in --arg {spec!r}")
        return rng.integers(low, high, shape).astype(dtype)
    numbers: Any = rng.standard_normal(shape)
    if jax.numpy.issubdtype(dtype, jax.numpy.complexfloating):
        numbers = numbers + 1j * rng.standard_normal(shape)
    if bound is not None:
        # Off the bound by a bit, so that logarithms and the like are in smooth territory.
        away = np.abs(numbers) + 0.1
        numbers = bound + away if sign == ">" else bound - away
    return np.asarray(numbers).astype(dtype)


def _read_bound(spec: str, match: re.Match[str]) -> float | None:
    if match["bound"] is None:
        return None
    try:
        return float(match["bound"])
    except ValueError:
        raise _unreadable(spec, f"{match['bound']!r} is not a bound in --arg {spec!r}") from None


def _unreadable(spec: str, what: str) -> TargetError:
    fix = "quote strings twice: --arg \"'max'\"" if spec.isidentifier() else ""
    return TargetError(describe(what, expected=FORMS, got=repr(spec), fix=fix))
