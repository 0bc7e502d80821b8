"""Attention in blocks, beside NumPy, jax.nn and finite differences."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gradkit as gk
from gradkit import ops
from gradkit.ops import _attention_jax
from gradkit.ops._attention_inputs import as_inputs
from gradkit.ops._attention_scores import Scores

RNG = np.random.default_rng(0)
# Two blocks of queries and three of keys, the last ones moved back.
B, T, S, N, K, H = 2, 301, 523, 4, 2, 4
Q, KEYS, VALUES, WEIGHTS = (
    RNG.standard_normal(shape) for shape in ((B, T, N, H), (B, S, K, H), (B, S, K, H), (B, T, N, H))
)
POSITIONS = np.arange(T)[:, None], np.arange(S)[None]


def by_numpy(q, k, v, scale, bias=0.0, seen=True, softcap=None):
    """The definition, with zeros for queries that see nothing."""
    k, v = (np.repeat(x, q.shape[2] // x.shape[2], axis=2) for x in (k, v))
    scores = np.einsum("btnh,bsnh->bnts", q, k) * scale
    scores = scores if softcap is None else softcap * np.tanh(scores / softcap)
    e = np.where(seen, np.exp(scores + bias), 0)
    total = e.sum(-1, keepdims=True)
    return np.einsum("bnts,bsnh->btnh", e / np.where(total > 0, total, 1), v)


def cases():
    rows, cols = POSITIONS
    causal = cols <= rows
    mask = RNG.random((B, 1, T, S)) < 0.5
    mask[0, :, 7] = False
    lengths = np.array([200, 290]), np.array([0, 270])
    within = (rows < lengths[0][:, None, None, None]) & (cols < lengths[1][:, None, None, None])
    bias = RNG.standard_normal
    of_keys = bias((1, N, 1, S))
    of_keys[..., 17:160:3] = -np.inf
    window = (cols >= rows - 20) & (cols <= rows + 3)
    return {
        "everything": ({}, {}),
        "causal": ({"causal": True}, {"seen": causal}),
        "window": ({"window": (20, 3)}, {"seen": window}),
        "cap": ({"softcap": 1.5}, {"softcap": 1.5}),
        "mask": ({"mask": mask}, {"seen": mask}),
        "lengths": (
            {"query_seq_lengths": lengths[0], "key_value_seq_lengths": lengths[1]},
            {"seen": within},
        ),
        "mask, window and lengths": (
            {
                "mask": mask, "window": (20, 3),
                "query_seq_lengths": lengths[0], "key_value_seq_lengths": lengths[1],
            },
            {"seen": mask & window & within},
        ),
        "bias": ({"bias": bias((B, N, T, S))}, {}),
        "bias of keys": ({"bias": of_keys, "softcap": 1.5}, {"softcap": 1.5}),
    }  # fmt: skip


CASES = cases()
QUICK_CASES = ["mask, window and lengths", "bias of keys"]


def some(names, quick):
    """All of the names, those that are not quick among the slow tests."""
    return [pytest.param(n, marks=[] if n in quick else pytest.mark.slow) for n in names]


@pytest.mark.parametrize("case", some(CASES, QUICK_CASES))
def test_whole_matrices_give_the_definition(case):
    given, known = CASES[case]
    expected = by_numpy(Q, KEYS, VALUES, 0.4, given.get("bias", 0.0), **known)
    with jax.enable_x64(True):
        y = jax.jit(partial(ops.attention, scale=0.4, implementation="plain", **given))(
            Q, KEYS, VALUES
        )
    np.testing.assert_allclose(y, expected, atol=1e-13)


@pytest.mark.parametrize("case", some(CASES, QUICK_CASES))
def test_blocks_give_the_definition_and_its_slopes(case):
    given, known = CASES[case]
    options = {name: x for name, x in given.items() if name != "bias"}
    bias = given.get("bias", np.zeros((1, 1, 1, 1)))
    at = Q, KEYS, VALUES, 0.4, bias
    along = [RNG.standard_normal(np.shape(x)) for x in at]

    def by_definition(step):
        moved = [x + step * d for x, d in zip(at, along, strict=True)]
        return np.vdot(WEIGHTS, by_numpy(*moved, **known))

    def loss(q, k, v, scale, bias):
        y = ops.attention(q, k, v, scale=scale, bias=bias, implementation="blocks", **options)
        return jnp.vdot(WEIGHTS, y), y

    h = 1e-4
    slope = (8 * (by_definition(h) - by_definition(-h)) - by_definition(2 * h)
             + by_definition(-2 * h)) / (12 * h)  # fmt: skip
    with jax.enable_x64(True):
        x_bars, y = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3, 4), has_aux=True))(*at)
    np.testing.assert_allclose(y, by_numpy(*at, **known), atol=1e-13)
    found = sum(np.vdot(x_bar, d) for x_bar, d in zip(x_bars, along, strict=True))
    np.testing.assert_allclose(found, slope, rtol=1e-7, atol=1e-7)


def gradients(implementation, dtype=np.float32, argnums=(0, 1, 2), **options):
    def loss(*args):
        y = ops.attention(*args, implementation=implementation, **options)
        return jnp.vdot(WEIGHTS, y.astype(jnp.float64))

    with jax.enable_x64(True):
        args = [jnp.asarray(x, dtype) for x in (Q, KEYS, VALUES)]
        return jax.jit(jax.grad(loss, argnums))(*args)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["cap", "bias"])
def test_every_gradient_is_that_of_whole_matrices(case):
    given, _ = CASES[case]
    blocks, plain = (gradients(way, np.float64, **given) for way in ("blocks", "plain"))
    for found, expected in zip(blocks, plain, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [pytest.param(np.float32, 2e-5, marks=pytest.mark.slow), (jnp.bfloat16, 3e-2)],
)
def test_gradients_of_low_precision_are_near_those_of_float64(dtype, tolerance):
    args = [np.asarray(jnp.asarray(x, dtype), np.float64) for x in (Q, KEYS, VALUES)]
    with jax.enable_x64(True):
        attend = partial(ops.attention, causal=True, implementation="plain")
        exact = jax.jit(jax.grad(lambda *x: jnp.vdot(WEIGHTS, attend(*x)), (0, 1, 2)))(*args)
    for found, x_bar in zip(gradients("blocks", dtype, causal=True), exact, strict=True):
        assert found.dtype == dtype
        np.testing.assert_allclose(
            np.asarray(found, np.float64), x_bar, rtol=tolerance, atol=tolerance
        )


def test_agrees_with_jax_where_every_query_sees_a_key():
    args = [jnp.asarray(x[:, :20], np.float32) for x in (Q, KEYS, VALUES)]
    theirs = partial(jax.nn.dot_product_attention, is_causal=True, local_window_size=(9, 0))
    expected = jax.jit(theirs)(*args)
    y = jax.jit(partial(ops.attention, causal=True, window=9))(*args)
    np.testing.assert_allclose(y, expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("implementation", ["blocks", "plain", "xla"])
def test_a_query_that_sees_nothing_gives_zero_and_zero_gradients(implementation):
    q, k, v = (jnp.asarray(x[:, :9], np.float32) for x in (Q, KEYS, VALUES))
    lengths = jnp.array([0, 4])

    def attend(q, k, v, **options):
        return ops.attention(
            q, k, v, key_value_seq_lengths=lengths, implementation=implementation, **options
        )

    def loss(*x):
        y = attend(*x)
        return y.sum(), y

    (q_bar, k_bar, v_bar), y = jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(q, k, v)
    assert not y[0].any()
    assert y[1].all()
    for x_bar in (q_bar[0], k_bar[0], v_bar[0], k_bar[1, 4:], v_bar[1, 4:]):
        assert not x_bar.any()
    assert v_bar[1, :4].all()


@pytest.mark.slow
@pytest.mark.parametrize("implementation", ["blocks", "plain", "xla"])
def test_a_query_whose_window_is_behind_the_last_key_gives_zero(implementation):
    q, k, v = (jnp.asarray(x[:1, :9], np.float32) for x in (Q, KEYS, VALUES))
    attend = partial(
        ops.attention, causal=True, window=(1, 0), key_value_seq_lengths=jnp.array([4])
    )
    y = jax.jit(partial(attend, implementation=implementation))(q, k, v)
    assert not y[0, 5:].any()
    assert y[0, :5].all()


@pytest.mark.slow
def test_biases_of_minus_infinity_mask():
    hidden = np.zeros((1, 1, T, S), np.float32)
    hidden[..., 100:] = hidden[:, :, 5] = -np.inf
    mask = jnp.asarray(hidden == 0)
    by_mask = gradients("blocks", mask=mask)
    by_bias = gradients("blocks", bias=jnp.asarray(hidden))
    for one, other in zip(by_bias, by_mask, strict=True):
        np.testing.assert_array_equal(one, other)


SMALL = [jnp.asarray(x[:, :5], np.float32) for x in (Q, KEYS, VALUES)]


def both_ways(fn, *args):
    """What a program gives with blocks, and with whole matrices."""
    return [
        jax.jit(fn, static_argnums=0)(
            partial(ops.attention, causal=True, softcap=3.0, implementation=way)
        )
        for way in ("blocks", "plain")
    ]


def loss_of(attend):
    return lambda *x: (attend(*x) ** 2).sum()


def test_programs_that_are_not_compiled_have_gradients():
    q = SMALL[0][:1, :3]
    q_bar = jax.grad(loss_of(partial(ops.attention, implementation="blocks")))(q, q, q)
    assert q_bar.shape == q.shape


def in_shard_map(attend, check_vma=True):
    mesh = jax.make_mesh((2,), ("i",), axis_types=(AxisType.Auto,))
    rows = P("i")
    return jax.shard_map(
        attend, mesh=mesh, in_specs=(rows, rows, P()), out_specs=rows, check_vma=check_vma
    )


Q_SMALL, K_SMALL, V_SMALL = SMALL
ONE_VALUE = V_SMALL[:1]
PROGRAMS = {
    "vmap of grad": lambda f: jax.vmap(jax.grad(loss_of(f), (0, 1, 2)), (0, None, None))(
        jnp.stack([Q_SMALL, Q_SMALL + 1]), K_SMALL, V_SMALL
    ),
    "grad of vmap": lambda f: jax.grad(loss_of(jax.vmap(f, (None, 2, None), 1)), (0, 1, 2))(
        Q_SMALL, jnp.stack([K_SMALL, 2 * K_SMALL], 2), V_SMALL
    ),
    "scan and remat": lambda f: jax.grad(
        loss_of(jax.checkpoint(lambda q, k, v: jax.lax.scan(
            lambda c, _: (f(c, k, v), None), q, length=2)[0])), (0, 1, 2)
    )(*SMALL),
    "cond and while": lambda f: jax.grad(
        loss_of(lambda q, k, v: jax.lax.cond(q.sum() < 1e9, f, lambda q, k, v: q, q, k, v))
    )(jax.lax.while_loop(lambda q: q.sum() > 1e9, lambda q: f(q, *SMALL[1:]), Q_SMALL), *SMALL[1:]),
    "jvp": lambda f: jax.jvp(f, tuple(SMALL), tuple(x + 1 for x in SMALL)),
    "hessian": lambda f: jax.jit(jax.hessian(lambda k: loss_of(f)(Q_SMALL, k, V_SMALL)))(K_SMALL),
    "reverse over reverse": lambda f: jax.grad(
        lambda *x: loss_of(jax.grad(loss_of(f), 1))(*x), (0, 1, 2)
    )(*SMALL),
    "reverse over forward": lambda f: jax.grad(
        lambda q: jax.jvp(lambda q: loss_of(f)(q, K_SMALL, V_SMALL), (q,), (q,))[1]
    )(Q_SMALL),
}  # fmt: skip


QUICK = ["vmap of grad", "scan and remat", "reverse over reverse"]


@pytest.mark.parametrize("name", some(PROGRAMS, QUICK))
def test_every_transformation_gives_what_whole_matrices_give(name):
    found, expected = both_ways(PROGRAMS[name])
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("check_vma", some([True, False], [True]))
def test_shards_give_what_the_whole_gives(check_vma):
    def attend(q, k, v):
        shared = jnp.concatenate([v] * len(q))  # the values are the same on all devices
        return ops.attention(q, k, shared, causal=True, implementation="blocks")

    args = Q_SMALL, K_SMALL, ONE_VALUE
    sharded = jax.jit(jax.grad(loss_of(in_shard_map(attend, check_vma)), (0, 1, 2)))(*args)
    whole = jax.jit(jax.grad(loss_of(attend), (0, 1, 2)))(*args)
    for one, other in zip(sharded, whole, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.slow
def test_sharded_types_take_whole_matrices():
    mesh = jax.make_mesh((2,), ("i",), axis_types=(AxisType.Explicit,))
    args = [jnp.asarray(x[:, :101], np.float32) for x in (Q, KEYS, VALUES)]
    grad = jax.jit(jax.grad(loss_of(partial(ops.attention, causal=True))))
    expected = grad(*args)
    with jax.set_mesh(mesh):
        found = grad(*(jax.device_put(x, NamedSharding(mesh, P("i"))) for x in args))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.slow
def test_the_check_finds_nothing():
    q, k, v = (jnp.asarray(x[:1, :6], np.float32) for x in (Q, KEYS, VALUES))
    report = gk.check(
        lambda q, k, v: ops.attention(q, k, v, causal=True, implementation="blocks"), q, k, v,
        reference=lambda q, k, v: ops.attention(q, k, v, causal=True, implementation="plain"),
        order=2,
    )  # fmt: skip
    assert report.ok, report


def temporaries(fn, *args):
    return jax.jit(fn).lower(*args).compile().memory_analysis().temp_size_in_bytes


def test_memory_is_that_of_blocks():
    x = jax.ShapeDtypeStruct((1, 1536, 4, 64), jnp.float32)

    def gradient(attend):
        return lambda y_bar, *args: jax.vjp(attend, *args)[1](y_bar)

    ours = temporaries(gradient(ops.attention), x, x, x, x)
    theirs = temporaries(gradient(jax.nn.dot_product_attention), x, x, x, x)
    assert theirs > 40 * ours


@pytest.mark.slow
def test_a_constant_bias_takes_no_gradient():
    q = jax.ShapeDtypeStruct((1, 512, 2, 8), jnp.float32)
    bias = jax.ShapeDtypeStruct((1, 2, 512, 512), jnp.float32)

    def loss(q, bias):
        return ops.attention(q, q, q, bias=bias).sum()

    assert temporaries(jax.grad(loss), q, bias) < bias.size * 4


def test_whole_matrices_for_short_sequences_and_blocks_for_long_ones():
    def way(t, s, **options):
        x = as_inputs(jnp.ones((t, 1, 8)), *[jnp.ones((s, 1, 8))] * 2, None, *[None] * 4)
        return _attention_jax.best_implementation(Scores(True, None, None), x, None, **options)

    assert way(64, 64) == "plain"
    assert way(1, 4096) == "plain"
    assert way(256, 256) == "blocks"


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({}, True),
        ({"window": (64, 0)}, True),
        ({"causal": False}, True),
        ({"causal": False, "window": (64, 0)}, False),
        ({"softcap": 30.0}, False),
        ({"dtype": jnp.float32}, False),
        ({"features": 129}, False),
        ({"keys": 128}, False),
        ({"scale": jnp.ones(())}, False),
        ({"mask": jnp.ones((1, 1, 64, 64), bool)}, False),
    ],
)
def test_cudnn_gets_only_what_it_is_known_to_take(changes, fits):
    h, s = changes.get("features", 64), changes.get("keys", 64)
    q = jnp.ones((2, 64, 4, h), changes.get("dtype", jnp.bfloat16))
    k = jnp.ones((2, s, 4, h), q.dtype)
    scale, mask = changes.get("scale"), changes.get("mask")
    x = as_inputs(q, k, k, scale, None, mask, None, None)
    scores = Scores(changes.get("causal", True), changes.get("window"), changes.get("softcap"))
    assert _attention_jax.fits_cudnn(scores, x, scale) is fits


ROW = jnp.ones((5, 2, 4))


@pytest.mark.parametrize(
    ("args", "options", "error", "pieces"),
    [
        ((ROW, ROW[:, :1], ROW), {}, ValueError, ["k[B, S, K, H]", "k[5, 1, 4]"]),
        ((ROW, ROW[..., :3], ROW[..., :3]), {}, ValueError, ["features", "q[1, 5, 2, 4]"]),
        ((ROW[:, :1], ROW, ROW), {}, ValueError, ["as many query heads"]),
        ((ROW, ROW, ROW.astype(jnp.bfloat16)), {}, TypeError, ["one floating-point", "bfloat16"]),
        ((ROW, ROW, ROW), {"bias": jnp.ones((2, 5, 4))}, ValueError, ["'bias'", "[1, 2, 5, 5]"]),
        ((ROW, ROW, ROW), {"mask": jnp.ones((2, 5, 5))}, TypeError, ["'mask'", "booleans"]),
        ((ROW, ROW, ROW), {"window": (-1, 0)}, ValueError, ["window=(-1, 0)"]),
        ((ROW, ROW, ROW), {"window": (1, 0, 1)}, ValueError, ["window=(1, 0, 1)", "(left, right)"]),
        ((ROW, ROW, ROW), {"window": 2.5}, ValueError, ["window=2.5", "whole numbers"]),
        ((ROW, ROW, ROW), {"softcap": 0.0}, ValueError, ["softcap=0.0", "softcap > 0"]),
        ((ROW, ROW, ROW), {"scale": jnp.ones(2)}, ValueError, ["shape ()", "float32[2]"]),
        ((ROW, ROW, ROW), {"query_seq_lengths": 3}, ValueError, ["int[1]", "'query_seq_lengths'"]),
        ((ROW, ROW, ROW), {"implementation": "flash"}, ValueError, ["'flash'", "'blocks'"]),
        (
            (ROW, ROW, ROW), {"implementation": "cudnn", "softcap": 2.0}, ValueError,
            ["no cap", "softcap=2.0"],
        ),
    ],
)  # fmt: skip
def test_errors_say_what_does_not_fit(args, options, error, pieces):
    with pytest.raises(error) as caught:
        ops.attention(*args, **options)
    for piece in ["gk.ops.attention", "expected:", *pieces]:
        assert piece in str(caught.value)
