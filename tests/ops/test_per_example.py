"""Per-example norms and clipped sums: exactly those of vmap(grad), and cheaper."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import gradkit as gk
from gradkit import ops
from gradkit.ops import _ghost_norms
from gradkit.ops._example_losses import ExampleLosses

B = 3
RNG = np.random.default_rng(0)


def draw(*shape):
    return RNG.normal(size=shape) / 2


def conv(x, w, strides=(1, 1), padding="SAME", **options):
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x[None], w, strides, padding, dimension_numbers=layout, **options
    )


def stacked(params, x):
    def layer(x, p):
        return jnp.tanh(x @ p["w"] + p["b"][None]), None

    return lax.scan(layer, x, params)[0]


def recurrent(w, xs):
    return lax.scan(lambda h, x: (jnp.tanh(h @ w + x), None), jnp.zeros(4), xs)[0]


def normalised(p, x):
    x = (x - x.mean(-1, keepdims=True)) * lax.rsqrt(x.var(-1, keepdims=True) + 1e-3)
    return x * p["scale"][None] + p["bias"][None]


TOKENS = RNG.integers(0, 5, (B, 7))
# name: apply(params, example), params, batch
CASES = {
    "dense": (lambda w, x: x @ w, draw(4, 3), draw(B, 4)),
    "dense, few rows": (lambda w, x: x @ w, draw(9, 8), draw(B, 2, 9)),
    "dense, many rows": (lambda w, x: x @ w, draw(3, 2), draw(B, 11, 3)),
    "dense, weights first": (lambda w, x: w @ x, draw(3, 4), draw(B, 4, 5)),
    "dense, transposed": (lambda w, x: x @ w.T.reshape(4, 3), draw(3, 4), draw(B, 2, 4)),
    "dense, two axes": (
        lambda w, x: jnp.einsum("tdc,dchk->thk", x, w), draw(2, 3, 2, 4), draw(B, 5, 2, 3),
    ),
    "experts": (lambda w, x: jnp.einsum("etd,edk->tek", x, w), draw(2, 3, 4), draw(B, 2, 5, 3)),
    "experts, weights first": (
        lambda w, x: jnp.einsum("edk,etd->etk", w, x), draw(2, 3, 4), draw(B, 2, 2, 3),
    ),
    "bias": (lambda b, x: x + b[None], draw(4), draw(B, 5, 4)),
    "layer norm": (normalised, {"scale": draw(4), "bias": draw(4)}, draw(B, 5, 4)),
    "embedding": (lambda e, t: e[t], draw(5, 4), TOKENS),
    "embedding, one token": (lambda e, t: e[t], draw(5, 4), TOKENS[:, 0]),
    "embedding, out of range": (
        lambda e, t: jnp.take(e, t - 2, axis=0, mode="fill", fill_value=0.0), draw(3, 4), TOKENS,
    ),
    "embedding, clipped": (
        lambda e, t: jnp.take(e, t - 2, axis=0, mode="clip"), draw(2, 4), TOKENS,
    ),
    "embedding of columns": (lambda e, t: e[:, t], draw(4, 5), TOKENS),
    "conv": (lambda w, x: conv(x, w), draw(3, 3, 2, 4), draw(B, 5, 6, 2)),
    "conv, few places": (lambda w, x: conv(x, w, (2, 2)), draw(3, 3, 6, 8), draw(B, 3, 3, 6)),
    "conv, strided, dilated": (
        lambda w, x: conv(x, w, (2, 1), ((1, 0), (2, 2)), rhs_dilation=(2, 1)),
        draw(2, 3, 2, 4), draw(B, 7, 6, 2),
    ),
    "conv, transposed": (
        lambda w, x: conv(x, w, (1, 1), ((2, 1), (1, 2)), lhs_dilation=(2, 2)),
        draw(3, 2, 2, 3), draw(B, 3, 4, 2),
    ),
    "conv, cropping": (
        lambda w, x: conv(x, w, padding=((-1, 1), (0, -1))), draw(2, 2, 2, 3), draw(B, 5, 5, 2),
    ),
    "conv, grouped": (
        lambda w, x: conv(x, w, feature_group_count=2), draw(3, 3, 2, 6), draw(B, 4, 4, 4),
    ),
    "conv, depthwise": (
        lambda w, x: conv(x, w, feature_group_count=4), draw(3, 3, 1, 4), draw(B, 4, 4, 4),
    ),
    "layers in a scan": (stacked, {"w": draw(3, 4, 4), "b": draw(3, 4)}, draw(B, 2, 4)),
    "checkpoint": (
        jax.checkpoint(stacked), {"w": draw(3, 4, 4), "b": draw(3, 4)}, draw(B, 2, 4),
    ),
    "jit in jit": (
        jax.jit(lambda w, x: jax.jit(jnp.matmul)(jnp.tanh(x), w)), draw(4, 3), draw(B, 2, 4),
    ),
    "recurrent": (recurrent, draw(4, 4), draw(B, 5, 4)),
    "shared": (lambda w, x: jnp.tanh(x @ w) @ w.T, draw(4, 3), draw(B, 4)),
    "tied": (lambda e, t: jnp.tanh(e[t]) @ e.T, draw(5, 4), TOKENS),
    "product of parameters": (lambda p, x: x @ (p[0] @ p[1]), (draw(4, 2), draw(2, 3)), draw(B, 4)),
    "with itself": (lambda w, x: x @ (w.T @ w), draw(4, 4), draw(B, 4)),
    "branches": (
        lambda w, x: lax.cond(x[0] > 0, lambda: x @ w, lambda: 2.0 * (x @ w)),
        draw(4, 3), draw(B, 4),
    ),
    "custom rule": (
        jax.custom_jvp(lambda w, x: x @ w), draw(4, 3), draw(B, 4),
    ),
    "returned": (lambda w, x: w * 1.0 + 0.0 * x.sum(), draw(4), draw(B, 4)),
    "unused": (lambda p, x: x @ p["w"], {"w": draw(4, 3), "no": draw(2)}, draw(B, 4)),
    "integers": (lambda p, x: x @ p["w"] * p["n"], {"w": draw(4, 3), "n": 3}, draw(B, 4)),
}  # fmt: skip
CASES["custom rule"][0].defjvp(
    lambda primals, tangents: (
        primals[1] @ primals[0], 3.0 * (primals[1] @ tangents[0]) + tangents[1] @ primals[0],
    )
)  # fmt: skip


def loss_of(apply):
    return lambda params, x: jnp.sum(jnp.sin(apply(params, x)))


def by_vmap(loss, params, batch, limit):
    """What the definition says."""
    real = lambda p: jnp.issubdtype(jnp.result_type(p), jnp.floating)
    leaves, structure = jax.tree.flatten(params)
    chosen = [p for p in leaves if real(p)]

    def of(chosen, x):
        left = iter(chosen)
        return loss(structure.unflatten([next(left) if real(p) else p for p in leaves]), x)

    grads = jax.vmap(jax.grad(of), (None, 0))(chosen, batch)
    norms = jnp.sqrt(sum(jnp.sum(jnp.square(g.reshape(len(g), -1)), 1) for g in grads))
    factors = jnp.minimum(1, limit / jnp.where(norms == 0, 1, norms))
    return norms, [jnp.tensordot(factors, g, 1) for g in grads]


def real_leaves(tree):
    return [g for g in jax.tree.leaves(tree) if g.dtype != jax.dtypes.float0]


def both_ways(loss, params, batch):
    """Our answer, the definition's, and the losses."""
    losses = jax.vmap(lambda x: loss(params, x))(batch)
    return ops.clipped_sum(loss, params, batch, 0.5), by_vmap(loss, params, batch, 0.5), losses


def assert_same(found, tol=1e-11):
    got, (norms, sums), losses = found
    np.testing.assert_allclose(got.norms, norms, rtol=tol)
    assert (got.norms > 0.5).any()
    for a, b in zip(real_leaves(got.gradient), sums, strict=True):
        np.testing.assert_allclose(a, b, rtol=tol, atol=tol)
    np.testing.assert_allclose(got.losses, losses, rtol=tol)


# Compiled at once, and not for speed: that is most of what these tests take.
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def assert_exact(loss, params, batch):
    run = jax.jit(lambda p, b: both_ways(loss, p, b), compiler_options=QUICKLY)
    assert_same(run(params, batch))


@pytest.fixture(autouse=True)
def ghosts(monkeypatch):
    """Small as the shapes here are, take the path of large ones."""
    monkeypatch.setattr(ExampleLosses, "_are_gradients_small", lambda _: False)


@pytest.fixture(autouse=True)
def same_draws_in_any_order():
    RNG.bit_generator.state = np.random.default_rng(1).bit_generator.state


@pytest.fixture(scope="module")
def found():
    """All cases, in one program."""
    with jax.enable_x64(True), pytest.MonkeyPatch.context() as patch:
        patch.setattr(ExampleLosses, "_are_gradients_small", lambda _: False)

        def everything(given):
            return {name: both_ways(loss_of(CASES[name][0]), *args) for name, args in given.items()}

        run = jax.jit(everything, compiler_options=QUICKLY)
        found = run({name: case[1:] for name, case in CASES.items()})
        return jax.tree.map(np.asarray, found)  # float64 beyond this scope


@pytest.mark.parametrize("name", CASES)
def test_norms_and_sums_are_exact(name, found):
    assert_same(found[name])


IN_FULL = {
    "bias", "layer norm", "embedding of columns", "layers in a scan", "checkpoint", "recurrent",
    "shared", "tied", "product of parameters", "with itself", "branches", "custom rule", "returned",
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_which_parameters_need_their_gradient(name):
    """The others take the short way: what keeps this fast cannot get lost unseen."""
    apply, params, batch = CASES[name]
    problem = ExampleLosses(loss_of(apply), params, jnp.asarray(batch), "norms")
    in_full = problem._marked.in_full
    assert bool(in_full) == (name in IN_FULL)
    assert problem._marked.plan.keep(set(range(9))) == (
        name not in IN_FULL or name in ("layers in a scan", "checkpoint")
    )


class Network(nn.Module):
    """Convolutions, a group norm and dense layers, as flax writes them."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), param_dtype=x.dtype)(x))
        x = nn.GroupNorm(2, param_dtype=x.dtype)(x)
        return nn.Dense(3, param_dtype=x.dtype)(
            nn.relu(nn.Dense(5, param_dtype=x.dtype)(x.ravel()))
        )


class Transformer(nn.Module):
    """An embedding, a block with attention, and a read-out."""

    @nn.compact
    def __call__(self, tokens):
        options = {"param_dtype": jnp.float64}
        x = nn.Embed(5, 4, **options)(tokens)
        x = x + nn.MultiHeadDotProductAttention(2, **options)(nn.LayerNorm(**options)(x))
        x = x + nn.Dense(4, **options)(nn.gelu(nn.Dense(8, **options)(nn.LayerNorm(**options)(x))))
        return nn.Dense(5, **options)(x)


def cross_entropy(logits, labels):
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], -1))


@pytest.mark.parametrize(
    ("model", "x", "y"),
    [(Network(), draw(B, 4, 4, 2), np.arange(B)), (Transformer(), TOKENS[:, :-1], TOKENS[:, 1:])],
    ids=["convolutions", "transformer"],
)
def test_models_of_flax(model, x, y):
    with jax.enable_x64(True):
        shapes = jax.eval_shape(model.init, jax.random.key(0), x[0])
        params = jax.tree.map(lambda p: draw(*p.shape), shapes)
        loss = lambda p, example: 30.0 * cross_entropy(model.apply(p, example[0]), example[1])
        assert_exact(loss, params, (x, y))


def test_a_model_of_equinox():
    with jax.enable_x64(True):
        model = eqx.nn.MLP(4, 3, 5, 1, key=jax.random.key(0))
        params, static = eqx.partition(model, eqx.is_array)
        loss = lambda p, x: jnp.sum(jnp.sin(3.0 * jax.vmap(eqx.combine(p, static))(x)))
        assert_exact(loss, params, draw(B, 2, 4))


SMALL = {
    "dense, few rows": False, "dense, many rows": True, "conv": False, "layer norm": True,
    "recurrent": True, "tied": True,
}  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_when_gradients_are_computed_after_all(name, monkeypatch):
    """Where they are no larger than what flows by, or needed in full for the norms."""
    monkeypatch.undo()
    apply, params, batch = CASES[name]
    problem = ExampleLosses(loss_of(apply), params, jnp.asarray(batch), "clipped_sum")
    assert problem._are_gradients_small() == SMALL[name]


def test_gradients_that_are_small_are_clipped_as_they_are(monkeypatch):
    monkeypatch.undo()
    apply, params, _ = CASES["integers"]
    with jax.enable_x64(True):
        loss = lambda p, x: jnp.sum(jnp.sin(jax.vmap(lambda x: apply(p, x))(x)))
        assert_exact(loss, params, draw(B, 30, 4))


def test_long_sequences_sort_their_tokens(monkeypatch):
    apply, params, batch = CASES["embedding"]
    monkeypatch.setattr(_ghost_norms, "_PAIRS_UP_TO", 1)
    with jax.enable_x64(True):
        assert_exact(loss_of(apply), params, batch)


def test_low_precision_keeps_its_types():
    apply, params, batch = CASES["dense, few rows"]
    params, batch = (jnp.asarray(a, jnp.bfloat16) for a in (params, batch))
    run = jax.jit(lambda p, b: ops.clipped_sum(loss_of(apply), p, b, 0.5), compiler_options=QUICKLY)
    got = run(params, batch)
    assert got.norms.dtype == jnp.float32
    assert got.gradient.dtype == jnp.bfloat16
    wide = [a.astype(jnp.float32) for a in (params, batch)]
    want = by_vmap(loss_of(apply), *wide, 0.5)
    np.testing.assert_allclose(got.norms, want[0], rtol=0.03)
    np.testing.assert_allclose(np.asarray(got.gradient, np.float32), want[1][0], atol=0.03)


def test_weights_random_keys_and_a_traced_limit():
    loss = lambda w, e: jnp.sum(jnp.sin(e["x"] @ w) * jax.random.normal(e["key"], (3,)))
    batch = {
        "x": jnp.asarray(draw(4, 5), jnp.float32),
        "key": jax.random.split(jax.random.key(0), 4),
        "absent": None,
    }
    w = jnp.asarray(draw(5, 3), jnp.float32)
    weights = np.array([1.0, 0.0, 2.0, 1.0])
    got = jax.jit(lambda c: ops.clipped_sum(loss, w, batch, c, weights=weights))(0.3)
    grads = jax.vmap(jax.grad(loss), (None, 0))(w, batch)
    norms = np.linalg.norm(grads.reshape(4, -1), axis=1)
    want = np.tensordot(weights * np.minimum(1, 0.3 / norms), grads, 1)
    np.testing.assert_allclose(got.gradient, want, rtol=1e-5, atol=1e-6)


def test_derivatives_of_norms_and_sums_under_transformations():
    """They are functions like any other: of a penalty on them, say."""
    w, x = draw(4, 3), draw(B, 4)
    loss = loss_of(lambda w, x: x @ w)
    limit = float(np.median(by_vmap(loss, w, x, 1.0)[0])) * 1.01

    def penalty(norms, clipped):
        return jnp.sum(norms) + jnp.sum(jnp.cos(clipped))

    def ours(w):
        return penalty(
            ops.per_example_norms(loss, w, x), ops.clipped_sum(loss, w, x, limit).gradient
        )

    def by_definition(w):
        norms, (clipped,) = by_vmap(loss, w, x, limit)
        return penalty(norms, clipped)

    with jax.enable_x64(True):
        got, want = (
            jax.jit(jax.vmap(jax.value_and_grad(jax.checkpoint(f))), compiler_options=QUICKLY)(
                np.stack([w, 2 * w])
            )
            for f in (ours, by_definition)
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), got, want)


def test_nothing_of_the_size_of_all_gradients_is_computed():
    n, d = 64, 128
    loss = lambda w, x: jnp.sum(jnp.sin(x @ w))
    run = jax.jit(lambda w, x: ops.clipped_sum(loss, w, x, 1.0).gradient)
    types = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((d, d), (n, d))]
    memory = run.lower(*types).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 4 * n * d * d / 10


@pytest.mark.parametrize("check_vma", [True, False])
def test_devices_of_a_shard_map_have_their_own_examples(check_vma):
    loss = lambda p, x: jnp.sum(jnp.sin(x @ p["w"] + p["b"][None]))
    params, x = (
        {"w": np.float32(draw(4, 3)), "b": np.ones(3, np.float32)},
        np.float32(draw(4, 5, 4)),
    )

    def of_device(p, x):
        got = ops.clipped_sum(loss, p, x, 0.5)
        return got.norms, jax.lax.psum(got.gradient, "i")

    everywhere = jax.shard_map(
        of_device,
        mesh=jax.make_mesh((2,), ("i",), axis_types=(AxisType.Auto,)),
        in_specs=(P(), P("i")),
        out_specs=(P("i"), P()),
        check_vma=check_vma,
    )
    norms, sums = jax.jit(everywhere, compiler_options=QUICKLY)(params, x)
    want, want_sums = by_vmap(loss, params, x, 0.5)
    np.testing.assert_allclose(norms, want, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(sums), want_sums, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_limits_of_an_example_without_gradient_of_infinity_and_of_none():
    loss = lambda w, x: jnp.sum(jnp.square(x * w))
    x = jnp.array([[0.0, 0.0], [3.0, 0.0]])
    run = jax.jit(lambda x, c: ops.clipped_sum(loss, jnp.ones(2), x, c), compiler_options=QUICKLY)
    np.testing.assert_allclose(run(x, 1.0).gradient, [1, 0])
    np.testing.assert_allclose(run(x, jnp.inf).gradient, [18, 0])
    assert jnp.isnan(run(x.at[0, 0].set(jnp.inf), 1.0).gradient).all()
    got = run(x[:0], 1.0)
    np.testing.assert_array_equal(got.gradient, [0, 0])
    assert got.norms.shape == (0,)


def test_norms_have_no_slope_where_the_gradient_is_zero():
    x = jnp.array([[0.0, 0.0], [3.0, 4.0]])
    norms = lambda w: ops.per_example_norms(lambda w, x: jnp.sum(w * w * x) / 2, w, x).sum()
    run = jax.jit(jax.grad(norms), compiler_options=QUICKLY)
    np.testing.assert_allclose(run(jnp.ones(2)), [9 / 5, 16 / 5], rtol=1e-6)


def test_rows_that_cancel_leave_a_norm_near_zero_and_not_nan():
    """Gram sums may round to less than nothing."""
    half = np.float32(RNG.normal(size=(20, 3, 40)) * 1e3)
    x = np.concatenate([half, half[:, ::-1]], 1)
    sign = np.array([1.0, 1, 1, -1, -1, -1], np.float32)[:, None]
    scale = np.float32(RNG.normal(size=(20, 3, 50)))
    batch = (x, sign * np.concatenate([scale, scale[:, ::-1]], 1))
    loss = lambda w, e: jnp.sum((e[0] @ w) * e[1])
    norms = jax.jit(lambda w, b: ops.per_example_norms(loss, w, b))(np.zeros((40, 50)), batch)
    uncancelled = np.sqrt((x**2).sum((1, 2)) * (batch[1] ** 2).sum((1, 2)))
    assert (norms < 1e-3 * uncancelled).all()


@pytest.mark.parametrize(
    ("run", "pieces"),
    [
        (
            lambda: ops.per_example_norms(lambda w, x: x * w, 1.0, jnp.ones((2, 3))),
            ["gk.ops.per_example_norms", "is not one number", "float32[3]", "one example"],
        ),
        (
            lambda: ops.per_example_norms(lambda w, x: (x, w), 1.0, jnp.ones(2)),
            ["is not one number", "tuple"],
        ),
        (
            lambda: ops.clipped_sum(lambda w, x: w, 1.0, {"a": jnp.ones(2), "b": 1.0}, 1.0),
            ["the batch of gk.ops.clipped_sum", "shape (2,) at ['a']", "shape () at ['b']"],
        ),
        (
            lambda: ops.clipped_sum(lambda w, x: w * x, 1.0, jnp.ones(2), 1.0, weights=jnp.ones(3)),
            ["weights= of gk.ops.clipped_sum", "shape (2,)", "shape (3,)"],
        ),
        (
            lambda: ops.per_example_norms(lambda w, x: w, 1.0, ()),
            ["the batch of gk.ops.per_example_norms", "no array"],
        ),
        (
            lambda: ops.clipped_sum(lambda w, x: w * x, 1.0, jnp.ones(2), 0.0),
            ["gk.ops.clipped_sum needs a positive 'max_norm'", "max_norm = 0.0"],
        ),
    ],
    ids="shape tuple batch weights no-batch max_norm".split(),
)
def test_what_is_refused(run, pieces):
    with pytest.raises((gk.RuleError, ValueError)) as error:
        run()
    for piece in pieces:
        assert piece in str(error.value)
