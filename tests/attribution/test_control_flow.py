"""Relevance and multipliers go through loops, branches and calls as through what is inside."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import gradkit as gk
from gradkit import attribution as ga

KEYS = jax.random.split(jax.random.key(0), 4)
W = jax.random.normal(KEYS[0], (3, 6, 6)) / 2
V = jax.random.normal(KEYS[1], (6, 3))
X = jax.random.normal(KEYS[2], (4, 6))


def block(x, w):
    return x + jax.nn.relu(x @ w)


def unrolled(x):
    for w in W:
        x = block(x, w)
    return x @ V


def scan():
    return lambda x: jax.lax.scan(lambda x, w: (block(x, w), None), x, W)[0] @ V, unrolled


def scan_of_slices():
    """Reversed, with outputs at each step, a weight and an input that no step changes."""

    def scanned(x):
        def step(carry, at):
            total, count = carry
            row, flag = at
            y = jnp.tanh(row @ W[0]) + jnp.where(flag, x, 0)
            return (total + y, count + 1), y * (1.0 + count)

        (total, _), ys = jax.lax.scan(
            step, (jnp.zeros_like(x), 0), (jnp.stack([x, 2 * x]), jnp.arange(2) > 0), reverse=True
        )
        return (total + ys[0] - ys[1]) @ V

    def straight(x):
        first, last = jnp.tanh(2 * x @ W[0]) + x, jnp.tanh(x @ W[0])
        return (first + last + 2.0 * last - first) @ V

    return scanned, straight


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return nn.relu(nn.Dense(6, use_bias=False)(x)), None


def flax_scan():
    stack = nn.scan(Layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=2)()
    params = stack.init(KEYS[3], X, None)
    kernels = params["params"]["Dense_0"]["kernel"]

    def straight(x):
        return jax.nn.relu(jax.nn.relu(x @ kernels[0]) @ kernels[1])

    return lambda x: stack.apply(params, x, None)[0], straight


def switch(i):
    branches = [lambda x: jnp.tanh(x @ W[0]), lambda x: x, lambda x: x @ W[1] + x[:, ::-1]]

    def switched(x, i=i):
        return jax.lax.switch(i, branches, x) @ V

    return lambda x: switched(x, jnp.asarray(i)), lambda x: branches[i](x) @ V


def cond_in_scan():
    def step(x, at):
        w, flag = at
        return jax.lax.cond(flag, lambda x: block(x, w), jnp.tanh, x), None

    def straight(x):
        return block(jnp.tanh(block(x, W[0])), W[2]) @ V

    flags = jnp.array([True, False, True])
    return lambda x: jax.lax.scan(step, x, (W, flags))[0] @ V, straight


def calls():
    """Recomputed, compiled, vectorised, with rules of its own."""

    @jax.custom_vjp
    def own(x, w):
        return block(x, w)

    own.defvjp(lambda x, w: (own(x, w), None), lambda _, y_bar: (100 * y_bar, None))

    @gk.custom_gradient
    def ours(x):
        return block(x, W[1]), lambda y_bar: 100 * y_bar

    def model(x):
        x = ours(jax.jit(own)(x, W[0]))
        return jax.vmap(jax.checkpoint(lambda x: block(x, W[2]) @ V))(x)

    return model, unrolled


def while_beside():
    """A loop that the input does not flow through, and one that it only counts."""

    def model(x):
        scale = jax.lax.while_loop(lambda s: s < 3, lambda s: 2 * s, jnp.float32(1))
        n = jax.lax.while_loop(lambda n: n < jnp.sum(x > 0) * 0 + 2, lambda n: n + 1, 0)
        return block(x, W[0]) @ V * scale * n

    return model, lambda x: block(x, W[0]) @ V * 8


MODELS = {
    "scan": scan,
    "scan of slices": scan_of_slices,
    "flax scan": flax_scan,
    "switch 0": lambda: switch(0),
    "switch 2": lambda: switch(2),
    "cond in scan": cond_in_scan,
    "calls": calls,
    "while beside": while_beside,
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_same_as_the_model_without_control_flow(make):
    model, straight = make()

    @jax.jit
    def explain(x):
        return [
            (ga.lrp(f, x, 1, rules=ga.epsilon(0.0)), ga.deeplift(f, x, 1, baseline=x[::-1]), f(x))
            for f in (model, straight)
        ]

    (relevance, differences, y), want = explain(X)
    np.testing.assert_allclose(y, want[2], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(relevance, want[0], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(differences, want[1], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(relevance.sum(axis=1), y[:, 1], rtol=1e-3, atol=1e-4)
    change = y[:, 1] - y[::-1, 1]
    np.testing.assert_allclose(differences.sum(axis=1), change, rtol=1e-3, atol=1e-4)


def test_a_traced_predicate_chooses_the_rule():
    def model(x, flag):
        return jax.lax.cond(flag, lambda x: jax.nn.relu(x @ W[0]), lambda x: x[:, ::-1] * 2, x) @ V

    methods = (ga.lrp, ga.deeplift)
    explain = jax.jit(lambda x, flag: [m(lambda x: model(x, flag), x, 1) for m in methods])
    for flag, branch in (
        (True, lambda x: jax.nn.relu(x @ W[0])),
        (False, lambda x: x[:, ::-1] * 2),
    ):
        for got, method in zip(explain(X, flag), methods, strict=True):
            want = method(lambda x, f=branch: f(x) @ V, X, 1)
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_a_layer_in_a_loop_has_one_rule_and_relevance_need_not_be_a_ratio():
    def by_hand(x):
        with jax.named_scope("looped"):
            for w in W:
                x = block(x, w)
        return x @ V

    # A bound gives relevance to inputs that are zero: no multiple of them.
    rules = {0: ga.z_box(-4.0, 4.0), "*": ga.gamma(0.25)}
    unfolded = {"looped:*": ga.z_box(-4.0, 4.0), "*": ga.gamma(0.25)}
    looped = scan()[0]
    x = X.at[:, 2].set(0)
    got, want = jax.jit(
        lambda x: (ga.lrp(looped, x, 1, rules=rules), ga.lrp(by_hand, x, 1, rules=unfolded))
    )(x)
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)
    assert np.abs(got[:, 2]).min() > 1e-3


def test_under_vmap_scan_remat_and_second_order():
    model, straight = cond_in_scan()

    def total(f, x):
        return jnp.sum(ga.lrp(f, x, 1) ** 2) + jnp.sum(ga.deeplift(f, x, 1) ** 2)

    @jax.jit
    def every_way(x):
        explain = lambda x: ga.lrp(model, x, 1)
        single = jax.vmap(lambda x: explain(x[None])[0])(x)
        _, scanned = jax.lax.scan(lambda c, x: (c, explain(x[None])[0]), 0, x)
        slope = [jax.grad(total, argnums=1)(f, x) for f in (model, straight)]
        return ga.lrp(straight, x, 1), single, scanned, jax.checkpoint(explain)(x), slope

    want, *got, (slope, slope_want) = every_way(X)
    for relevance in got:
        np.testing.assert_allclose(relevance, want, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(slope, slope_want, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("spec", ["batch", "weights"])
def test_through_shard_map(spec):
    mesh = jax.make_mesh((2,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))

    def local(x, w, v):
        x = jax.lax.scan(lambda x, w: (block(x, w), None), x, w)[0]
        return x @ v

    def split(x, w, v):  # each device has a part of the features between two products
        return jax.lax.psum(jnp.tanh(x @ w[0]) @ v, "i")

    def sharded(x):
        if spec == "batch":
            run, specs = local, ((P("i"), P(), P()), P("i"))
        else:
            run, specs = split, ((P(), P(None, None, "i"), P("i")), P())
        return jax.shard_map(run, mesh=mesh, in_specs=specs[0], out_specs=specs[1])(x, W, V)

    straight = unrolled if spec == "batch" else lambda x: jnp.tanh(x @ W[0]) @ V

    @jax.jit
    def explain(x):
        rules = ga.epsilon(0.0)
        return [(ga.lrp(f, x, 1, rules=rules), ga.deeplift(f, x, 1)) for f in (sharded, straight)]

    for got, want in zip(*explain(X), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("check_vma", [True, False])
def test_inside_a_shard_map(check_vma):
    mesh = jax.make_mesh((2,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    model, _ = cond_in_scan()
    explain = lambda x: (ga.lrp(model, x, 1, rules={0: ga.flat()}), ga.deeplift(model, x, 1))
    options = {"mesh": mesh, "in_specs": P("i"), "out_specs": P("i"), "check_vma": check_vma}
    got, want = jax.jit(lambda x: (jax.shard_map(explain, **options)(x), explain(x)))(X)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def looping(x):
    return jax.lax.while_loop(lambda x: jnp.sum(x) < 9, lambda x: x + 1, x) @ V


def unchecked(x):
    mesh = jax.make_mesh((2,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = {"mesh": mesh, "in_specs": P("i"), "out_specs": P("i"), "check_vma": False}
    return jax.shard_map(lambda x: x @ V, **spec)(x)


@pytest.mark.parametrize("method", [ga.lrp, ga.deeplift])
@pytest.mark.parametrize(
    ("model", "pieces"),
    [
        (looping, ["flows through a while_loop", "'loop'", "jax.lax.scan", "fori_loop"]),
        (unchecked, ["flows through a shard_map", "check_vma=False", "outside of it"]),
    ],
    ids=["while", "shard_map"],
)
def test_where_nothing_can_be_handed_back(model, pieces, method):
    with pytest.raises(gk.AttributionInputError) as error, jax.named_scope("loop"):
        method(jax.named_call(model, name="loop"), X, 1)
    assert all(piece in str(error.value) for piece in pieces)
