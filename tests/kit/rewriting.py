"""Overriding by rewriting programs: an oracle that shares no code with gradkit.

`rewrite(f, rules)` traces `f` to a jaxpr and interprets that again, with every call of a chosen
primitive or function replaced by a `jax.custom_vjp` function, inside jit, scan, cond, while and
remat too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

# rule(natural, inputs, output, y_bar) -> one cotangent or None per input, where natural(*inputs)
# computes the output. For operations of one output.
PlainRule = Callable[[Callable[..., Any], Sequence[Any], Any, Any], Sequence[Any]]
Rules = Mapping[str, PlainRule]

JIT = ("jit", "pjit")
REMAT = ("checkpoint", "remat", "remat2")


def subprograms(params: Mapping[str, Any]) -> Iterator[Jaxpr]:
    """The programs among the parameters of an equation."""
    for value in params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, Jaxpr):
                yield item


def primitives_in(jaxpr: Jaxpr) -> set[str]:
    """The names of all primitives in a program, nested ones included."""
    names = set()
    for eqn in jaxpr.eqns:
        names.add(eqn.primitive.name)
        for inner in subprograms(eqn.params):
            names |= primitives_in(inner)
    return names


def rewrite(f: Callable[..., Any], rules: Rules) -> Callable[..., Any]:
    """`f` with other gradients.

    Args:
        f: A function of arrays.
        rules: By the name of a primitive, or `"fn:relu"` for a jitted or `custom_jvp` function.
    """

    def rewritten(*args: Any) -> Any:
        leaves, structure = jax.tree.flatten(args)

        def flat(*leaves: Any) -> Any:
            return f(*jax.tree.unflatten(structure, leaves))

        closed, shape = jax.make_jaxpr(flat, return_shape=True)(*leaves)
        out = evaluate(closed.jaxpr, closed.consts, leaves, rules)
        return jax.tree.unflatten(jax.tree.structure(shape), out)

    return rewritten


def evaluate(jaxpr: Jaxpr, consts: Sequence[Any], args: Sequence[Any], rules: Rules) -> list[Any]:
    """Evaluate a program with other gradients."""
    env = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))
    read = lambda atom: atom.val if isinstance(atom, Literal) else env[atom]
    for eqn in jaxpr.eqns:
        env.update(zip(eqn.outvars, _equation(eqn, [read(a) for a in eqn.invars], rules)))
    return [read(atom) for atom in jaxpr.outvars]


def _closed(program: ClosedJaxpr, rules: Rules) -> Callable[..., list[Any]]:
    return lambda *xs: evaluate(program.jaxpr, program.consts, xs, rules)


def _equation(eqn: JaxprEqn, xs: list[Any], rules: Rules) -> list[Any]:
    name, params = eqn.primitive.name, eqn.params
    rule = rules.get(name) or rules.get(f"fn:{_function_name(eqn)}")
    if rule is not None and all(jnp.issubdtype(v.aval.dtype, jnp.floating) for v in eqn.outvars):
        return [_with_rule(lambda *ys: _bind(eqn, ys)[0], rule)(*xs)]
    if name in JIT:
        run = _closed(params["jaxpr"], rules)
        run.__name__ = params["name"]  # a second rewriting must know it again
        return jax.jit(run)(*xs)
    if name in REMAT:
        run = lambda *ys: evaluate(params["jaxpr"], (), ys, rules)
        return jax.checkpoint(run, policy=params["policy"])(*xs)
    if name == "cond":
        index, *operands = xs
        return lax.switch(index, [_closed(b, rules) for b in params["branches"]], *operands)
    if name == "scan":
        return _scan(params, xs, rules)
    if name == "while":
        return _while(params, xs, rules)
    return _bind(eqn, xs)


def _function_name(eqn: JaxprEqn) -> str | None:
    """The name of the function that an equation calls as a whole."""
    if eqn.primitive.name in JIT:
        return eqn.params["name"]
    if eqn.primitive.name == "custom_jvp_call":
        eqns = eqn.params["call_jaxpr"].eqns
        return eqns[0].params["name"] if len(eqns) == 1 and eqns[0].primitive.name in JIT else None
    return None


def _bind(eqn: JaxprEqn, xs: Sequence[Any]) -> list[Any]:
    bound = eqn.primitive.get_bind_params(eqn.params)
    functions, params = bound if isinstance(bound, tuple) else ((), bound)
    out = eqn.primitive.bind(*functions, *xs, **params)
    return list(out) if eqn.primitive.multiple_results else [out]


def _with_rule(natural: Callable[..., Any], rule: PlainRule) -> Callable[..., Any]:
    @jax.custom_vjp
    def call(*xs):
        return natural(*xs)

    def forward(*xs):
        y = call(*xs)  # the output that the rule sees keeps the rule
        return y, (xs, y)

    def backward(residuals, y_bar):
        xs, y = residuals
        x_bars = rule(natural, xs, y, y_bar)
        return tuple(jnp.zeros_like(x) if b is None else b for x, b in zip(xs, x_bars))

    call.defvjp(forward, backward)
    return call


def _scan(params: Mapping[str, Any], xs: list[Any], rules: Rules) -> list[Any]:
    n, m = params["num_consts"], params["num_consts"] + params["num_carry"]
    body = _closed(params["jaxpr"], rules)

    def step(carry, x):
        out = body(*xs[:n], *carry, *x)
        return out[: m - n], out[m - n :]

    carry, ys = lax.scan(
        step, xs[n:m], xs[m:], length=params["length"], reverse=params["reverse"],
        unroll=params["unroll"],
    )  # fmt: skip
    return [*carry, *ys]


def _while(params: Mapping[str, Any], xs: list[Any], rules: Rules) -> list[Any]:
    n, m = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    condition, body = _closed(params["cond_jaxpr"], {}), _closed(params["body_jaxpr"], rules)
    return lax.while_loop(
        lambda carry: condition(*xs[:n], *carry)[0], lambda carry: body(*xs[n:m], *carry), xs[m:]
    )


def run_eagerly(closed: ClosedJaxpr, *args: Any) -> list[Any]:
    """Evaluate a program operation by operation, loops unrolled: nothing has to be compiled."""
    return _run(closed.jaxpr, closed.consts, args)


def _run(jaxpr: Jaxpr, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    env = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))
    read = lambda atom: atom.val if isinstance(atom, Literal) else env[atom]
    for eqn in jaxpr.eqns:
        env.update(zip(eqn.outvars, _run_equation(eqn, [read(a) for a in eqn.invars])))
    return [read(atom) for atom in jaxpr.outvars]


def _run_equation(eqn: JaxprEqn, xs: list[Any]) -> list[Any]:
    name, params = eqn.primitive.name, eqn.params
    if name in JIT:
        return _run(params["jaxpr"].jaxpr, params["jaxpr"].consts, xs)
    if name in REMAT:
        return _run(params["jaxpr"], (), xs)
    if name == "cond":
        branch = params["branches"][int(xs[0])]
        return _run(branch.jaxpr, branch.consts, xs[1:])
    if name == "scan":
        return _run_scan(params, xs)
    return _bind(eqn, xs)


def _run_scan(params: Mapping[str, Any], xs: list[Any]) -> list[Any]:
    n, m = params["num_consts"], params["num_consts"] + params["num_carry"]
    carry, ys = xs[n:m], []
    steps = range(params["length"])
    for i in reversed(steps) if params["reverse"] else steps:
        body = params["jaxpr"]
        out = _run(body.jaxpr, body.consts, [*xs[:n], *carry, *(x[i] for x in xs[m:])])
        carry = out[: m - n]
        ys.append(out[m - n :])
    if params["reverse"]:
        ys.reverse()
    return [*carry, *(jnp.stack(column) for column in zip(*ys))]
