"""Every way in which JAX transforms a function, as small programs to run on two functions.

Each program takes an elementwise function `f` and returns arrays. A function with a custom
gradient must give what its *oracle* gives: a plain JAX function with the same values whose natural
derivatives are the ones that the rule states (the value swapped by `stop_gradient`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

Program = Callable[[Callable[[Any], Any]], Any]
PROGRAMS: dict[str, Program] = {}

X = np.array([0.5, -1.25, 2.0, 1.5], np.float32)
V = np.array([1.0, -2.0, 0.5, 3.0], np.float32)
W = np.array([0.75, 1.5, -1.0, 2.0], np.float32)


def program(fn: Program) -> Program:
    PROGRAMS[fn.__name__] = fn
    return fn


def total(f):
    return lambda x: (jnp.asarray(V) * f(x)).sum()


def _mesh(axis_type: AxisType) -> jax.sharding.Mesh:
    return jax.make_mesh((4,), ("i",), axis_types=(axis_type,), devices=jax.devices()[:4])


# -- first order ------------------------------------------------------------------------------


@program
def evaluate(f):
    return f(jnp.asarray(X))


@program
def jit(f):
    return jax.jit(f)(X)


@program
def grad(f):
    return jax.grad(total(f))(X)


@program
def value_and_grad(f):
    return jax.value_and_grad(total(f))(X)


@program
def vjp(f):
    y, pull = jax.vjp(f, X)
    return y, pull(jnp.asarray(V)), pull(jnp.asarray(W))


@program
def jvp(f):
    return jax.jvp(f, (X,), (V,))


@program
def linearize(f):
    y, push = jax.linearize(f, jnp.asarray(X))
    return y, push(jnp.asarray(V)), push(jnp.asarray(W))


@program
def linearize_in_jit(f):
    return jax.jit(lambda x, v: jax.linearize(f, x)[1](v))(X, V)


@program
def transpose_of_linearized(f):
    _, push = jax.linearize(f, jnp.asarray(X))
    return jax.linear_transpose(push, jnp.asarray(X))(jnp.asarray(V))


@program
def transpose_of_jvp(f):
    push = lambda v: jax.jvp(f, (jnp.asarray(X),), (v,))[1]
    return jax.linear_transpose(push, jnp.asarray(X))(jnp.asarray(V))


@program
def jacfwd(f):
    return jax.jacfwd(f)(X)


@program
def jacrev(f):
    return jax.jacrev(f)(X)


@program
def jit_of_grad(f):
    return jax.jit(jax.grad(total(f)))(X)


@program
def grad_of_jit(f):
    return jax.grad(total(jax.jit(f)))(X)


@program
def jvp_of_jit(f):
    return jax.jvp(jax.jit(f), (X,), (V,))


@program
def jit_of_jvp(f):
    return jax.jit(partial(jax.jvp, f))((X,), (V,))


@program
def jit_of_vjp(f):
    return jax.jit(lambda x, v: jax.vjp(f, x)[1](v))(X, V)


@program
def nested_jit(f):
    return jax.jit(jax.grad(total(jax.jit(lambda x: jax.jit(f)(x) * 2))))(X)


@program
def applied_twice(f):
    return jax.grad(total(lambda x: f(f(x) * 0.5)))(X)


@program
def one_use_among_others(f):
    return jax.grad(total(lambda x: f(x) * x + jnp.sin(f(x))))(X)


# -- vmap -------------------------------------------------------------------------------------


@program
def vmap(f):
    return jax.vmap(f)(X)


@program
def vmap_of_grad(f):
    return jax.vmap(jax.grad(f))(X)


@program
def grad_of_vmap(f):
    return jax.grad(total(jax.vmap(f)))(X)


@program
def vmap_of_jvp(f):
    return jax.vmap(lambda x, v: jax.jvp(f, (x,), (v,)))(X, V)


@program
def jvp_of_vmap(f):
    return jax.jvp(jax.vmap(f), (X,), (V,))


@program
def vmap_of_vjp_over_cotangents(f):
    _, pull = jax.vjp(f, X)
    return jax.vmap(pull)(jnp.stack([V, W]))


@program
def vmap_of_linearized(f):
    _, push = jax.linearize(f, jnp.asarray(X))
    return jax.vmap(push)(jnp.stack([V, W]))


@program
def vmap_inner_axis(f):
    xs = jnp.stack([X, 2 * X, X + 1])
    return jax.grad(lambda x: jax.vmap(f, in_axes=1, out_axes=1)(x).sum())(xs)


@program
def vmap_of_vmap(f):
    xs = jnp.stack([X, 2 * X])
    return jax.grad(lambda x: jax.vmap(jax.vmap(f))(x).sum())(xs)


@program
def vmap_unmapped_argument(f):
    scales = jnp.asarray([1.0, 2.0, 3.0])
    return jax.grad(lambda x: jax.vmap(lambda s: (s * f(x)).sum())(scales).sum())(X)


@program
def vmap_with_collective(f):
    g = jax.vmap(lambda x: lax.psum(f(x), "b") * x, axis_name="b")
    return jax.grad(total(g))(X)


@program
def jit_of_vmap_of_grad(f):
    return jax.jit(jax.vmap(jax.grad(f)))(X)


@program
def jacfwd_of_vmap(f):
    return jax.jacfwd(jax.vmap(f))(X)


@program
def jacrev_of_vmap(f):
    return jax.jacrev(jax.vmap(f))(X)


# -- second and third order -------------------------------------------------------------------


@program
def reverse_over_reverse(f):
    return jax.jacrev(jax.grad(total(f)))(X)


@program
def forward_over_reverse(f):
    return jax.jacfwd(jax.grad(total(f)))(X)


@program
def reverse_over_forward(f):
    return jax.jacrev(jax.jacfwd(total(f)))(X)


@program
def forward_over_forward(f):
    return jax.jacfwd(jax.jacfwd(total(f)))(X)


@program
def hessian(f):
    return jax.hessian(total(f))(X)


@program
def jit_of_hessian(f):
    return jax.jit(jax.hessian(total(f)))(X)


@program
def grad_of_grad_scalar(f):
    return jax.grad(jax.grad(f))(X[0])


@program
def grad_of_jit_of_grad(f):
    return jax.grad(jax.jit(jax.grad(f)))(X[0])


@program
def hessian_vector_product(f):
    return jax.jvp(jax.grad(total(f)), (X,), (V,))


@program
def grad_of_directional_derivative(f):
    return jax.grad(lambda x: total(lambda z: jax.jvp(f, (z,), (V,))[1])(x))(X)


@program
def derivative_of_the_returned_value(f):
    return jax.grad(lambda x: jax.value_and_grad(f)(x)[0])(X[0])


@program
def derivative_of_the_returned_value_of_vjp(f):
    return jax.grad(lambda x: total(lambda z: jax.vjp(f, z)[0])(x))(X)


@program
def derivative_of_the_returned_value_of_linearize(f):
    return jax.grad(lambda x: total(lambda z: jax.linearize(f, z)[0])(x))(X)


@program
def value_and_grad_differentiated_together(f):
    def both(x):
        y, dx = jax.value_and_grad(f)(x)
        return y * dx

    return jax.grad(both)(X[2])


@program
def third_order_reverse(f):
    return jax.grad(jax.grad(jax.grad(f)))(X[0])


@program
def third_order_forward(f):
    return jax.jacfwd(jax.jacfwd(jax.jacfwd(f)))(X[0])


@program
def third_order_mixed(f):
    return jax.jacfwd(jax.grad(jax.jacfwd(f)))(X[0]), jax.grad(jax.jacfwd(jax.grad(f)))(X[0])


@program
def vmap_of_hessian(f):
    return jax.vmap(jax.hessian(f))(X)


@program
def hessian_of_vmap(f):
    return jax.hessian(lambda x: jax.vmap(f)(x).sum())(X)


# -- control flow -----------------------------------------------------------------------------


def _scanned(f):
    return lambda x: lax.scan(lambda c, w: (f(c) * 0.3 + w, f(c)), x, jnp.asarray(W[:3]))


@program
def grad_of_scan(f):
    return jax.grad(lambda x: sum(jnp.sum(y) for y in _scanned(f)(x)))(X)


@program
def jit_of_grad_of_scan(f):
    return jax.jit(jax.grad(lambda x: sum(jnp.sum(y) for y in _scanned(f)(x))))(X)


@program
def jvp_of_scan(f):
    return jax.jvp(_scanned(f), (X,), (V,))


@program
def vmap_of_grad_of_scan(f):
    return jax.vmap(jax.grad(lambda x: _scanned(f)(x)[0]))(X)


@program
def grad_of_grad_of_scan(f):
    return jax.grad(jax.grad(lambda x: _scanned(f)(x)[0]))(X[0])


@program
def forward_over_reverse_of_scan(f):
    return jax.jacfwd(jax.grad(lambda x: _scanned(f)(x)[0].sum()))(X)


@program
def grad_inside_scan(f):
    return lax.scan(lambda c, w: (c - 0.1 * jax.grad(f)(c), w), X[0], jnp.arange(3.0))[0]


@program
def grad_of_grad_inside_scan(f):
    descend = lambda c, w: (c - 0.1 * jax.grad(f)(c), w)
    return jax.grad(lambda x: lax.scan(descend, x, jnp.arange(3.0))[0])(X[0])


@program
def grad_of_map(f):
    return jax.grad(lambda x: lax.map(f, x).sum())(X)


@program
def grad_of_fori_loop(f):
    return jax.grad(lambda x: lax.fori_loop(0, 3, lambda _, c: f(c) * 0.3, x).sum())(X)


@program
def jvp_of_while_loop(f):
    body = lambda s: (s[0] + 1, f(s[1]) * 0.3)
    return jax.jvp(lambda x: lax.while_loop(lambda s: s[0] < 3, body, (0, x))[1], (X,), (V,))


@program
def jit_of_jvp_of_while_loop(f):
    body = lambda s: (s[0] + 1, f(s[1]) * 0.3)
    run = lambda x: lax.while_loop(lambda s: s[0] < 3, body, (0, x))[1]
    return jax.jit(partial(jax.jvp, run))((X,), (V,))


def _conditional(f):
    return lambda x: lax.cond(x.sum() > 0, lambda z: f(z) + z, jnp.sin, x)


@program
def grad_of_cond(f):
    return jax.grad(total(_conditional(f)))(X), jax.grad(total(_conditional(f)))(-X - 1)


@program
def jit_of_grad_of_cond(f):
    return jax.jit(jax.grad(total(_conditional(f))))(X)


@program
def jvp_of_cond(f):
    return jax.jvp(_conditional(f), (X,), (V,))


@program
def vmap_of_grad_of_cond(f):
    return jax.vmap(jax.grad(_conditional(f)))(X)


@program
def grad_of_grad_of_cond(f):
    return jax.grad(jax.grad(_conditional(f)))(X[0])


@program
def grad_of_switch(f):
    return jax.grad(lambda x: lax.switch(1, [jnp.sin, f, jnp.cos], x).sum())(X)


# -- rematerialisation ------------------------------------------------------------------------


def _deep(f):
    return lambda x: jnp.sin(f(jnp.cos(f(x))))


@program
def grad_of_remat(f):
    return jax.grad(total(jax.checkpoint(_deep(f))))(X)


@program
def jit_of_grad_of_remat(f):
    return jax.jit(jax.grad(total(jax.checkpoint(_deep(f)))))(X)


@program
def grad_of_remat_with_policy(f):
    keep = jax.checkpoint_policies.everything_saveable
    dots = jax.checkpoint_policies.dots_saveable
    return [jax.grad(total(jax.checkpoint(_deep(f), policy=p)))(X) for p in (keep, dots)]


@program
def jvp_of_remat(f):
    return jax.jvp(jax.checkpoint(_deep(f)), (X,), (V,))


@program
def reverse_over_reverse_of_remat(f):
    return jax.jacrev(jax.grad(total(jax.checkpoint(_deep(f)))))(X)


@program
def forward_over_reverse_of_remat(f):
    return jax.jacfwd(jax.grad(total(jax.checkpoint(_deep(f)))))(X)


@program
def grad_of_scan_of_remat(f):
    step = jax.checkpoint(lambda c, w: (f(c) * 0.3 + w, f(c)))
    return jax.grad(lambda x: lax.scan(step, x, jnp.asarray(W[:3]))[0].sum())(X)


@program
def grad_of_remat_of_scan(f):
    return jax.grad(lambda x: jax.checkpoint(_scanned(f))(x)[0].sum())(X)


@program
def vmap_of_grad_of_remat(f):
    return jax.vmap(jax.grad(jax.checkpoint(_deep(f))))(X)


@program
def grad_of_vmap_of_remat(f):
    return jax.grad(total(jax.vmap(jax.checkpoint(_deep(f)))))(X)


# -- export -----------------------------------------------------------------------------------


@program
def export(f):
    exported = jax.export.export(jax.jit(jax.grad(total(f))))(jax.ShapeDtypeStruct((4,), "float32"))
    return jax.export.deserialize(exported.serialize()).call(X)


@program
def export_with_derivative(f):
    shape = jax.ShapeDtypeStruct((4,), "float32")
    data = jax.export.export(jax.jit(f))(shape).serialize(vjp_order=1)
    return jax.grad(total(jax.export.deserialize(data).call))(X)


# -- shard_map --------------------------------------------------------------------------------


def _placed(mesh, x, spec=P("i")):
    return jax.device_put(x, NamedSharding(mesh, spec))


def _shard_grad(f, axis_type, check_vma):
    mesh = _mesh(axis_type)
    mapped = jax.shard_map(f, mesh=mesh, in_specs=P("i"), out_specs=P("i"), check_vma=check_vma)
    with jax.set_mesh(mesh):
        return jax.jit(jax.grad(lambda x: (mapped(x) * 2.0).sum()))(_placed(mesh, X))


def _replicated_weight(f, axis_type, check_vma):
    """The loss of a shard depends on a weight that all shards share."""

    def per_shard(x, w):
        return lax.psum((f(w) * x).sum(), "i")

    mesh = _mesh(axis_type)
    mapped = jax.shard_map(
        per_shard, mesh=mesh, in_specs=(P("i"), P()), out_specs=P(), check_vma=check_vma
    )
    with jax.set_mesh(mesh):
        g = jax.jit(jax.grad(mapped, argnums=(0, 1)))
        return g(_placed(mesh, X), _placed(mesh, W[:2], P()))


for _type in (AxisType.Auto, AxisType.Explicit):
    for _check in (True, False):
        _suffix = f"{_type.name.lower()}_{'checked' if _check else 'unchecked'}"
        PROGRAMS[f"shard_map_{_suffix}"] = partial(_shard_grad, axis_type=_type, check_vma=_check)
        PROGRAMS[f"shard_map_replicated_weight_{_suffix}"] = partial(
            _replicated_weight, axis_type=_type, check_vma=_check
        )


@program
def grad_inside_shard_map(f):
    mesh = _mesh(AxisType.Auto)
    g = jax.shard_map(jax.grad(lambda x: f(x).sum()), mesh=mesh, in_specs=P("i"), out_specs=P("i"))
    with jax.set_mesh(mesh):
        return jax.jit(g)(_placed(mesh, X))


@program
def jvp_of_shard_map(f):
    mesh = _mesh(AxisType.Auto)
    g = jax.shard_map(f, mesh=mesh, in_specs=P("i"), out_specs=P("i"))
    with jax.set_mesh(mesh):
        return jax.jit(partial(jax.jvp, g))((_placed(mesh, X),), (_placed(mesh, V),))


@program
def hessian_of_shard_map(f):
    mesh = _mesh(AxisType.Auto)
    g = jax.shard_map(f, mesh=mesh, in_specs=P("i"), out_specs=P("i"))
    with jax.set_mesh(mesh):
        return jax.jit(jax.jacrev(jax.grad(lambda x: g(x).sum())))(_placed(mesh, X))


@program
def sharded_jit(f):
    mesh = _mesh(AxisType.Explicit)
    with jax.set_mesh(mesh):
        return jax.jit(jax.grad(lambda x: (f(x) * 2.0).sum()))(_placed(mesh, X))
