"""A model as a flat list of operations, and which of their values depend on its input.

Relevance needs to know what an override rule `(op, *y_bars)` is not told: which operand of a
product is a parameter, and which bias is added to it afterwards. A program shows both.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxpr_as_fun

from gradkit import _jax_compat as compat
from gradkit import _scope

ELEMENTWISE = frozenset(
    """abs acos acosh add add_any and asin asinh atan atan2 atanh broadcast_in_dim cbrt ceil clamp
    convert_element_type copy copy_p cos cosh div eq erf erf_inv erfc exp exp2 expm1 floor ge gt
    integer_pow is_finite le log log1p logistic lt max min mul ne neg not or pow reduce_precision
    rem round rsqrt select_n sign sin sinh sqrt square stop_gradient sub tan tanh xor""".split()
)
CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
}


@dataclass(frozen=True)
class Step:
    """One operation.

    Attributes:
        name: Its primitive, or "activation" for a function of one array, element by element.
        run: From the operands to the list of outputs.
        inputs: The numbers of its operands.
        outputs: The numbers of its results.
        scope: The named scopes around it, joined by `/`.
    """

    name: str
    run: Callable[..., Sequence[Any]]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    scope: str


@dataclass
class Steps:
    """A traced model.

    Attributes:
        steps: The operations, in order.
        constants: The values that do not come from an operation, by number.
        inputs: The numbers of the leaves of the input.
        outputs: The numbers of the leaves of the output.
        dependent: The numbers of the values that the input flows into.
        opaque: The primitives behind which it counts as lost.
    """

    steps: list[Step] = field(default_factory=list)
    constants: dict[int, Any] = field(default_factory=dict)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    dependent: set[int] = field(default_factory=set)
    opaque: Set[str] = frozenset()
    _count: int = 0

    @staticmethod
    def trace(model: Callable[[Any], Any], x: Any, opaque: Set[str] = frozenset()) -> Steps:
        """Trace a model of one array; what comes out of `opaque` primitives counts as constant."""
        with _scope.switched_off():
            closed = jax.make_jaxpr(model)(x)
        steps = Steps(opaque=opaque)
        steps.inputs = [steps._new(dependent=True)]
        steps.outputs = steps._inline(closed.jaxpr, closed.consts, steps.inputs, "")
        return steps

    def evaluate(self, x: Any) -> dict[int, Any]:
        """Every value of the model at `x`, by number."""
        values = dict(self.constants)
        values[self.inputs[0]] = x
        with _scope.switched_off():
            for step in self.steps:
                outs = step.run(*[values[i] for i in step.inputs])
                values.update(zip(step.outputs, outs, strict=True))
        return values

    def consumers(self) -> dict[int, list[Step]]:
        """The operations that read each value."""
        found: dict[int, list[Step]] = {}
        for step in self.steps:
            for i in step.inputs:
                found.setdefault(i, []).append(step)
        return found

    def flows(self, step: Step) -> list[int]:
        """The positions of the operands that depend on the input."""
        return [p for p, i in enumerate(step.inputs) if i in self.dependent]

    def _new(self, *, dependent: bool) -> int:
        self._count += 1
        if dependent:
            self.dependent.add(self._count)
        return self._count

    def _constant(self, value: Any) -> int:
        number = self._new(dependent=False)
        self.constants[number] = value
        return number

    def _inline(self, jaxpr: Jaxpr, consts: Sequence[Any], args: Sequence[int], scope: str):
        known = dict(zip(jaxpr.invars, args, strict=True))
        known.update((v, self._constant(c)) for v, c in zip(jaxpr.constvars, consts, strict=True))

        def read(atom: Any) -> int:
            return self._constant(atom.val) if isinstance(atom, Literal) else known[atom]

        for eqn in jaxpr.eqns:
            inputs = [read(a) for a in eqn.invars]
            inside = "/".join(filter(None, (scope, _scope_of(eqn))))
            known.update(zip(eqn.outvars, self._add(eqn, inputs, inside), strict=True))
        return [read(a) for a in jaxpr.outvars]

    def _add(self, eqn: JaxprEqn, inputs: list[int], scope: str) -> Sequence[int]:
        inner = _program_of(eqn)
        flows = any(i in self.dependent for i in inputs)
        activation = inner is not None and self._is_activation(eqn, inner, inputs)
        if inner is not None and not activation:
            return self._inline(inner.jaxpr, inner.consts, inputs, scope)
        name = "activation" if activation else eqn.primitive.name
        flows = flows and name not in self.opaque
        outputs = tuple(
            self._new(dependent=flows and jnp.issubdtype(_type(v).dtype, jnp.inexact))
            for v in eqn.outvars
        )
        run = jaxpr_as_fun(inner) if inner is not None else _runner(eqn)
        self.steps.append(Step(name, run, tuple(inputs), outputs, scope))
        return outputs

    def _is_activation(self, eqn: JaxprEqn, inner: ClosedJaxpr, inputs: list[int]) -> bool:
        flows = [v for v, i in zip(eqn.invars, inputs, strict=True) if i in self.dependent]
        return (
            len(flows) == len(eqn.outvars) == 1
            and _type(flows[0]).shape == _type(eqn.outvars[0]).shape
            and len(list(_primitives(inner))) > 0
            and set(_primitives(inner)) <= ELEMENTWISE
        )


def _type(atom: Any) -> Any:
    return atom.aval


def _program_of(eqn: JaxprEqn) -> ClosedJaxpr | None:
    """The program of an operation that only calls one."""
    inner = eqn.params.get(CALLS.get(eqn.primitive.name, ""))
    return ClosedJaxpr(inner, ()) if isinstance(inner, Jaxpr) else inner


def _primitives(program: ClosedJaxpr) -> Iterator[str]:
    for eqn in program.jaxpr.eqns:
        inner = _program_of(eqn)
        if inner is None:
            yield eqn.primitive.name
        else:
            yield from _primitives(inner)


def _runner(eqn: JaxprEqn) -> Callable[..., Sequence[Any]]:
    return lambda *xs: compat.evaluate_equation(eqn, xs)


def _scope_of(eqn: JaxprEqn) -> str:
    """The named scopes of an operation, without what transformations have wrapped around them."""
    return "/".join(
        part for part in re.sub(r"\w+\(|\)", "", str(eqn.source_info.name_stack)).split("/") if part
    )
