"""Losses over linear heads: equal to the plain formula on whole logits, without holding them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

import gradkit as gk
from gradkit import losses
from gradkit.losses import _head

N, D, V = 10, 5, 300


@pytest.fixture(autouse=True, params=["in blocks", "whole"])
def room(request, monkeypatch):
    """Small problems in blocks of 128 classes, or whole."""
    if request.param == "in blocks":
        monkeypatch.setattr(_head, "_room", lambda: 512)


def head(seed=0, dtype=np.float64, classes=V):
    rng = np.random.default_rng(seed)
    hidden, weight, bias = (rng.standard_normal(s) for s in ((N, D), (D, classes), (classes,)))
    return tuple(jnp.asarray(x, dtype) for x in (hidden, weight, bias))


LABELS = jnp.array([0, 1, 127, 128, 299, 5, -100, 255, 256, 5])


def plain(hidden, weight, bias, weights, *, z_loss=0.0, label_smoothing=0.0, soft_cap=None):
    z = hidden @ weight + bias[None]
    if soft_cap is not None:
        z = soft_cap * jnp.tanh(z / soft_cap)
    normalizer = jnp.log(jnp.sum(jnp.exp(z - z.max(1, keepdims=True)), 1)) + z.max(1)
    target = z[jnp.arange(N), jnp.maximum(LABELS, 0)]
    loss = normalizer - (1 - label_smoothing) * target - label_smoothing * z.mean(1)
    return jnp.where(LABELS == -100, 0, weights * (loss + z_loss * normalizer**2))


def agree(ours, theirs, args, tolerance=1e-10):
    """The values and all first derivatives, with cotangents that differ."""
    bars = jnp.linspace(-1.0, 2.0, N, dtype=args[0].dtype)

    def both(f):
        y, pull = jax.vjp(f, *args)
        return y, pull(bars.astype(y.dtype))

    found, wanted = jax.jit(lambda: both(ours))(), jax.jit(lambda: both(theirs))()
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


OPTIONS = {
    "as it is": {},
    "penalised and smoothed": {"z_loss": 1e-2, "label_smoothing": 0.1},
    "capped": {"soft_cap": 1.5, "label_smoothing": 0.1},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("transposed", [False, True])
def test_cross_entropy_is_that_of_the_logits(options, transposed):
    with jax.enable_x64(True):
        args = *head(), jnp.linspace(0.5, 2.0, N)

        def ours(hidden, weight, bias, weights):
            return losses.linear_cross_entropy(
                hidden, weight.T if transposed else weight, LABELS, bias=bias, weights=weights,
                transposed=transposed, **options,
            )  # fmt: skip

        agree(ours, functools.partial(plain, **options), args)


def test_cross_entropy_is_that_of_optax():
    hidden, weight, _ = head(dtype=np.float32)
    labels = jnp.maximum(LABELS, 0)
    found = losses.linear_cross_entropy(hidden, weight, labels)
    wanted = optax.softmax_cross_entropy_with_integer_labels(hidden @ weight, labels)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    np.testing.assert_allclose(losses.linear_log_probs(hidden, weight, labels), -wanted, rtol=1e-5)


def test_second_derivatives_and_both_modes():
    with jax.enable_x64(True):
        args = *head(), jnp.ones(N)
        dots = tuple(jnp.cos(jnp.arange(x.size)).reshape(x.shape) for x in args)

        def ours(hidden, weight, bias, weights):
            return losses.linear_cross_entropy(hidden, weight, LABELS, bias=bias, weights=weights)

        def derivatives(f):
            total = lambda *args: jnp.sum(f(*args) ** 2)
            return jax.jvp(f, args, dots)[1], jax.jvp(jax.grad(total, (0, 1, 2)), args, dots)[1]

        for a, b in zip(
            jax.tree.leaves(jax.jit(lambda: derivatives(ours))()),
            jax.tree.leaves(jax.jit(lambda: derivatives(plain))()),
            strict=True,
        ):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_under_vmap_scan_and_remat():
    hidden, weight, _ = head(dtype=np.float32)
    batch = jnp.stack([hidden, 2 * hidden])

    def total(weight, hidden):
        return losses.linear_cross_entropy(hidden, weight, LABELS).sum()

    gradient = jax.grad(total)

    @jax.jit
    def everywhere():
        return {
            "vmap": jax.vmap(gradient, (None, 0))(weight, batch),
            "scan": jax.lax.scan(lambda c, h: (c, gradient(weight, h)), 0, batch)[1],
            "remat": jax.vmap(jax.grad(jax.checkpoint(total)), (None, 0))(weight, batch),
        }, jnp.stack([gradient(weight, h) for h in batch])

    found, wanted = everywhere()
    for name, value in found.items():
        np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-6, err_msg=name)
    leading = losses.linear_cross_entropy(batch, weight, jnp.stack([LABELS, LABELS]))
    assert leading.shape == (2, N)


def test_half_precision_is_summed_in_single():
    hidden, weight, bias = head(dtype=jnp.bfloat16)
    wide = [x.astype(jnp.float32) for x in (hidden, weight, bias)]

    def total(hidden, weight, bias):
        return losses.linear_cross_entropy(hidden, weight, LABELS, bias=bias).sum()

    gradient = jax.jit(jax.value_and_grad(total, (0, 1, 2)))
    y, bars = gradient(hidden, weight, bias)
    wanted, wide_bars = gradient(*wide)
    assert y.dtype == jnp.float32
    np.testing.assert_allclose(y, wanted, rtol=1e-3)
    for bar, wide_bar in zip(bars, wide_bars, strict=True):
        assert bar.dtype == jnp.bfloat16
        np.testing.assert_allclose(bar.astype(jnp.float32), wide_bar, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("split", ["classes", "tokens"])
def test_over_a_mesh(split):
    hidden, weight, _ = head(dtype=np.float32)
    labels = jnp.where(LABELS == -100, 299, LABELS)
    mesh = jax.make_mesh((2,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    by_classes = split == "classes"
    specs = (P(), P(None, "i"), P()) if by_classes else (P("i"), P(), P("i"))

    @functools.partial(
        jax.shard_map, mesh=mesh, in_specs=specs, out_specs=P() if by_classes else P("i")
    )
    def sharded(hidden, weight, labels):
        return losses.linear_cross_entropy(
            hidden, weight, labels, axis_name="i" if by_classes else None, label_smoothing=0.1
        )

    def total(f):
        return lambda hidden, weight: jnp.sum(f(hidden, weight, labels) ** 2)

    whole = functools.partial(losses.linear_cross_entropy, label_smoothing=0.1)
    found = jax.jit(jax.value_and_grad(total(sharded), (0, 1)))(hidden, weight)
    wanted = jax.value_and_grad(total(whole), (0, 1))(hidden, weight)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_what_is_ignored_may_be_anything_and_no_class_is_nan():
    hidden, weight, _ = head(dtype=np.float32)
    hidden = hidden.at[6].set(jnp.nan)
    loss, bar = jax.value_and_grad(lambda h: losses.linear_cross_entropy(h, weight, LABELS).sum())(
        hidden
    )
    assert np.isfinite(loss)
    assert np.all(np.isfinite(bar))
    assert np.all(bar[6] == 0)
    off = losses.linear_cross_entropy(hidden, weight, LABELS.at[0].set(V).at[1].set(-3))
    assert np.isnan(off[:2]).all()
    assert np.isfinite(off[2:]).all()


def test_logits_are_never_all_there():
    tokens, classes = 1 << 17, 1 << 18
    args = (
        jax.ShapeDtypeStruct((tokens, 8), jnp.bfloat16),
        jax.ShapeDtypeStruct((8, classes), jnp.bfloat16),
        jax.ShapeDtypeStruct((tokens,), jnp.int32),
    )
    total = lambda h, w, labels: losses.linear_cross_entropy(h, w, labels).sum()
    text = jax.jit(jax.value_and_grad(total, (0, 1))).lower(*args).as_text()
    assert f"{tokens}x{classes}" not in text, "2**35 numbers"
    assert "while" in text


MISFITS = {
    "turned": (((3, 4), (5, 4), (3,)), {}, ["hidden [..., D]", "pass transposed=True"]),
    "bias": (((3, 4), (4, 5), (3,)), {"bias": jnp.ones(4)}, ["a bias", "(5,)", "(4,)"]),
    "labels": (((3, 4), (4, 5), (2,)), {}, ["labels", "integers of shape (3,)", "int32[2]"]),
    "cap": (((3, 4), (4, 5), (3,)), {"soft_cap": 0.0}, ["soft cap", "a number > 0", "0.0"]),
    "weights": (((3, 4), (4, 5), (3,)), {"weights": jnp.ones(2)}, ["weights", "(3,)", "(2,)"]),
    "no classes": (((3, 4), (4, 0), (3,)), {}, ["without classes", "[4, 0]"]),
}


@pytest.mark.parametrize(("shapes", "options", "pieces"), MISFITS.values(), ids=MISFITS)
def test_arguments_that_do_not_fit_are_named(shapes, options, pieces):
    hidden, weight, labels = map(jnp.ones, shapes)
    with pytest.raises(gk.LossArgumentError) as caught:
        losses.linear_cross_entropy(hidden, weight, labels.astype(int), **options)
    for piece in ("gk.losses.linear_cross_entropy", *pieces):
        assert piece in str(caught.value)


DIVERGENCES = {
    "forward": (losses.linear_kl_divergence, {}),
    "reverse": (losses.linear_kl_divergence, {"reverse": True}),
    "forward, capped and cool": (
        losses.linear_kl_divergence,
        {"temperature": 0.5, "soft_cap": 1.5, "teacher_soft_cap": 2.0},
    ),
    "Jensen-Shannon": (losses.linear_js_divergence, {"beta": 0.3, "temperature": 2.0}),
}


@pytest.mark.parametrize(("f", "options"), DIVERGENCES.values(), ids=DIVERGENCES)
def test_divergences_are_those_of_the_probabilities(f, options):
    with jax.enable_x64(True):
        (hidden, weight, bias), teacher = head(), head(seed=1)

        def ours(hidden, weight, bias):
            return f(hidden, weight, *teacher[:2], bias=bias, teacher_bias=teacher[2], **options)

        def probabilities(hidden, weight, bias, cap):
            z = hidden @ weight + bias[None]
            z = z if cap is None else cap * jnp.tanh(z / cap)
            e = jnp.exp(z / options.get("temperature", 1.0))
            return e / e.sum(1, keepdims=True)

        def theirs(hidden, weight, bias):
            q = probabilities(hidden, weight, bias, options.get("soft_cap"))
            p = probabilities(*teacher, options.get("teacher_soft_cap"))
            kl = lambda a, b: jnp.sum(a * jnp.log(a / b), 1)
            if "beta" in options:
                m = options["beta"] * p + (1 - options["beta"]) * q
                return options["beta"] * kl(p, m) + (1 - options["beta"]) * kl(q, m)
            return kl(q, p) if options.get("reverse") else kl(p, q)

        agree(ours, theirs, (hidden, weight, bias))
        held = jax.grad(lambda t: f(hidden, weight, t, teacher[1], **options).sum())(teacher[0])
        assert np.all(held == 0), "the teacher is held still"


@pytest.mark.slow
@pytest.mark.parametrize(("f", "options"), DIVERGENCES.values(), ids=DIVERGENCES)
def test_second_derivatives_of_divergences_are_those_of_differences(f, options):
    with jax.enable_x64(True):
        (hidden, weight, bias), teacher = head(), head(seed=1)
        total = lambda *args: jnp.sum(f(*args, *teacher[:2], bias=bias, **options) ** 2)
        gradient = jax.jit(jax.grad(total, (0, 1)))
        dots = jnp.cos(hidden), jnp.sin(weight)
        found = jax.jit(lambda: jax.jvp(gradient, (hidden, weight), dots)[1])()
        at = lambda t: gradient(hidden + t * dots[0], weight + t * dots[1])
        for a, up, down in zip(found, at(1e-5), at(-1e-5), strict=True):
            np.testing.assert_allclose(a, (up - down) / 2e-5, rtol=1e-6, atol=1e-6)


def test_a_teacher_that_does_not_fit_and_a_beta_that_mixes_nothing():
    hidden, weight, _ = head(dtype=np.float32)
    with pytest.raises(gk.LossArgumentError, match=r"two heads[\s\S]*300 classes[\s\S]*200"):
        losses.linear_kl_divergence(hidden, weight, hidden, weight[:, :200])
    with pytest.raises(gk.LossArgumentError, match=r"0 < beta < 1[\s\S]*linear_kl_divergence"):
        losses.linear_js_divergence(hidden, weight, hidden, weight, beta=1.0)


def test_the_check_finds_the_gradient_right():
    hidden, weight, _ = head(dtype=np.float32, classes=260)
    f = lambda h, w: losses.linear_cross_entropy(h, w, LABELS % 260, z_loss=1e-3)
    gk.assert_gradients(f, hidden[:, :2], weight[:2], points=0)
