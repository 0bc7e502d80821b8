"""Reversible stacks: the gradient of the plain stack, from its output alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import gradkit as gk
from gradkit import ops

RNG = np.random.default_rng(0)
LAYERS, D = 6, 4


def f(p, x, shift=None):
    y = jnp.tanh(x["a"] @ p["w"] + p["b"][None])
    return {"a": y if shift is None else y * shift["s"]}


def g(q, y, shift=None):
    del shift
    return {"a": jnp.sin(y["a"] @ q)}


def problem(dtype=np.float64):
    draw = lambda *shape: jnp.asarray(RNG.normal(size=shape) / 2, dtype)
    params = ({"w": draw(LAYERS, D, D), "b": draw(LAYERS, D)}, draw(LAYERS, D, D))
    return params, ({"a": draw(3, D)}, {"a": draw(3, D)}), {"s": draw(3, D), "n": 3}


def plain(params, x, *args):
    def layer(x, params):
        y1 = {"a": x[0]["a"] + f(params[0], x[1], *args)["a"]}
        return (y1, {"a": x[1]["a"] + g(params[1], y1, *args)["a"]}), None

    return jax.lax.scan(layer, x, params)[0]


def stack(params, x, *args):
    return ops.reversible(f, g, params, x, *args)


def loss(apply):
    def of(params, x, s):
        y1, y2 = apply(params, x, {"s": s, "n": 3})
        return jnp.sum(jnp.cos(y1["a"]) * y2["a"])

    return of


def close(got, want, tol):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tol, atol=tol), got, want)


@pytest.mark.slow
def test_float32():
    params, x, shared = problem(np.float32)
    both = [
        jax.jit(jax.value_and_grad(loss(apply), (0, 1, 2)))(params, x, shared["s"])
        for apply in (stack, plain)
    ]
    close(*both, 2e-5)


def test_gradients_and_their_derivatives_are_those_of_the_plain_stack():
    with jax.enable_x64(True):
        params, x, shared = problem()
        at = params, x, shared["s"]
        towards = jax.tree.map(jnp.ones_like, at)

        def derivatives(apply):
            gradient = jax.value_and_grad(loss(apply), (0, 1, 2))
            return jax.jit(lambda at: jax.jvp(gradient, at, towards))(at)

        close(derivatives(stack), derivatives(plain), 1e-10)


@pytest.mark.slow
def test_reverse_over_reverse():
    with jax.enable_x64(True):
        params, x, shared = problem()

        def of_norm(apply):
            gradient = jax.grad(lambda p: loss(apply)(p, x, shared["s"]))
            norm = lambda p: sum(jnp.vdot(b, b) for b in jax.tree.leaves(gradient(p)))
            return jax.jit(jax.grad(norm))(params)

        close(of_norm(stack), of_norm(plain), 1e-10)


def test_under_shard_map_vmap_scan_checkpoint_and_cond():
    """Rows on two devices, in a loop and mapped over: twice the gradient of all rows together."""
    with jax.enable_x64(True):
        params, x, shared = problem()
        x, s = jax.tree.map(lambda a: jnp.concatenate([a, a[:1]]), (x, shared["s"]))

        def total(params, x, s):
            def row(at):
                x, s = jax.tree.map(lambda a: a[None], at)
                return jax.checkpoint(loss(stack))(params, x, s)

            nothing = lambda at: 0.0 * at[1].sum()
            guarded = lambda at: jax.lax.cond(at[1].sum() < 1e9, row, nothing, at)
            loop = jax.lax.scan(lambda c, at: (c + guarded(at), None), 0.0 * s.sum(), (x, s))[0]
            return jax.lax.psum(loop + jax.vmap(row)((x, s)).sum(), "i")

        mesh = jax.make_mesh((2,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
        specs = (P(), P("i"), P("i"))
        everywhere = jax.shard_map(total, mesh=mesh, in_specs=specs, out_specs=P())
        got = jax.jit(jax.grad(everywhere, (0, 1, 2)))(params, x, s)
        twice = lambda *at: 2 * loss(plain)(*at)
        close(got, jax.jit(jax.grad(twice, (0, 1, 2)))(params, x, s), 1e-11)


def test_in_bfloat16_blocks_around_a_float32_stream():
    def block(w, x):
        return jnp.tanh(x.astype(jnp.bfloat16) @ w).astype(jnp.float32)

    w = jnp.asarray(RNG.normal(size=(LAYERS, D, D)) / 2, jnp.bfloat16)
    x = jnp.ones((3, D))
    of = lambda w: sum(jnp.sum(y) for y in ops.reversible(block, block, (w, w), (x, x)))

    def exact(w):
        return sum(jnp.sum(y) for y in scanned(block, block, (w, w), (x, x)))

    got, want = jax.jit(jax.grad(of))(w), jax.jit(jax.grad(exact))(w)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(*(np.asarray(a, np.float32) for a in (got, want)), atol=0.15)


def temporaries(layers, apply):
    w = jax.ShapeDtypeStruct((layers, 16, 16), jnp.float32)
    x = jax.ShapeDtypeStruct((256, 16), jnp.float32)
    block = lambda w, x: jax.nn.gelu(jnp.tanh(x @ w))

    def of(w, x):
        return sum(jnp.sum(y**2) for y in apply(block, block, (w, w), (x, x)))

    return jax.jit(jax.grad(of)).lower(w, x).compile().memory_analysis().temp_size_in_bytes


def scanned(f, g, params, x):
    def layer(x, pq):
        y1 = x[0] + f(pq[0], x[1])
        return (y1, x[1] + g(pq[1], y1)), None

    return jax.lax.scan(layer, x, params)[0]


def test_memory_does_not_grow_with_layers():
    weights = 4 * 2 * 16 * 16  # a layer's gradients, which the program returns
    deep = temporaries(32, ops.reversible)
    assert deep <= temporaries(4, ops.reversible) + 28 * weights
    assert temporaries(32, scanned) > 30 * deep


def test_integers_among_the_parameters_have_no_gradient():
    def block(p, x):
        return x * p["w"] * p["sign"]

    p = {"w": jnp.array([0.1, 0.2]), "sign": jnp.array([1, -1])}
    of = lambda w: ops.reversible(block, block, ({**p, "w": w}, p), (1.0, 2.0))[0]
    # x1 (1 + w0 * x2 ...): by finite differences
    step = 1e-2
    got = jax.grad(of)(p["w"])
    want = [(of(p["w"].at[k].add(step)) - of(p["w"].at[k].add(-step))) / (2 * step) for k in (0, 1)]
    np.testing.assert_allclose(got, want, rtol=1e-3)


@pytest.mark.parametrize(
    ("run", "pieces"),
    [
        (
            lambda w, x: ops.reversible(lambda w, x: x[:1], lambda w, x: x, (w, w), (x, x)),
            ["f of gk.ops.reversible", "float32[3], as x1", "float32[1]"],
        ),
        (
            lambda w, x: ops.reversible(lambda w, x: x, lambda w, x: (x,), (w, w), (x, x)),
            ["g of gk.ops.reversible", "float32[3], as x2"],
        ),
        (
            lambda w, x: ops.reversible(lambda w, x: x, lambda w, x: x, (w, w[:1]), (x, x)),
            ["no common axis of layers", "float32[2] at [0]", "float32[1] at [1]", "jnp.stack"],
        ),
        (
            lambda w, x: ops.reversible(lambda w, x: x, lambda w, x: x, w, (x, x)),
            ["are no pair", "(parameters of f, parameters of g)", "float32[2]"],
        ),
        (
            lambda w, x: ops.reversible(lambda w, x: x, lambda w, x: x, (w, w), x),
            ["the input of gk.ops.reversible is no pair", "jnp.split(x, 2, axis=-1)"],
        ),
    ],
    ids="f g layers params input".split(),
)
def test_what_is_refused(run, pieces):
    with pytest.raises(gk.RuleError) as error:
        run(jnp.ones(2), jnp.ones(3))
    for piece in pieces:
        assert piece in str(error.value)


def test_a_closed_over_value_that_is_differentiated_is_refused():
    def of(scale):
        block = lambda w, x: scale * w * x
        return ops.reversible(block, block, (jnp.ones(2), jnp.ones(2)), (1.0, 1.0))[0]

    with pytest.raises(gk.ClosureGradientError, match="closes over a value"):
        jax.grad(of)(2.0)
