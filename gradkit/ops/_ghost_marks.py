"""A loss with marks at the uses of its parameters, which report norms of gradients.

    y = mark(y, x, report)    the value is y; the cotangent of `report` is the squared norm of the
                              gradient of the parameter that y = x @ parameter uses

`report` is one number, an argument of the whole program: cotangents of one number add up, over the
marks and over the steps of a loop in which every step has parameters of its own. So one derivative
gives the squared norm of the whole gradient, and no gradient is computed for it.

That is right for a parameter with one use. One that has several (shared weights, weights of a
recurrent layer), or one in a place without a short way to its norm, is marked where it enters the
program: there its gradient arrives in full. So are scales and biases, whose gradients are no larger
than what flows by.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var

from gradkit import _jax_compat as compat
from gradkit import _scope
from gradkit._perturb import programs_inside
from gradkit._programs import Program
from gradkit.ops._ghost_norms import find_norm

# What rearranges a parameter: its gradient has the norm of the gradient of the result.
_VIEWS = frozenset("reshape transpose squeeze expand_dims convert_element_type copy rev".split())
_CALLS = frozenset("jit pjit closed_call checkpoint remat2".split())

Views = Mapping[Var, int]


@dataclass(frozen=True)
class Mark:
    """An operation that uses a parameter.

    Attributes:
        leaf: Which parameter.
        other: The operand that is not it.
        norm: The squared norm of its gradient, from that operand and the output's cotangent.
        traffic: How many numbers that operand and the output have.
    """

    leaf: int
    other: int
    norm: Callable[[Any, Any], Any]
    traffic: int


@dataclass
class _Found:
    """What is known of the parameters: how often each is used, and which need their gradient."""

    uses: Counter[int] = field(default_factory=Counter)
    in_full: set[int] = field(default_factory=set)


@dataclass(eq=False)
class _Plan:
    """A program, its marks by number of equation, and the plans of the programs inside."""

    jaxpr: Jaxpr
    consts: Sequence[Any]
    marks: dict[int, Mark] = field(default_factory=dict)
    inside: dict[int, _Plan] = field(default_factory=dict)
    views: dict[Var, int] = field(default_factory=dict)

    @staticmethod
    def of(jaxpr: Jaxpr, consts: Sequence[Any], views: Views, found: _Found) -> _Plan:
        """Follow the parameters through a program to their uses."""
        plan = _Plan(jaxpr, consts, views=dict(views))
        for i, eqn in enumerate(jaxpr.eqns):
            used = {
                position: plan.views[atom]
                for position, atom in enumerate(eqn.invars)
                if not isinstance(atom, Literal) and atom in plan.views
            }
            if used:
                plan._follow(i, eqn, used, found)
        return plan

    def _follow(self, i: int, eqn: JaxprEqn, used: dict[int, int], found: _Found) -> None:
        name = eqn.primitive.name
        if name in _VIEWS and _is_real(eqn.outvars[0]):
            self.views[eqn.outvars[0]] = used[0]
        elif name in _CALLS:
            ((body, consts),) = programs_inside(eqn)
            own = {body.invars[position]: leaf for position, leaf in used.items()}
            plan = self.inside[i] = _Plan.of(body, consts, own, found)
            self.views.update(
                (outer, plan.views[inner])
                for outer, inner in zip(eqn.outvars, body.outvars, strict=True)
                if not isinstance(inner, Literal) and inner in plan.views
            )
        elif name == "scan":
            self._follow_scan(i, eqn, used, found)
        else:
            for position, leaf in used.items():
                norm = find_norm(eqn, position) if len(used) == 1 else None
                if norm is None:
                    found.in_full.add(leaf)
                else:
                    found.uses[leaf] += 1
                    self.marks[i] = Mark(leaf, 1 - position, norm, _traffic(eqn, 1 - position))

    def _follow_scan(self, i: int, eqn: JaxprEqn, used: dict[int, int], found: _Found) -> None:
        """Into a loop, with what it takes a slice of in each step."""
        ((body, consts),) = programs_inside(eqn)
        shared = sum(compat.scan_layout(eqn.params))
        found.in_full.update(leaf for position, leaf in used.items() if position < shared)
        own = {body.invars[k]: leaf for k, leaf in used.items() if k >= shared}
        plan = self.inside[i] = _Plan.of(body, consts, own, found)
        found.in_full.update(
            plan.views[atom]
            for atom in body.outvars
            if not isinstance(atom, Literal) and atom in plan.views
        )

    def keep(self, leaves: set[int]) -> bool:
        """Drop the marks of other parameters; are there any left?"""
        self.marks = {i: mark for i, mark in self.marks.items() if mark.leaf in leaves}
        self.inside = {i: plan for i, plan in self.inside.items() if plan.keep(leaves)}
        return bool(self.marks or self.inside)

    @property
    def traffic(self) -> int:
        """How many numbers flow by the marks."""
        inside = (
            plan.traffic * self.jaxpr.eqns[i].params.get("length", 1)
            for i, plan in self.inside.items()
        )
        return sum(mark.traffic for mark in self.marks.values()) + sum(inside)

    def __call__(self, xs: Sequence[Any], report: Any) -> list[Any]:
        """Evaluate the program."""
        jaxpr = self.jaxpr
        env = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*self.consts, *xs], strict=True))

        def read(atom: Any) -> Any:
            return atom.val if isinstance(atom, Literal) else env[atom]

        for i, eqn in enumerate(jaxpr.eqns):
            values = [read(atom) for atom in eqn.invars]
            if i in self.inside:
                outs = _enter(eqn, self.inside[i], values, report)
            else:
                outs = compat.evaluate_equation(eqn, values)
            if i in self.marks:
                mark = self.marks[i]
                outs = [reporting(mark.norm, outs[0], values[mark.other], report)]
            env.update(zip(eqn.outvars, outs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]


@dataclass(frozen=True)
class MarkedLoss:
    """The loss of one example, with marks.

    Attributes:
        program: The loss as it was traced: `(*parameters, *example) -> [loss]`.
        plan: The same with marks at operations.
        in_full: The parameters that are marked where they enter.
    """

    program: Program
    plan: _Plan
    in_full: frozenset[int]

    @staticmethod
    def of(program: Program, n_params: int) -> MarkedLoss:
        """Find the uses of the first `n_params` arguments."""
        jaxpr, found = program.jaxpr.jaxpr, _Found()
        params = jaxpr.invars[len(program.consts) :][:n_params]
        views = {v: k for k, v in enumerate(params) if _is_real(v)}
        plan = _Plan.of(jaxpr, program.jaxpr.consts, views, found)
        shared = {leaf for leaf, uses in found.uses.items() if uses > 1}
        returned = {plan.views[v] for v in jaxpr.outvars if isinstance(v, Var) and v in plan.views}
        in_full = frozenset(found.in_full | shared | returned)
        plan.keep(set(range(n_params)) - in_full)
        return MarkedLoss(program, plan, in_full)

    def __call__(self, params: Sequence[Any], example: Sequence[Any], report: Any) -> Any:
        """The loss; the derivative with respect to `report` is the gradient's squared norm."""
        params = [
            reporting(_own_norm, p, None, report) if k in self.in_full else p
            for k, p in enumerate(params)
        ]
        with _scope.switched_off():
            return self.plan([*self.program.consts, *params, *example], report)[0]


def reporting(norm: Callable[[Any, Any], Any], y: Any, residuals: Any, report: Any) -> Any:
    """`y`; the cotangent of `report` is `norm(residuals, y_bar)`."""
    aval = jax.typeof(report)

    @jax.custom_vjp
    def marked(y, residuals, report):
        del residuals, report
        return y

    def fwd(y, residuals, report):
        del report
        return y, residuals

    def bwd(residuals, y_bar):
        square = norm(residuals, y_bar).astype(jnp.result_type(report))
        return y_bar, None, compat.match_varying_axes(square, aval)

    marked.defvjp(fwd, bwd)
    return marked(y, residuals, report)


def _own_norm(_: None, y_bar: jax.Array) -> jax.Array:
    return jnp.sum(jnp.square(y_bar.astype(jnp.result_type(y_bar, jnp.float32))))


def _traffic(eqn: JaxprEqn, other: int) -> int:
    # For single examples XLA computes the gradients of convolutions slowly: none are small.
    if eqn.primitive.name == "conv_general_dilated":
        return 0
    avals: Any = [eqn.invars[other].aval, eqn.outvars[0].aval]
    return sum(aval.size for aval in avals)


def _is_real(x: Any) -> bool:
    aval: Any = x.aval if isinstance(x, Var) else jax.typeof(x)
    return jnp.issubdtype(aval.dtype, jnp.floating)


def _enter(eqn: JaxprEqn, plan: _Plan, values: Sequence[Any], report: Any) -> list[Any]:
    """Evaluate a call or a loop whose program has marks."""
    name, params = eqn.primitive.name, eqn.params
    if name == "scan":
        return _loop(params, plan, values, report)
    if name in ("checkpoint", "remat2"):
        run = jax.checkpoint(plan, prevent_cse=params["prevent_cse"], policy=params["policy"])
        return run(values, report)
    return plan(values, report)


def _loop(params: Any, plan: _Plan, values: Sequence[Any], report: Any) -> list[Any]:
    n_consts, n_carry = compat.scan_layout(params)
    consts, xs = values[:n_consts], values[n_consts + n_carry :]

    def step(carry, x):
        out = plan([*consts, *carry, *x], report)
        return out[:n_carry], out[n_carry:]

    options = {key: params[key] for key in ("length", "reverse", "unroll")}
    carry, ys = jax.lax.scan(step, list(values[n_consts : n_consts + n_carry]), xs, **options)
    return [*carry, *ys]
