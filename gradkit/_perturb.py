"""Programs with a further argument wherever somebody wants to know the cotangent.

The cotangent of a value `y` inside a program is the derivative with respect to a perturbation that
is added to `y`. So the program is traced once, as it stands, and evaluated again with

    y = perturb(y, perturbation)         the value is y; the perturbation is there to differentiate

at the points of interest. The perturbations are arguments of the whole program, handed down into
`jit`, `checkpoint` and the branches of `cond`; a `scan` takes one a step, a `shard_map` one a
device. What is asked for leaves as an ordinary output of `jax.value_and_grad`, so that it may be
compiled, vectorised and differentiated like any other, and no side effect is needed.

Why on the traced program, rather than in the backward pass, where the cotangents turn up on
their own? There a value without cotangent (the branch not taken, a cut-off path) has no place to
show its zero, what `checkpoint` computes twice turns up twice, and a derivative that the function
takes itself cannot be told from the derivative of the function. A perturbation has one meaning.

Out of reach are the insides of what has a derivative rule of its own, or none: the rule does not
say what the cotangents in there are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import prod
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from gradkit import _jax_compat as compat
from gradkit import _scope

Record = Callable[..., Any]


@dataclass(frozen=True)
class Point:
    """One value whose cotangent is wanted.

    Attributes:
        output: Which output of its equation it is.
        label: What the one who asks needs to know later.
        record: What is recorded of the cotangent: a function of it.
        of_value: Does `record` want the value as well, as a second argument?
        replaces: Does the point stand for its equation, an identity that is there for it?
    """

    output: int
    label: Any
    record: Record
    of_value: bool = False
    replaces: bool = False


Find = Callable[[Jaxpr, str], Mapping[int, Sequence[Point]]]
"""From a program, and the named scopes around it, to the points by number of equation."""


@dataclass(frozen=True)
class Site:
    """A point's place in the whole program.

    Attributes:
        point: The point.
        aval: The type of the value, as the point sees it.
        shape: The shape of its record; loops and devices are the leading axes.
        dtype: The dtype of its record.
        call: Which calls lead there; points found at the same equation of one call share it.
        spec: The mesh axis of each axis of the record, of those that are part of types.
        mesh: Their mesh, or None.
    """

    point: Point
    aval: Any
    shape: tuple[int, ...]
    dtype: Any
    call: tuple[int, ...]
    spec: tuple[Any, ...] = ()
    mesh: Any = None

    def zeros(self) -> jax.Array:
        """The perturbation."""
        sharding = None
        if self.mesh is not None and any(self.spec):
            sharding = NamedSharding(self.mesh, PartitionSpec(*self.spec))
        return jax.numpy.zeros(self.shape, self.dtype, device=sharding)


@dataclass
class Plan:
    """A program, and where it is to be perturbed."""

    jaxpr: Jaxpr
    consts: Sequence[Any]
    points: Mapping[int, Sequence[Point]]
    bodies: dict[int, list[Plan]] = field(default_factory=dict)

    @staticmethod
    def of(
        jaxpr: Jaxpr,
        consts: Sequence[Any],
        find: Find,
        unreachable: Callable[[Any, JaxprEqn], None],
        path: str = "",
    ) -> Plan:
        """Find the points of a program.

        Args:
            jaxpr: The program.
            consts: Its constants.
            find: Finds the points of one program, without those of the programs inside.
            unreachable: Called with the label of a point whose cotangent cannot be had, and
                with the equation that it stands inside.
            path: The named scopes around the program.
        """
        plan = Plan(jaxpr, consts, find(jaxpr, path))
        for i, eqn in enumerate(jaxpr.eqns):
            where = join(path, compat.scope_of(eqn))
            plans = [Plan.of(*body, find, unreachable, where) for body in programs_inside(eqn)]
            if not any(body.sites for body in plans):
                continue
            if eqn.primitive.name in _REBUILD:
                plan.bodies[i] = plans
                continue
            for body in plans:
                for site in body.sites:
                    unreachable(site.point.label, eqn)
        return plan

    @property
    def sites(self) -> list[Site]:
        """Where the perturbations belong, in the order in which they are taken."""
        found = []
        for i, eqn in enumerate(self.jaxpr.eqns):
            for j, body in enumerate(self.bodies.get(i, ())):
                for site in body.sites:
                    found.append(_outside(replace(site, call=(i, j, *site.call)), eqn))
            for point in self.points.get(i, ()):
                aval: Any = eqn.outvars[point.output].aval
                y_bar = jax.ShapeDtypeStruct(aval.shape, aval.dtype, sharding=aval.sharding)
                record = jax.eval_shape(point.record, *[y_bar] * (1 + point.of_value))
                site = Site(point, aval, record.shape, record.dtype, (i,))
                found.append(_with_mesh(site, record.sharding))
        return found

    def only(self, site: Site) -> Plan:
        """The same program, perturbed at one of its sites."""

        def cut(plan: Plan, call: tuple[int, ...]) -> Plan:
            if not call:
                return Plan(plan.jaxpr, plan.consts, {})
            i, *inside = call
            if not inside:
                return Plan(plan.jaxpr, plan.consts, {i: [site.point]})
            calls = [
                tuple(inside[1:]) if j == inside[0] else () for j in range(len(plan.bodies[i]))
            ]
            bodies = {i: list(map(cut, plan.bodies[i], calls))}
            return Plan(plan.jaxpr, plan.consts, {}, bodies)

        return cut(self, site.call)

    def __call__(self, xs: Sequence[Any], perturbations: Iterator[Any]) -> list[Any]:
        """Evaluate the program."""
        jaxpr = self.jaxpr
        env = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*self.consts, *xs], strict=True))

        def read(atom: Any) -> Any:
            return atom.val if isinstance(atom, Literal) else env[atom]

        for i, eqn in enumerate(jaxpr.eqns):
            values = [read(atom) for atom in eqn.invars]
            if i in self.bodies:
                bodies = self.bodies[i]
                own = [[next(perturbations) for _ in body.sites] for body in bodies]
                with _place(eqn), eqn.ctx.manager:
                    outs = list(_REBUILD[eqn.primitive.name](eqn, values, bodies, own))
            elif any(point.replaces for point in self.points.get(i, ())):
                outs = values
            else:
                outs = compat.evaluate_equation(eqn, values)
            for point in self.points.get(i, ()):
                y = outs[point.output]
                outs[point.output] = _perturb(point, y, next(perturbations))
            env.update(zip(eqn.outvars, outs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]


def join(*scopes: str) -> str:
    """One path of named scopes."""
    return "/".join(filter(None, scopes))


def programs_inside(eqn: JaxprEqn) -> list[tuple[Jaxpr, Sequence[Any]]]:
    """The programs among the parameters of an equation, with their constants."""
    if "function" in eqn.params and eqn.primitive.name == "gradkit_call":
        program = eqn.params["function"].primal([atom.aval for atom in eqn.invars])
        return [(program.jaxpr.jaxpr, ())]
    found = []
    for value in eqn.params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, ClosedJaxpr):
                found.append((item.jaxpr, item.consts))
            elif isinstance(item, Jaxpr):
                found.append((item, ()))
    return found


def operation_name(eqn: JaxprEqn) -> str:
    """What a user calls the operation of an equation: the function's name, if it has one."""
    name, params = eqn.primitive.name, eqn.params
    if name in ("jit", "pjit"):
        return params["name"]
    if name in ("custom_jvp_call", "custom_vjp_call"):
        return compat.program_identity(params["call_jaxpr"])[0]
    return params["function"].name if name == "gradkit_call" else name


def _place(eqn: JaxprEqn) -> contextlib.AbstractContextManager[Any]:
    """The named scopes of an equation that is built anew."""
    scope = compat.scope_of(eqn)
    return jax.named_scope(scope) if scope else contextlib.nullcontext()


def _perturb(point: Point, y: Any, perturbation: Any) -> Any:
    """`y`, whose cotangent's record is the derivative with respect to the perturbation."""

    @jax.custom_vjp
    def perturbed(y, perturbation):
        del perturbation
        return y

    def fwd(y, perturbation):
        del perturbation
        return y, (y,) if point.of_value else ()

    def bwd(residuals, y_bar):
        return y_bar, point.record(y_bar, *residuals)

    perturbed.defvjp(fwd, bwd)
    return perturbed(y, perturbation)


def _outside(site: Site, eqn: JaxprEqn) -> Site:
    """A site of a body, as seen from outside of its equation."""
    name, params = eqn.primitive.name, eqn.params
    if name == "scan":
        return replace(site, shape=(params["length"], *site.shape), spec=(None, *site.spec))
    if name == "shard_map":
        mesh, axes = params["mesh"], _device_axes(eqn, site)
        types = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
        explicit = tuple(axis for axis in axes if types[axis] == AxisType.Explicit)
        return replace(
            site,
            shape=(prod(mesh.shape[axis] for axis in axes), *site.shape),
            spec=(explicit or None, *site.spec),
            mesh=getattr(mesh, "abstract_mesh", mesh) if explicit else site.mesh,
        )
    return site


def _with_mesh(site: Site, sharding: Any) -> Site:
    """A site whose record is divided over devices as its type says (`AxisType.Explicit`)."""
    if sharding is None or not any(sharding.spec):
        return replace(site, spec=(None,) * len(site.shape))
    return replace(site, spec=tuple(sharding.spec), mesh=sharding.mesh)


def _jit(eqn, values, bodies, own):
    (body,), (perturbations,) = bodies, own
    params = eqn.params

    def inner(xs, perturbations):
        return body(xs, iter(perturbations))

    inner.__name__ = params.get("name", "inner")
    shardings = {}
    for side in ("in_shardings", "out_shardings"):
        given = [s if isinstance(s, jax.sharding.Sharding) else None for s in params.get(side, ())]
        if any(s is not None for s in given):
            shardings[side] = (given, None) if side == "in_shardings" else given
    return jax.jit(inner, inline=params.get("inline", False), **shardings)(values, perturbations)


def _checkpoint(eqn, values, bodies, own):
    (body,), (perturbations,) = bodies, own
    run = lambda xs, perturbations: body(xs, iter(perturbations))  # noqa: E731
    params = eqn.params
    run = jax.checkpoint(run, prevent_cse=params["prevent_cse"], policy=params["policy"])
    return run(values, perturbations)


def _cond(eqn, values, bodies, own):
    del eqn
    index, *operands = values

    def branch(i):
        return lambda xs, own: bodies[i](xs, iter(own[i]))

    return jax.lax.switch(index, [branch(i) for i in range(len(bodies))], operands, own)


def _scan(eqn, values, bodies, own):
    (body,), (perturbations,) = bodies, own
    params = eqn.params
    n_consts, n_carry = compat.scan_layout(params)
    consts, carry, xs = _cut(values, n_consts, n_consts + n_carry)

    def step(carry, x):
        x, perturbations = x
        out = body([*consts, *carry, *x], iter(perturbations))
        return out[:n_carry], out[n_carry:]

    carry, ys = jax.lax.scan(
        step,
        carry,
        (xs, perturbations),
        length=params["length"],
        reverse=params["reverse"],
        unroll=params["unroll"],
        _split_transpose=params.get("_split_transpose", False),
    )
    return [*carry, *ys]


def _cut(values: Sequence[Any], *places: int) -> list[list[Any]]:
    return [list(values[a:b]) for a, b in pairwise([0, *places, len(values)])]


def _shard_map(eqn, values, bodies, own):
    (body,), (perturbations,) = bodies, own
    params = eqn.params
    specs = [PartitionSpec(_device_axes(eqn, site)) for site in body.sites]

    def local(xs, perturbations):
        return tuple(body(xs, iter([perturbation[0] for perturbation in perturbations])))

    run = jax.shard_map(
        local,
        mesh=params["mesh"],
        in_specs=(list(params["in_specs"]), specs),
        out_specs=tuple(params["out_specs"]),
        axis_names=set(compat.manual_axes(params)),
        check_vma=params["check_vma"],
    )
    return run(values, perturbations)


def _device_axes(eqn: JaxprEqn, site: Site) -> tuple[Any, ...]:
    """The mesh axes over which a value inside a `shard_map` may differ between devices."""
    axes = compat.manual_axes(eqn.params)
    if not eqn.params["check_vma"]:  # JAX does not follow them
        return axes
    return tuple(axis for axis in axes if axis in compat.varying_axes(site.aval))


_REBUILD: dict[str, Callable[..., Sequence[Any]]] = {
    "jit": _jit,
    "pjit": _jit,
    "closed_call": _jit,
    "checkpoint": _checkpoint,
    "remat2": _checkpoint,
    "cond": _cond,
    "scan": _scan,
    "shard_map": _shard_map,
}


def evaluate(plan: Plan, xs: Sequence[Any], perturbations: Sequence[Any]) -> list[Any]:
    """Evaluate a perturbed program; what it calls is not overridden a second time."""
    with _scope.switched_off():
        return plan(xs, iter(perturbations))
