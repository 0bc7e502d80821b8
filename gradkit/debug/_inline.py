"""How calls, branches and loops are run one operation at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from gradkit import _jax_compat as compat
from gradkit import _scope
from gradkit.debug._lines import is_from_library
from gradkit.debug._slices import Stacked, Unstacked
from gradkit.debug._tape import Inline, Inside, Place, Tape, Value


def _close(jaxpr: Jaxpr | ClosedJaxpr) -> ClosedJaxpr:
    return jaxpr if isinstance(jaxpr, ClosedJaxpr) else ClosedJaxpr(jaxpr, [])


def _call(tape: Tape, eqn: JaxprEqn, xs: list[Value], place: Place) -> list[Value]:
    program = _close(eqn.params["jaxpr" if "jaxpr" in eqn.params else "call_jaxpr"])
    pinned = place.pinned or is_from_library(program)
    return tape.run(program, xs, replace(place, pinned=pinned))


def _cond(tape: Tape, eqn: JaxprEqn, xs: list[Value], place: Place) -> list[Value]:
    index, *operands = xs
    branches = eqn.params["branches"]
    chosen = min(max(int(index.data), 0), len(branches) - 1)
    return tape.run(branches[chosen], operands, place)


def _while(tape: Tape, eqn: JaxprEqn, xs: list[Value], place: Place) -> list[Value]:
    cut = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    cond_consts, body_consts = xs[: cut[0]], xs[cut[0] : sum(cut)]
    carry, i = xs[sum(cut) :], 0
    while tape.run(eqn.params["cond_jaxpr"], [*cond_consts, *carry], place.step(i))[0].data:
        carry = tape.run(eqn.params["body_jaxpr"], [*body_consts, *carry], place.step(i))
        i += 1
    return carry


def _scan(tape: Tape, eqn: JaxprEqn, xs: list[Value], place: Place) -> list[Value] | None:
    params = eqn.params
    n_consts, n_carry = compat.scan_layout(params)
    length, body = params["length"], _close(params["jaxpr"])
    if length == 0:  # nothing runs, and there is nothing to stack
        return None
    consts, carry = xs[:n_consts], xs[n_consts : n_consts + n_carry]
    slices = [_unstack(tape, x, length) for x in xs[n_consts + n_carry :]]
    order = range(length)[::-1] if params["reverse"] else range(length)
    stacks: dict[int, list[Value]] = {}
    for i in order:
        ys = tape.run(body, [*consts, *carry, *(s[i] for s in slices)], place.step(i))
        carry, stacks[i] = ys[:n_carry], ys[n_carry:]
    columns = zip(*(stacks[i] for i in range(length)), strict=True)
    return [*carry, *(_stack(tape, column) for column in columns)]


def _unstack(tape: Tape, x: Value, length: int) -> list[Value]:
    return tape.keep(Unstacked.of(x, length)).outputs


def _stack(tape: Tape, ys: Sequence[Value]) -> Value:
    return tape.keep(Stacked.of(ys)).outputs[0]


def _trace(fn: Callable[..., Any], xs: Sequence[Value]) -> ClosedJaxpr:
    with _scope.switched_off():
        return jax.make_jaxpr(fn)(*(x.data for x in xs))


def _inside_custom(eqn: JaxprEqn, xs: Sequence[Value]) -> ClosedJaxpr:
    del xs
    return _close(eqn.params["call_jaxpr" if "call_jaxpr" in eqn.params else "fun_jaxpr"])


def _inside_gradkit(eqn: JaxprEqn, xs: Sequence[Value]) -> ClosedJaxpr:
    return _trace(lambda *xs: eqn.params["function"].evaluate(xs), xs)


INLINED: dict[str, Inline] = {
    **dict.fromkeys("jit pjit closed_call core_call remat2 checkpoint".split(), _call),
    "cond": _cond,
    "while": _while,
    "scan": _scan,
}

# Calls with a derivative rule of their own, and the program inside.
RULED: dict[str, Inside] = {
    **dict.fromkeys(
        "custom_jvp_call custom_vjp_call custom_vjp_call_jaxpr".split(), _inside_custom
    ),
    "gradkit_call": _inside_gradkit,
}


def make_tape() -> Tape:
    """A tape that knows every call, branch and loop of JAX."""
    return Tape(INLINED, RULED)
