"""Holding still what a program stops the gradient of, so that differences mean what it means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gradkit import _jax_compat as compat
from gradkit.verify._precision import inner_programs
from gradkit.verify._subject import Leaves

# Operations that run one inner program on their operands as they are.
_CALLS = ("jit", "pjit", "closed_call", "checkpoint", "custom_jvp_call", "custom_vjp_call")


Site = tuple[str, int]


def stop_sites(jaxpr: Any) -> frozenset[Site]:
    """The source lines at which a program's author stopped a gradient."""
    found: set[Site] = set()
    for eqn in jaxpr.eqns:
        site = _site(eqn)
        found.update(() if site is None else (site,))
        for inner in inner_programs(eqn):
            found |= stop_sites(inner)
    return frozenset(found)


@dataclass(frozen=True)
class Held:
    """A program with the values that `stop_gradient` gives fixed as they are at some point.

    Its differences agree with the derivative that the program's author asked for.

    Args:
        program: Closed jaxpr.
        sites: The source lines whose stops count. JAX's own do not: `linalg.solve` stops the
            gradient of its factors, and would not solve anything with those of another matrix.
            Nor do those that only the gradient's program has: they would hide a rule that detaches
            what its derivative needs.
    """

    program: Any
    sites: frozenset[Site]

    @property
    def hides_stops(self) -> bool:
        """Are more values stopped inside loops and branches, where they cannot be held?"""
        return _hides_stops(self.program.jaxpr, self.sites)

    def record(self, leaves: Leaves) -> list[Any]:
        """The stopped values at a point."""
        stopped: list[Any] = []
        _evaluate(self.program, leaves, self.sites, stopped.append)
        return stopped

    def call(self, leaves: Leaves, stopped: Sequence[Any]) -> Leaves:
        """The program at `leaves`, with the stopped values of another point."""
        values = iter(stopped)
        return _evaluate(self.program, leaves, self.sites, lambda _: next(values))


def _site(eqn: Any) -> Site | None:
    return compat.stop_gradient_site(eqn) if eqn.primitive.name == "stop_gradient" else None


def _evaluate(
    program: Any, operands: Sequence[Any], sites: frozenset[Site], stop: Callable[[Any], Any]
) -> list[Any]:
    """Run a program; each `stop_gradient` in it gives what `stop` returns, if that is not None."""
    jaxpr, consts = getattr(program, "jaxpr", program), getattr(program, "consts", ())
    env = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *operands], strict=True))

    def read(atom: Any) -> Any:
        return atom.val if hasattr(atom, "val") else env[atom]

    for eqn in jaxpr.eqns:
        values = [read(atom) for atom in eqn.invars]
        if _site(eqn) in sites:
            held = stop(values[0])
            out = [values[0] if held is None else held]
        elif eqn.primitive.name in _CALLS and _stops_inside(eqn, sites):
            called = eqn.params.get("call_jaxpr", eqn.params.get("jaxpr"))
            out = _evaluate(called, values, sites, stop)
        else:
            out = compat.evaluate_equation(eqn, values)
        env.update(zip(eqn.outvars, out, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _stops_inside(eqn: Any, sites: frozenset[Site]) -> bool:
    return any(stop_sites(inner) & sites for inner in inner_programs(eqn))


def _hides_stops(jaxpr: Any, sites: frozenset[Site]) -> bool:
    """Is there a `stop_gradient` inside something else than a plain call?"""
    return any(
        eqn.primitive.name not in _CALLS
        or any(_hides_stops(inner, sites) for inner in inner_programs(eqn))
        for eqn in jaxpr.eqns
        if _stops_inside(eqn, sites)
    )
