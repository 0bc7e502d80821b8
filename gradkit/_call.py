"""A function with a VJP rule as one JAX operation: what `custom_gradient`, `op` and overrides call.

`call(function, xs)` binds `call_p`. Evaluated, that is the function. Differentiated, it becomes

    ys, residuals = function(xs)                the forward pass, inlined
    ys = keep(xs, residuals, ys)                the identity; ys still know their rule
    y_dots = pullback(residuals, x_dots)        see `_pullback`

so the derivative of a returned value follows the rule at every order, at no cost once compiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
from jax.core import Tracer
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from gradkit import _jax_compat as compat
from gradkit._errors import closes_over_differentiated
from gradkit._function import BatchedFunction, ClosesOver, PythonFunction, is_differentiable
from gradkit._pullback import Rule, move_to_front, push_forward

call_p = Primitive("gradkit_call")
call_p.multiple_results = True
keep_p = Primitive("gradkit_keep")
keep_p.multiple_results = True


def call(function: PythonFunction, xs: Sequence[Any]) -> list[Any]:
    """Call a function on its operands, hoisting what it turns out to close over."""
    avals = [jax.typeof(x) for x in xs]
    while True:
        try:
            return call_p.bind(*function.hoisted, *xs, function=function)
        except ClosesOver as signal:
            if signal.function is not function:
                raise
            function = function.hoist(signal.tracers, avals)


def call_closure(function: PythonFunction) -> list[Any]:
    """Call a function that has no traced argument, but closes over traced values."""
    try:
        function.primal([])
    except ClosesOver as signal:
        if signal.function is not function:
            raise
        function = function.hoist(signal.tracers, [])
    return call(function, [])


def _evaluate(*xs, function: Any) -> list[Any]:
    return function.evaluate(xs)


def _abstract_eval(*avals, function: Any):
    program = function.primal(avals)
    return program.out_avals, program.jaxpr.effects


def _lowered(*xs, function: Any) -> list[Any]:
    return function.primal([jax.typeof(x) for x in xs])(*xs)


call_p.def_impl(_evaluate)
call_p.def_effectful_abstract_eval(_abstract_eval)
mlir.register_lowering(call_p, mlir.lower_fun(_lowered, multiple_results=True))


def _forward(primals: Sequence[Any], function: Any) -> tuple[list[Any], list[Any], Attached]:
    """Run the forward pass: outputs that know their rule, the rule's residuals, and the rule."""
    if not any(isinstance(x, Tracer) for x in primals):
        eager = function.run_eagerly(primals)
        if eager is not None:  # nothing outside can be differentiating: there is nothing to keep
            ys, rule = eager
            return ys, [], Attached(rule, 0, len(primals), (), ())
    traced = function.trace([jax.typeof(x) for x in primals])
    ys, computed = traced.evaluate(primals)
    where = {"x": primals, "computed": computed}
    attached = Attached(
        traced.rule,
        function.n_hoisted,
        len(primals),
        traced.closed_over,
        tuple(place if kind == "y" else None for kind, place in traced.residuals),
    )
    residuals = [
        place if kind == "constant" else where[kind][place]
        for kind, place in traced.residuals
        if kind != "y"
    ]
    return *attached.keep(primals, residuals, ys), attached


def _jvp(primals, tangents, *, function: Any):
    ys, residuals, attached = _forward(primals, function)
    return ys, attached.push_forward(residuals, tangents, ys)


def _linearize(nonzero, primals, *, function: Any):
    """What `_jvp` does, without a detour through partial evaluation: grad traces faster."""
    ys, residuals, attached = _forward(primals, function)
    reached = attached.reaches(nonzero)

    def linearized(residuals, *tangents):
        return attached.push_forward(residuals, tangents, ys)

    return ys, [reached and is_differentiable(y) for y in ys], residuals, linearized


ad.primitive_jvps[call_p] = _jvp
compat.register_linearization(call_p, _linearize)


def _transpose_call(y_bars, *operands, function: Any):
    """`jax.linear_transpose` of a linear function: by its rule, if that can do without the input.

    A rule that looks at the linear input has no value to look at; then the function itself is
    transposed.
    """
    linear = [ad.is_undefined_primal(x) for x in operands]
    avals = [
        x.aval if undefined else jax.typeof(x)
        for x, undefined in zip(operands, linear, strict=True)
    ]
    if all(type(y_bar) is ad.Zero for y_bar in y_bars):
        return [None] * len(operands)
    y_bars = [ad.instantiate_zeros(y_bar) for y_bar in y_bars]
    traced = function.trace(avals)
    moving = {"x": linear, "computed": traced.dependent(linear)}
    if any(kind == "y" or (kind in moving and moving[kind][i]) for kind, i in traced.residuals):
        program = function.primal(avals)

        def of_linear(*xs):
            given = iter(xs)
            pairs = zip(operands, linear, strict=True)
            return program(*(next(given) if u else x for x, u in pairs))

        examples = [aval for aval, undefined in zip(avals, linear, strict=True) if undefined]
        x_bars = iter(jax.linear_transpose(of_linear, *examples)(y_bars))
        return [next(x_bars) if undefined else None for undefined in linear]
    triples = zip(operands, avals, linear, strict=True)
    xs = [compat.zeros_of(a) if u else x for x, a, u in triples]
    _, computed = traced.evaluate(xs)
    where = {"x": xs, "computed": computed}
    residuals = [i if kind == "constant" else where[kind][i] for kind, i in traced.residuals]
    by_argument = dict(zip(traced.rule.arguments, traced.rule(residuals, y_bars), strict=True))
    return [
        by_argument.get(i - function.n_hoisted) if undefined else None
        for i, undefined in enumerate(linear)
    ]


ad.primitive_transposes[call_p] = _transpose_call


def _batch_call(axis, operands, dims, *, function: Any):
    if all(dim is None for dim in dims):
        out = call_p.bind(*operands, function=function)
        return out, [None] * len(out)
    out = call_p.bind(*operands, function=BatchedFunction(function, tuple(dims), axis))
    return out, [0] * len(out)


batching.fancy_primitive_batchers[call_p] = _batch_call


@compat.cached_weakly
@dataclass(frozen=True, eq=False, repr=False)
class Attached:
    """How outputs that have been computed hang together with their arguments and their rule.

    Attributes:
        rule: The VJP rule.
        n_hoisted: How many operands are closed-over values rather than arguments.
        n_operands: How many operands there are, closed-over values included.
        closed_over: Which closed-over values the outputs depend on: nothing says how.
        output_residuals: For each residual of the rule, the output that it is, or None.
    """

    rule: Rule
    n_hoisted: int
    n_operands: int
    closed_over: tuple[int, ...]
    output_residuals: tuple[int | None, ...]

    def __repr__(self) -> str:
        return repr(self.rule)

    def keep(self, primals, residuals, ys) -> tuple[list[Any], list[Any]]:
        """The outputs, kept together with their rule, and all of the rule's residuals."""
        if any(isinstance(x, Tracer) for x in (*primals, *residuals, *ys)):
            ys = keep_p.bind(*primals, *residuals, *ys, attached=self)
        left = iter(residuals)
        return ys, [next(left) if i is None else ys[i] for i in self.output_residuals]

    def push_forward(self, residuals, tangents, ys) -> list[Any]:
        """The tangents of the outputs."""
        self.reaches([type(t) is not ad.Zero for t in tangents])
        avals = [compat.tangent_aval(y) for y in ys]
        differentiable = [aval for aval in avals if aval.dtype != jax.dtypes.float0]
        y_dots = iter(
            push_forward(self.rule, residuals, tangents[self.n_hoisted :], differentiable)
        )
        return [
            ad.Zero(aval) if aval.dtype == jax.dtypes.float0 else next(y_dots) for aval in avals
        ]

    def reaches(self, nonzero: Sequence[bool]) -> bool:
        """Do the outputs move when the operands do that have a nonzero tangent?"""
        if any(nonzero[i] for i in self.closed_over):
            raise closes_over_differentiated(self.rule.name)
        return any(nonzero[a + self.n_hoisted] for a in self.rule.arguments)

    def split(self, operands: Sequence[Any]) -> tuple[Any, Any, Any]:
        """Split the operands of `keep_p` into arguments, residuals and outputs."""
        n_residuals = self.output_residuals.count(None)
        cut = self.n_operands, self.n_operands + n_residuals
        return operands[: cut[0]], operands[cut[0] : cut[1]], operands[cut[1] :]


def _kept(*operands, attached: Attached) -> list[Any]:
    return list(attached.split(operands)[2])


keep_p.def_impl(_kept)
keep_p.def_abstract_eval(_kept)
mlir.register_lowering(keep_p, mlir.lower_fun(_kept, multiple_results=True))


def _keep_jvp(primals, tangents, *, attached: Attached):
    """The tangents that `ys` bring along belong to the forward pass, not to the rule."""
    ys, residuals = attached.keep(*attached.split(primals))
    return ys, attached.push_forward(residuals, tangents[: attached.n_operands], ys)


ad.primitive_jvps[keep_p] = _keep_jvp


def _batch_keep(axis, operands, dims, *, attached: Attached):
    if all(dim is None for dim in dims):
        out = keep_p.bind(*operands, attached=attached)
        return out, [None] * len(out)
    front, at_front = move_to_front(operands, dims)
    xs, residuals, ys = attached.split(front)
    x_dims, residual_dims, y_dims = attached.split(at_front)
    ys = [
        jax.numpy.broadcast_to(y, (axis.size, *y.shape)) if dim is None else y
        for y, dim in zip(ys, y_dims, strict=True)
    ]
    dims_left = iter(residual_dims)
    all_dims = [next(dims_left) if out is None else 0 for out in attached.output_residuals]
    rule = attached.rule
    argument_dims = [x_dims[a + attached.n_hoisted] for a in rule.arguments]
    batched = replace(attached, rule=rule.batched(all_dims, argument_dims, axis))
    return keep_p.bind(*xs, *residuals, *ys, attached=batched), [0] * len(ys)


batching.fancy_primitive_batchers[keep_p] = _batch_keep
