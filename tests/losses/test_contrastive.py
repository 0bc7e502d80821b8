"""Contrastive losses and grad_cache: equal to the plain formulas on all similarities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradkit as gk
from gradkit import losses
from gradkit.losses import _head

N, D = 260, 3


@pytest.fixture(autouse=True, params=["in blocks", "whole"])
def room(request, monkeypatch):
    if request.param == "in blocks":
        monkeypatch.setattr(_head, "_room", lambda: 4096)


def embeddings(dtype=np.float64):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, N, D))
    return jnp.asarray(x, dtype), jnp.asarray(y, dtype)


LABELS = np.random.default_rng(1).integers(0, 40, N)
LABELS[0] = 99  # the only one of its class


def normalizer(s, axis):
    return jnp.log(jnp.sum(jnp.exp(s), axis))


def info_nce(x, y, t):
    s = x @ y.T / t
    return normalizer(s, 1) - jnp.diagonal(s)


def clip(x, y, t):
    s = x @ y.T / t
    return (normalizer(s, 1) + normalizer(s, 0)) / 2 - jnp.diagonal(s)


def siglip(x, y, t):
    s = x @ y.T / t - 2.0
    signs = 2 * jnp.eye(N) - 1
    return jnp.sum(jnp.log(1 + jnp.exp(-signs * s)), 1)


def supervised(x, y, t):
    del y
    s = x @ x.T / t
    own = jnp.eye(N, dtype=bool)
    same = jnp.asarray((LABELS[:, None] == LABELS[None]) & ~np.eye(N, dtype=bool))
    log_p = s - normalizer(jnp.where(own, -jnp.inf, s), 1)[:, None]
    count = same.sum(1)
    return jnp.where(count > 0, -jnp.where(same, log_p, 0).sum(1) / jnp.maximum(count, 1), 0)


CASES = {
    "info_nce": (lambda x, y, t: losses.info_nce(x, y, temperature=t), info_nce),
    "clip": (lambda x, y, t: losses.info_nce(x, y, temperature=t, symmetric=True), clip),
    "siglip": (lambda x, y, t: losses.siglip(x, y, temperature=t, bias=-2.0), siglip),
    "supervised": (
        lambda x, y, t: losses.supervised_contrastive(x, LABELS, temperature=t) + 0 * y[:, 0],
        supervised,
    ),
}


@pytest.mark.parametrize(("ours", "plain"), CASES.values(), ids=CASES)
def test_equals_the_formula_on_all_similarities(ours, plain):
    with jax.enable_x64(True):
        args = *embeddings(), jnp.asarray(0.7)
        bars = jnp.linspace(-1.0, 2.0, N)

        def values(f):
            y, pull = jax.vjp(f, *args)
            return y, pull(bars)

        found, wanted = jax.jit(lambda: (values(ours), values(plain)))()
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("ours", "plain"), CASES.values(), ids=CASES)
def test_second_derivatives_are_those_of_the_formula(ours, plain):
    with jax.enable_x64(True):
        args = *embeddings(), jnp.asarray(0.7)
        dots = jax.tree.map(jnp.cos, args)

        def second(f):
            total = lambda *args: jnp.sum(f(*args) ** 2)
            return jax.jvp(jax.grad(total, (0, 1, 2)), args, dots)[1]

        found, wanted = jax.jit(lambda: (second(ours), second(plain)))()
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8 * float(jnp.abs(b).max()))


def test_positives_by_number_and_pairs_that_do_not_fit():
    x, y = embeddings(np.float32)
    order = np.random.default_rng(2).permutation(N)
    wanted = losses.info_nce(x, y[order])
    np.testing.assert_allclose(losses.info_nce(x, y, positives=order), wanted, rtol=1e-4, atol=1e-5)
    with pytest.raises(gk.LossArgumentError, match=r"fewer keys[\s\S]*260[\s\S]*positives"):
        losses.info_nce(x, y[:200])
    with pytest.raises(gk.LossArgumentError, match=r"no pairs[\s\S]*260 keys[\s\S]*200"):
        losses.info_nce(x, y[:200], symmetric=True)
    with pytest.raises(gk.LossArgumentError, match=r"as many texts[\s\S]*200 texts"):
        losses.siglip(x, y[:200])


def test_temperature_and_bias_are_numbers_of_any_type():
    x, y = embeddings(np.float32)
    wanted = losses.siglip(x, y, temperature=2.0, bias=-2.0)
    np.testing.assert_allclose(losses.siglip(x, y, temperature=2, bias=-2), wanted, rtol=1e-6)
    with pytest.raises(
        gk.LossArgumentError, match=r"siglip got a bias that is no number[\s\S]*260"
    ):
        losses.siglip(x, y, bias=jnp.zeros(N))
    with pytest.raises(gk.LossArgumentError, match=r"a temperature that is no number[\s\S]*260"):
        losses.info_nce(x, y, temperature=jnp.ones(N))


def test_grad_cache_has_the_gradient_of_the_full_batch():
    x, _ = embeddings(np.float32)
    params = {"w": jnp.ones((D, D)) + jnp.eye(D), "b": jnp.linspace(-0.5, 0.5, D)}

    def encode(params, inputs):
        return jnp.tanh(inputs["x"] @ params["w"] + params["b"][None])

    def loss(encoder):
        def of(params):
            queries, keys = encoder(params, {"x": x}), encoder(params, {"x": 2 * x})
            return losses.info_nce(queries, keys, temperature=0.5).mean()

        return of

    cached = losses.grad_cache(encode, chunk_size=100)  # of 260: the last one has 60
    found = jax.jit(jax.value_and_grad(loss(cached)))(params)
    wanted = jax.jit(jax.value_and_grad(loss(encode)))(params)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    with pytest.raises(
        gk.LossArgumentError, match=r"batched arguments[\s\S]*\(3,\)[\s\S]*batched="
    ):
        losses.grad_cache(lambda p, x, y: x, chunk_size=2)(params, jnp.ones(4), jnp.ones(3))
    with pytest.raises(gk.LossArgumentError, match=r"chunk_size[\s\S]*positive[\s\S]*0"):
        losses.grad_cache(encode, chunk_size=0)
