"""Programs that are traced afresh by every check, and compiled once a process.

Tracing takes milliseconds and sees what a function does now: a rule that was redefined, a global
that changed. Compiling takes most of the time of a check. Executables are therefore kept under the
text of their program; the values that a function closes over are operands, not part of the text.
"""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from gradkit._programs import Program
from gradkit.verify._authored import calls_out
from gradkit.verify._folding import fold_conversions
from gradkit.verify._precision import inner_programs

_MOST_KEPT = 128
# Below this many numbers in its largest array, a program runs in no time and compiles in less.
_SMALL = 10_000
_kept: OrderedDict[Any, tuple[Any, Future[Any]]] = OrderedDict()


class Compiled:
    """A function from arrays to a list of arrays, compiled where that is possible.

    A function that branches on a value, or hands it to NumPy, is called as it is.

    Args:
        fn: The function; flat in, flat out.
        operands: Arrays, or anything with their shapes and types.
        name: What to call it in JAX's messages.

    Attributes:
        program: The trace, or `None` if there can be none.

    Raises:
        Exception: Whatever `fn` raises while it is traced.
    """

    def __init__(self, fn: Callable[..., Sequence[Any]], operands: Sequence[Any], name: str):
        self._fn = fn
        self._types = [type_of(x) for x in operands]
        self._executable: Future[Any] | None = None
        self.program: Program | None = None
        with contextlib.suppress(jax.errors.JAXTypeError):
            program = Program.trace(fn, [jax.typeof(t) for t in self._types], name)
            self.program, self._conversions = fold_conversions(program, name)

    def start(self) -> None:
        """Begin to compile, in the background."""
        if self._executable is None and self.program is not None:
            self._executable = _compile(self.program, self._types)

    def __call__(self, *operands: Any) -> Sequence[Any]:
        self.start()
        if self.program is None or self._executable is None:
            return self._fn(*operands)
        return self._executable.result()(*self.program.consts, *operands)


def type_of(x: Any) -> jax.ShapeDtypeStruct:
    """Shape, type, and sharding where an array lies on several devices."""
    sharding = getattr(x, "sharding", None)
    if not isinstance(sharding, NamedSharding) or sharding.mesh.size == 1:
        sharding = None
    return jax.ShapeDtypeStruct(np.shape(x), x.dtype, sharding=sharding)


def _compile(program: Program, types: Sequence[jax.ShapeDtypeStruct]) -> Future[Any]:
    """The executable of a program, from before or soon."""
    operands = [*map(type_of, program.consts), *types]
    shardings = tuple(t.sharding for t in operands)
    key = None if calls_out(program.jaxpr.jaxpr) else (*_text(program.jaxpr), shardings)
    if key is not None and key in _kept:
        _kept.move_to_end(key)
        return _kept[key][1]
    lowered = jax.jit(Program(program.jaxpr)).lower(*operands)
    options: Any = {"xla_backend_optimization_level": 0} if _is_small(program.jaxpr.jaxpr) else None
    found = _workers().submit(lowered.compile, options)
    if key is not None:
        # The jaxpr is kept as well: its text may name functions by their address.
        _kept[key] = program.jaxpr, found
        if len(_kept) > _MOST_KEPT:
            _kept.popitem(last=False)
    return found


def _text(jaxpr: Any) -> tuple[str, bool]:
    """What tells a program from others."""
    with np.printoptions(threshold=2**31 - 1):
        return str(jaxpr), jax.config.jax_enable_x64


@cache
def _workers() -> ThreadPoolExecutor:
    """Compilation leaves Python alone, so that several programs compile at once."""
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="gradkit-compile")


def _is_small(jaxpr: Any) -> bool:
    for eqn in jaxpr.eqns:
        if any(np.prod(getattr(v.aval, "shape", ())) > _SMALL for v in (*eqn.invars, *eqn.outvars)):
            return False
        if not all(_is_small(inner) for inner in inner_programs(eqn)):
            return False
    return True
