"""An operation that came to a tape, as a function of those operands that are on the tape."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax.core import Tracer
from jax.extend.core import Primitive

from gradkit import _jax_compat as compat
from gradkit._tape._record import Pull

_MOVING: Any = object()


class Call:
    """One operation with its parameters, ready to be bound or linearised, more than once.

    Args:
        primitive: The operation.
        functions: The functions that it calls, as a trace is given them.
        params: Its parameters.
        moves: For each operand, whether it is on the tape.
    """

    def __init__(
        self,
        primitive: Primitive,
        functions: Sequence[Any],
        params: dict[str, Any],
        moves: Sequence[bool],
    ):
        self._primitive = primitive
        self._functions = functions
        self._params = dict(params)
        self._moves = moves
        self._ran = False

    def bind(self, operands: Sequence[Any]) -> Any:
        """Bind the operation in the current trace."""
        if self._ran:
            _empty_stores(self._functions)
        self._ran = True
        # Before JAX 0.10, functions were passed as leading operands.
        if self._functions and jax.__version_info__ >= (0, 10):
            params = self._params | {"subfuns": tuple(self._functions)}
            return self._primitive.bind(*operands, **params)
        return self._primitive.bind(*self._functions, *operands, **self._params)

    def linearize(self, operands: Sequence[Any]) -> tuple[Any, list[Any], Pull]:
        """Bind the operation, and linearise it in the operands that move.

        Returns:
            What it returned, with gaps where outputs move; those outputs; and from their
            cotangents to those of the moving operands.
        """
        returned = []

        def moving_outputs(*xs):
            rest = iter(xs)
            mixed = [
                next(rest) if moves else x for x, moves in zip(operands, self._moves, strict=True)
            ]
            out = self.bind(mixed)
            trace = compat.current_trace()
            ys = []

            def take_out(y):
                # JAX hands back an output whose tangent is zero as what it is outside.
                if isinstance(y, Tracer) and y._trace is trace:
                    ys.append(y)
                    return _MOVING
                return y

            returned.append(self.map_outputs(take_out, out))
            return ys

        moving = [x for x, moves in zip(operands, self._moves, strict=True) if moves]
        ys, pull = jax.vjp(moving_outputs, *moving)
        return returned[0], ys, pull

    def fill(self, gaps: Any, moving: Iterator[Any], others: Callable[[Any], Any]) -> Any:
        """What the operation returned, its gaps filled, and `others` applied to the rest."""
        return self.map_outputs(lambda y: next(moving) if y is _MOVING else others(y), gaps)

    def map_outputs(self, function: Callable[[Any], Any], out: Any) -> Any:
        """Apply a function to each output, and keep the form that JAX wants them in."""
        if not self._primitive.multiple_results:
            return function(out)
        if hasattr(out, "map"):  # `shard_map` returns a tree of JAX's own
            return out.map(function)
        return [function(y) for y in out]


def _empty_stores(functions: Sequence[Any]) -> None:
    """What such functions say of a run on the side can be stored only once."""
    for function in functions:
        for store in getattr(function, "stores", ()):
            if store:
                store.reset()
