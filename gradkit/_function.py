"""A Python function together with its VJP rule, as programs for `_call`.

The rule is traced only when a derivative is asked for, so a rule may call its own function. What
function and rule close over becomes an operand (*hoisted*): JAX then shows whether a closed-over
value is being differentiated, which the rule has no answer for.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
from jax.core import Tracer
from jax.extend.core import Literal

from gradkit import _jax_compat as compat
from gradkit import _scope
from gradkit._errors import closes_over_differentiated
from gradkit._programs import Program, evaluate_cutting_off
from gradkit._pullback import Rule

RuleFn = Callable[..., Sequence[Any]]


class ClosesOver(Exception):  # noqa: N818 - a signal, not an error
    """Signal: tracing met tracers that are not operands yet; call again with them hoisted."""

    def __init__(self, function: Any, tracers: list[Any]):
        super().__init__(f"'{function.name}' closes over traced values")
        self.function = function
        self.tracers = tracers


@dataclass(frozen=True)
class Traced:
    """A function and its rule as programs.

    Attributes:
        forward: `(*xs) -> (*ys, *computed)`.
        const_operands: For each const of `forward`, the operand that it is, or None.
        n_outputs: The number of `ys`.
        residuals: Where the rule finds each residual: `("x", i)` an operand, `("y", i)` an
            output, `("computed", i)` a further output of `forward`, `("constant", value)`.
        rule: The VJP rule; its arguments are counted without the hoisted operands.
    """

    forward: Program
    const_operands: Sequence[int | None]
    n_hoisted: int
    n_outputs: int
    residuals: Sequence[tuple[str, Any]]
    rule: Rule

    def evaluate(self, xs: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """Run the forward pass: the outputs, and what else the rule needs of it.

        What only the outputs need is cut off from differentiation: their tangents come from the
        rule, and an operation that has no derivative must not be an error there.
        """
        program = _with_operands(self.forward, self.const_operands, xs)
        arguments = xs[self.n_hoisted :]
        if _any_tracer([*program.consts, *arguments]):
            operands = [*program.consts, *arguments]
            out = evaluate_cutting_off(program.jaxpr, operands, self.n_outputs)
        else:
            out = program(*arguments)
        return out[: self.n_outputs], out[self.n_outputs :]

    @functools.cached_property
    def closed_over(self) -> tuple[int, ...]:
        """The hoisted operands that the outputs depend on: their derivative is not known."""
        jaxpr = self.forward.jaxpr.jaxpr
        needed = {a for a in jaxpr.outvars[: self.n_outputs] if not isinstance(a, Literal)}
        for eqn in reversed(jaxpr.eqns):
            if any(v in needed for v in eqn.outvars):
                needed.update(a for a in eqn.invars if not isinstance(a, Literal))
        consts = jaxpr.invars[: len(self.const_operands)]
        pairs = zip(consts, self.const_operands, strict=True)
        return tuple(i for var, i in pairs if i is not None and var in needed)

    def dependent(self, mapped: Sequence[bool]) -> list[bool]:
        """Which computed residuals depend on the operands that are `mapped`."""
        jaxpr = self.forward.jaxpr.jaxpr
        of_consts = [i is not None and mapped[i] for i in self.const_operands]
        flags = [*of_consts, *mapped[self.n_hoisted :]]
        moving = {var for var, flag in zip(jaxpr.invars, flags, strict=True) if flag}
        for eqn in jaxpr.eqns:
            if any(not isinstance(a, Literal) and a in moving for a in eqn.invars):
                moving.update(eqn.outvars)
        computed = jaxpr.outvars[self.n_outputs :]
        return [not isinstance(a, Literal) and a in moving for a in computed]


def _with_operands(
    program: Program, const_operands: Sequence[int | None], xs: Sequence[Any]
) -> Program:
    """The program with those of its constants replaced that are operands."""
    pairs = zip(program.consts, const_operands, strict=True)
    return replace(program, consts=[c if i is None else xs[i] for c, i in pairs])


_tracing_early = threading.local()


@compat.cached_weakly
@dataclass(eq=False, repr=False)
class PythonFunction:
    """Python code that returns its outputs and its rule.

    Attributes:
        name: For messages and jaxprs.
        run: `run(*xs) -> (ys, rule)` on flat lists; `rule(*y_bars)` takes the cotangents of the
            floating-point or complex ys and returns one cotangent or None per x.
        keeps_outputs: Residuals that are outputs keep their rule at higher order.
        scope: The override map under which the function was called.
        hoisted: Tracers that function or rule close over; they are the first operands.
    """

    name: str
    run: Callable[..., tuple[list[Any], RuleFn]]
    keeps_outputs: bool = False
    scope: Any = field(default_factory=_scope.active)
    hoisted: Sequence[Any] = ()
    _primals: dict[Any, Program] = field(default_factory=dict)
    _traced: dict[Any, Traced] = field(default_factory=dict)

    def __repr__(self) -> str:
        return self.name

    @property
    def n_hoisted(self) -> int:
        return len(self.hoisted)

    def evaluate(self, xs: Sequence[Any]) -> list[Any]:
        """Run the function, without its rule, on values."""
        ran = self._run_in_place(xs)
        return self.primal([jax.typeof(x) for x in xs])(*xs) if ran is None else ran[0]

    def run_eagerly(self, xs: Sequence[Any]) -> tuple[list[Any], EagerRule] | None:
        """Run on concrete values, the rule left as it is; None if something traced turns up."""
        ran = self._run_in_place(xs)
        return None if ran is None else (ran[0], EagerRule(self.name, ran[1], xs, ran[0]))

    def _run_in_place(self, xs: Sequence[Any]) -> tuple[list[Any], RuleFn] | None:
        """Call the Python function; None if it closes over what only tracing can report."""
        if self.hoisted:
            return None
        try:
            with _scope.activate(self.scope):
                ys, rule = self.run(*xs)
        except jax.errors.UnexpectedTracerError:
            return None
        return None if _any_tracer(ys) and not _any_tracer(xs) else (ys, rule)

    def primal(self, avals: Sequence[Any]) -> Program:
        """The function without its rule, as a program."""
        key = tuple(avals)
        if key not in self._primals:
            with _scope.activate(self.scope):
                program = Program.trace(
                    lambda *xs: self.run(*xs)[0], avals[self.n_hoisted :], self.name
                )
            const_operands = self._const_operands(program.consts)
            if self.hoisted:
                own = program

                def with_hoisted(*xs):
                    return _with_operands(own, const_operands, xs)(*xs[self.n_hoisted :])

                program = Program.trace(with_hoisted, avals, self.name)
            self._primals[key] = program
        return self._primals[key]

    def trace(self, avals: Sequence[Any]) -> Traced:
        """Function and rule together, as programs."""
        key = tuple(avals)
        if key in self._traced:
            return self._traced[key]
        traced = self._trace(avals)
        if self.hoisted:  # the tracers will be gone when the next derivative is asked for
            self._traced[key] = traced
        return traced

    def _trace(self, avals: Sequence[Any]) -> Traced:
        residuals: list[tuple[str, Any]] = []
        found: dict[str, Any] = {}

        def forward(*xs):
            with _scope.activate(self.scope):
                ys, rule = self.run(*xs)
            found["n_outputs"] = len(ys)
            found["rule"], captured = _trace_rule(self.name, rule, len(xs), ys)
            computed: list[Any] = []
            for value in captured:
                residuals.append(self._locate(value, xs, ys, computed))
            return [*ys, *computed]

        program = Program.trace(forward, avals[self.n_hoisted :], self.name)
        return Traced(
            program,
            self._const_operands(program.consts),
            self.n_hoisted,
            found["n_outputs"],
            residuals,
            found["rule"],
        )

    def _locate(self, value: Any, xs, ys, computed: list[Any]) -> tuple[str, Any]:
        """Where a value that the rule captured comes from."""
        for i, x in enumerate(xs):
            if value is x:
                return "x", i + self.n_hoisted
        if self.keeps_outputs:
            for i, y in enumerate(ys):
                if value is y:
                    return "y", i
        if not isinstance(value, Tracer):
            return "constant", value
        computed.append(value)
        return "computed", len(computed) - 1

    def _const_operands(self, consts: Sequence[Any]) -> list[int | None]:
        """Which operand each closed-over value is; tracers must be one."""
        place = {id(tracer): i for i, tracer in enumerate(self.hoisted)}
        missing = [c for c in consts if isinstance(c, Tracer) and id(c) not in place]
        if missing:
            raise ClosesOver(self, missing)
        return [place.get(id(c)) for c in consts]

    def hoist(self, tracers: Sequence[Any], avals: Sequence[Any]) -> PythonFunction:
        """The same function with `tracers` as further operands, in front of those of `avals`.

        Its rule is traced at once, while the tracers are alive; except inside its own rule,
        which would never end.
        """
        hoisted = [*self.hoisted, *tracers]
        function = PythonFunction(self.name, self.run, self.keeps_outputs, self.scope, hoisted)
        busy: set[str] = _tracing_early.__dict__.setdefault("names", set())
        if self.name not in busy:
            busy.add(self.name)
            try:
                function.trace([*(jax.typeof(h) for h in hoisted), *avals])
            except ClosesOver as more:
                if more.function is not function:
                    raise
                busy.discard(self.name)
                return function.hoist(more.tracers, avals)
            finally:
                busy.discard(self.name)
        return function


def _any_tracer(values: Sequence[Any]) -> bool:
    return any(isinstance(value, Tracer) for value in values)


def _trace_rule(
    name: str, rule: RuleFn, n_arguments: int, ys: Sequence[Any]
) -> tuple[Rule, list[Any]]:
    """Trace a rule at the cotangent types of `ys`; also return the values that it captured."""
    arguments: list[int] = []

    def traced(*y_bars):
        with _scope.switched_off():
            x_bars = rule(*y_bars)
        arguments.extend(i for i in range(n_arguments) if x_bars[i] is not None)
        return [x_bars[i] for i in arguments]

    avals = [compat.cotangent_aval(y) for y in ys if is_differentiable(y)]
    program = Program.trace(traced, avals, f"gradient of {name}")
    rule_of_residuals = replace(program, consts=())
    n_residuals = len(program.consts)
    return Rule(name, rule_of_residuals, n_residuals, tuple(arguments)), list(program.consts)


@compat.cached_weakly
class EagerRule(Rule):
    """A rule whose forward pass ran on concrete values: Python code, traced only if need be."""

    def __init__(self, name: str, rule: RuleFn, xs: Sequence[Any], ys: Sequence[Any]):
        self.name = name
        self.n_residuals = 0
        self.arguments = tuple(i for i, x in enumerate(xs) if is_differentiable(x))
        self._rule = rule
        self._x_bar_avals = [compat.cotangent_aval(xs[i]) for i in self.arguments]
        self._y_bar_avals = [compat.cotangent_aval(y) for y in ys if is_differentiable(y)]

    def __call__(self, residuals: Sequence[Any], y_bars: Sequence[Any]) -> list[Any]:
        try:
            with _scope.switched_off():
                x_bars = self._rule(*y_bars)
        except jax.errors.UnexpectedTracerError as error:
            raise closes_over_differentiated(self.name) from error
        return [x_bars[i] for i in self.arguments]

    @functools.cached_property
    def program(self) -> Program:  # pyright: ignore[reportIncompatibleVariableOverride] - lazy
        """The rule, traced."""

        def rule(*y_bars):
            x_bars = self((), y_bars)
            return [
                compat.zeros_of(aval) if x_bar is None else x_bar
                for x_bar, aval in zip(x_bars, self._x_bar_avals, strict=True)
            ]

        return Program.trace(rule, self._y_bar_avals, self.name)


def is_differentiable(value: Any) -> bool:
    """Has `value` a tangent space of its own: is it floating point or complex?"""
    return compat.tangent_aval(value).dtype != jax.dtypes.float0


@compat.cached_weakly
@dataclass(eq=False, repr=False)
class BatchedFunction:
    """A function over a leading batch axis, its rule with it (what `jax.vmap` makes of one)."""

    inner: Any
    dims: tuple[int | None, ...]
    axis: Any
    _primals: dict[Any, Program] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"vmap({self.inner})"

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def n_hoisted(self) -> int:
        return self.inner.n_hoisted

    def run_eagerly(self, xs: Sequence[Any]) -> None:
        """Batched functions are traced."""

    def _over_batch(self, fn: Callable[..., Any], out_axes: Any) -> Callable[..., Any]:
        return compat.vmap_over(fn, self.axis, list(self.dims), out_axes)

    def evaluate(self, xs: Sequence[Any]) -> list[Any]:
        return self._over_batch(lambda *x: self.inner.evaluate(x), 0)(*xs)

    def primal(self, avals: Sequence[Any]) -> Program:
        key = tuple(avals)
        if key not in self._primals:
            one = self._over_batch(lambda *x: self._inner_primal(x), 0)
            self._primals[key] = Program.trace(one, avals, self.name)
        return self._primals[key]

    def _inner_primal(self, xs: Sequence[Any]) -> list[Any]:
        return self.inner.primal([jax.typeof(x) for x in xs])(*xs)

    def trace(self, avals: Sequence[Any]) -> BatchedTraced:
        found: list[Any] = []

        def look(*xs):
            found.append(self.inner.trace([jax.typeof(x) for x in xs]))
            return []

        Program.trace(self._over_batch(look, 0), avals, self.name)
        return BatchedTraced(self, found[0])


@dataclass(frozen=True)
class BatchedTraced:
    """The programs of a batched function; the interface of `Traced`."""

    function: BatchedFunction
    inner: Any

    @property
    def residuals(self) -> Sequence[tuple[str, Any]]:
        return self.inner.residuals

    @property
    def n_outputs(self) -> int:
        return self.inner.n_outputs

    @property
    def closed_over(self) -> tuple[int, ...]:
        return self.inner.closed_over

    def _computed_dims(self) -> list[int | None]:
        mapped = [dim is not None for dim in self.function.dims]
        return [0 if moves else None for moves in self.inner.dependent(mapped)]

    def evaluate(self, xs: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        out_axes = ([0] * self.n_outputs, self._computed_dims())
        return self.function._over_batch(lambda *x: self.inner.evaluate(x), out_axes)(*xs)

    def dependent(self, mapped: Sequence[bool]) -> list[bool]:
        return self.inner.dependent(mapped)

    @property
    def rule(self) -> Rule:
        dims, computed = self.function.dims, self._computed_dims()
        where = {"x": dims, "computed": computed}
        residual_dims = [
            0 if kind == "y" else None if kind == "constant" else where[kind][place]
            for kind, place in self.residuals
        ]
        rule = self.inner.rule
        argument_dims = [dims[a + self.function.n_hoisted] for a in rule.arguments]
        return rule.batched(residual_dims, argument_dims, self.function.axis)
