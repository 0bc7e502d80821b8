"""The backward pass of a tape, one operation at a time: cotangents with their origins."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal, jaxpr_as_fun

from gradkit import _jax_compat as compat
from gradkit import _scope
from gradkit.debug._tape import Move, Place, Pullback, Step, Tape, Value, is_float


def run_backward(
    tape: Tape, xs: Sequence[Value], ys: Sequence[Value], y_bars: Sequence[Value]
) -> list[Value | None]:
    """The cotangents of `xs`, which `tape` computed `ys` from; None where nothing arrives."""
    moving = {id(x) for x in xs}
    for step in tape.steps:
        if any(id(x) in moving for x in step.inputs):
            moving.update(id(y) for y in step.outputs if is_float(y.data))
    backward = _Backward(tape, moving)
    for y, y_bar in zip(ys, y_bars, strict=True):
        if id(y) in moving:
            backward.cotangents.setdefault(id(y), []).append(y_bar)
    for step in reversed(tape.steps):
        backward.run(step)
    return [backward.cotangent(x, None) for x in xs]


class _Backward:
    def __init__(self, tape: Tape, moving: set[int]):
        self.tape = tape
        self.moving = moving
        self.cotangents: dict[int, list[Value]] = {}
        self._pullbacks: dict[Any, Pullback] = {}

    def run(self, step: Step | Move) -> None:
        """Pass the cotangents of a step's outputs on to its inputs."""
        y_bars = [self.cotangent(y, step) for y in step.outputs]
        given = tuple(i for i, y_bar in enumerate(y_bars) if y_bar is not None)
        moving = tuple(i for i, x in enumerate(step.inputs) if id(x) in self.moving)
        if not given or not moving:
            return
        if not isinstance(step, Step):
            x_bars = step.pull_back(y_bars)
            for i in moving:
                self.cotangents.setdefault(id(step.inputs[i]), []).append(x_bars[i])
            return
        key = id(step.eqn), given, moving
        if key not in self._pullbacks:
            avals = [jax.typeof(x.data) for x in step.inputs]
            self._pullbacks[key] = make_pullback(step.eqn, avals, given, moving)
        pullback = self._pullbacks[key]
        operands = [*step.inputs, *(y_bars[i] for i in given)]
        with _scope.switched_off():
            results = jaxpr_as_fun(pullback.program)(*(x.data for x in operands))
        place = _backward_place(step)
        x_bars = self.tape.add(step.eqn, place, operands, results, pullback)
        for i, x_bar in zip(pullback.wanted, x_bars, strict=True):
            self.cotangents.setdefault(id(step.inputs[i]), []).append(x_bar)

    def cotangent(self, x: Value, step: Step | Move | None) -> Value | None:
        """The sum of what arrived at a value."""
        parts = self.cotangents.get(id(x), [])
        if not parts:
            return None
        total = parts[0]
        place = _backward_place(step) if isinstance(step, Step) else Place(backward=True)
        for part in parts[1:]:
            add = _addition(jax.typeof(total.data))
            total = self.tape.run(add, [total, part], place)[0]
        return total


def _backward_place(step: Step) -> Place:
    place = step.place
    return Place(place.scope, place.iteration, place.source, pinned=False, backward=True)


def make_pullback(
    eqn: JaxprEqn, avals: Sequence[Any], given: tuple[int, ...], moving: tuple[int, ...]
) -> Pullback:
    """Trace the gradient of an operation.

    Args:
        eqn: The operation.
        avals: The types of its operands.
        given: Which of its outputs have a cotangent.
        moving: Which of its operands get one.
    """

    def outputs(*primals):
        bound = eqn.primitive.get_bind_params(compat.showing_rule_lines(eqn.params))
        subfuns, params = bound if isinstance(bound, tuple) else ((), bound)
        # Not under the operation's own line: those of its derivative rule say more.
        with eqn.ctx.manager:
            ys = eqn.primitive.bind(*subfuns, *primals, **params)
        ys = list(ys) if eqn.primitive.multiple_results else [ys]
        return [ys[i] for i in given]

    def of_cotangents(*operands):
        primals, y_bars = operands[: len(avals)], operands[len(avals) :]

        def of_moving(*xs):
            full = list(primals)
            for i, x in zip(moving, xs, strict=True):
                full[i] = x
            return outputs(*full)

        _, vjp = jax.vjp(of_moving, *(primals[i] for i in moving))
        return vjp(list(y_bars))

    y_avals = [eqn.outvars[i].aval for i in given]
    with _scope.switched_off():
        program = jax.make_jaxpr(of_cotangents)(*map(_shape, (*avals, *y_avals)))
    depends = _dependences(program)
    # What does not depend on a cotangent is a zero that JAX leaves out: nothing is multiplied by it
    kept = [k for k, seen in enumerate(depends) if any(i >= len(avals) for i in seen)]
    jaxpr = program.jaxpr
    info = jaxpr.debug_info._replace(result_paths=None)
    jaxpr = jaxpr.replace(outvars=[jaxpr.outvars[k] for k in kept], debug_info=info)
    return Pullback(
        ClosedJaxpr(jaxpr, program.consts),
        tuple(moving[k] for k in kept),
        tuple(depends[k] for k in kept),
    )


def _shape(aval: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype)


def _dependences(program: ClosedJaxpr) -> list[tuple[int, ...]]:
    """For each output, the inputs that it depends on."""
    jaxpr = program.jaxpr
    seen: dict[Any, frozenset[int]] = {v: frozenset((i,)) for i, v in enumerate(jaxpr.invars)}

    def look(atoms: Sequence[Any]) -> frozenset[int]:
        found = (seen.get(a, frozenset()) for a in atoms if not isinstance(a, Literal))
        return frozenset().union(*found)

    for eqn in jaxpr.eqns:
        seen.update(dict.fromkeys(eqn.outvars, look(eqn.invars)))
    return [tuple(sorted(look([atom]))) for atom in jaxpr.outvars]


@functools.lru_cache(maxsize=512)
def _addition(aval: Any) -> ClosedJaxpr:
    """The sum of two cotangents."""
    return jax.make_jaxpr(lambda a, b: [a + b])(_shape(aval), _shape(aval))


def ones_like(y: Value) -> Value:
    """The cotangent that is one everywhere."""
    return Value(jax.numpy.ones(np.shape(y.data), jax.typeof(y.data).dtype))
