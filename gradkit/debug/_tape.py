"""Running a program one operation at a time, remembering where what is not finite comes from.

Every value carries its origin: the first operation that made it NaN or Inf out of finite ones. It
is passed on as the program runs, so that a result knows its own; a NaN or Inf that is masked or
never used is in no result. Calls, branches and loops are run inline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from gradkit import _jax_compat as compat
from gradkit import _scope
from gradkit.debug._lines import is_transposed, user_line
from gradkit.debug._origin import badness

FOLDER = str(Path(__file__).parent)


@dataclass(frozen=True)
class Place:
    """Where an operation runs: named scopes, iterations of the loops around it, and a line.

    Attributes:
        scope: The named scopes.
        iteration: The iterations.
        source: The line, if it does not come from the operation itself: it is inside a function
            of JAX, which is traced once and called from many lines.
        pinned: Is `source` the line of everything inside?
        backward: Is it in a backward pass?
    """

    scope: str = ""
    iteration: tuple[int, ...] = ()
    source: str = ""
    pinned: bool = False
    backward: bool = False

    def at(self, eqn: JaxprEqn) -> Place:
        """The place of an operation here."""
        scope = "/".join(filter(None, (self.scope, compat.scope_of(eqn))))
        source = self.source if self.pinned else user_line(eqn, FOLDER) or self.source
        backward = self.backward or is_transposed(eqn)
        return replace(self, scope=scope, source=source, backward=backward)

    def step(self, i: int) -> Place:
        """The place of iteration `i`."""
        return replace(self, iteration=(*self.iteration, i))


@dataclass(frozen=True)
class Pullback:
    """The gradient of one operation, as a program `(*primals, *y_bars) -> x_bars`.

    Attributes:
        program: The program; its outputs belong to `wanted` operands.
        wanted: Operands whose cotangent is not always zero.
        depends: For each of them, which inputs of the program it depends on.
    """

    program: ClosedJaxpr
    wanted: tuple[int, ...]
    depends: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, eq=False)
class Step:
    """One operation that was run.

    Attributes:
        number: Operations are numbered as they run.
        eqn: The operation.
        place: Where it is.
        inputs: Its operands; of a pullback, the primal ones, then the cotangents.
        outputs: Its results.
        pullback: The gradient of the operation, if it is that which was run.
    """

    number: int
    eqn: JaxprEqn
    place: Place
    inputs: Sequence[Value]
    outputs: list[Value] = field(default_factory=list)
    pullback: Pullback | None = None


@dataclass(frozen=True)
class Argument:
    """An argument that is not finite."""

    name: str
    data: Any
    number: int = -1


@dataclass(frozen=True, eq=False)
class Value:
    """A number or array, what is bad about it (`"nan"`, `"inf"` or `""`), and since when."""

    data: Any
    bad: str = ""
    origin: Step | Argument | None = None


def constant(data: Any) -> Value:
    """A value that no operation made: if it is infinite, that is intended."""
    return Value(data, badness(data))


def pass_on(result: Any, seen: Sequence[Value]) -> Value:
    """A part of values, or several put together: their origin is its origin."""
    bad = badness(result)
    return Value(result, bad, _origin_of(bad, seen)[0])


class Move(Protocol):
    """Something that passes numbers on as they are, and knows its own gradient."""

    @property
    def inputs(self) -> Sequence[Value]: ...
    @property
    def outputs(self) -> Sequence[Value]: ...
    def pull_back(self, y_bars: Sequence[Value | None]) -> list[Value]:
        """The cotangents of the inputs."""
        ...


AnyStep = TypeVar("AnyStep", bound=Step | Move)
Inline = Callable[["Tape", JaxprEqn, list[Value], Place], list[Value] | None]
Inside = Callable[[JaxprEqn, Sequence[Value]], ClosedJaxpr]


class Tape:
    """Runs programs, and keeps what was run.

    Args:
        inlined: How to run a call, branch or loop, by primitive; None is returned for one that is
            to be run as one operation after all.
        ruled: The program inside a call that has a derivative rule, by primitive.

    Attributes:
        steps: The operations that have a gradient of their own, in order. The inside of a function
            with a derivative rule is not among them; its call is.
    """

    def __init__(self, inlined: Mapping[str, Inline], ruled: Mapping[str, Inside]) -> None:
        self._inlined, self._ruled = inlined, ruled
        self.steps: list[Step | Move] = []
        self._number = 0
        self._inside_rule = 0

    def run(self, program: ClosedJaxpr, xs: Sequence[Value], place: Place) -> list[Value]:
        """Run a program on values, inline."""
        return self._run(program.jaxpr, [constant(c) for c in program.consts], xs, place)

    def _run(
        self, jaxpr: Jaxpr, consts: Sequence[Value], xs: Sequence[Value], place: Place
    ) -> list[Value]:
        env = dict(zip(jaxpr.constvars, consts, strict=True))
        env.update(zip(jaxpr.invars, xs, strict=True))

        def read(atom: Any) -> Value:
            return constant(atom.val) if isinstance(atom, Literal) else env[atom]

        for eqn in jaxpr.eqns:
            ys = self._run_equation(eqn, [read(atom) for atom in eqn.invars], place.at(eqn))
            env.update(zip(eqn.outvars, ys, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _run_equation(self, eqn: JaxprEqn, xs: list[Value], place: Place) -> list[Value]:
        name = eqn.primitive.name
        inline = self._inlined.get(name)
        ys = None if inline is None else inline(self, eqn, xs, place)
        if ys is not None:
            return ys
        if name in self._ruled:
            return self._call_with_rule(eqn, xs, place, self._ruled[name](eqn, xs))
        with _scope.switched_off():
            results = compat.evaluate_equation(eqn, [x.data for x in xs])
        return self.add(eqn, place, xs, results)

    def _call_with_rule(
        self, eqn: JaxprEqn, xs: list[Value], place: Place, program: ClosedJaxpr
    ) -> list[Value]:
        """Run the inside for its origins; the gradient is that of the call."""
        self._inside_rule += 1
        ys = self.run(program, xs, place)
        self._inside_rule -= 1
        # Values of their own: what is passed through would have two gradients.
        ys = [replace(y) for y in ys]
        self.keep(Step(self._next(), eqn, place, xs, ys))
        return ys

    def add(
        self,
        eqn: JaxprEqn,
        place: Place,
        xs: Sequence[Value],
        results: Sequence[Any],
        pullback: Pullback | None = None,
    ) -> list[Value]:
        """Note an operation that was run, and where its results' badness comes from.

        Args:
            eqn: The operation.
            place: Where it is.
            xs: Its operands.
            results: Its results.
            pullback: The gradient of the operation, if it is that which was run: it says which
                operands each result depends on.
        """
        step = Step(self._next(), eqn, place, xs, [], pullback)
        for i, result in enumerate(results):
            seen = xs if pullback is None else [xs[j] for j in pullback.depends[i]]
            step.outputs.append(_trace(step, result, seen))
        if pullback is None:
            self.keep(step)
        return step.outputs

    def keep(self, step: AnyStep) -> AnyStep:
        """Remember what was run for the backward pass."""
        if not self._inside_rule:
            self.steps.append(step)
        return step

    def _next(self) -> int:
        self._number += 1
        return self._number


def _trace(step: Step, result: Any, seen: Sequence[Value]) -> Value:
    """A result with its origin."""
    bad = badness(result)
    if not bad:
        return Value(result)
    origin, blamed = _origin_of(bad, seen)
    # A constant infinity that is passed on is intended; a NaN that is made of one is not.
    intended = blamed and bad == "inf"
    return Value(result, bad, origin if origin is not None or intended else step)


def _origin_of(bad: str, seen: Sequence[Value]) -> tuple[Step | Argument | None, bool]:
    """The first origin of the values that something bad comes from; are there such values?"""
    if not bad:
        return None, False
    # A NaN comes from a NaN, if there is one: an infinity beside it may be a mask.
    blamed = [x for x in seen if x.bad == bad] or [x for x in seen if x.bad]
    origins = [x.origin for x in blamed if x.origin is not None]
    return min(origins, key=lambda origin: origin.number, default=None), bool(blamed)


def is_float(data: Any) -> bool:
    """Has a value a gradient?"""
    return jax.dtypes.issubdtype(jax.typeof(data).dtype, jax.numpy.inexact)
