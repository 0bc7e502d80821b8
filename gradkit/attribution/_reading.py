"""Reading a traced model as steps: calls are inlined, control flow keeps the programs inside."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence, Set
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxpr_as_fun

from gradkit import _jax_compat as compat
from gradkit._perturb import join, programs_inside
from gradkit.attribution._model import Model, trace
from gradkit.attribution._steps import ELEMENTWISE, Step, Steps

Claim = Callable[[JaxprEqn, str], Callable[..., Any] | None]
"""From an equation and its named scopes to the rule that somebody has for it, or None."""

# Operations that only call the one program inside.
_CALLS = frozenset(
    """jit pjit closed_call core_call checkpoint remat2 custom_jvp_call custom_vjp_call
    custom_vjp_call_jaxpr gradkit_call""".split()
)


def read(
    model: Model,
    x: Any,
    opaque: Set[str] = frozenset(),
    claim: Claim = lambda eqn, scope: None,
) -> Steps:
    """Trace a model and read its program.

    Args:
        model: From `x` to an array.
        x: A pytree of arrays.
        opaque: The primitives whose results count as constant.
        claim: Says which operations have a rule of their own, and stay whole.
    """
    program, leaves = trace(model, x)
    closed = program.jaxpr
    reader = _Reader(opaque, claim)
    flags = [False] * len(program.consts) + [True] * len(leaves)
    steps = reader.program(closed.jaxpr, closed.consts, flags, "")
    known = len(program.consts)
    steps.constants.update(zip(steps.inputs[:known], program.consts, strict=True))
    steps.inputs = steps.inputs[known:]
    return steps


class _Reader:
    def __init__(self, opaque: Set[str], claim: Claim):
        self._opaque, self._claim = opaque, claim
        self._dependent: set[int] = set()
        self._numbers = itertools.count()

    def program(
        self, jaxpr: Jaxpr, consts: Sequence[Any], dependent: Sequence[bool], scope: str
    ) -> Steps:
        """Read a program whose inputs depend on the model's input or not."""
        steps = Steps([self._new(dependent=d) for d in dependent], dependent=self._dependent)
        steps.outputs = self._inline(steps, jaxpr, consts, steps.inputs, scope)
        return steps

    def _new(self, *, dependent: bool) -> int:
        number = next(self._numbers)
        if dependent:
            self._dependent.add(number)
        return number

    def _constant(self, steps: Steps, value: Any) -> int:
        number = self._new(dependent=False)
        steps.constants[number] = value
        return number

    def _inline(
        self, steps: Steps, jaxpr: Jaxpr, consts: Sequence[Any], args: Sequence[int], scope: str
    ) -> list[int]:
        known = dict(zip(jaxpr.invars, args, strict=True))
        for var, value in zip(jaxpr.constvars, consts, strict=True):
            known[var] = self._constant(steps, value)

        def number(atom: Any) -> int:
            return self._constant(steps, atom.val) if isinstance(atom, Literal) else known[atom]

        for eqn in jaxpr.eqns:
            inputs = [number(atom) for atom in eqn.invars]
            outputs = self._add(steps, eqn, inputs, join(scope, compat.scope_of(eqn)))
            known.update(zip(eqn.outvars, outputs, strict=True))
        return [number(atom) for atom in jaxpr.outvars]

    def _add(self, steps: Steps, eqn: JaxprEqn, inputs: list[int], scope: str) -> Sequence[int]:
        flags = [i in self._dependent for i in inputs]
        rule = self._claim(eqn, scope)
        name = eqn.primitive.name
        bodies: tuple[Steps, ...] = ()
        own = [any(flags)] * len(eqn.outvars)  # which outputs depend on the input
        run: Callable[..., Sequence[Any]] = lambda *xs: compat.evaluate_equation(eqn, xs)  # noqa: E731
        if rule is None and name in _CALLS:
            body, consts, first = _called(eqn)
            if not self._is_activation(eqn, inputs):
                args = [*(self._constant(steps, value) for value in first), *inputs]
                return self._inline(steps, body, consts, args, scope)
            name, run = "activation", partial(jaxpr_as_fun(ClosedJaxpr(body, consts)), *first)
        elif rule is None and any(flags) and name in _INSIDE:
            bodies, own = _INSIDE[name](self, eqn, flags, scope)
            if name == "scan":
                run = scan_with_carries(eqn)
        outputs = [
            self._new(dependent=d and name not in self._opaque and _is_inexact(v))
            for d, v in zip(own, eqn.outvars, strict=True)
        ]
        if bodies and name == "scan":
            n_carry = compat.scan_layout(eqn.params)[1]
            stacked = [self._new(dependent=False) for _ in range(n_carry)]
        else:
            stacked = []
        steps.steps.append(
            Step(name, run, tuple(inputs), (*outputs, *stacked), scope, eqn, bodies, rule)
        )
        return outputs

    def _is_activation(self, eqn: JaxprEqn, inputs: list[int]) -> bool:
        flows = [v for v, i in zip(eqn.invars, inputs, strict=True) if i in self._dependent]
        inner = [*_primitives(eqn)]
        return (
            len(flows) == len(eqn.outvars) == 1
            and _type(flows[0]).shape == _type(eqn.outvars[0]).shape
            and len(inner) > 0
            and set(inner) <= ELEMENTWISE
        )

    # -- which outputs of control flow depend on the input, and the programs inside --------------

    def scan(self, eqn: JaxprEqn, flags: list[bool], scope: str) -> _Inside:
        ((jaxpr, consts),) = programs_inside(eqn)
        n_consts, n_carry = compat.scan_layout(eqn.params)
        body = self._loop(jaxpr, consts, flags, n_consts, n_carry, scope)
        return (body,), self._flags(body)

    def while_loop(self, eqn: JaxprEqn, flags: list[bool], scope: str) -> _Inside:
        body, before = eqn.params["body_jaxpr"], eqn.params["cond_nconsts"]
        n_consts, n_carry = eqn.params["body_nconsts"], len(eqn.outvars)
        # Only to see what flows where: there is no walking back through it.
        loop = self._loop(body.jaxpr, body.consts, flags[before:], n_consts, n_carry, scope)
        return (), self._flags(loop)

    def _loop(self, jaxpr, consts, flags, n_consts: int, n_carry: int, scope: str) -> Steps:
        flags = list(flags)
        while True:
            body = self.program(jaxpr, consts, flags, scope)
            carried = slice(n_consts, n_consts + n_carry)
            out = self._flags(body)[:n_carry]
            grown = [a or b for a, b in zip(flags[carried], out, strict=True)]
            if grown == flags[carried]:
                return body
            flags[carried] = grown

    def cond(self, eqn: JaxprEqn, flags: list[bool], scope: str) -> _Inside:
        bodies = [self.program(*body, flags[1:], scope) for body in programs_inside(eqn)]
        return tuple(bodies), [any(f) for f in zip(*map(self._flags, bodies), strict=True)]

    def shard_map(self, eqn: JaxprEqn, flags: list[bool], scope: str) -> _Inside:
        ((jaxpr, consts),) = programs_inside(eqn)
        body = self.program(jaxpr, consts, flags, scope)
        return (body,), self._flags(body)

    def _flags(self, body: Steps) -> list[bool]:
        return [o in self._dependent for o in body.outputs]


_Inside = tuple[tuple[Steps, ...], list[bool]]
_INSIDE: dict[str, Callable[..., _Inside]] = {
    "scan": _Reader.scan,
    "while": _Reader.while_loop,
    "cond": _Reader.cond,
    "shard_map": _Reader.shard_map,
}


def scan_with_carries(eqn: JaxprEqn) -> Callable[..., list[Any]]:
    """A scan that also returns the carries that its steps began with, stacked."""
    params = eqn.params
    n_consts, n_carry = compat.scan_layout(params)
    ((jaxpr, own),) = programs_inside(eqn)
    body = jaxpr_as_fun(ClosedJaxpr(jaxpr, own))

    def run(*operands: Any) -> list[Any]:
        consts, carry = operands[:n_consts], operands[n_consts : n_consts + n_carry]

        def step(carry: Any, x: Any) -> tuple[Any, Any]:
            out = body(*consts, *carry, *x)
            return out[:n_carry], (out[n_carry:], carry)

        end, (ys, carries) = jax.lax.scan(
            step,
            list(carry),
            operands[n_consts + n_carry :],
            length=params["length"],
            reverse=params["reverse"],
            unroll=params["unroll"],
        )
        return [*end, *ys, *carries]

    return run


def _called(eqn: JaxprEqn) -> tuple[Jaxpr, Sequence[Any], Sequence[Any]]:
    """The program that an equation calls, its constants, and the operands that it puts first."""
    if eqn.primitive.name == "gradkit_call":
        program = eqn.params["function"].primal([_type(atom) for atom in eqn.invars])
        return program.jaxpr.jaxpr, program.jaxpr.consts, program.consts
    ((jaxpr, consts),) = programs_inside(eqn)
    return jaxpr, consts, ()


def _type(atom: Any) -> Any:
    return atom.aval


def _is_inexact(var: Any) -> bool:
    return jnp.issubdtype(_type(var).dtype, jnp.inexact)


def _primitives(eqn: JaxprEqn) -> Iterator[str]:
    """The operations of the program that an equation calls."""
    for jaxpr, _ in programs_inside(eqn):
        for inner in jaxpr.eqns:
            if inner.primitive.name in _CALLS:
                yield from _primitives(inner)
            else:
                yield inner.primitive.name
